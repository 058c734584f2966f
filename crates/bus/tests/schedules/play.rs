//! One schedule: producers, members, crashes; and the claims.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus::{
    Cleanup, Headers, Log, Outgoing, Partition, Record, TopicSpec, Topics,
    consume::{ConsumeSettings, Pace, Stage, Vitals, Work, consume},
    dead::DeadLetters,
    sim::{Faults, Sim, Step},
    topic,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const RECORDS: usize = 60;
const KEYS: usize = 8;
const PARTITIONS: i32 = 3;
pub(super) const POISON: &str = "poison";

type At = (i32, i64);

/// What really happened in the stages, whoever ran them.
#[derive(Default)]
struct Evidence {
    /// Each time that a record was finished.
    done: HashMap<At, Vec<Duration>>,
    /// Keys in a living stage's hands.
    busy: BTreeSet<Bytes>,
    overlaps: usize,
}

/// One schedule.
pub(super) struct Play {
    sim: Sim,
    faults: Faults,
    chance: fastrand::Rng,
    pace: Pace,
    begun: Instant,
    evidence: Arc<Mutex<Evidence>>,
    crashes: u64,
}

/// What one schedule has shown.
pub(super) struct Told {
    pub(super) trace: Vec<(Duration, Step)>,
    pub(super) crashes: u64,
    records: Vec<Record>,
    dead: Vec<Record>,
    done: HashMap<At, Vec<Duration>>,
    overlaps: usize,
    ordered: bool,
}

struct Member {
    alive: Arc<AtomicBool>,
    loop_: tokio::task::JoinHandle<bool>,
    shutdown: CancellationToken,
}

impl Play {
    pub(super) fn new(seed: u64, faults: Faults, mut chance: fastrand::Rng) -> Self {
        let sim = Sim::new(seed, faults);
        let gathered = Pace::Gathered(Duration::from_millis(chance.u64(0..500)));
        let pace = if chance.usize(0..4) == 0 { gathered } else { Pace::InOrder };
        Self { sim, faults, chance, pace, begun: Instant::now(), evidence: Arc::default(), crashes: 0 }
    }

    pub(super) async fn run(mut self) -> Told {
        let topics = Topics::new("");
        let spec = |name: Arc<str>, partitions| TopicSpec {
            name,
            partitions,
            replication: 1,
            cleanup: Cleanup::Delete,
            retention_ms: 1,
            max_message_bytes: 1000,
        };
        let dead = topics.dead(topic::Stage::Router);
        self.sim.ensure_topics(&[spec("in".into(), PARTITIONS), spec(dead.clone(), 1)]).await.unwrap();
        let mut members = vec![self.join(), self.join()];
        for i in 0..RECORDS {
            self.produce(i).await;
            self.disturb(&mut members).await;
        }
        self.sim.heal();
        let deadline = Instant::now() + Duration::from_secs(600);
        while !self.all_committed() {
            assert!(Instant::now() < deadline, "it does not come to an end: {:#?}", self.stuck());
            sleep(Duration::from_millis(500)).await;
        }
        for member in members {
            member.shutdown.cancel();
            assert!(member.loop_.await.unwrap(), "a quiet member drains in time");
        }
        let evidence = std::mem::take(&mut *self.evidence.lock().unwrap());
        Told {
            trace: self.sim.trace(),
            crashes: self.crashes,
            records: self.sim.records("in"),
            dead: self.sim.records(&dead),
            done: evidence.done,
            overlaps: evidence.overlaps,
            // who loses a partition or the log without a word cannot keep the order
            ordered: self.pace == Pace::InOrder && self.faults.rebalance_lost == 0.0 && self.faults.next_fails == 0.0,
        }
    }

    /// Publishes until the log says yes: what is doubtful is published twice.
    async fn produce(&mut self, i: usize) {
        let key = format!("k{}", self.chance.usize(0..KEYS));
        let value = if self.chance.usize(0..30) == 0 { POISON.to_owned() } else { i.to_string() };
        loop {
            let record = Outgoing {
                topic: "in".into(),
                key: Some(key.clone().into()),
                headers: Headers::default(),
                value: Some(value.clone().into()),
            };
            if self.sim.publish(vec![record]).await[0].is_ok() {
                return;
            }
        }
    }

    /// Lets time pass, and now and then kills, stops or adds a member.
    async fn disturb(&mut self, members: &mut Vec<Member>) {
        sleep(Duration::from_millis(self.chance.u64(0..300))).await;
        match self.chance.usize(0..40) {
            0 if members.len() < 4 => members.push(self.join()),
            1 | 2 => {
                self.crashes += 1;
                let i = self.chance.usize(0..members.len());
                let dead = members.swap_remove(i);
                dead.alive.store(false, SeqCst);
                dead.loop_.abort();
                members.push(self.join());
            }
            3 if members.len() > 1 => {
                let i = self.chance.usize(0..members.len());
                members.swap_remove(i).shutdown.cancel();
            }
            _ => {}
        }
    }

    fn join(&mut self) -> Member {
        let alive = Arc::new(AtomicBool::new(true));
        let stage = Worker {
            alive: alive.clone(),
            pace: self.pace,
            chance: Mutex::new(self.chance.fork()),
            evidence: self.evidence.clone(),
            begun: self.begun,
        };
        let log: Arc<dyn Log> = Arc::new(self.sim.clone());
        let settings = ConsumeSettings {
            permits: self.chance.usize(1..20),
            max_batch: self.chance.usize(1..10),
            max_window: self.chance.usize(2..30),
            pace: self.pace,
            ..ConsumeSettings::new("group".into(), vec!["in".into()])
        };
        let shutdown = CancellationToken::new();
        let dead = DeadLetters::new(log.clone(), &Topics::new(""), topic::Stage::Router);
        let loop_ = tokio::spawn(consume(log, Arc::new(stage), dead, settings, Vitals::new("sim"), shutdown.clone()));
        Member { alive, loop_, shutdown }
    }

    /// The log's last steps, for a schedule that hangs.
    fn stuck(&self) -> Vec<(Duration, Step)> {
        self.sim.trace().into_iter().rev().take(12).rev().collect()
    }

    fn all_committed(&self) -> bool {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for r in self.sim.records("in") {
            ends.insert(r.at.partition.index, r.at.offset + 1);
        }
        ends.into_iter()
            .all(|(index, end)| self.sim.committed("group", &Partition { topic: "in".into(), index }) == Some(end))
    }
}

/// A stage that is slow, fails, forgets and panics. A dead one does nothing any more.
struct Worker {
    alive: Arc<AtomicBool>,
    pace: Pace,
    chance: Mutex<fastrand::Rng>,
    evidence: Arc<Mutex<Evidence>>,
    begun: Instant,
}

#[async_trait]
impl Stage for Worker {
    async fn handle(&self, batch: Vec<Work>) {
        let keys: BTreeSet<_> = batch.iter().map(|w| w.record.key.clone()).collect();
        assert!(self.pace != Pace::InOrder || keys.len() == batch.len(), "the records of a batch have different keys");
        futures::future::join_all(batch.into_iter().map(|work| self.one(work))).await;
    }
}

impl Worker {
    async fn one(&self, work: Work) {
        let key = work.record.key.clone().unwrap();
        let (took, fate) = {
            let mut chance = self.chance.lock().unwrap();
            (Duration::from_millis(chance.u64(0..800)), chance.usize(0..20))
        };
        let _busy = Busy::begin(self, key);
        sleep(took).await;
        if !self.alive.load(SeqCst) {
            // the process is gone: it says nothing, ever
            std::mem::forget(work.ack);
            return;
        }
        match fate {
            _ if work.record.value.as_deref() == Some(POISON.as_bytes()) => std::panic::panic_any(POISON),
            0 => work.ack.retry(took),
            1 => drop(work),
            _ => {
                let at = (work.record.at.partition.index, work.record.at.offset);
                self.evidence.lock().unwrap().done.entry(at).or_default().push(self.begun.elapsed());
                work.ack.done();
            }
        }
    }
}

/// A key in a living stage's hands.
struct Busy<'a>(&'a Worker, Bytes);

impl<'a> Busy<'a> {
    fn begin(worker: &'a Worker, key: Bytes) -> Self {
        let mut evidence = worker.evidence.lock().unwrap();
        if worker.alive.load(SeqCst) && !evidence.busy.insert(key.clone()) {
            evidence.overlaps += 1;
        }
        Self(worker, key)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.evidence.lock().unwrap().busy.remove(&self.1);
    }
}

impl Told {
    /// Records that were finished more than once.
    pub(super) fn redone(&self) -> usize {
        self.done.values().filter(|times| times.len() > 1).count()
    }

    pub(super) fn check(&self) {
        self.nothing_is_lost();
        self.commits_pass_nothing_unfinished();
        if self.ordered && self.crashes == 0 {
            assert_eq!(self.overlaps, 0, "two records of one key were in hand at once");
        }
        if self.ordered {
            self.keys_keep_their_order();
        }
    }

    fn is_poison(r: &Record) -> bool {
        r.value.as_deref() == Some(POISON.as_bytes())
    }

    fn nothing_is_lost(&self) {
        for r in &self.records {
            let at = (r.at.partition.index, r.at.offset);
            let buried = self.dead.iter().any(|d| {
                let header = |name| d.headers.get(name).map(|v| String::from_utf8_lossy(v).into_owned());
                header(topic::DEAD_PARTITION) == Some(at.0.to_string())
                    && header(topic::DEAD_OFFSET) == Some(at.1.to_string())
            });
            assert_eq!(self.done.contains_key(&at), !Self::is_poison(r), "{at:?} is done unless it is poison");
            assert_eq!(buried, Self::is_poison(r), "{at:?} is a dead letter if it is poison");
        }
        for d in &self.dead {
            assert_eq!(d.value.as_deref(), Some(POISON.as_bytes()), "the original bytes");
        }
    }

    fn commits_pass_nothing_unfinished(&self) {
        for (when, step) in &self.trace {
            let Step::Committed { next, stands: true, .. } = step else { continue };
            for r in self.records.iter().filter(|r| r.at.partition == next.partition && r.at.offset < next.offset) {
                let first = self.done.get(&(r.at.partition.index, r.at.offset)).and_then(|times| times.first());
                let finished = Self::is_poison(r) || first.is_some_and(|at| at <= when);
                assert!(finished, "{} was committed at {when:?}, and {} was not finished", next.offset, r.at.offset);
            }
        }
    }

    fn keys_keep_their_order(&self) {
        let mut last: HashMap<(i32, Bytes), Duration> = HashMap::new();
        for r in self.records.iter().filter(|r| !Self::is_poison(r)) {
            let first = self.done[&(r.at.partition.index, r.at.offset)][0];
            let key = (r.at.partition.index, r.key.clone().unwrap());
            let before = last.insert(key, first).unwrap_or_default();
            assert!(before <= first, "{:?} was overtaken by a later one of its key", r.at);
        }
    }
}
