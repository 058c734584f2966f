//! The embedded log for those who choose partition and offset themselves.

use std::{sync::Arc, time::Duration};

use bus::{
    Cleanup, Log, LogError, Outgoing, Partition, TopicSpec,
    embedded::{AppendError, Appended, Embedded, Sequence},
};
use tempfile::TempDir;

use crate::{
    embedded::{open, reopen},
    member::{outgoing, publish, spec, topic, unique, values, within},
};

fn numbered(epoch: i16, first: i32) -> Option<Sequence> {
    Some(Sequence { producer: 4711, epoch, first })
}

fn batch(partition: &Partition, size: usize) -> Vec<Outgoing> {
    (0..size).map(|i| outgoing(&partition.topic, "key", &i.to_string())).collect()
}

async fn append(log: &Embedded, to: &Partition, size: usize, s: Option<Sequence>) -> Result<Appended, AppendError> {
    within("an append", log.append(to, batch(to, size), s)).await
}

#[tokio::test]
async fn a_numbered_batch_is_appended_once_and_in_order() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let name = topic(&log, 2).await;
    let (to, other) = (Partition { topic: name.clone(), index: 1 }, Partition { topic: name, index: 0 });

    let again = (0..20).map(|_| append(&log, &to, 3, numbered(0, 0)));
    let first = futures::future::try_join_all(again).await.expect("appended");
    assert!(first.iter().all(|appended| *appended == first[0]), "{first:?}");
    assert_eq!(log.latest(&to).unwrap(), 3);
    assert!(matches!(append(&log, &to, 1, numbered(0, 4)).await, Err(AppendError::OutOfOrder)));
    assert!(matches!(append(&log, &to, 2, numbered(0, 0)).await, Err(AppendError::OutOfOrder)), "not the same batch");
    assert_eq!(append(&log, &other, 1, numbered(0, 90)).await.expect("unknown there").offset, 0);
    for at in 3..8 {
        assert_eq!(append(&log, &to, 1, numbered(0, at)).await.expect("in order").offset, i64::from(at));
    }
    assert!(matches!(append(&log, &to, 3, numbered(0, 0)).await, Err(AppendError::OutOfOrder)), "five are recognised");

    assert!(matches!(append(&log, &to, 1, numbered(1, 8)).await, Err(AppendError::OutOfOrder)), "an epoch begins at 0");
    assert_eq!(append(&log, &to, 1, numbered(1, 0)).await.expect("a new epoch").offset, 8);
    assert!(matches!(append(&log, &to, 1, numbered(0, 8)).await, Err(AppendError::Fenced)));
    drop(log);

    let log = reopen(dir.path()).await;
    assert_eq!(append(&log, &to, 1, numbered(1, 0)).await.expect("recognised after a restart").offset, 8);
    assert_eq!(log.latest(&to).unwrap(), 9);
    assert_eq!(append(&log, &other, 3, numbered(1, 0)).await.expect("a new epoch").offset, 1);
}

#[tokio::test]
async fn numbers_begin_again_after_the_largest_and_a_refused_batch_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let to = Partition { topic: topic(&log, 1).await, index: 0 };
    append(&log, &to, 2, numbered(0, i32::MAX - 1)).await.expect("up to the largest");
    append(&log, &to, 1, numbered(0, 0)).await.expect("and on");
    let mut large = batch(&to, 2);
    large[1].value = Some(vec![0; 65 * 1024].into());
    let refused = log.append(&to, large, numbered(0, 1)).await;
    assert!(matches!(refused, Err(AppendError::Log(LogError::TooLarge(_)))));
    assert_eq!(log.latest(&to).unwrap(), 3);
    append(&log, &to, 1, numbered(0, 1)).await.expect("its number is still free");
    let nowhere = Partition { index: 1, ..to };
    assert!(matches!(append(&log, &nowhere, 1, None).await, Err(AppendError::Log(LogError::Topic { .. }))));
}

#[tokio::test]
async fn a_file_of_the_first_version_learns_of_producers() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let to = Partition { topic: topic(&log, 1).await, index: 0 };
    publish(&log, &to.topic, 0..3).await;
    drop(log);
    drop(reopen(dir.path()).await);
    let old = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    old.busy_timeout(Duration::from_secs(10)).unwrap();
    old.execute_batch("DROP TABLE produced; PRAGMA user_version = 1").unwrap();
    drop(old);
    let log = reopen(dir.path()).await;
    assert_eq!(append(&log, &to, 1, numbered(0, 0)).await.expect("appended").offset, 3);
}

#[tokio::test]
async fn records_are_found_by_offset_and_by_time() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let to = Partition { topic: topic(&log, 1).await, index: 0 };
    assert_eq!((log.earliest(&to).await.unwrap(), log.latest(&to).unwrap()), (0, 0));
    assert_eq!(log.since(&to, 0).await.unwrap(), None);
    let changed = log.changed([to.topic.as_ref()]);
    let mut times = Vec::new();
    for i in 0..40 {
        publish(&log, &to.topic, i..i + 1).await;
        times.push(log.fetch(&to, i64::try_from(i).unwrap(), 1).await.unwrap()[0].timestamp_ms);
    }
    within("the news of it", changed.notified()).await;
    for wanted in [0, times[0], times[17], times[39], times[39] + 1] {
        let expected = times.iter().position(|time| *time >= wanted).map(|at| (i64::try_from(at).unwrap(), times[at]));
        assert_eq!(log.since(&to, wanted).await.unwrap(), expected);
    }
    assert_eq!(values(&log.fetch(&to, 38, usize::MAX).await.unwrap()), ["38", "39"]);
    assert_eq!(log.fetch(&to, 0, 1).await.unwrap().len(), 1, "at least one");
    assert_eq!(log.fetch(&to, 0, 12).await.unwrap().len(), 2, "up to the limit: 6 bytes each");
    assert!(log.fetch(&to, 40, 1000).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_offset_moves_with_retention_and_never_with_compaction() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).expect("a log");
    let names: [Arc<str>; 2] = [unique("delete"), unique("compact")];
    let rules = [(Cleanup::Delete, 0), (Cleanup::Compact, 3_600_000)];
    let specs = [0, 1].map(|i| TopicSpec { cleanup: rules[i].0, retention_ms: rules[i].1, ..spec(&names[i], 1) });
    log.ensure_topics(&specs).await.expect("created");
    let [old, compacted] = names.map(|topic| Partition { topic, index: 0 });
    for to in [&old, &compacted] {
        append(&log, to, 5, None).await.expect("appended");
    }
    within("both cleaned", async { while log.clean().await.unwrap() == 0 || log.earliest(&old).await.unwrap() < 5 {} })
        .await;
    assert_eq!((log.earliest(&old).await.unwrap(), log.latest(&old).unwrap()), (5, 5));
    assert_eq!((log.earliest(&compacted).await.unwrap(), log.latest(&compacted).unwrap()), (0, 5));
    assert_eq!(values(&log.fetch(&compacted, 0, 1000).await.unwrap()), ["4"]);
}
