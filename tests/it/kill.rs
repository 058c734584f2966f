//! Never lost: every service is killed with SIGKILL three times while 5,000 notifications go through; the claims are held
//! against outside evidence, the sandbox's record.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{Engines, KEY, World};

const NOTIFICATIONS: usize = 5000;
const USERS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_standalone_is_killed() {
    // one process is router, gateway and indexer: each is killed whenever it is
    nothing_is_lost(World::start(Engines::Embedded).await, &["standalone", "standalone", "standalone"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_services_of_a_cluster_are_killed() {
    nothing_is_lost(World::start(Engines::Cluster).await, &["router", "gateway", "indexer"]).await;
}

async fn nothing_is_lost(mut world: World, victims: &[&str]) {
    for u in 0..USERS {
        world.user(&format!("u{u}"), &format!("/hook/ok/u{u}")).await;
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut accepted = Vec::with_capacity(NOTIFICATIONS);
    let kills: Vec<&str> = victims.iter().copied().cycle().take(3 * victims.len()).collect();
    let between = NOTIFICATIONS / (kills.len() + 1);
    let mut kills = kills.into_iter();
    let mut next_kill = between;
    while accepted.len() < NOTIFICATIONS {
        let batch = 50;
        accepted.extend(hand_over(&world, accepted.len(), batch).await);
        if accepted.len() >= next_kill
            && let Some(victim) = kills.next()
        {
            // at any moment of the work on what was just handed over
            tokio::time::sleep(Duration::from_millis(rng.u64(0..200))).await;
            world.kill(victim);
            let service = world.services().into_iter().find(|s| s[0] == victim).unwrap();
            world.spawn(service);
            if victim == "standalone" {
                world.ready().await;
            }
            next_kill += between;
        }
    }
    assert!(kills.next().is_none(), "every service was killed three times");
    let deliveries = all_deliveries(&world, accepted.len()).await;
    check(&world, &accepted, &deliveries).await;
}

/// Hands a batch over; what is answered with an id counts as accepted. An answer that does not come is asked for again.
async fn hand_over(world: &World, from: usize, count: usize) -> Vec<(String, String)> {
    let user = |i: usize| format!("u{}", (from + i) % USERS);
    let item = |i| json!({"to": [{"user": user(i)}], "category": "orders", "content": {"default": {"body": format!("number {}", from + i)}}});
    let body = json!({"notifications": (0..count).map(item).collect::<Vec<_>>()});
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let request = world.http.post(format!("{}/v1/notifications/batch", world.url)).bearer_auth(KEY).json(&body);
        let answer = match request.send().await {
            Ok(answer) if answer.status() == 202 => answer.json::<Value>().await.unwrap(),
            other => {
                assert!(Instant::now() < deadline, "{other:?}\n{}", world.logs());
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let results = answer["results"].as_array().unwrap();
        return results
            .iter()
            .enumerate()
            .map(|(i, r)| (r["id"].as_str().unwrap_or_else(|| panic!("{r}")).to_owned(), user(i)))
            .collect();
    }
}

/// Every delivery of the tenant, once all of them have ended and are indexed.
async fn all_deliveries(world: &World, wanted: usize) -> HashMap<String, Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let mut all: HashMap<String, Vec<Value>> = HashMap::new();
        let mut open = 0;
        let mut cursor = String::new();
        loop {
            let page = world.ok("GET", &format!("/v1/deliveries?limit=1000{cursor}"), None).await;
            for d in page["items"].as_array().unwrap() {
                open += usize::from(["queued", "sending", "deferred"].contains(&d["state"].as_str().unwrap()));
                all.entry(d["notification"].as_str().unwrap().to_owned()).or_default().push(d.clone());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if open == 0 && all.len() >= wanted {
            return all;
        }
        assert!(Instant::now() < deadline, "{} of {wanted} known, {open} open\n{}", all.len(), world.logs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The promise, against what the sandbox has seen.
async fn check(world: &World, accepted: &[(String, String)], deliveries: &HashMap<String, Vec<Value>>) {
    let mut received: HashMap<String, usize> = HashMap::new();
    let url = format!("http://{}/received?limit=200000", world.sandbox.control);
    let record: Value = world.http.get(url).send().await.unwrap().json().await.unwrap();
    for r in record["items"].as_array().unwrap() {
        assert_eq!(r["verified"], true, "{r}");
        *received.entry(r["headers"]["webhook-id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let mut twice = 0;
    for (id, user) in accepted {
        let of_id = deliveries.get(id).unwrap_or_else(|| panic!("{id} has no delivery: lost"));
        assert_eq!(of_id.len(), 1, "{id}");
        let d = &of_id[0];
        assert_eq!((d["state"].as_str(), d["user"].as_str()), (Some("sent"), Some(user.as_str())), "{d}");
        let times = received.get(d["id"].as_str().unwrap()).copied().unwrap_or(0);
        assert!(times >= 1, "{id} is `sent`, and the sandbox has not seen it");
        if times > 1 {
            let unknown = d["trace"].as_array().unwrap().iter().any(|s| s["attempt"]["outcome"] == "unknown");
            assert!(unknown, "{id} arrived {times} times and its trace does not say that an outcome was unknown: {d}");
            twice += 1;
        }
    }
    println!(
        "{} accepted, {} received, {twice} of them more than once after an unknown outcome",
        accepted.len(),
        received.len()
    );
}
