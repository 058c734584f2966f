//! How long an append takes when they come one by one.

use std::{
    path::Path,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bus::Log as _;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::{TOPIC, durable, open, outgoing, records};
use crate::{
    bare::sqlite::{self, Row},
    harness::{Effort, Sample, threads},
    report::percentile,
};

/// Appends in a second.
const RATE: u32 = 2000;

/// When each append is to be made, until there is no time left.
struct Pace {
    next: Instant,
    end: Instant,
}

impl Pace {
    fn begin(effort: Effort) -> Self {
        let next = Instant::now();
        Self { next, end: next + effort.warm + effort.time }
    }

    /// The next append is due, and was at this time; or so long it is not.
    fn due(&mut self) -> Result<Instant, Duration> {
        match self.next.checked_duration_since(Instant::now()) {
            Some(early) if !early.is_zero() => Err(early),
            _ => {
                let due = self.next;
                self.next += Duration::from_secs(1) / RATE;
                Ok(due)
            }
        }
    }

    fn ended(&self) -> bool {
        self.next >= self.end
    }
}

/// Appends are handed over and their answers taken by one thread, as by a worker of the service's runtime: the task that
/// appends runs there already. Handed to a runtime from outside, each would wait for two more threads to be woken, and behind
/// whatever else the machine does on their cores.
pub(super) fn ours(dir: &Path, effort: Effort) -> anyhow::Result<Sample> {
    let runtime = threads()?;
    let log = runtime.block_on(open(dir))?;
    let (topic, mut rows) = (Arc::from(TOPIC), records(0).into_iter().cycle());
    let (mut on_their_way, mut took) = (FuturesUnordered::new(), Vec::new());
    let this = Waker::from(Arc::new(Unpark(thread::current())));
    let mut this = Context::from_waker(&this);
    let mut pace = Pace::begin(effort);
    loop {
        while let Poll::Ready(Some(appended)) = on_their_way.poll_next_unpin(&mut this) {
            took.push(appended?);
        }
        if pace.ended() && on_their_way.is_empty() {
            return p99(took, effort);
        }
        if pace.ended() {
            thread::park();
            continue;
        }
        match pace.due() {
            Err(early) => thread::park_timeout(early),
            Ok(due) => {
                let (log, row) = (log.clone(), rows.next().context("records")?);
                let batch = vec![outgoing(row, &topic)];
                on_their_way.push(async move {
                    durable(log.publish(batch).await)?;
                    anyhow::Ok(due.elapsed())
                });
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What has become due while a commit ran goes into the next one.
pub(super) fn baseline(dir: &Path, effort: Effort) -> anyhow::Result<Sample> {
    let mut log = sqlite::Log::open(dir)?;
    let mut rows = records(0).into_iter().cycle();
    let (mut took, mut waiting) = (Vec::new(), Vec::new());
    let mut pace = Pace::begin(effort);
    while !pace.ended() {
        match pace.due() {
            Ok(due) => waiting.push(due),
            Err(early) if waiting.is_empty() => thread::sleep(early),
            Err(_) => {
                let batch: Vec<Row> = rows.by_ref().take(waiting.len()).collect();
                log.append(&batch)?;
                took.extend(waiting.drain(..).map(|due| due.elapsed()));
            }
        }
    }
    p99(took, effort)
}

/// In microseconds; the first ones do not count.
fn p99(mut took: Vec<Duration>, effort: Effort) -> anyhow::Result<Sample> {
    let warm = usize::try_from(effort.warm.as_millis())? * usize::try_from(RATE)? / 1000;
    ensure!(took.len() > warm, "too few appends");
    let mut counted: Vec<u64> =
        took.drain(warm..).map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)).collect();
    counted.sort_unstable();
    Ok(Sample { value: percentile(&counted, 0.99) as f64, cpu_us: f64::NAN })
}
