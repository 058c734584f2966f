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
use bytes::Bytes;
use domain::Status;
use prometheus_client::registry::Registry;
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

/// Row 11 of the catalogue (reliability.md, section 7).
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

/// Gives up what is no status, and finishes the rest.
struct Reads(DeadLetters);

#[async_trait]
impl Stage for Reads {
    async fn handle(&self, batch: Vec<Work>) {
        self.0.decode::<Status>(batch).await.into_iter().for_each(|(_, work)| work.ack.done());
    }
}

/// How many letters are counted of what this test gives up, and no other does.
fn counted() -> u64 {
    let mut registry = Registry::default();
    bus::metrics::register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let name = r#"carillon_dead_letters_total{stage="indexer",reason="undecodable"} "#;
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().unwrap())
}

/// Row 9 of the catalogue (reliability.md, section 7): byte by byte what came, with the reason, counted, and the partition
/// goes on. What a `CloudEvent` lacks is in `services/ingress`.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_kept_as_it_came_and_the_partition_goes_on() {
    let sim = Sim::new(1, Faults::default());
    let log: Arc<dyn Log> = Arc::new(sim.clone());
    let topics = Topics::new("");
    sim.ensure_topics(&[spec("in".into()), spec(topics.dead(topic::Stage::Indexer))]).await.unwrap();
    let values: [Option<&'static [u8]>; 6] =
        [None, Some(b""), Some(b"\x00\xff\xfe"), Some(b"{\"json\": 1}"), Some(b"\x08\x80"), Some(&[0xff; 600])];
    let own = Headers::default().with("x", "1").with("x", Bytes::from_static(b"\xff\x00"));
    let record = |value: &Option<&'static [u8]>| Outgoing {
        topic: "in".into(),
        key: Some(Bytes::from_static(b"\xfe key")),
        headers: own.clone(),
        value: value.map(Bytes::from_static),
    };
    assert!(sim.publish(values.iter().map(record).collect()).await.iter().all(Result::is_ok));
    let before = counted();
    let dead = DeadLetters::new(log.clone(), &topics, topic::Stage::Indexer);
    let settings = ConsumeSettings::new("group".into(), vec!["in".into()]);
    let (vitals, shutdown) = (Vitals::new("loop"), CancellationToken::new());
    let running = tokio::spawn(consume(log, Arc::new(Reads(dead.clone())), dead, settings, vitals, shutdown.clone()));
    // of simulated time
    sleep(Duration::from_secs(60)).await;
    shutdown.cancel();
    assert!(running.await.unwrap());

    assert_eq!(sim.committed("group", &Partition { topic: "in".into(), index: 0 }), Some(6), "it goes on");
    let letters = sim.records(&topics.dead(topic::Stage::Indexer));
    assert_eq!(letters.len(), values.len(), "each once");
    for (offset, (letter, value)) in letters.iter().zip(values).enumerate() {
        assert_eq!(letter.value.as_deref(), value);
        assert_eq!(letter.key.as_deref(), Some(&b"\xfe key"[..]));
        assert_eq!(letter.headers.0[..2], own.0[..]);
        let said = |name| String::from_utf8(letter.headers.get(name).unwrap().to_vec()).unwrap();
        let from = (said(topic::DEAD_TOPIC), said(topic::DEAD_PARTITION), said(topic::DEAD_OFFSET));
        assert_eq!(from, ("in".to_owned(), "0".to_owned(), offset.to_string()));
        assert_eq!(said(topic::DEAD_REASON), "undecodable");
        assert!(!said(topic::DEAD_ERROR).is_empty() && said(topic::DEAD_AT).ends_with('Z'));
    }
    assert_eq!(counted() - before, 6);
}
