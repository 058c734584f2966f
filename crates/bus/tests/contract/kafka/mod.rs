//! What only a broker can do.

mod members;
mod mock;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Cleanup, FollowEvent, Log, LogError, Partition, Position, Record, Revoked, TopicSpec,
    kafka::{Kafka, KafkaSettings},
};
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::{sync::oneshot, time::timeout};

use crate::member::{Member, outgoing, publish, spec, topic, unique, values, within};

/// The brokers of `CARILLON_TEST_KAFKA`; without them a test fails, it is not skipped.
pub(crate) fn brokers() -> String {
    std::env::var_os("CARILLON_TEST_KAFKA")
        .and_then(|brokers| brokers.into_string().ok())
        .expect("CARILLON_TEST_KAFKA is not set; run `make test`, or eval \"$(deploy/dev/engines env)\"")
}

fn settings(brokers: &str) -> KafkaSettings {
    KafkaSettings::new(brokers, "carillon-test")
}

/// Row 14 for what is missing later than at the start; what is too large is in the suite.
#[tokio::test]
async fn what_is_missing_or_away_is_said() {
    let brokers = brokers();
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let missing = unique("missing");
    let results = within("a result", log.publish(vec![outgoing(&missing, "key", "x")])).await;
    assert!(
        matches!(&results[0], Err(LogError::Topic { detail, .. }) if detail.contains("carillon topics")),
        "{results:?}"
    );
    let joined = within("a result", log.subscribe("group", std::slice::from_ref(&missing), Duration::ZERO)).await.err();
    assert!(
        matches!(&joined, Some(LogError::Topic { detail, .. }) if detail.contains("carillon topics")),
        "{joined:?}"
    );
    within("a ping", log.ping()).await.expect("the broker is there");

    // port 1: nothing listens
    let away = Kafka::new(KafkaSettings { publish_timeout_ms: 500, ..settings("127.0.0.1:1") }).expect("settings");
    let ping = within("a ping", away.ping()).await;
    assert!(matches!(&ping, Err(LogError::Unavailable(e)) if e.contains("127.0.0.1:1")), "{ping:?}");
    let results = within("a result", away.publish(vec![outgoing(&missing, "key", "x")])).await;
    assert!(matches!(&results[0], Err(LogError::Unavailable(_))), "{results:?}");

    let mut wrong = settings(&brokers);
    wrong.extra.insert("no.such.setting".to_owned(), "secret-value".to_owned());
    let error = Kafka::new(wrong).err().expect("refused").to_string();
    assert!(error.contains("no.such.setting") && !error.contains("secret-value"), "{error}");
}

#[tokio::test]
async fn a_follower_catches_up_behind_gaps() {
    let brokers = brokers();
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let topic = topic(&log, 5).await;
    // one key: four partitions stay empty
    for result in log.publish((0..100).map(|i| outgoing(&topic, "one", &i.to_string())).collect()).await {
        result.expect("published");
    }
    // what a transaction leaves behind when it is given up: offsets without a record, at the very end
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers).set("transactional.id", topic.as_ref());
    let other: BaseProducer = config.create().expect("a producer");
    let patience = Duration::from_secs(10);
    other.init_transactions(patience).expect("transactions");
    other.begin_transaction().expect("begun");
    other.send(BaseRecord::to(&topic).key("key-7").payload("never seen")).map_err(|(e, _)| e).expect("sent");
    other.flush(patience).expect("written");
    other.abort_transaction(patience).expect("given up");

    let mut follower = log.follow(&topic).await.expect("a follower");
    let mut seen = Vec::new();
    within("caught up", async {
        loop {
            match follower.next().await.expect("an event") {
                FollowEvent::Records(records) => seen.extend(records),
                FollowEvent::CaughtUp => return,
            }
        }
    })
    .await;
    assert_eq!(seen.len(), 100);
    publish(&log, &topic, 0..10).await;
    within("what came later", async {
        while seen.len() < 110 {
            match follower.next().await.expect("an event") {
                FollowEvent::Records(records) => seen.extend(records),
                FollowEvent::CaughtUp => panic!("said twice"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn concurrent_creators_agree() {
    let brokers = brokers();
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let specs = [TopicSpec { cleanup: Cleanup::Compact, ..spec(&unique("creators"), 3) }];
    let (one, two) = tokio::join!(log.ensure_topics(&specs), log.ensure_topics(&specs));
    let (one, two) = (one.expect("a report"), two.expect("a report"));
    assert!(one[0].created ^ two[0].created, "one of them has created it: {one:?} {two:?}");
    let copies = [TopicSpec { replication: 5, ..spec(&unique("copies"), 1) }];
    let error = log.ensure_topics(&copies).await.expect_err("one broker has no five copies");
    assert!(matches!(&error, LogError::Topic { detail, .. } if detail.contains("brokers")), "{error}");
}

#[tokio::test]
async fn throughput() {
    const COUNT: usize = 100_000;
    let brokers = brokers();
    let log = Arc::new(Kafka::new(settings(&brokers)).expect("settings"));
    let topic = topic(log.as_ref(), 6).await;
    let value = "v".repeat(512);
    let started = Instant::now();
    // eight publishers, each with one batch of 500 at a time
    let publishers = (0..8).map(|_| {
        let (log, topic, value) = (log.clone(), topic.clone(), value.clone());
        tokio::spawn(async move {
            for batch in 0..COUNT / 8 / 500 {
                let records = (0..500).map(|i| outgoing(&topic, &format!("key-{}", batch * 500 + i), &value)).collect();
                assert!(log.publish(records).await.iter().all(Result::is_ok));
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("published");
    }
    let published = started.elapsed();
    let mut member = Member::join(log.as_ref(), &unique("group"), &topic).await;
    let started = Instant::now();
    member.until("all records", |m| m.records.len() == COUNT).await;
    let per_second = |elapsed: Duration| (COUNT as f64 / elapsed.as_secs_f64()).round();
    println!(
        "throughput, 512-byte values, this build: {} records/s published, {} records/s consumed (joining included)",
        per_second(published),
        per_second(started.elapsed())
    );
    member.assert_each_once();
}
