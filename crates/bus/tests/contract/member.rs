//! A member of a group that notes what it has seen, and the makings of topics and records.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bus::{
    Cleanup, Event, Headers, Log, LogError, Outgoing, Partition, Position, Record, Revoked, Subscription, TopicSpec,
};
use tokio::time::timeout;

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// A name that no other test and no other run uses.
pub fn unique(name: &str) -> Arc<str> {
    format!("test.{name}.{:016x}", fastrand::u64(..)).into()
}

pub fn spec(name: &Arc<str>, partitions: i32) -> TopicSpec {
    TopicSpec {
        name: name.clone(),
        partitions,
        replication: 1,
        cleanup: Cleanup::Delete,
        retention_ms: 3_600_000,
        max_message_bytes: 64 * 1024,
    }
}

pub async fn topic(log: &dyn Log, partitions: i32) -> Arc<str> {
    let name = unique("topic");
    within("a topic", log.ensure_topics(&[spec(&name, partitions)])).await.expect("the topic is created");
    name
}

pub fn outgoing(topic: &Arc<str>, key: &str, value: &str) -> Outgoing {
    Outgoing {
        topic: topic.clone(),
        key: Some(key.to_owned().into()),
        headers: Headers::default(),
        value: Some(value.to_owned().into()),
    }
}

/// Publishes the numbers of the range, each with a key of its own.
pub async fn publish(log: &dyn Log, topic: &Arc<str>, numbers: std::ops::Range<usize>) -> Vec<Position> {
    let batch = numbers.map(|i| outgoing(topic, &format!("key-{i}"), &i.to_string())).collect();
    within("a publish", log.publish(batch)).await.into_iter().collect::<Result<_, LogError>>().expect("published")
}

pub fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.value.clone().expect("a value").into()).expect("text")).collect()
}

pub struct Member {
    pub log: Box<dyn Subscription>,
    pub owned: BTreeSet<Partition>,
    pub records: Vec<Record>,
}

impl Member {
    pub async fn join(log: &dyn Log, group: &str, topic: &Arc<str>) -> Self {
        let log =
            within("to join", log.subscribe(group, std::slice::from_ref(topic), Duration::ZERO)).await.expect("joined");
        Self { log, owned: BTreeSet::new(), records: Vec::new() }
    }

    /// Takes one event; a revocation is handed back, its partitions no longer counted as owned.
    pub async fn step(&mut self) -> Option<Revoked> {
        match self.log.next().await.expect("an event") {
            Event::Assigned(partitions) => {
                assert!(partitions.into_iter().all(|p| self.owned.insert(p)), "assigned twice");
            }
            Event::Records(records) => {
                assert!(records.iter().all(|r| self.owned.contains(&r.at.partition)), "records of our partitions only");
                self.records.extend(records);
            }
            Event::Revoked(revoked) => {
                assert!(revoked.partitions.iter().all(|p| self.owned.remove(p)), "revoked without being owned");
                return Some(revoked);
            }
        }
        None
    }

    /// Goes on until it has as much as that; a revocation is released at once.
    pub async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        within(what, async {
            while !done(self) {
                self.step().await;
            }
        })
        .await;
    }

    pub async fn until_seen(&mut self, count: usize) {
        self.until("records", |m| m.records.len() >= count).await;
        assert_eq!(self.records.len(), count, "and no more");
    }

    /// What it does in a while, which must not be a revocation.
    pub async fn idle(&mut self) {
        let while_ = Duration::from_millis(300);
        let quiet = async {
            loop {
                assert!(self.step().await.is_none(), "a revocation");
            }
        };
        let _elapsed = timeout(while_, quiet).await.is_err();
    }

    pub async fn commit(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError> {
        within("a commit", self.log.commit(offsets)).await
    }

    /// Commits everything that it has seen of what it owns.
    pub async fn commit_seen(&mut self) {
        let seen = self.records.iter().filter(|r| self.owned.contains(&r.at.partition));
        let offsets = seen.map(|r| (r.at.partition.clone(), r.at.offset + 1)).collect();
        self.commit(&offsets).await.expect("committed");
    }

    pub fn offsets_of(&self, partition: &Partition) -> Vec<i64> {
        self.records.iter().filter(|r| r.at.partition == *partition).map(|r| r.at.offset).collect()
    }

    /// In order, none twice and none left out, from the first that it got.
    pub fn assert_each_once(&self) {
        for partition in self.records.iter().map(|r| &r.at.partition).collect::<BTreeSet<_>>() {
            let offsets = self.offsets_of(partition);
            let expected: Vec<i64> = (offsets[0]..).take(offsets.len()).collect();
            assert_eq!(offsets, expected, "{partition}");
        }
    }
}
