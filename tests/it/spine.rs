//! The spine: all three ways in, all three channels out, every answer findable; the same on both engine sets.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Headers, Log as _, Outgoing,
    kafka::{Kafka, KafkaSettings},
};
use domain::{NotificationId, TenantId};
use serde_json::{Value, json};

use crate::world::{Engines, KEY, OPERATOR, SECRET, World};

const SOURCE: &str = "https://shop.example/spine";

#[tokio::test(flavor = "multi_thread")]
async fn the_spine_on_standalone() {
    spine(World::start(Engines::Embedded).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spine_on_a_cluster() {
    spine(World::start(Engines::Cluster).await).await;
}

async fn spine(world: World) {
    the_readme_sets_a_tenant_up(&world);
    set_up(&world);
    three_ways_through_three_channels(&world).await;
    dead_addresses_go_at_the_verdict(&world).await;
    an_opt_out_stops_what_is_queued(&world).await;
    a_dead_letter_is_driven_again(&world).await;
    nothing_is_missing(&world).await;
}

/// The README's own file, with secrets in place of its dots, sets everything up; a second time there is nothing to do.
fn the_readme_sets_a_tenant_up(world: &World) {
    let readme = include_str!("../../README.md");
    let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let account = world.sandbox.apns_account();
    let key = account["private_key"].as_str().unwrap().trim();
    let (before, rest) = block.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
    let (_, after) = rest.split_once("-----END PRIVATE KEY-----").unwrap();
    let file = format!("{before}{key}{after}").replace("acme", "readme").replace("whsec_…", SECRET).replace('…', "x");
    world.write("readme.toml", &file);
    let said = world.run_to_end(&["apply", "-f", "readme.toml", "--key", OPERATOR]);
    for entry in [
        "tenants/readme",
        "keys/shop",
        "accounts/apns",
        "accounts/email",
        "accounts/webhook",
        "sources/shop",
        "templates/shipped",
    ] {
        assert!(said.contains(entry), "{entry} is not in:\n{said}");
    }
    let own = ["--key", "a-long-random-string-of-yours"];
    let german = ["templates", "preview", "shipped", "--data", "order=17", "--locale", "de", "--channel", "apns"];
    let preview = world.run_to_end(&[german.as_slice(), &own].concat());
    assert!(preview.contains("Bestellung 17 hat das Haus verlassen, per post."), "{preview}");
}

/// Accounts that reach the sandbox, a source, a category and a template.
fn set_up(world: &World) {
    let accounts = [world.sandbox.apns_account(), world.sandbox.email_account()].map(|mut account| {
        account["tenant"] = "acme".into();
        account["name"] = account["channel"].clone();
        account
    });
    let template = json!({
        "tenant": "acme", "key": "shipped", "default_locale": "en",
        "variables": {"order": {}, "carrier": {"default": "post"}},
        "contents": {
            "en": {"default": {"title": "On its way", "body": "Order {{ order }} by {{ carrier }}"}},
            "de": {
                "default": {"title": "Unterwegs", "body": "Bestellung {{ order }} per {{ carrier }}"},
                "email": {"subject": "Bestellung {{ order }}", "html": "<p>Per <b>{{ carrier }}</b></p>", "text": "Per {{ carrier }}"},
            },
        },
    });
    let file = json!({
        "categories": [{"tenant": "acme", "name": "shipping", "channels": ["push", "email", "webhook"]}],
        "accounts": accounts,
        "sources": [{"tenant": "acme", "name": "shop", "source": SOURCE}],
        "templates": [template],
    });
    world.write("spine.json", &file.to_string());
    let first = world.run_to_end(&["apply", "-f", "spine.json"]);
    assert!(first.contains("shipped"), "{first}");
    let again = world.run_to_end(&["apply", "-f", "spine.json", "--dry-run", "--output", "json"]);
    assert!(
        !again.contains("\"new\"") && !again.contains("\"changed\""),
        "a second time there is nothing to do: {again}"
    );
}

async fn device(world: &World, user: &str, token: &str) -> Value {
    let body = json!({"platform": "apns", "app": "com.example.app", "token": token});
    world.ok("POST", &format!("/v1/users/{user}/devices"), Some(&body)).await
}

async fn three_ways_through_three_channels(world: &World) {
    let body = json!({
        "locale": "de-CH",
        "contacts": {"email": ["ana@example.com"], "webhook": [world.sandbox.hook("ok/spine-ana")]},
    });
    world.ok("PUT", "/v1/users/spine-ana", Some(&body)).await;
    device(world, "spine-ana", "02000a0a").await;

    let asks = |order: &str| {
        json!({
            "to": [{"user": "spine-ana"}], "category": "shipping", "template": "shipped", "data": {"order": order},
            "metadata": {"order": order},
        })
    };
    let by_http = world.ok("POST", "/v1/notifications", Some(&asks("1-http"))).await["id"].clone();
    let by_grpc = by_grpc(world, asks("2-grpc")).await;
    publish_event(world, "e-3", &asks("3-event")).await;
    let by_event = NotificationId::of_event(&TenantId::parse("acme").unwrap(), SOURCE, "e-3").to_string();

    for (id, order) in [(by_http.as_str().unwrap(), "1-http"), (&by_grpc, "2-grpc"), (&by_event, "3-event")] {
        let n = world.ended(id).await;
        let sent: BTreeMap<_, _> = (n["deliveries"].as_array().unwrap().iter())
            .map(|d| (d["channel"].as_str().unwrap(), (d["state"].as_str().unwrap(), d["template"].as_str().unwrap())))
            .collect();
        let each = ("sent", "shipped@1");
        assert_eq!(sent, [("apns", each), ("email", each), ("webhook", each)].into(), "{order}: {n}");
        // the outside evidence: once each, in the recipient's own language
        let push = only(world, "/3/device/02000a0a", order);
        assert!(push.contains("Unterwegs") && push.contains(&format!("Bestellung {order} per post")), "{push}");
        let mail = only(world, "ana@example.com", order);
        assert!(mail.contains(&format!("Subject: Bestellung {order}")) && mail.contains("<b>post</b>"), "{mail}");
        let hook = only(world, "/hook/ok/spine-ana", order);
        assert!(hook.contains("Unterwegs"), "{hook}");
    }

    // findable by whatever is known of it
    for query in ["q=2-grpc", "template=shipped&user=spine-ana", "provider=apns&user=spine-ana", "template=shipped@1"] {
        let page = world.ok("GET", &format!("/v1/deliveries?{query}"), None).await;
        assert!(!page["items"].as_array().unwrap().is_empty(), "{query}");
    }
    let trace = world.run_to_end(&["trace", &by_grpc]);
    for word in ["apns", "email", "webhook", "shipped@1"] {
        assert!(trace.contains(word), "{word} is not in:\n{trace}");
    }
}

/// The one reception of that path that speaks of the order.
fn only(world: &World, path: &str, order: &str) -> String {
    let all: Vec<_> =
        world.sandbox.received(path).unwrap().into_iter().filter(|r| r.body.contains(order) && r.verified).collect();
    assert_eq!(all.len(), 1, "{path} {order}: {all:?}");
    all[0].body.clone()
}

async fn by_grpc(world: &World, body: Value) -> String {
    let mut client = grpc::connect(&world.grpc, KEY).await.unwrap();
    let request = grpc::v1::SendRequest::from_json(body.to_string().as_bytes()).unwrap();
    client.send(request).await.unwrap().into_inner().id
}

async fn publish_event(world: &World, id: &str, data: &Value) {
    let log = Kafka::new(KafkaSettings::new(world.kafka.clone(), "a shop")).unwrap();
    let headers = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", SOURCE),
        ("ce_type", "carillon.notification.requested"),
    ];
    let headers = headers.into_iter().fold(Headers::default(), |h, (name, value)| h.with(name, value.to_owned()));
    let topic: Arc<str> = world.topic("events").into();
    let record = Outgoing { topic, key: Some("any".into()), headers, value: Some(data.to_string().into()) };
    for result in log.publish(vec![record]).await {
        result.unwrap();
    }
}

/// Sends and gives the only delivery's state and reason at its end.
async fn told(world: &World, user: &str, channel: &str) -> (String, String) {
    let body =
        json!({"to": [{"user": user}], "channels": [channel], "content": {"default": {"title": "T", "body": "B"}}});
    let id = world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned();
    let n = world.ended(&id).await;
    let text = |name: &str| n["deliveries"][0][name].as_str().unwrap_or("-").to_owned();
    (text("state"), text("reason"))
}

async fn dead_addresses_go_at_the_verdict(world: &World) {
    let contacts = json!({"contacts": {"webhook": [world.sandbox.hook("gone/spine")]}});
    world.ok("PUT", "/v1/users/spine-eve", Some(&contacts)).await;
    device(world, "spine-eve", "04100b0b").await;
    for (channel, path) in [("apns", "/3/device/04100b0b"), ("webhook", "/hook/gone/spine")] {
        assert_eq!(told(world, "spine-eve", channel).await, ("failed".into(), "address_gone".into()), "{channel}");
        assert_eq!(told(world, "spine-eve", channel).await, ("suppressed".into(), "no_address".into()), "{channel}");
        assert_eq!(world.sandbox.received(path).unwrap().len(), 1, "it is not asked again");
    }
    let devices = world.ok("GET", "/v1/users/spine-eve/devices", None).await;
    assert_eq!(devices["items"], json!([]), "the dead token is gone: {devices}");
    // Apple may speak of an earlier life of the token: registered since then, the device stays
    device(world, "spine-eve", "04110b0b").await;
    assert_eq!(told(world, "spine-eve", "apns").await, ("failed".into(), "address_gone".into()));
    let devices = world.ok("GET", "/v1/users/spine-eve/devices", None).await;
    let id = devices["items"][0]["id"].as_str().unwrap().to_owned();
    world.ok("DELETE", &format!("/v1/users/spine-eve/devices/{id}"), None).await;
    // registered anew it is a new address: the provider is asked again, and says since when it is dead
    device(world, "spine-eve", "04100b0b").await;
    assert_eq!(told(world, "spine-eve", "apns").await.1, "address_gone");
    assert_eq!(world.sandbox.received("/3/device/04100b0b").unwrap().len(), 2);
}

async fn an_opt_out_stops_what_is_queued(world: &World) {
    // the first answers are slow, so that there is a queue
    let to: Vec<_> = (0..20).map(|_| json!({"user": "spine-dev"})).collect();
    world.user("spine-dev", "/hook/flaky/2/spine-dev").await;
    let body = json!({"to": to[..1], "category": "orders", "content": {"default": {"body": "B"}}});
    let mut ids = Vec::new();
    for _ in &to {
        ids.push(world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned());
    }
    world.ok("PUT", "/v1/users/spine-dev/preferences", Some(&json!({"all": false}))).await;
    let said = Instant::now();
    let mut reasons = Vec::new();
    for id in &ids {
        reasons.push(world.ended(id).await["deliveries"][0]["reason"].as_str().unwrap_or("sent").to_owned());
    }
    assert!(reasons.iter().any(|r| r == "opted_out_all"), "{reasons:?}");
    let late = Instant::now().duration_since(said);
    let after = told(world, "spine-dev", "webhook").await;
    assert_eq!(after, ("suppressed".into(), "opted_out_all".into()), "{late:?}");
    let last = world.sandbox.received("/hook/flaky/2/spine-dev").unwrap().last().map(|r| r.time);
    let wall = domain::Timestamp::now() - Duration::from_secs(1);
    assert!(last.is_none_or(|at| at < wall) || late < Duration::from_secs(3), "nothing goes out 3 s after the opt-out");
}

async fn a_dead_letter_is_driven_again(world: &World) {
    // it answers 503 six times: the five attempts that there are, and one more
    world.user("spine-fay", "/hook/flaky/6/spine-fay").await;
    let body = json!({"to": [{"user": "spine-fay"}], "category": "orders", "content": {"default": {"body": "B"}}});
    let id = world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned();
    let n = world.ended(&id).await;
    assert_eq!(n["deliveries"][0]["reason"], "retries_exhausted", "{n}");
    let letter = dead_letter(world, &id).await;
    assert_eq!((&letter["reason"], &letter["state"]), (&json!("retries_exhausted"), &json!("failed")), "{letter}");
    let letter = letter["id"].as_str().unwrap();
    // twice: the second word finds that it was driven on already, or has ended
    for _ in 0..2 {
        world.run_to_end(&["dead", "redrive", letter]);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let n = loop {
        let n = world.ok("GET", &format!("/v1/notifications/{id}"), None).await;
        if n["state"] == "sent" {
            break n;
        }
        assert!(Instant::now() < deadline, "{n}\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let steps = n["deliveries"][0]["trace"].as_array().unwrap();
    assert!(steps.iter().any(|s| s["reason"] == "redriven"), "{n}");
    let taken = world.sandbox.received("/hook/flaky/6/spine-fay").unwrap();
    assert_eq!(taken.iter().filter(|r| r.answered == Some(200)).count(), 1, "{taken:?}");
    assert_eq!(dead_letter(world, &id).await["state"], "sent");
}

async fn dead_letter(world: &World, notification: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, page) = world.call("GET", "/v1/dead-letters", KEY, None).await;
        assert_eq!(status, 200, "{page}");
        let found = page["items"].as_array().unwrap().iter().find(|l| l["notification"] == notification);
        if let Some(letter) = found {
            return letter.clone();
        }
        assert!(Instant::now() < deadline, "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn nothing_is_missing(world: &World) {
    let path = format!("/v1/conservation?until={}", domain::Timestamp::now());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let balance = world.ok("GET", &path, None).await;
        let (all, decided) = (&balance["items"][0]["recipients"], &balance["items"][0]["decided"]);
        if balance["missing"] == 0 && balance["surplus"] == 0 {
            assert!(all.as_u64().unwrap() > 20 && all == decided, "{balance}");
            break;
        }
        assert!(Instant::now() < deadline, "{balance}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.run_to_end(&["conservation"]).contains("nothing"));
}
