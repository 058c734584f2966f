//! A subscription: a consumer of a group, polled on a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak, atomic::Ordering},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{
    blocking,
    client::partitions,
    errors::{is_rebalance, unavailable},
    lock,
    membership::{Membership, Said, Shared},
    records::{Polled, TopicNames, poll},
    settings::{KafkaSettings, refused},
};
use crate::{Event, LogError, Partition, Record, Subscription};

/// Batches that may wait for the subscription; what is beyond stays with librdkafka.
const WAITING: usize = 4;
/// How often, and how far apart, a commit is tried while the group changes.
const TRIES: (u32, Duration) = (10, Duration::from_millis(50));
/// How long a commit is waited for. While a member joins again, librdkafka's commit stands behind that on the connection,
/// perhaps for as long as another member drains; it goes on by itself and the caller has more to do.
const COMMIT: Duration = Duration::from_secs(1);
/// The same for a commit that finds another one still under way.
const NEXT_COMMIT: Duration = Duration::from_millis(100);
/// How long leaving a group may take.
const LEAVE: Duration = Duration::from_secs(10);
/// How long a member that leaves waits for an answer of the coordinator.
const ANSWER: Duration = Duration::from_secs(2);

/// A membership in a group.
pub(super) struct Member {
    said: mpsc::Receiver<Result<Said, LogError>>,
    /// The thread has the consumer, so that it is gone with the thread.
    consumer: Weak<BaseConsumer<Membership>>,
    shared: Arc<Shared>,
    /// The assignments that the caller was told of.
    told: BTreeMap<Partition, u64>,
    /// Partitions that the caller was told to give up.
    revoked: BTreeSet<Partition>,
    paused: BTreeSet<Partition>,
    /// Records of paused partitions that were under way.
    held: BTreeMap<Partition, Vec<Record>>,
    /// Records of partitions that are not paused any more; older than any that are still to come.
    ready: Vec<Record>,
    /// A commit that nobody waits for any more; commits keep their order.
    committing: Option<JoinHandle<Result<(), LogError>>>,
    drain_timeout: Duration,
    ended: oneshot::Receiver<()>,
    _stop: Stop,
}

/// Ends the polling thread when it is dropped.
struct Stop(Arc<Shared>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Member {
    /// Joins; fails when the cluster does not answer or a topic is missing.
    pub(super) async fn join(
        settings: Arc<KafkaSettings>,
        group: String,
        topics: Vec<Arc<str>>,
        gather: Duration,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::default());
        let stop = Stop(shared.clone());
        let (sender, said) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        let drain_timeout = settings.drain_timeout;
        // the same for assignments and for records, so that the partitions of both are compared without a look at the names
        let names = TopicNames::known(topics.clone());
        let membership = Membership::new(shared.clone(), sender, drain_timeout, names.clone());
        let consumer = blocking(move || {
            let config = settings.consumer(&group, gather);
            let consumer = BaseConsumer::from_config_and_context(&config, membership).map_err(|e| refused(&e))?;
            for topic in &topics {
                partitions(consumer.client(), topic)?;
            }
            let wanted: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
            consumer.subscribe(&wanted).map_err(|e| unavailable(&e))?;
            let consumer = Arc::new(consumer);
            let weak = Arc::downgrade(&consumer);
            thread::Builder::new()
                .name(format!("kafka-{group}"))
                .spawn(move || run(consumer, names, end))
                .map_err(|e| LogError::Unavailable(e.to_string()))?;
            Ok(weak)
        })
        .await?;
        Ok(Self {
            said,
            consumer,
            shared,
            told: BTreeMap::new(),
            revoked: BTreeSet::new(),
            paused: BTreeSet::new(),
            held: BTreeMap::new(),
            ready: Vec::new(),
            committing: None,
            drain_timeout,
            ended,
            _stop: stop,
        })
    }

    /// The records that may be delivered; those of paused partitions are held back.
    fn sift(&mut self, records: Vec<Record>) -> Option<Event> {
        if self.paused.is_empty() {
            return Some(Event::Records(records));
        }
        let (held, free): (Vec<_>, _) = records.into_iter().partition(|r| self.paused.contains(&r.at.partition));
        for record in held {
            self.held.entry(record.at.partition.clone()).or_default().push(record);
        }
        (!free.is_empty()).then_some(Event::Records(free))
    }

    /// Commits after the commit before. Cancel-safe: what has begun goes on and is waited for by the next.
    async fn commit_in_turn(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError> {
        if let Some(earlier) = &mut self.committing {
            if let Ok(Err(error)) = earlier.await {
                tracing::debug!(%error, "a commit that was under way has failed");
            }
            self.committing = None;
        }
        let wanted: Vec<_> = offsets.iter().map(|(p, at)| (p.clone(), self.told.get(p).copied(), *at)).collect();
        let (shared, consumer) = (self.shared.clone(), self.consumer.upgrade());
        let consumer = consumer.ok_or_else(|| LogError::Unavailable("the subscription has ended".to_owned()))?;
        let task = self.committing.insert(spawn_blocking(move || commit(&shared, &consumer, &wanted)));
        let result = task.await;
        self.committing = None;
        result.unwrap_or_else(|e| Err(LogError::Unavailable(e.to_string())))
    }

    fn forget_pause(&mut self, partition: &Partition) {
        if self.paused.remove(partition) {
            lock(&self.shared.paused).remove(partition);
        }
    }
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self) -> Result<Event, LogError> {
        loop {
            let said = if self.ready.is_empty() {
                self.said.recv().await
            } else {
                Some(Ok(Said::Records(std::mem::take(&mut self.ready))))
            };
            match said {
                None => return Err(LogError::Unavailable("the subscription has ended".to_owned())),
                Some(Err(e)) => return Err(e),
                Some(Ok(Said::Records(records))) => {
                    if let Some(event) = self.sift(records) {
                        return Ok(event);
                    }
                }
                Some(Ok(Said::Assigned(partitions, assignment))) => {
                    for partition in &partitions {
                        self.told.insert(partition.clone(), assignment);
                        self.revoked.remove(partition);
                    }
                    return Ok(Event::Assigned(partitions));
                }
                Some(Ok(Said::Revoked(revoked))) => {
                    for partition in &revoked.partitions {
                        self.forget_pause(partition);
                        // not committed, so the next owner reads them
                        self.held.remove(partition);
                        self.revoked.insert(partition.clone());
                    }
                    return Ok(Event::Revoked(revoked));
                }
            }
        }
    }

    async fn commit(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError> {
        let last = offsets.keys().any(|p| self.revoked.contains(p));
        let patience = match &self.committing {
            _ if last => self.drain_timeout,
            Some(_) => NEXT_COMMIT,
            None => COMMIT,
        };
        let under_way = || Err(LogError::Unavailable("the commit is still under way".to_owned()));
        timeout(patience, self.commit_in_turn(offsets)).await.unwrap_or_else(|_| under_way())
    }

    fn pause(&mut self, partition: &Partition) {
        if self.paused.insert(partition.clone()) {
            lock(&self.shared.paused).insert(partition.clone());
        }
    }

    fn resume(&mut self, partition: &Partition) {
        self.forget_pause(partition);
        self.ready.extend(self.held.remove(partition).unwrap_or_default());
    }

    async fn close(self: Box<Self>) {
        let Self { said, committing, ended, _stop, .. } = *self;
        let leave = async move {
            if let Some(last) = committing
                && let Ok(Err(error)) = last.await
            {
                tracing::warn!(%error, "the last commit has failed, records will be read again");
            }
            // the thread may wait for room, or for the release of a revocation that lies in the channel
            drop((_stop, said));
            // it errs when the thread has panicked, which ends it as well
            let _ended = ended.await;
        };
        if timeout(LEAVE, leave).await.is_err() {
            tracing::warn!("leaving the group takes long; the others wait for the session's end");
        }
    }
}

/// The polling thread. The consumer leaves its group when it is dropped at the end.
fn run(consumer: Arc<BaseConsumer<Membership>>, mut topics: TopicNames, end: oneshot::Sender<()>) {
    let member = consumer.context().clone();
    while !member.stopped() {
        if let Err(error) = member.rest(&consumer) {
            tracing::warn!(%error, "could not pause or resume, it is tried again");
        }
        let polled = poll(&consumer, &mut topics, |polled| {
            if let Polled::Record(record) = polled {
                member.keep(record);
            }
        });
        if !member.hand_over() {
            break;
        }
        let stranded = || LogError::Unavailable("the committed offsets could not be fetched".to_owned());
        let whole = if member.shared.stranded.load(Ordering::Relaxed) { Err(stranded()) } else { polled };
        if let Err(error) = whole {
            // whoever joins anew asks anew
            member.say(Err(error));
            break;
        }
    }
    // for every way out of the loop: from here on nobody hears of a revocation
    member.shared.stop.store(true, Ordering::Relaxed);
    if lock(&member.shared.owned).is_empty() {
        leave_without_partitions(&consumer);
    }
    drop(member);
    drop(consumer);
    // nobody waits when the subscription was dropped
    let _dropped = end.send(());
}

/// A consumer that is closed without partitions does not tell the group that it leaves (librdkafka 2.12), and the others
/// wait for the end of its session. One that unsubscribes does, though not before the answers to its two requests to join.
/// The coordinator answers in order, so after a few more questions they are there, and what a leader does between them is
/// done.
fn leave_without_partitions(consumer: &BaseConsumer<Membership>) {
    let topics = consumer.subscription().unwrap_or_default();
    consumer.unsubscribe();
    for _question in 0..4 {
        let mut any = TopicPartitionList::new();
        if let Some(topic) = topics.elements().first() {
            any.add_partition(topic.topic(), 0);
        }
        if let Err(error) = consumer.committed_offsets(any, ANSWER) {
            tracing::debug!(%error, "the coordinator of the group does not answer");
            return;
        }
        // what comes is the next owner's
        let _unread = consumer.poll(Duration::from_millis(25));
    }
}

/// Commits what is ours; blocks. The broker itself would take an offset for any partition from any member.
fn commit(
    shared: &Shared,
    consumer: &BaseConsumer<Membership>,
    wanted: &[(Partition, Option<u64>, i64)],
) -> Result<(), LogError> {
    let (mut tries, pause) = TRIES;
    loop {
        let owned = lock(&shared.owned);
        let ours = wanted.iter().filter(|(p, told, _)| told.is_some() && owned.get(p) == told.as_ref());
        let mut list = TopicPartitionList::new();
        for (partition, _, offset) in ours {
            let added = list.add_partition_offset(&partition.topic, partition.index, Offset::Offset(*offset));
            added.map_err(|e| unavailable(&e))?;
        }
        let whole = if list.count() == wanted.len() { Ok(()) } else { Err(LogError::NotAssigned) };
        if list.count() == 0 {
            return whole;
        }
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => return whole,
            // a partition that is kept gets this as well, and can commit a moment later
            Err(e) if is_rebalance(&e) && tries > 0 => tries -= 1,
            Err(e) => return Err(unavailable(&e)),
        }
        drop(owned);
        thread::sleep(pause);
    }
}
