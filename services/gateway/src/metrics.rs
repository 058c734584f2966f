//! The gateway's metrics, by name; the one place for them in this crate.

use std::{sync::LazyLock, time::Duration};

use domain::{Channel, Outcome, Reason, State};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    channel: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    channel: &'static str,
    state: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    channel: &'static str,
}

struct Metrics {
    attempts: Family<AttemptLabels, Counter>,
    seconds: Family<ChannelLabels, Histogram>,
    ended: Family<EndLabels, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    attempts: Family::default(),
    seconds: Family::new_with_constructor(|| {
        Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
    }),
    ended: Family::default(),
});

/// Names them in a registry.
pub fn register(registry: &mut Registry) {
    let m = &*METRICS;
    registry.register("carillon_send_attempts", "Requests to providers, by outcome", m.attempts.clone());
    registry.register("carillon_send_seconds", "Time of one request to a provider", m.seconds.clone());
    registry.register(
        "carillon_deliveries_ended",
        "Deliveries that reached their end, by state and reason",
        m.ended.clone(),
    );
}

pub(crate) fn attempt(channel: Channel, outcome: &Outcome, took: Duration) {
    let labels = AttemptLabels { channel: channel.as_str(), outcome: outcome.code() };
    METRICS.attempts.get_or_create(&labels).inc();
    METRICS.seconds.get_or_create(&ChannelLabels { channel: channel.as_str() }).observe(took.as_secs_f64());
}

pub(crate) fn ended(channel: Channel, state: State, reason: Option<Reason>) {
    let reason = reason.map_or("none", Reason::as_str);
    METRICS.ended.get_or_create(&EndLabels { channel: channel.as_str(), state: state.as_str(), reason }).inc();
}
