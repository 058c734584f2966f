//! What breaks, when and for how long: all of it follows from a seed.

use std::{fmt, time::Duration};

use crate::Mode;

/// A process or an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Everything in one process.
    Standalone,
    /// The way in.
    Ingress,
    /// The preference stage.
    Router,
    /// All channels.
    Gateway,
    /// The writer of the index.
    Indexer,
    /// Claims and the read model.
    Redis,
    /// People.
    Cassandra,
    /// The index.
    Elasticsearch,
    /// One of the brokers, from 1.
    Broker(u8),
}

impl Target {
    /// The name of the process, or that of `deploy/dev/engines`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Ingress => "ingress",
            Self::Router => "router",
            Self::Gateway => "gateway",
            Self::Indexer => "indexer",
            Self::Redis => "redis",
            Self::Cassandra => "cassandra",
            Self::Elasticsearch => "elasticsearch",
            Self::Broker(2) => "kafka2",
            Self::Broker(3) => "kafka3",
            Self::Broker(_) => "kafka",
        }
    }

    /// It is run by `deploy/dev/engines`.
    pub const fn is_engine(self) -> bool {
        matches!(self, Self::Redis | Self::Cassandra | Self::Elasticsearch | Self::Broker(_))
    }
}

/// What is done to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP; SIGCONT at the end.
    Pause,
    /// A second replica joins; it leaves at the end, by SIGTERM.
    Join,
    /// The same, but it leaves by SIGKILL.
    JoinAndDie,
    /// Everything that it holds is deleted, at once.
    Flush,
}

impl Fault {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Pause => "SIGSTOP",
            Self::Join => "second replica",
            Self::JoinAndDie => "second replica, killed",
            Self::Flush => "flushed",
        }
    }

    /// How long it lasts, in milliseconds.
    const fn lasts(self, target: Target) -> std::ops::Range<u64> {
        match (self, target) {
            (Self::Flush, _) => 0..1,
            (Self::Kill, t) if t.is_engine() => 1_000..5_000,
            (Self::Kill, _) => 0..1_500,
            (Self::Pause, Target::Standalone) => 300..3_000,
            // sometimes longer than the session of a consumer and than a lease
            (Self::Pause, _) => 500..14_000,
            (Self::Join | Self::JoinAndDie, _) => 3_000..9_000,
        }
    }
}

/// One thing that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Since the flow began.
    pub at: Duration,
    /// What.
    pub target: Target,
    /// How.
    pub fault: Fault,
    /// After so long it is mended.
    pub lasts: Duration,
}

/// A schedule of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// All follows from it.
    pub seed: u64,
    /// In the order of their beginning.
    pub steps: Vec<Step>,
}

/// The beginning or the end of a step, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It breaks.
    Begin(usize),
    /// It is mended.
    End(usize),
}

/// A ledger that is emptied has forgotten what was sent and is not committed: until then nobody else breaks, because whoever
/// reads it again would send it again (ADR 0008). It is as long as a record can hold its partition's commit back.
const FORGETFUL: Duration = Duration::from_secs(16);

impl Plan {
    /// `kills` faults over a `window`. Every kind of fault that a mode knows comes once before one comes twice; a target is whole
    /// again before it breaks anew. What is emptied is emptied first.
    pub fn new(seed: u64, mode: Mode, kills: usize, window: Duration, engines: Engines) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut deck = faults(mode, engines);
        chance.shuffle(&mut deck);
        let dealt = &deck[deck.len().saturating_sub(kills)..];
        let first = if dealt.iter().any(|(_, fault)| *fault == Fault::Flush) { FORGETFUL } else { Duration::ZERO };
        let slot = window.saturating_sub(first).as_millis() as u64 / (kills as u64).max(1);
        let mut steps: Vec<Step> = Vec::new();
        for i in 0..kills as u64 {
            if deck.is_empty() {
                deck = faults(mode, engines);
                deck.retain(|(_, fault)| *fault != Fault::Flush);
                chance.shuffle(&mut deck);
            }
            let Some((target, fault)) = deck.pop() else { break };
            let mut at = first + Duration::from_millis(i * slot + chance.u64(0..slot.max(1)));
            if fault == Fault::Flush {
                at = Duration::from_millis(chance.u64(500..2_000));
            }
            let lasts = Duration::from_millis(chance.u64(fault.lasts(target)));
            let free = steps.iter().filter(|s| s.target == target).map(|s| s.at + s.lasts).max();
            // time to start, so that a kill does not only hit what has not begun yet
            at = at.max(free.filter(|_| fault != Fault::Flush).map_or(at, |free| free + Duration::from_millis(700)));
            steps.push(Step { at, target, fault, lasts });
        }
        steps.sort_by_key(|s| s.at);
        Self { seed, steps }
    }

    /// Beginnings and ends in order of time.
    pub fn turns(&self) -> Vec<(Duration, Turn)> {
        let both = |(i, s): (usize, &Step)| [(s.at, Turn::Begin(i)), (s.at + s.lasts, Turn::End(i))];
        let mut turns: Vec<_> = self.steps.iter().enumerate().flat_map(both).collect();
        turns.sort_unstable();
        turns
    }
}

/// Which engines may be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engines {
    /// None, if others use them too.
    pub breakable: bool,
    /// How many there are.
    pub brokers: u8,
}

fn faults(mode: Mode, engines: Engines) -> Vec<(Target, Fault)> {
    use Fault::{Flush, Join, JoinAndDie, Kill, Pause};
    use Target::{Broker, Cassandra, Elasticsearch, Gateway, Indexer, Ingress, Redis, Router, Standalone};
    if mode == Mode::Standalone {
        return vec![(Standalone, Kill), (Standalone, Kill), (Standalone, Kill), (Standalone, Pause)];
    }
    let mut all = vec![(Gateway, Kill), (Router, Join), (Gateway, Join), (Router, JoinAndDie), (Gateway, JoinAndDie)];
    for target in [Ingress, Router, Gateway, Indexer] {
        all.extend([(target, Kill), (target, Pause)]);
    }
    if engines.breakable {
        all.extend([(Redis, Kill), (Redis, Flush), (Cassandra, Kill), (Elasticsearch, Kill)]);
        all.extend((1..=engines.brokers).map(|i| (Broker(i), Kill)));
    }
    all
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:7.3} s  {:<13} {}", self.target.name(), self.fault.name())?;
        if self.fault == Fault::Flush { Ok(()) } else { write!(f, ", for {lasts:.3} s") }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: Engines = Engines { breakable: true, brokers: 3 };

    fn plan(seed: u64, mode: Mode, kills: usize) -> Plan {
        Plan::new(seed, mode, kills, Duration::from_secs(60), ALL)
    }

    #[test]
    fn a_seed_is_a_plan() {
        for mode in [Mode::Cluster, Mode::Standalone] {
            assert_eq!(plan(7, mode, 40), plan(7, mode, 40));
            assert_ne!(plan(7, mode, 40), plan(8, mode, 40));
            assert_eq!(plan(7, mode, 40).to_string().lines().count(), 40);
        }
    }

    #[test]
    fn everything_breaks_once_before_something_breaks_twice_and_only_what_is_whole() {
        let all = faults(Mode::Cluster, ALL);
        for seed in 0..50 {
            let plan = plan(seed, Mode::Cluster, all.len());
            let broken: BTreeSet<_> = plan.steps.iter().map(|s| (s.target, s.fault.name())).collect();
            assert_eq!(broken, all.iter().map(|(t, f)| (*t, f.name())).collect());
            let mut whole = std::collections::BTreeMap::new();
            for s in &plan.steps {
                assert!(whole.insert(s.target, s.at + s.lasts).is_none_or(|free| free < s.at), "{plan}");
            }
            let flushed = plan.steps.iter().position(|s| s.fault == Fault::Flush);
            assert!(flushed == Some(0) && plan.steps[1].at > plan.steps[0].at + Duration::from_secs(10), "{plan}");
            let turns = plan.turns();
            assert!(turns.is_sorted() && turns.len() == 2 * plan.steps.len());
        }
        let shared = Engines { breakable: false, brokers: 3 };
        let plan = Plan::new(1, Mode::Cluster, 50, Duration::from_secs(60), shared);
        assert!(plan.steps.iter().all(|s| !s.target.is_engine()));
    }
}
