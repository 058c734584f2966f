//! A member's side of a rebalance: runs on the polling thread, inside librdkafka's callbacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use tokio::sync::mpsc;

use super::{client, lock, records::TopicNames};
use crate::{LogError, Partition, Record, Revoked};

/// How librdkafka begins to say that the coordinator was asked for committed offsets in vain, as while it moves.
const NO_OFFSETS: &str = "Failed to fetch committed offset";

/// What the polling thread tells the subscription.
pub(super) enum Said {
    /// The partitions, and the number of the assignment.
    Assigned(Vec<Partition>, u64),
    Records(Vec<Record>),
    Revoked(Revoked),
}

/// What the polling thread and the subscription both see.
#[derive(Default)]
pub(super) struct Shared {
    /// Partitions that are ours, each with the number of its assignment. Held during a commit, so that none is under way
    /// when a partition is given up.
    pub(super) owned: Mutex<BTreeMap<Partition, u64>>,
    /// Partitions whose delivery is to rest.
    pub(super) paused: Mutex<BTreeSet<Partition>>,
    /// The subscription is gone.
    pub(super) stop: AtomicBool,
    /// Partitions are ours, and librdkafka does not know where to begin.
    pub(super) stranded: AtomicBool,
}

/// The context of a group's consumer.
pub(super) struct Membership {
    pub(super) shared: Arc<Shared>,
    said: mpsc::Sender<Result<Said, LogError>>,
    drain_timeout: Duration,
    thread: Mutex<OnThread>,
}

/// What belongs to the polling thread; in a lock only because a context is shared by its type.
#[derive(Default)]
struct OnThread {
    batch: Vec<Record>,
    topics: TopicNames,
    /// Partitions that librdkafka was told to pause.
    resting: BTreeSet<Partition>,
    assignments: u64,
}

impl Membership {
    pub(super) fn new(
        shared: Arc<Shared>,
        said: mpsc::Sender<Result<Said, LogError>>,
        drain_timeout: Duration,
        topics: TopicNames,
    ) -> Self {
        Self { shared, said, drain_timeout, thread: Mutex::new(OnThread { topics, ..OnThread::default() }) }
    }

    pub(super) fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Keeps a record for the next [`Membership::hand_over`].
    pub(super) fn keep(&self, record: Record) {
        lock(&self.thread).batch.push(record);
    }

    /// Sends the records that were kept. `false` when nobody listens any more.
    pub(super) fn hand_over(&self) -> bool {
        let batch = std::mem::take(&mut lock(&self.thread).batch);
        batch.is_empty() || self.say(Ok(Said::Records(batch)))
    }

    /// Blocks while the subscription is behind.
    pub(super) fn say(&self, what: Result<Said, LogError>) -> bool {
        self.said.blocking_send(what).is_ok()
    }

    /// Brings librdkafka's pauses in line with what is wanted. Only here, since a pause beside a poll may deliver a record
    /// twice, and only for our partitions, since librdkafka remembers a pause until the partition comes back.
    pub(super) fn rest(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let wanted = lock(&self.shared.paused).clone();
        let mut thread = lock(&self.thread);
        if wanted == thread.resting {
            return Ok(());
        }
        let owned = lock(&self.shared.owned);
        let wanted: BTreeSet<_> = wanted.into_iter().filter(|p| owned.contains_key(p)).collect();
        drop(owned);
        consumer.pause(&list(wanted.difference(&thread.resting)))?;
        consumer.resume(&list(thread.resting.difference(&wanted)))?;
        thread.resting = wanted;
        Ok(())
    }

    fn assigned(&self, partitions: &TopicPartitionList) {
        let partitions = self.names(partitions);
        if partitions.is_empty() || self.stopped() {
            return;
        }
        let mut thread = lock(&self.thread);
        thread.assignments += 1;
        let assignment = thread.assignments;
        drop(thread);
        tracing::info!(partitions = partitions.len(), topics = topics(&partitions), "reads partitions");
        lock(&self.shared.owned).extend(partitions.iter().map(|p| (p.clone(), assignment)));
        self.say(Ok(Said::Assigned(partitions, assignment)));
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let names = self.names(partitions);
        if names.is_empty() || self.stopped() {
            return;
        }
        let lost = consumer.assignment_lost();
        tracing::info!(partitions = names.len(), topics = topics(&names), lost, "gives partitions up");
        if lost {
            self.disown(&names);
        }
        let (revoked, mut released) = Revoked::new(names.clone(), lost);
        if self.hand_over() && self.say(Ok(Said::Revoked(revoked))) && !wait(&mut released, self.drain_timeout) {
            tracing::warn!("a revocation was not released in time; what is in flight may be delivered again");
        }
        self.disown(&names);
    }

    fn disown(&self, partitions: &[Partition]) {
        let mut owned = lock(&self.shared.owned);
        for partition in partitions {
            owned.remove(partition);
        }
    }

    fn names(&self, partitions: &TopicPartitionList) -> Vec<Partition> {
        let mut thread = lock(&self.thread);
        let elements = partitions.elements();
        elements.iter().map(|e| Partition { topic: thread.topics.of(e.topic()), index: e.partition() }).collect()
    }
}

/// The names of their topics, for a log.
fn topics(partitions: &[Partition]) -> String {
    let names: BTreeSet<&str> = partitions.iter().map(|p| &*p.topic).collect();
    Vec::from_iter(names).join(", ")
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka (2.12) does not ask again: partitions that are ours would be read by nobody, until the group changes
        if reason.starts_with(NO_OFFSETS) {
            self.shared.stranded.store(true, Ordering::Relaxed);
        }
        client::error_of(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.revoked(consumer, partitions);
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => self.assigned(partitions),
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance has failed, librdkafka tries again"),
        }
    }
}

pub(super) fn list<'a>(partitions: impl Iterator<Item = &'a Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.index);
    }
    list
}

/// Waits on a thread of its own for something asynchronous. `false` when the time is over.
fn wait(future: impl Future, patience: Duration) -> bool {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = Instant::now() + patience;
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::park_timeout(left);
    }
    true
}
