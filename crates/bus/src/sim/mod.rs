//! The log of the tests: in memory, deterministic, and full of faults on request.
//!
//! Run it on a current-thread runtime with Tokio's time paused: the same seed then gives the same [`Sim::trace`], as long
//! as the code on top takes no chances of its own (`select!` without `biased`, hash maps in iteration, other clocks).

mod faults;
mod follow;
mod subscription;
mod trace;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};

use crate::{
    Follow, Log, LogError, Outgoing, Partition, Position, Record, Subscription, TopicSpec, group::Groups,
    log::TopicReport, record::partition_of,
};
pub use faults::Faults;
pub use trace::{Id, Step};

/// The clock of the records starts here, whenever the test runs.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// How long a revoked partition waits for its old owner.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

/// The simulated log. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct Sim(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    groups: Arc<Groups>,
    faults: Faults,
    start: Instant,
}

struct State {
    chance: fastrand::Rng,
    healed: bool,
    topics: BTreeMap<Arc<str>, Topic>,
    committed: BTreeMap<(Arc<str>, Partition), i64>,
    trace: Vec<(Duration, Step)>,
    /// Those who wait for an append.
    readers: Vec<Weak<Notify>>,
}

struct Topic {
    spec: TopicSpec,
    parts: Vec<Vec<Record>>,
    turn: usize,
}

impl Sim {
    /// An empty log whose every choice follows from `seed`.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let state = State {
            chance: fastrand::Rng::with_seed(seed),
            healed: false,
            topics: BTreeMap::new(),
            committed: BTreeMap::new(),
            trace: Vec::new(),
            readers: Vec::new(),
        };
        let groups = Groups::new(RELEASE_WITHIN);
        Self(Arc::new(Shared { state: Mutex::new(state), groups, faults, start: Instant::now() }))
    }

    /// From now on nothing goes wrong any more, so that everything can come to its end.
    pub fn heal(&self) {
        self.0.lock().healed = true;
    }

    /// Everything that a topic holds, partition by partition.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        self.0.lock().topics.get(topic).map_or_else(Vec::new, |topic| topic.parts.concat())
    }

    /// What a group has committed in a partition: the offset after the last finished record.
    pub fn committed(&self, group: &str, partition: &Partition) -> Option<i64> {
        self.0.lock().committed.get(&(group.into(), partition.clone())).copied()
    }

    /// Everything that happened, with the time since the start.
    pub fn trace(&self) -> Vec<(Duration, Step)> {
        self.0.lock().trace.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, state: &mut State, step: Step) {
        state.trace.push((self.start.elapsed(), step));
    }

    /// Waits a while, by chance.
    async fn dawdle(&self, probability: f64) {
        let pause = self.lock().pause(probability, self.faults.longest);
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }

    /// Appends one record, or fails, or does both.
    fn append(&self, state: &mut State, record: Outgoing) -> Result<Position, LogError> {
        let topic = state.topic(&record.topic)?;
        let (size, most) = (size(&record), topic.spec.max_message_bytes);
        if !i32::try_from(size).is_ok_and(|size| size <= most) {
            return Err(LogError::TooLarge(format!("{size} bytes, {} takes {most}", record.topic)));
        }
        if state.happens(self.faults.publish_refused) {
            self.note(state, Step::Refused { topic: record.topic });
            return Err(LogError::Unavailable("a simulated fault, nothing was written".into()));
        }
        let timestamp_ms = EPOCH_MS + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(0);
        let at = state.topic(&record.topic)?.push(record, timestamp_ms);
        let doubtful = state.happens(self.faults.publish_doubtful);
        self.note(state, Step::Published { at: at.clone(), doubtful });
        if doubtful {
            return Err(LogError::Unavailable("a simulated fault, the outcome is open".into()));
        }
        Ok(at)
    }
}

impl State {
    fn happens(&mut self, probability: f64) -> bool {
        // no draw for a fault that is off, so that it can be added without changing the schedules of the others
        !self.healed && probability > 0.0 && self.chance.f64() < probability
    }

    fn pause(&mut self, probability: f64, longest: Duration) -> Option<Duration> {
        self.happens(probability).then(|| longest.mul_f64(self.chance.f64()))
    }

    fn topic(&mut self, name: &str) -> Result<&mut Topic, LogError> {
        self.topics.get_mut(name).ok_or_else(|| LogError::Topic {
            topic: name.to_owned(),
            detail: "it does not exist; `carillon topics` creates what is missing".into(),
        })
    }

    fn part(&self, partition: &Partition) -> &[Record] {
        let index = usize::try_from(partition.index).unwrap_or(usize::MAX);
        self.topics.get(&partition.topic).and_then(|t| t.parts.get(index)).map_or(&[], Vec::as_slice)
    }

    fn head(&self, partition: &Partition) -> i64 {
        i64::try_from(self.part(partition).len()).unwrap_or(i64::MAX)
    }

    /// Up to `most` records from an offset on.
    fn read(&self, partition: &Partition, from: i64, most: usize) -> Vec<Record> {
        let from = usize::try_from(from).unwrap_or(0);
        self.part(partition).iter().skip(from).take(most).cloned().collect()
    }

    fn wake(&mut self) {
        self.readers.retain(|reader| {
            reader.upgrade().is_some_and(|wake| {
                wake.notify_one();
                true
            })
        });
    }
}

impl Topic {
    fn count(&self) -> i32 {
        i32::try_from(self.parts.len()).unwrap_or(i32::MAX)
    }

    fn push(&mut self, record: Outgoing, timestamp_ms: i64) -> Position {
        let index = match &record.key {
            Some(key) => usize::try_from(partition_of(key, self.count())).unwrap_or(0),
            None => {
                self.turn += 1;
                self.turn % self.parts.len()
            }
        };
        let Outgoing { topic, key, headers, value } = record;
        let part = &mut self.parts[index];
        let offset = i64::try_from(part.len()).unwrap_or(i64::MAX);
        let at = Position { partition: Partition { topic, index: i32::try_from(index).unwrap_or(0) }, offset };
        part.push(Record { at: at.clone(), timestamp_ms, key, headers, value });
        at
    }
}

fn size(record: &Outgoing) -> usize {
    let headers: usize = record.headers.0.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len()) + headers
}

#[async_trait]
impl Log for Sim {
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        self.0.dawdle(self.0.faults.publish_slow).await;
        let results = {
            let mut state = self.0.lock();
            let results = batch.into_iter().map(|record| self.0.append(&mut state, record)).collect();
            state.wake();
            results
        };
        self.0.dawdle(self.0.faults.publish_slow).await;
        results
    }

    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        _gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError> {
        Ok(Box::new(subscription::subscribe(&self.0, group, topics)?))
    }

    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError> {
        Ok(Box::new(follow::follow(&self.0, topic)?))
    }

    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
        if let Some(spec) = specs.iter().find(|spec| spec.partitions < 1) {
            let detail = "it needs at least one partition".into();
            return Err(LogError::Topic { topic: spec.name.to_string(), detail });
        }
        let mut state = self.0.lock();
        let report = |spec: &TopicSpec| {
            let wanted = spec.partitions;
            let created = !state.topics.contains_key(&spec.name);
            let fresh = || Topic { spec: spec.clone(), parts: (0..wanted).map(|_| Vec::new()).collect(), turn: 0 };
            let topic = state.topics.entry(Arc::clone(&spec.name)).or_insert_with(fresh);
            topic.spec = spec.clone();
            TopicReport { name: spec.name.to_string(), created, partitions: topic.count(), wanted }
        };
        Ok(specs.iter().map(report).collect())
    }

    async fn ping(&self) -> Result<(), LogError> {
        Ok(())
    }
}
