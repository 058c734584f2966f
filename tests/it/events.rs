//! The way in over Kafka: CloudEvents on `carillon.events`, on both engine sets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bus::{Headers, Outgoing, topic};
use bytes::Bytes;
use domain::{
    NotificationId, TenantId,
    config::{EntryKey, Kind},
};
use serde_json::json;

use crate::{
    inside::{Inside, tenant},
    world::Engines,
};

#[tokio::test(flavor = "multi_thread")]
async fn events_on_standalone() {
    events(Engines::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_on_a_cluster() {
    events(Engines::Cluster).await;
}

const SOURCE: &str = "https://shop.example/orders";
const TYPE: &str = "carillon.notification.requested";

fn binary(topic: &std::sync::Arc<str>, id: &str, value: Option<&str>, changed: &[(&str, &str)]) -> Outgoing {
    let mut headers: BTreeMap<&str, &str> = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", SOURCE),
        ("ce_type", TYPE),
    ]
    .into();
    headers.extend(changed.iter().copied());
    headers.retain(|_, value| !value.is_empty());
    let headers =
        headers.into_iter().fold(Headers::default(), |h, (n, v)| h.with(n.to_owned(), Bytes::from(v.to_owned())));
    let value = value.map(|v| Bytes::from(v.to_owned()));
    Outgoing { topic: topic.clone(), key: Some(id.to_owned().into()), headers, value }
}

async fn bind(inside: &Inside, source: &str) {
    let at = EntryKey { tenant: tenant(), kind: Kind::Sources, name: "shop".into() };
    inside.kit.config.put(&at, Some(&json!({"source": source}))).await.unwrap();
}

async fn publish(inside: &Inside, records: Vec<Outgoing>) {
    for result in inside.kit.log.publish(records).await {
        result.unwrap();
    }
}

async fn events(engines: Engines) {
    let ports = ["ingress.listen", "ingress.grpc_listen"].map(|listen| (listen, "127.0.0.1:0".into()));
    let inside = Inside::start_with(engines, &ports).await;
    bind(&inside, SOURCE).await;
    for user in ["ana", "ben"] {
        inside.user(user, &format!("ok/{user}")).await;
    }
    let topic = inside.kit.topics.events();
    let asks = |user: &str| {
        json!({"to": [{"user": user}], "channels": ["webhook"], "content": {"default": {"body": "B"}}}).to_string()
    };
    let structured = json!({
        "specversion": "1.0", "id": "e-2", "source": SOURCE, "type": TYPE,
        "data": serde_json::from_str::<serde_json::Value>(&asks("ben")).unwrap(),
    });
    let mode = [
        ("content-type", "application/cloudevents+json"),
        ("ce_id", ""),
        ("ce_source", ""),
        ("ce_specversion", ""),
        ("ce_type", ""),
    ];
    let ana = asks("ana");
    let expiring = |at: &str| {
        let mut asked: serde_json::Value = serde_json::from_str(&ana).unwrap();
        asked["expires_at"] = at.into();
        asked.to_string()
    };
    let good = vec![
        binary(
            &topic,
            "e-1",
            Some(&ana),
            &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        ),
        // the same event once more, as a producer that is not sure publishes it
        binary(&topic, "e-1", Some(&ana), &[]),
        binary(&topic, "e-2", Some(&structured.to_string()), &mode),
        // it was on its way for too long, which is no fault of its own
        binary(&topic, "e-3", Some(&expiring("2026-01-01T00:00:00Z")), &[]),
    ];
    let bad = [
        ("bad_cloudevent", "ce_id: no", binary(&topic, "b-0", Some(&ana), &[("ce_id", "")])),
        ("bad_cloudevent", "specversion", binary(&topic, "b-1", Some(&ana), &[("ce_specversion", "0.3")])),
        ("bad_cloudevent", "content-type", binary(&topic, "b-2", Some(&ana), &[("content-type", "text/xml")])),
        ("bad_cloudevent", "no value", binary(&topic, "b-3", None, &[])),
        ("unknown_source", "bound to no tenant", binary(&topic, "b-4", Some(&ana), &[("ce_source", "urn:else")])),
        ("invalid_notification", "/data/to", binary(&topic, "b-5", Some(r#"{"to": []}"#), &[])),
        ("invalid_notification", "/data/expires_at", binary(&topic, "b-6", Some(&expiring("soon")), &[])),
        ("invalid_notification", "malformed JSON", binary(&topic, "b-7", Some("\u{1}garbage"), &[])),
    ];
    publish(&inside, good).await;
    publish(&inside, bad.iter().map(|(_, _, record)| record.clone()).collect()).await;
    ingress::run(&inside.kit).await.unwrap();
    inside.run_all();

    // each once, and under the id that tenant, source and event id give it
    for (event, path) in [("e-1", "/hook/ok/ana"), ("e-2", "/hook/ok/ben")] {
        let id = NotificationId::of_event(&tenant(), SOURCE, event);
        let ends = inside.ended(id).await;
        assert_eq!(ends.iter().map(|d| d.state.as_str()).collect::<Vec<_>>(), ["sent"], "{event}");
        assert_eq!(inside.sandbox.received(path).unwrap().len(), 1, "{event}");
    }
    let ends = inside.ended(NotificationId::of_event(&tenant(), SOURCE, "e-3")).await;
    assert_eq!(ends.iter().map(|d| d.state.as_str()).collect::<Vec<_>>(), ["expired"]);
    assert_ne!(
        NotificationId::of_event(&tenant(), SOURCE, "e-1"),
        NotificationId::of_event(&TenantId::parse("globex").unwrap(), SOURCE, "e-1")
    );

    all_dead(&inside, &bad).await;
    inside.stop().await;
}

/// Each is a dead letter with its own bytes, its own headers and a reason, and there is no other.
async fn all_dead(inside: &Inside, bad: &[(&str, &str, Outgoing)]) {
    let dead = inside.kit.topics.dead(topic::Stage::Ingress);
    let deadline = Instant::now() + Duration::from_secs(30);
    let letters = loop {
        let letters = inside.records(&dead).await;
        if letters.len() >= bad.len() {
            break letters;
        }
        assert!(Instant::now() < deadline, "{} of {} letters", letters.len(), bad.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(letters.len(), bad.len());
    for (reason, says, record) in bad {
        let letter = letters.iter().find(|l| l.key == record.key).unwrap();
        let text = |name| String::from_utf8(letter.headers.get(name).unwrap().to_vec()).unwrap();
        assert_eq!((text(topic::DEAD_REASON).as_str(), &letter.value), (*reason, &record.value));
        let error = text(topic::DEAD_ERROR);
        let says = says.trim_start_matches("ce_").split(':').next().unwrap();
        assert!(error.contains(says), "`{says}` is not in `{error}`");
        for (name, value) in &record.headers.0 {
            assert_eq!(letter.headers.get(name), Some(value), "{name}");
        }
    }
}
