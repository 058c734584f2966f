//! The metrics of the bus, by name; the one place for them in this crate.

use std::sync::LazyLock;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLabels {
    stage: &'static str,
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Metrics {
    consumed: Family<GroupLabels, Counter>,
    finished: Family<GroupLabels, Counter>,
    retried: Family<GroupLabels, Counter>,
    stale: Family<GroupLabels, Counter>,
    dead: Family<DeadLabels, Counter>,
    commit_failures: Family<GroupLabels, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// Names them in a registry.
pub fn register(registry: &mut Registry) {
    let m = &*METRICS;
    registry.register("carillon_consumed_records", "Records taken from the log", m.consumed.clone());
    registry.register("carillon_finished_records", "Records that reached their end", m.finished.clone());
    registry.register(
        "carillon_retried_records",
        "Records handed out again because something was down",
        m.retried.clone(),
    );
    registry.register("carillon_stale_acks", "Records finished after their partition was given up", m.stale.clone());
    registry.register("carillon_dead_letters", "Records given up, by stage and reason", m.dead.clone());
    registry.register("carillon_commit_failures", "Commits that failed and are repeated", m.commit_failures.clone());
}

/// The counters of one group, looked up once.
pub(crate) struct Group {
    pub(crate) consumed: Counter,
    pub(crate) finished: Counter,
    pub(crate) retried: Counter,
    pub(crate) stale: Counter,
    pub(crate) commit_failures: Counter,
}

impl Group {
    pub(crate) fn of(group: &str) -> Self {
        let of = |family: &Family<GroupLabels, Counter>| {
            family.get_or_create(&GroupLabels { group: group.to_owned() }).clone()
        };
        let m = &*METRICS;
        Self {
            consumed: of(&m.consumed),
            finished: of(&m.finished),
            retried: of(&m.retried),
            stale: of(&m.stale),
            commit_failures: of(&m.commit_failures),
        }
    }
}

pub(crate) fn dead(stage: &'static str, reason: &'static str) {
    METRICS.dead.get_or_create(&DeadLabels { stage, reason }).inc();
}
