//! The metrics of the indexer, by name; the one place for them in this crate.

use std::sync::LazyLock;

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

#[derive(Debug, Default)]
struct Metrics {
    missing: Gauge,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// Names them in a registry.
pub fn register(registry: &mut Registry) {
    let missing = METRICS.missing.clone();
    registry.register("carillon_conservation_missing", "Recipients that nobody decided over, and the reverse", missing);
}

pub(crate) fn missing(count: u64) {
    METRICS.missing.set(i64::try_from(count).unwrap_or(i64::MAX));
}
