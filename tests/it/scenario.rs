//! The end-to-end scenario: the same on both engine sets.

use serde_json::{Value, json};

use crate::world::{Engines, KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn end_to_end_on_standalone() {
    scenario(World::start(Engines::Embedded).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_to_end_on_a_cluster() {
    scenario(World::start(Engines::Cluster).await).await;
}

async fn send(world: &World, body: Value) -> String {
    world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned()
}

fn states(n: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    n["deliveries"].as_array().unwrap().iter().map(|d| (text(&d["state"]), text(&d["reason"]))).collect()
}

async fn scenario(world: World) {
    let content = json!({"default": {"title": "Hello", "body": "Order 17 is on its way"}});
    world.user("ana", "/hook/ok/ana").await;
    world.user("ben", "/hook/ok/ben").await;
    world.user("dev", "/hook/flaky/2/dev").await;
    world.user("eve", "/hook/gone").await;
    world.ok("PUT", "/v1/users/cleo", Some(&json!({"contacts": {}}))).await;
    let opt_out = json!({"categories": {"orders": {"all": false}}});
    world.ok("PUT", "/v1/users/ben/preferences", Some(&opt_out)).await;

    // one of each end, in one request
    let to: Vec<_> = ["ana", "ben", "cleo", "dev", "eve", "nobody"].iter().map(|u| json!({"user": u})).collect();
    let body =
        json!({"to": to, "category": "orders", "priority": 9, "content": content, "metadata": {"order_id": "17"}});
    let n = world.ended(&send(&world, body).await).await;
    assert_eq!(n["recipients"], 6);
    assert_eq!(n["metadata"]["order_id"], "17");
    let mut ends: Vec<_> = n["deliveries"].as_array().unwrap().iter().map(end).collect();
    ends.sort();
    assert_eq!(
        ends,
        [
            "ana: accepted queued sent",
            "ben: accepted suppressed(opted_out_category)",
            "cleo: accepted suppressed(no_address)",
            "dev: accepted queued deferred#transient deferred#transient sent",
            "eve: accepted queued failed(address_gone)#address_gone",
            "nobody: accepted suppressed(unknown_user)",
        ]
    );

    // the outside evidence agrees, and every reception was signed
    let received = world.http.get(format!("http://{}/received", world.sandbox.control)).send().await.unwrap();
    let received: Value = received.json().await.unwrap();
    let count = |path: &str| {
        received["items"].as_array().unwrap().iter().filter(|r| r["path"] == path && r["verified"] == true).count()
    };
    assert_eq!(
        [count("/hook/ok/ana"), count("/hook/ok/ben"), count("/hook/flaky/2/dev"), count("/hook/gone")],
        [1, 0, 3, 1]
    );
    let first: Value = serde_json::from_str(
        received["items"].as_array().unwrap().iter().find(|r| r["path"] == "/hook/ok/ana").unwrap()["body"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(first["data"]["title"], "Hello");
    assert_eq!(first["type"], "notification.orders");

    // an opt-in category, a raw address, an address that is reached once only, an expiry
    let raw = format!("http://{}/hook/ok/raw", world.sandbox.receiver);
    let body = json!({"to": [{"user": "ana"}], "category": "marketing", "content": content});
    assert_eq!(states(&world.ended(&send(&world, body).await).await), [("suppressed".into(), "not_opted_in".into())]);
    let twice = json!([{"channel": "webhook", "address": raw}, {"channel": "webhook", "address": raw}]);
    let body = json!({"to": twice, "channels": ["chat", "webhook"], "content": content});
    assert_eq!(states(&world.ended(&send(&world, body).await).await), [("sent".into(), "-".into())]);

    // a batch: one bad item spoils no other
    let good = json!({"to": [{"user": "ana"}], "category": "orders", "content": content});
    let batch = json!({"notifications": [good, {"to": [], "content": content}, good]});
    let results = world.ok("POST", "/v1/notifications/batch", Some(&batch)).await["results"].clone();
    assert_eq!(results[1]["error"]["status"], 400, "{results}");
    for i in [0, 2] {
        assert_eq!(world.ended(results[i]["id"].as_str().unwrap()).await["state"], "sent");
    }

    // "why did ben not get it" is one query; another tenant's id is nobody's
    let page = world.ok("GET", "/v1/deliveries?user=ben&state=suppressed", None).await;
    assert_eq!(page["items"][0]["reason"], "opted_out_category");
    let stranger = uuid::Uuid::now_v7();
    assert_eq!(world.call("GET", &format!("/v1/notifications/{stranger}"), KEY, None).await.0, 404);

    let why = world.run_to_end(&["why", "ben"]);
    assert!(why.contains("opted_out_category: The user does not want this category."), "{why}");
    let found = world.run_to_end(&["search", "--user", "ben", "--state", "suppressed"]);
    assert!(found.contains("ben") && found.contains("opted_out_category"), "{found}");
    assert!(world.run_to_end(&["search", "--user", "nobody-else"]).contains("no delivery matches"));
    assert!(world.run_to_end(&["completions", "bash"]).contains("complete -F"));

    // the operator's commands say the same
    let out =
        world.run_to_end(&["send", "--to", "ana", "--category", "orders", "--title", "T", "--body", "B", "--wait"]);
    assert!(out.contains("ana, webhook") && out.contains(": sent") && out.contains("attempt 1 -> sent"), "{out}");
    let id = out.split_whitespace().nth(1).unwrap().trim_end_matches(':').to_owned();
    let trace = world.run_to_end(&["trace", &id, "--output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&trace).unwrap()["state"], "sent");
}

/// `user: step step …`, a step being state, reason and outcome.
fn end(d: &Value) -> String {
    let step = |s: &Value| {
        let reason = s["reason"].as_str().map(|r| format!("({r})")).unwrap_or_default();
        let outcome =
            s["attempt"]["outcome"].as_str().filter(|o| *o != "sent").map(|o| format!("#{o}")).unwrap_or_default();
        format!("{}{reason}{outcome}", s["state"].as_str().unwrap())
    };
    let steps: Vec<_> = d["trace"].as_array().unwrap().iter().map(step).collect();
    format!("{}: {}", d["user"].as_str().unwrap(), steps.join(" "))
}
