//! The probes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bus::consume::Vitals;
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{get, get_json, served, until};
use crate::{Health, health::Need};

#[tokio::test]
async fn a_silent_loop_is_not_alive() {
    for (silence, status, silent) in
        [(Duration::from_secs(60), 200, json!([])), (Duration::ZERO, 503, json!(["router.high"]))]
    {
        let health = Health::new(CancellationToken::new(), TaskTracker::new(), silence);
        health.register_dependency("log", Need::Required, async || Err("down".to_owned()));
        health.register(Vitals::new("router.high"));
        let (at, _, _) = served(health.routes()).await;
        let alive = status == 200;
        assert_eq!(get_json(at, "/livez").await, (status, json!({ "alive": alive, "silent": silent })));
        let (_, shown) = get_json(at, "/health").await;
        assert_eq!((&shown["alive"], &shown["loops"][0]["name"]), (&json!(alive), &json!("router.high")));
    }
}

#[tokio::test]
async fn ready_is_what_lacks_nothing() {
    let shutdown = CancellationToken::new();
    let health = Health::new(shutdown.clone(), TaskTracker::new(), Duration::from_secs(30));
    let (caught_up, up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (caught_up_now, up_now) = (caught_up.clone(), up.clone());
    health.register_condition("the configuration is not read yet", move || caught_up_now.load(SeqCst));
    health.register_dependency("log", Need::Required, move || {
        let up = up_now.load(SeqCst);
        async move { if up { Ok(()) } else { Err("connection refused".to_owned()) } }
    });
    health.register_dependency("deliveries", Need::Optional, std::future::pending);
    let (at, _, _) = served(health.routes()).await;

    let missing = until(at, "/readyz", 503).await;
    assert_eq!(
        (&missing["ready"], &missing["missing"][0]),
        (&json!(false), &json!("the configuration is not read yet"))
    );
    caught_up.store(true, SeqCst);
    up.store(true, SeqCst);
    // the next check of the log, two seconds later, finds it
    assert_eq!(until(at, "/readyz", 200).await, json!({ "ready": true, "missing": [] }));

    let (status, shown) = get_json(at, "/health").await;
    assert_eq!((status, &shown["dependencies"][0]["state"]), (200, &json!("up")));
    assert!(shown["dependencies"][0]["latency_ms"].is_number());
    let (status, text) = get(at, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("carillon_dependency_up{dependency=\"log\"} 1\n"), "{text}");
    assert!(text.contains("process_resident_memory_bytes ") && text.ends_with("# EOF\n"), "{text}");

    up.store(false, SeqCst);
    assert_eq!(until(at, "/readyz", 503).await["missing"], json!(["log: connection refused"]));
    shutdown.cancel();
    assert_eq!(until(at, "/readyz", 503).await["missing"][0], json!("shutting down"));
}
