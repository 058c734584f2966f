//! The log as a trait, in the words of Kafka. Three adapters pass one contract suite (`tests/contract/`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{Outgoing, Partition, Position, Record, TopicSpec};

/// What can go wrong with a log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// It does not answer, or not in time; later it may. The outcome of a publish is then open.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The topic is missing or cannot be used; an operator has to act.
    #[error("topic {topic}: {detail}")]
    Topic {
        /// The full topic name.
        topic: String,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// The record is larger than the topic takes; it will never be taken.
    #[error("the record is too large: {0}")]
    TooLarge(String),
    /// There is no room, on disk or in the queue; nothing was written.
    #[error("the log is full: {0}")]
    Full(String),
    /// The partition was given to another member in the meantime.
    #[error("the partition is no longer assigned")]
    NotAssigned,
}

/// A log of partitioned topics.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Publishes a batch; resolves when each record is durable or has failed, with one result per record in order.
    /// Records of the same key keep their order.
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>>;

    /// Joins a group. A group begins at the oldest record. The log may keep records back for up to `gather`, so that more of them
    /// come at once; where each reading costs a request of its own, that is cheaper.
    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError>;

    /// Reads a whole topic from its beginning, without a group, and goes on for ever.
    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError>;

    /// Creates the topics that are missing. Those that exist keep their partitions; a difference is in the report.
    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError>;

    /// Answers when the log can be reached, for `/health` and for the start.
    async fn ping(&self) -> Result<(), LogError>;
}

/// What [`Log::ensure_topics`] found or did for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    /// The full name.
    pub name: String,
    /// It was missing and is there now.
    pub created: bool,
    /// Partitions that it has.
    pub partitions: i32,
    /// Partitions that were asked for.
    pub wanted: i32,
}

/// A membership in a group. Dropping it leaves the group without a commit.
#[async_trait]
pub trait Subscription: Send {
    /// The next event. Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self) -> Result<Event, LogError>;

    /// Commits for each partition the offset **after** the last finished record. Resolves when it is durable.
    /// `NotAssigned` is no fault: the new owner reads again from the last commit.
    async fn commit(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError>;

    /// Stops the delivery of a partition's records, which stay in the log.
    fn pause(&mut self, partition: &Partition);

    /// Takes the delivery up again.
    fn resume(&mut self, partition: &Partition);

    /// Leaves the group; its partitions go to the other members at once.
    async fn close(self: Box<Self>);
}

/// What a subscription has to say.
#[derive(Debug)]
pub enum Event {
    /// These partitions are now ours; their records follow, from the last commit on.
    Assigned(Vec<Partition>),
    /// Records in order, per partition; of one or several partitions that are ours.
    Records(Vec<Record>),
    /// These partitions are to be given up.
    Revoked(Revoked),
}

/// A revocation: the log waits (a bounded time) until it is dropped or [`Revoked::release`]d; until then commits for
/// these partitions are still taken, unless they are `lost`.
#[derive(Debug)]
pub struct Revoked {
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// Somebody else has them already; a commit would be wrong.
    pub lost: bool,
    done: Option<oneshot::Sender<()>>,
}

impl Revoked {
    /// A revocation, and the receiver that resolves (or errs) when it is released.
    pub fn new(partitions: Vec<Partition>, lost: bool) -> (Self, oneshot::Receiver<()>) {
        let (done, released) = oneshot::channel();
        (Self { partitions, lost, done: Some(done) }, released)
    }

    /// Nothing of these partitions is in flight any more, and what was finished is committed.
    pub fn release(mut self) {
        if let Some(done) = self.done.take() {
            // the log may have stopped waiting
            let _late = done.send(());
        }
    }
}

/// A reader of a whole topic.
#[async_trait]
pub trait Follow: Send {
    /// The next event. Cancel-safe.
    async fn next(&mut self) -> Result<FollowEvent, LogError>;
}

/// What a follower sees.
#[derive(Debug)]
pub enum FollowEvent {
    /// More records; per partition in order.
    Records(Vec<Record>),
    /// Everything that was in the topic when `follow` was called has been delivered. Said once.
    CaughtUp,
}
