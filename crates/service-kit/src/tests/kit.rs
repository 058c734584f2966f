//! A kit on the embedded engines: ready, at work, draining, and what happens when a task dies.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{
    Headers, Outgoing,
    consume::{ConsumeSettings, Stage, Work},
    topic,
};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{get_json, until};
use crate::{Kit, Problems, Settings, Unreachable};

fn settings() -> Settings {
    let mut settings = Settings::load(&[], None, []).expect("the defaults are valid");
    settings.set("admin.listen", "");
    settings
}

/// Says that it has a batch, then waits.
#[derive(Default)]
struct Slow {
    begun: Notify,
    go_on: Notify,
}

#[async_trait]
impl Stage for Slow {
    async fn handle(&self, batch: Vec<Work>) {
        self.begun.notify_one();
        self.go_on.notified().await;
        for work in batch {
            work.ack.done();
        }
    }
}

#[tokio::test]
async fn ready_then_drained() {
    let data = tempfile::tempdir().expect("a directory");
    let dir = data.path().join("deep/data");
    let mut settings = settings();
    settings.set("admin.listen", "127.0.0.1:0");
    let kit = Kit::embedded(settings.clone(), &dir).await.expect("opened");
    assert!(kit.exclusive && kit.owner != 0);
    let admin = kit.spawn_admin().await.expect("served").expect("somewhere");
    kit.spawn_config();
    let stage = Arc::new(Slow::default());
    let consume = ConsumeSettings::new("carillon.test".into(), vec![kit.topics.status()]);
    kit.consume("test", stage.clone(), topic::Stage::Indexer, consume);
    until(admin, "/readyz", 200).await;

    let second = Kit::embedded(settings.clone(), &dir).await.map(drop).expect_err("locked").to_string();
    assert!(second.contains("another process"), "{second}");

    let record = Outgoing {
        topic: kit.topics.status(),
        key: Some("t/u".into()),
        headers: Headers::default(),
        value: Some("v".into()),
    };
    kit.log.publish(vec![record]).await.remove(0).expect("durable");
    stage.begun.notified().await;
    let busy = |shown: &Value| shown["loops"][0]["in_flight"] == 1 && shown["loops"][0]["oldest_ms"].is_number();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !busy(&get_json(admin, "/health").await.1) {
        assert!(Instant::now() < deadline, "a record that is in hand is not shown");
        sleep(Duration::from_millis(20)).await;
    }
    kit.shutdown.cancel();
    // while the record is in flight, the admin port still answers
    let missing = until(admin, "/readyz", 503).await;
    assert_eq!(missing["missing"][0], json!("shutting down"));
    assert_eq!(get_json(admin, "/livez").await.0, 200);
    stage.go_on.notify_one();
    assert!(kit.finish().await, "drained");
    // the file closes on a thread of its own
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = Kit::embedded(settings.clone(), &dir).await {
        assert!(Instant::now() < deadline, "{error:#}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_task_that_dies_ends_the_process() {
    let data = tempfile::tempdir().expect("a directory");
    let kit = Kit::embedded(settings(), data.path()).await.expect("opened");
    kit.spawn("dies", async { panic!("as planned") });
    assert!(!kit.finish().await, "it did not end well");
}

#[tokio::test]
async fn what_does_not_end_is_not_waited_for() {
    let data = tempfile::tempdir().expect("a directory");
    let mut settings = settings();
    settings.set("drain", "50ms");
    let kit = Kit::embedded(settings, data.path()).await.expect("opened");
    kit.tasks.spawn(std::future::pending::<()>());
    kit.shutdown.cancel();
    assert!(!kit.finish().await);
}

#[tokio::test]
async fn problems_come_before_connections_and_a_closed_port_is_named() {
    let mut bad = settings();
    bad.set("kafka.brokers", vec!["no-port".to_owned()]);
    bad.set("redis.url", "http://:hunter2@host");
    let error = Kit::cluster(bad).await.map(drop).expect_err("problems");
    let Problems(problems) = error.downcast_ref().expect("problems");
    assert_eq!(
        *problems,
        [
            "kafka.brokers: must name at least one host:port (from the command line)",
            "redis.url: must be a URL that begins with redis:// (from the command line)",
        ]
    );

    let mut settings = settings();
    let closed = "127.0.0.1:1";
    settings.set("kafka.brokers", vec![closed.to_owned()]);
    let error = Kit::cluster(settings).await.map(drop).expect_err("nobody is there");
    let Unreachable(said) = error.downcast_ref().expect("unreachable");
    assert!(said.contains(closed) && said.contains("kafka.brokers"), "{said}");
}
