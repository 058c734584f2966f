//! A second gateway joins and leaves while requests are in flight: what is in flight is waited for, nothing is skipped and
//! nothing is sent twice.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::world::{Engines, World};

const GATEWAY: [&str; 3] = ["gateway", "--channel", "apns,email,webhook"];
const DELIVERIES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_joins_and_leaves() {
    // 100 at a time, each for half a second: there is always something in flight
    let own = [("gateway.in_flight", "100"), ("gateway.webhook.timeout", "20s"), ("drain", "20s")];
    let mut world = World::start_with(Engines::Cluster, &own).await;
    let to: Vec<_> = (0..DELIVERIES)
        .map(|i| json!({"channel": "webhook", "address": world.sandbox.hook(&format!("slow/500/{i}"))}))
        .collect();
    let body = json!({"to": to, "channels": ["webhook"], "content": {"default": {"body": "B"}}});
    let id = world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned();
    arrived(&world, 100).await;
    world.spawn_as("second", &GATEWAY);
    arrived(&world, 500).await;
    world.terminate("second").await;
    let n = world.ended(&id).await;
    let states = n["deliveries"].as_array().unwrap().iter().fold(BTreeMap::new(), |mut all, d| {
        *all.entry(d["state"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        all
    });
    assert_eq!(states, BTreeMap::from([("sent".to_owned(), DELIVERIES)]));
    let received = world.sandbox.received("/hook/slow").unwrap();
    let distinct: std::collections::BTreeSet<_> = received.iter().map(|r| r.path.clone()).collect();
    assert_eq!((distinct.len(), received.len()), (DELIVERIES, DELIVERIES), "each once");
}

async fn arrived(world: &World, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.sandbox.received("/hook/slow").unwrap().len() < count {
        assert!(Instant::now() < deadline, "{}", world.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
