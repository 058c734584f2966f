//! How the processes behave: bad settings, a dependency that is down, SIGTERM with work in flight.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::world::{Engines, World, binary, free_port, settings, signal};

fn carillon(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let out = Command::new(binary()).args(args).envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn bad_settings_are_all_named_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("carillon.toml");
    std::fs::write(&file, "[kafka]\nbrokerz = \"x\"\n[topics]\npartitions = \"many\"\n").unwrap();
    let (code, said) = carillon(
        &["standalone", "--data", data.to_str().unwrap(), "--config", file.to_str().unwrap()],
        &[("CARILLON__DRAIN", "soon")],
    );
    assert_eq!(code, Some(64), "{said}");
    assert_eq!(said.lines().count(), 3, "one line per problem:\n{said}");
    for word in ["kafka.brokerz", "kafka.brokers", "topics.partitions", "drain", "carillon.toml", "CARILLON__DRAIN"] {
        assert!(said.contains(word), "{word} is not in:\n{said}");
    }
    assert!(!data.exists(), "nothing is touched");
}

#[test]
fn a_dependency_that_is_down_is_named_with_what_was_tried() {
    let port = free_port();
    for (service, key, value) in [
        ("router", "CARILLON__REDIS__URL", format!("redis://127.0.0.1:{port}")),
        ("indexer", "CARILLON__ELASTICSEARCH__URL", format!("http://127.0.0.1:{port}")),
        ("router", "CARILLON__CASSANDRA__NODES", format!("127.0.0.1:{port}")),
        ("topics", "CARILLON__KAFKA__BROKERS", format!("127.0.0.1:{port}")),
    ] {
        let mut env: Vec<(String, String)> = settings(Engines::Cluster)
            .into_iter()
            .map(|(k, v)| (format!("CARILLON__{}", k.to_uppercase().replace('.', "__")), v))
            .collect();
        env.push((key.to_owned(), value));
        env.push(("CARILLON__ADMIN__LISTEN".to_owned(), String::new()));
        let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (code, said) = carillon(&[service], &env);
        assert_eq!(code, Some(69), "{service}: {said}");
        assert!(said.contains(&port.to_string()), "{service} does not name what it tried:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_without_the_stores_that_it_does_not_need() {
    let world = World::start(Engines::Cluster).await;
    let away = format!("127.0.0.1:{}", free_port());
    let no_index = [("ELASTICSEARCH__URL", format!("http://{away}"))];
    let no_users = [("REDIS__URL", format!("redis://{away}")), ("CASSANDRA__NODES", away.clone())];
    for (service, without) in [
        (&["router"][..], &no_index[..]),
        (&["gateway", "--channel", "webhook"], &no_index),
        (&["indexer"], &no_users),
        (&["ingress"], &no_index),
    ] {
        let [admin, http, grpc] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        let ports = [("ADMIN__LISTEN", admin.clone()), ("INGRESS__LISTEN", http), ("INGRESS__GRPC_LISTEN", grpc)];
        let mut command = world.command(service);
        for (key, value) in without.iter().chain(&ports) {
            command.env(format!("CARILLON__{key}"), value);
        }
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = world.http.get(format!("http://{admin}/readyz")).send().await;
            if answer.as_ref().is_ok_and(|a| a.status().is_success()) {
                break;
            }
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{service:?}: {ended:?}, {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// On a machine that is busy with other tests an answer may take long; none of them may count as missing.
const PATIENT: [(&str, &str); 2] = [("gateway.webhook.timeout", "20s"), ("drain", "20s")];

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight_on_standalone() {
    sigterm(World::start_with(Engines::Embedded, &PATIENT).await, "standalone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight_on_a_cluster() {
    sigterm(World::start_with(Engines::Cluster, &PATIENT).await, "gateway").await;
}

/// 500 requests hang in a slow endpoint when SIGTERM comes: each is waited for, recorded, and not sent again.
async fn sigterm(mut world: World, service: &str) {
    let to: Vec<_> = (0..500)
        .map(|i| json!({"channel": "webhook", "address": format!("http://{}/hook/slow/1500/{i}", world.sandbox.receiver)}))
        .collect();
    let body = json!({"to": to, "channels": ["webhook"], "content": {"default": {"body": "B"}}});
    let id = world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned();
    let arrived = |world: &World| {
        let request = world.http.get(format!("http://{}/received?limit=1000", world.sandbox.control));
        async move {
            request.send().await.unwrap().json::<serde_json::Value>().await.unwrap()["items"].as_array().unwrap().len()
        }
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while arrived(&world).await < 500 {
        assert!(Instant::now() < deadline, "{}", world.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.terminate(service).await;
    let command = world.services().into_iter().find(|s| s[0] == service).unwrap();
    world.spawn(command);
    world.ready().await;
    let n = world.ended(&id).await;
    assert_eq!(n["deliveries"].as_array().unwrap().len(), 500);
    assert!(n["deliveries"].as_array().unwrap().iter().all(|d| d["state"] == "sent"), "{}", n["state"]);
    assert_eq!(arrived(&world).await, 500, "nothing was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let mut world = World::start(Engines::Embedded).await;
    let url = format!("http://{}/hook/slow/1900/x", world.sandbox.receiver);
    let body = json!({"to": [{"channel": "webhook", "address": url}], "channels": ["webhook"], "content": {"default": {"body": "B"}}});
    let id = world.ok("POST", "/v1/notifications", Some(&body)).await["id"].as_str().unwrap().to_owned();
    let received = format!("http://{}/received", world.sandbox.control);
    while world.http.get(&received).send().await.unwrap().json::<serde_json::Value>().await.unwrap()["items"]
        .as_array()
        .unwrap()
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = world.process("standalone").id();
    signal(pid, "TERM");
    signal(pid, "TERM");
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut again = Instant::now();
    let code = loop {
        if let Some(status) = world.process("standalone").try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "{}", world.logs());
        // two signals that come as one are one
        if again.elapsed() > Duration::from_millis(200) {
            again = Instant::now();
            signal(pid, "TERM");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(code, Some(1));
    // what was in flight is not lost: its outcome is recorded as unknown, and it goes out again
    world.spawn(&["standalone", "--data", "data"]);
    world.ready().await;
    let n = world.ended(&id).await;
    let steps = n["deliveries"][0]["trace"].as_array().unwrap();
    assert!(steps.iter().any(|s| s["attempt"]["outcome"] == "unknown"), "{n}");
    assert_eq!(n["state"], "sent");
}
