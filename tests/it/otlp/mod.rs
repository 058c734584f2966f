//! One notification, followed through every topic by the trace of the client that sent it; and nothing personal in it.

mod collector;

use serde_json::json;

use self::collector::{Collector, Span, documented_metrics, exposed_metrics, way};
use crate::world::{Engines, KEY, SECRET, World};

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_on_standalone() {
    one_trace(Engines::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_on_a_cluster() {
    one_trace(Engines::Cluster).await;
}

async fn one_trace(engines: Engines) {
    const CANARY: &str = "canary-81c2";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    let collector = Collector::start();
    let world = World::start_with(engines, &[("telemetry.otlp_endpoint", &collector.endpoint)]).await;
    world.user(CANARY, &format!("/hook/ok/{CANARY}")).await;
    let body = json!({
        "to": [{"user": CANARY}], "category": "orders", "content": {"default": {"title": CANARY, "body": CANARY}},
        "metadata": {"order": CANARY},
    });
    let request = world.http.post(format!("{}/v1/notifications", world.url)).bearer_auth(KEY).json(&body);
    let answer = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).send().await.unwrap();
    assert_eq!(answer.status(), 202);

    // the longest way ends where the index is told of the end
    let ended = |spans: &[Span]| {
        let told = |s: &&Span| s.name.starts_with("process ") && way(spans, s).0.len() == 7;
        spans.iter().find(told).cloned().filter(|_| spans.iter().any(|s| s.name == "attempt webhook"))
    };
    let spans = collector.trace(TRACE, |spans| ended(spans).is_some()).await;
    let end = ended(&spans).unwrap();
    let (names, parent) = way(&spans, &end);
    assert_eq!(
        (names.into_iter().rev().map(without_prefix).collect::<Vec<_>>(), parent),
        (
            [
                "POST /v1/notifications",
                "send notifications.chat.normal",
                "process notifications.chat.normal",
                "send deliveries.webhook.normal",
                "process deliveries.webhook.normal",
                "send status",
                "process status",
            ]
            .map(str::to_owned)
            .to_vec(),
            PARENT
        ),
        "{spans:#?}"
    );
    let attempt = spans.iter().find(|s| s.name == "attempt webhook").unwrap();
    assert_eq!(without_prefix(way(&spans, attempt).0[1]), "process deliveries.webhook.normal");
    assert_eq!(attempt.attributes["carillon.outcome"], "sent");
    let all = format!("{spans:?}");
    for canary in [CANARY, KEY, SECRET] {
        assert!(!all.contains(canary), "{canary} is in a span: {all}");
    }
    let text = world.http.get(format!("{}/metrics", world.url)).send().await.unwrap().text().await.unwrap();
    let (exposed, documented) = (exposed_metrics(&text), documented_metrics());
    assert!(exposed.len() > 5, "{text}");
    for (name, kind) in exposed {
        assert_eq!(documented.get(&name), Some(&kind), "docs/telemetry.md and `{name}` differ");
    }
}

/// A span's name without the prefix of the installation's topics.
fn without_prefix(name: &str) -> String {
    match name.split_once(' ') {
        Some((operation, topic)) if operation != "POST" => {
            format!("{operation} {}", topic.split_once('.').map_or(topic, |(_, rest)| rest))
        }
        _ => name.to_owned(),
    }
}
