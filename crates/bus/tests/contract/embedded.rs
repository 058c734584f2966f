//! The suite on the embedded log, and what it alone promises: the file, its room and its cleaning.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Cleanup, FollowEvent, Log, LogError, Outgoing, Record, TopicSpec,
    embedded::{Embedded, EmbeddedSettings},
};
use tempfile::TempDir;

use crate::{
    member::{Member, outgoing, publish, spec, topic, unique, values, within},
    suite::Fixture,
};

pub fn open(dir: &Path) -> Result<Embedded, LogError> {
    Embedded::open(dir, EmbeddedSettings::default())
}

/// The thread that closes a file may take a moment after its last handle is gone.
pub async fn reopen(dir: &Path) -> Embedded {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match open(dir) {
            Ok(log) => return log,
            Err(e) if Instant::now() > deadline => panic!("{e}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn fixture() -> Fixture {
    let dir = TempDir::new().expect("a directory");
    Fixture { log: Arc::new(open(dir.path()).expect("a log")), _keep: Box::new(dir) }
}

contract!(tokio::test, fixture);

mod on_two_threads {
    use super::fixture;
    contract!(tokio::test(flavor = "multi_thread", worker_threads = 2), fixture);
}

#[tokio::test]
async fn records_commits_and_topics_outlive_the_process() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("data").join("log");
    let (known, group) = (unique("topic"), unique("group"));
    let log = open(&dir).expect("it creates its directory");
    log.ensure_topics(&[spec(&known, 2)]).await.expect("created");
    publish(&log, &known, 0..20).await;
    let mut member = Member::join(&log, &group, &known).await;
    member.until_seen(20).await;
    member.commit_seen().await;
    publish(&log, &known, 20..25).await;
    drop((log, member));

    let log = reopen(&dir).await;
    let mut member = Member::join(&log, &group, &known).await;
    member.until_seen(5).await;
    let report = log.ensure_topics(&[spec(&known, 2)]).await.expect("a report");
    assert!(!report[0].created);
    let offsets: i64 = publish(&log, &known, 25..26).await.iter().map(|at| at.offset).sum();
    assert!(offsets > 0, "offsets go on");
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_what_to_do() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path()).expect("a log");
    let error = open(dir.path()).err().expect("refused").to_string();
    assert!(error.contains("another process") && error.contains("stop it"), "{error}");
    // a subscription alone keeps the file open as well
    let topic = topic(&first, 1).await;
    let member = Member::join(&first, "g", &topic).await;
    drop(first);
    assert!(open(dir.path()).is_err());
    drop(member);
    reopen(dir.path()).await;
}

#[tokio::test]
async fn a_newer_file_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).expect("a log"));
    drop(reopen(dir.path()).await);
    let change = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    change.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(change);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let error = open(dir.path()).err().expect("refused").to_string();
        if error.contains("newer version") {
            break;
        }
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test]
async fn a_full_log_takes_nothing_and_goes_on_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    let settings = EmbeddedSettings { max_bytes: Some(2_000_000), ..EmbeddedSettings::default() };
    let log = Embedded::open(dir.path(), settings).expect("a log");
    let (topic, group) = (unique("topic"), unique("group"));
    let short = TopicSpec { retention_ms: 0, ..spec(&topic, 1) };
    log.ensure_topics(&[short]).await.expect("created");
    let mut member = Member::join(&log, &group, &topic).await;
    let value = "x".repeat(10_000);
    let (mut written, mut full) = (0, None);
    while full.is_none() {
        for result in log.publish(vec![outgoing(&topic, "key", &value); 10]).await {
            match result {
                Ok(_) => written += 1,
                Err(e) => full = Some(e),
            }
        }
    }
    assert!(matches!(full, Some(LogError::Full(_))), "{full:?}");
    assert!((150..200).contains(&written) && written % 10 == 0, "all of a call or nothing: {written}");
    member.until_seen(written).await;
    member.commit_seen().await;
    cleaned(&log, u64::try_from(written).unwrap()).await;
    assert!(log.publish(vec![outgoing(&topic, "key", &value)]).await[0].is_ok());
}

/// Cleans until so many records are gone: those of this millisecond are too young.
async fn cleaned(log: &Embedded, count: u64) {
    let mut deleted = 0;
    within("a clean log", async {
        while deleted < count {
            deleted += log.clean().await.expect("cleaned");
        }
    })
    .await;
    assert_eq!(deleted, count);
}

async fn all_of(log: &dyn Log, topic: &str) -> Vec<Record> {
    let (mut follower, mut all) = (log.follow(topic).await.expect("a follower"), Vec::new());
    while let FollowEvent::Records(records) = within("records", follower.next()).await.expect("an event") {
        all.extend(records);
    }
    all
}

#[tokio::test]
async fn only_what_is_old_and_finished_by_every_group_is_deleted() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let (topic, fresh) = (unique("old"), unique("fresh"));
    log.ensure_topics(&[TopicSpec { retention_ms: 0, ..spec(&topic, 1) }, spec(&fresh, 1)]).await.expect("created");
    publish(&log, &topic, 0..30).await;
    publish(&log, &fresh, 0..30).await;
    let mut quick = Member::join(&log, "quick", &topic).await;
    let mut slow = Member::join(&log, "slow", &topic).await;
    quick.until_seen(30).await;
    slow.until_seen(30).await;
    quick.commit_seen().await;
    assert_eq!(log.clean().await.expect("cleaned"), 0, "the other group has not committed anything");

    let partition = slow.owned.first().expect("one").clone();
    slow.commit(&BTreeMap::from([(partition.clone(), 10)])).await.expect("committed");
    drop(slow);
    cleaned(&log, 10).await;
    assert_eq!(log.clean().await.expect("cleaned"), 0, "a group that is away is waited for");
    assert_eq!(all_of(&log, &topic).await[0].at.offset, 10);
    assert_eq!(all_of(&log, &fresh).await.len(), 30, "too young");

    let mut slow = Member::join(&log, "slow", &topic).await;
    slow.until_seen(20).await;
    slow.commit_seen().await;
    cleaned(&log, 20).await;
    drop((quick, slow, log));
    let log = reopen(dir.path()).await;
    let at = publish(&log, &topic, 30..31).await;
    assert_eq!(at[0].offset, 30, "an empty partition goes on counting");
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_latest_of_each_key() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let topic = unique("config");
    let compact = TopicSpec { cleanup: Cleanup::Compact, retention_ms: 0, ..spec(&topic, 1) };
    log.ensure_topics(&[TopicSpec { retention_ms: 3_600_000, ..compact.clone() }]).await.expect("created");
    let tombstone = |key| Outgoing { value: None, ..outgoing(&topic, key, "") };
    let batch = vec![
        outgoing(&topic, "a", "1"),
        outgoing(&topic, "b", "1"),
        outgoing(&topic, "a", "2"),
        tombstone("b"),
        outgoing(&topic, "c", "1"),
        tombstone("d"),
    ];
    assert!(log.publish(batch).await.iter().all(Result::is_ok));
    assert_eq!(log.clean().await.expect("cleaned"), 2);
    let offsets = |records: Vec<Record>| records.iter().map(|r| r.at.offset).collect::<Vec<_>>();
    assert_eq!(offsets(all_of(&log, &topic).await), [2, 3, 4, 5], "tombstones stay for their time");

    log.ensure_topics(&[compact]).await.expect("a shorter time");
    cleaned(&log, 1).await;
    assert_eq!(offsets(all_of(&log, &topic).await), [2, 4, 5], "the head stays, tombstone or not");
    // a reader in front of the gaps steps over them
    let mut member = Member::join(&log, "g", &topic).await;
    member.until_seen(3).await;
    publish(&log, &topic, 0..1).await;
    member.until_seen(4).await;
    assert_eq!(values(&member.records[3..]), ["0"]);
}

#[tokio::test]
async fn the_space_of_deleted_records_goes_back_to_the_disk() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let topic = unique("topic");
    log.ensure_topics(&[TopicSpec { retention_ms: 0, ..spec(&topic, 2) }]).await.expect("created");
    let size = || {
        let file = |name: &str| fs::metadata(dir.path().join(name)).map_or(0, |m| m.len());
        (file("log.db"), file("log.db-wal"))
    };
    let mut member = Member::join(&log, "g", &topic).await;
    let value = "x".repeat(1000);
    for call in 0..50 {
        let batch = (0..1000).map(|i| outgoing(&topic, &format!("{call}-{i}"), &value)).collect();
        assert!(log.publish(batch).await.iter().all(Result::is_ok));
    }
    member.until_seen(50_000).await;
    member.commit_seen().await;
    let kept = publish(&log, &topic, 0..100).await;
    let before = size();
    assert!(before.0 > 50_000_000, "{before:?}");
    cleaned(&log, 50_000).await;
    let after = size();
    println!("(file, write-ahead log): {before:?} became {after:?}");
    assert!(after.0 < before.0 / 10 && after.1 < before.1 / 2, "{before:?} became {after:?}");
    member.until_seen(50_000 + kept.len()).await;
}

#[tokio::test]
async fn a_caller_that_gives_up_wakes_the_readers_all_the_same() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let topic = topic(&log, 1).await;
    let mut member = Member::join(&log, "g", &topic).await;
    member.until("its partition", |m| m.owned.len() == 1).await;
    // polled once, which is enough to queue the write
    let given_up = futures::poll!(Box::pin(log.publish(vec![outgoing(&topic, "key", "1")])));
    assert!(given_up.is_pending());
    member.until_seen(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_share_commits_while_a_member_reads() {
    const COUNT: usize = 80_000;
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let topic = topic(&log, 6).await;
    let mut member = Member::join(&log, "g", &topic).await;
    let value = "v".repeat(512);
    let start = Instant::now();
    let publishers = (0..8).map(|_| {
        let (log, topic, value) = (log.clone(), topic.clone(), value.clone());
        tokio::spawn(async move {
            for call in 0..COUNT / 8 / 100 {
                let batch = (0..100).map(|i| outgoing(&topic, &format!("{call}-{i}"), &value)).collect();
                assert!(log.publish(batch).await.iter().all(Result::is_ok));
            }
            Instant::now()
        })
    });
    let publishers: Vec<_> = publishers.collect();
    member.until_seen(COUNT).await;
    let read = start.elapsed();
    member.assert_each_once();
    let mut published = Duration::ZERO;
    for publisher in publishers {
        published = published.max(publisher.await.expect("published") - start);
    }
    let mut alone: Vec<Duration> = Vec::new();
    for i in 0..500 {
        let start = Instant::now();
        publish(&log, &topic, i..i + 1).await;
        alone.push(start.elapsed());
    }
    alone.sort();
    let rate = |time: Duration| (COUNT as f64 / time.as_secs_f64()).round();
    println!("512-byte values, this build: {}/s published, {}/s read beside it", rate(published), rate(read));
    println!("one record at a time: p50 {:?}, p99 {:?}", alone[250], alone[495]);
}
