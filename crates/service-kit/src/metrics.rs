//! The metrics of this crate, by name, and the text of `/metrics`.

use std::{
    fmt,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::Health;

/// What `/metrics` answers with; Prometheus has understood it since 2.5.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| {
    let mut registry = Registry::default();
    bus::metrics::register(&mut registry);
    registry.register("carillon_trace_spans", "Spans by what became of them", SPANS.clone());
    Mutex::new(registry)
});

static SPANS: LazyLock<Family<SpanLabels, Counter>> = LazyLock::new(Family::default);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    outcome: &'static str,
}

/// `exported`, `refused` by the collector, or `queue_full`.
pub(crate) fn spans(outcome: &'static str, count: usize) {
    SPANS.get_or_create(&SpanLabels { outcome }).inc_by(count as u64);
}

/// The metrics of all crates of this process; each crate registers its own once, at the start. Held only for that.
pub fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything there is, in the text format of `OpenMetrics`.
pub(crate) fn text(health: &Health) -> Result<String, fmt::Error> {
    let mut out = String::new();
    text::encode_registry(&mut out, &registry())?;
    text::encode_registry(&mut out, &state_of(health))?;
    text::encode_registry(&mut out, &state_of_process())?;
    text::encode_eof(&mut out)?;
    Ok(out)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabels {
    r#loop: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabels {
    dependency: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Read out at each scrape, so that nobody has to keep gauges up to date.
fn state_of(health: &Health) -> Registry {
    let mut registry = Registry::default();
    let joined = Family::<LoopLabels, Gauge>::default();
    let silent = Family::<LoopLabels, Seconds>::default();
    let assigned = Family::<LoopLabels, Gauge>::default();
    let in_flight = Family::<LoopLabels, Gauge>::default();
    let waiting = Family::<LoopLabels, Gauge>::default();
    let oldest = Family::<LoopLabels, Seconds>::default();
    let up = Family::<DependencyLabels, Gauge>::default();
    let latency = Family::<DependencyLabels, Seconds>::default();
    registry.register("carillon_loop_joined", "Whether the consume loop is in its group", joined.clone());
    registry.register("carillon_loop_silent_seconds", "Since the consume loop last went round", silent.clone());
    registry.register("carillon_loop_assigned_partitions", "Partitions of the consume loop", assigned.clone());
    registry.register("carillon_loop_in_flight_records", "Records in the stage's hands", in_flight.clone());
    registry.register("carillon_loop_waiting_records", "Records that wait because something is down", waiting.clone());
    registry.register(
        "carillon_loop_oldest_record_seconds",
        "How long the oldest record that the loop has not finished has been on the log",
        oldest.clone(),
    );
    registry.register("carillon_dependency_up", "Whether the dependency answered the last check", up.clone());
    registry.register("carillon_dependency_latency_seconds", "How long the last check took", latency.clone());
    for vitals in health.loops() {
        let labels = LoopLabels { r#loop: vitals.name().to_owned() };
        joined.get_or_create(&labels).set(vitals.is_joined().into());
        silent.get_or_create(&labels).set(vitals.silent_for().as_secs_f64());
        assigned.get_or_create(&labels).set(count(vitals.assigned()));
        in_flight.get_or_create(&labels).set(count(vitals.in_flight()));
        waiting.get_or_create(&labels).set(count(vitals.waiting()));
        oldest.get_or_create(&labels).set(vitals.oldest().unwrap_or_default().as_secs_f64());
    }
    for dependency in health.dependencies() {
        let Some(last) = dependency.last() else { continue };
        let labels = DependencyLabels { dependency: dependency.name };
        up.get_or_create(&labels).set(last.result.is_ok().into());
        latency.get_or_create(&labels).set(last.latency.as_secs_f64());
    }
    registry
}

/// By the names that dashboards expect of every process.
fn state_of_process() -> Registry {
    let mut registry = Registry::default();
    if let Some(bytes) = resident_bytes() {
        let resident = Gauge::<i64>::default();
        resident.set(bytes);
        registry.register("process_resident_memory_bytes", "Memory in use", resident);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        let open = Gauge::<i64>::default();
        open.set(count(files.count()));
        registry.register("process_open_fds", "Open files and sockets", open);
    }
    registry
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
