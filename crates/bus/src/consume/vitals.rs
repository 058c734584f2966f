//! Whether a loop is alive and well: read by `/livez`, `/readyz` and the metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

/// A loop's signs of life. Cheap to clone; all clones are of the same loop.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    begun: Instant,
    beat_ms: AtomicU64,
    joined: AtomicBool,
    assigned: AtomicUsize,
    in_flight: AtomicUsize,
    waiting: AtomicUsize,
    /// When the oldest unfinished record was appended, in milliseconds since the epoch; 0 for none.
    oldest_ms: AtomicI64,
    /// When a record last had to wait because something is down; 0 for never.
    trouble_ms: AtomicU64,
}

impl Vitals {
    /// For the loop of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            begun: Instant::now(),
            beat_ms: AtomicU64::new(0),
            joined: AtomicBool::new(false),
            assigned: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            oldest_ms: AtomicI64::new(0),
            trouble_ms: AtomicU64::new(0),
        }))
    }

    /// The loop's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How long ago the loop last went round. It does so several times a second, whatever happens; more than a minute
    /// means that it hangs.
    pub fn silent_for(&self) -> Duration {
        let beat = Duration::from_millis(self.0.beat_ms.load(Relaxed));
        self.0.begun.elapsed().saturating_sub(beat)
    }

    /// It has joined its group.
    pub fn is_joined(&self) -> bool {
        self.0.joined.load(Relaxed)
    }

    /// Partitions that are its own.
    pub fn assigned(&self) -> usize {
        self.0.assigned.load(Relaxed)
    }

    /// Records in the stage's hands.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Relaxed)
    }

    /// Records that wait because something is down.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Relaxed)
    }

    /// How long the oldest record that was taken in and is not finished has been on the log: how far the loop is behind.
    /// `None`: everything that was taken in is finished.
    pub fn oldest(&self) -> Option<Duration> {
        let at = u64::try_from(self.0.oldest_ms.load(Relaxed)).ok().filter(|ms| *ms > 0)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(now.saturating_sub(Duration::from_millis(at)))
    }

    /// Records had to wait in the last five seconds because something is down: a store, the log, the dead-letter topic.
    pub fn is_troubled(&self) -> bool {
        let last = self.0.trouble_ms.load(Relaxed);
        last > 0 && self.now_ms().saturating_sub(last) < 5000
    }

    pub(super) fn trouble(&self) {
        self.0.trouble_ms.store(self.now_ms().max(1), Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn beat(&self, assigned: usize, in_flight: usize, waiting: usize, oldest_ms: Option<i64>) {
        self.0.beat_ms.store(self.now_ms(), Relaxed);
        self.0.assigned.store(assigned, Relaxed);
        self.0.in_flight.store(in_flight, Relaxed);
        self.0.waiting.store(waiting, Relaxed);
        self.0.oldest_ms.store(oldest_ms.unwrap_or(0), Relaxed);
    }

    pub(super) fn joined(&self, joined: bool) {
        self.0.joined.store(joined, Relaxed);
    }
}
