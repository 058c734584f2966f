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

fn of(group: &str) -> GroupLabels {
    GroupLabels { group: group.to_owned() }
}

pub(crate) fn consumed(group: &str, n: usize) {
    METRICS.consumed.get_or_create(&of(group)).inc_by(n as u64);
}

pub(crate) fn finished(group: &str) {
    METRICS.finished.get_or_create(&of(group)).inc();
}

pub(crate) fn retried(group: &str) {
    METRICS.retried.get_or_create(&of(group)).inc();
}

pub(crate) fn stale(group: &str) {
    METRICS.stale.get_or_create(&of(group)).inc();
}

pub(crate) fn dead(stage: &'static str, reason: &'static str) {
    METRICS.dead.get_or_create(&DeadLabels { stage, reason }).inc();
}

pub(crate) fn commit_failed(group: &str) {
    METRICS.commit_failures.get_or_create(&of(group)).inc();
}
