//! A dead letter that cannot be written: the record waits, its commit with it, the rest goes on, and it recovers by itself.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{
    Cleanup, Headers, Log, Outgoing, Partition, TopicSpec, Topics,
    consume::{ConsumeSettings, Stage, Vitals, Work, consume},
    dead::DeadLetters,
    sim::{Faults, Sim},
    topic,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Gives up what says so, and finishes the rest.
struct Picky(DeadLetters);

#[async_trait]
impl Stage for Picky {
    async fn handle(&self, batch: Vec<Work>) {
        let (bad, good): (Vec<_>, Vec<_>) = batch.into_iter().partition(|w| w.record.value.as_deref() == Some(b"bad"));
        good.into_iter().for_each(|work| work.ack.done());
        self.0.bury_or_wait(bad.into_iter().map(|w| (w, "bad".to_owned())).collect(), "undecodable").await;
    }
}

fn spec(name: Arc<str>) -> TopicSpec {
    TopicSpec {
        name,
        partitions: 1,
        replication: 1,
        cleanup: Cleanup::Delete,
        retention_ms: 1,
        max_message_bytes: 1000,
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_dead_letter_topic_nothing_is_skipped() {
    let sim = Sim::new(1, Faults::default());
    let log: Arc<dyn Log> = Arc::new(sim.clone());
    sim.ensure_topics(&[spec("in".into())]).await.unwrap();
    let record = |key: &str, value: &str| Outgoing {
        topic: "in".into(),
        key: Some(key.to_owned().into()),
        headers: Headers::default(),
        value: Some(value.to_owned().into()),
    };
    let batch = vec![record("a", "1"), record("b", "bad"), record("b", "2"), record("c", "3"), record("d", "bad")];
    assert!(sim.publish(batch).await.iter().all(Result::is_ok));
    let topics = Topics::new("");
    let dead = DeadLetters::new(log.clone(), &topics, topic::Stage::Router);
    let settings = ConsumeSettings::new("group".into(), vec!["in".into()]);
    let (vitals, shutdown) = (Vitals::new("loop"), CancellationToken::new());
    let stage = Arc::new(Picky(dead.clone()));
    let running = tokio::spawn(consume(log, stage, dead, settings, vitals.clone(), shutdown.clone()));

    let partition = Partition { topic: "in".into(), index: 0 };
    sleep(Duration::from_secs(60)).await;
    assert_eq!(sim.committed("group", &partition), Some(1), "the commit stays before the bad one");
    assert!(vitals.waiting() > 0 && vitals.is_troubled(), "and it shows");

    sim.ensure_topics(&[spec(topics.dead(topic::Stage::Router))]).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(sim.committed("group", &partition), Some(5));
    let letters = sim.records(&topics.dead(topic::Stage::Router));
    let offsets: Vec<_> = letters.iter().filter_map(|l| l.headers.get(topic::DEAD_OFFSET).cloned()).collect();
    assert_eq!(offsets, ["1", "4"].map(bytes::Bytes::from), "each once");
    shutdown.cancel();
    assert!(running.await.unwrap());
}
