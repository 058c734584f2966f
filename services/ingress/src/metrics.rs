//! The metrics of the public API, by name; the one place for them in this crate.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Arc<str>,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Arc<str>,
}

struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    accepted: Counter,
}

/// From 0.5 ms to 32 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 4.0, 9))
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    requests: Family::default(),
    seconds: Family::new_with_constructor(histogram),
    accepted: Counter::default(),
});

/// Names them in a registry.
pub fn register(registry: &mut Registry) {
    let m = &*METRICS;
    registry.register("carillon_http_requests", "Requests answered, by route and status", m.requests.clone());
    registry.register_with_unit(
        "carillon_http_request",
        "From the head of a request to its answer, by route",
        Unit::Seconds,
        m.seconds.clone(),
    );
    registry.register("carillon_accepted_notifications", "Requests that are durable on the log", m.accepted.clone());
}

/// `route` is a pattern of ours, never a path of the client's.
pub(crate) fn request(route: &Arc<str>, status: u16, took: Duration) {
    METRICS.requests.get_or_create(&RequestLabels { route: route.clone(), status }).inc();
    METRICS.seconds.get_or_create(&RouteLabels { route: route.clone() }).observe(took.as_secs_f64());
}

pub(crate) fn accepted() {
    METRICS.accepted.inc();
}
