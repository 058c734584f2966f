//! How sides are compared: rounds that take turns, a warm-up that does not count, CPU time beside every rate.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;

use crate::machine::cpu_time;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How often each side is measured.
    pub rounds: usize,
    /// Before each measurement.
    pub warm: Duration,
    /// One measurement.
    pub time: Duration,
    /// Of the counts of a full run.
    pub share: f64,
}

impl Effort {
    /// With a warm-up of at least that.
    pub fn warmed_for(self, least: Duration) -> Self {
        Self { warm: self.warm.max(least), ..self }
    }

    /// As many, or the share of it, and never less than `least`.
    pub fn count(&self, full: u64, least: u64) -> u64 {
        let count = (full as f64 * self.share) as u64;
        count.max(least)
    }
}

/// Where the engines are.
#[derive(Debug, Clone, clap::Args)]
pub struct Engines {
    /// A broker.
    #[arg(long, env = "CARILLON_TEST_KAFKA", default_value = "", value_name = "HOST:PORT")]
    pub kafka: String,
    /// Redis.
    #[arg(long, env = "CARILLON_TEST_REDIS", default_value = "", value_name = "URL")]
    pub redis: String,
    /// Cassandra or ScyllaDB.
    #[arg(long, env = "CARILLON_TEST_CASSANDRA", default_value = "", value_name = "HOST:PORT")]
    pub cassandra: String,
    /// Elasticsearch or OpenSearch.
    #[arg(long, env = "CARILLON_TEST_ELASTICSEARCH", default_value = "", value_name = "URL")]
    pub elasticsearch: String,
}

/// What a row is given.
#[derive(Debug)]
pub struct Bench {
    /// How much.
    pub effort: Effort,
    /// Where the engines are.
    pub engines: Engines,
    /// The binary that is measured as a whole.
    pub carillon: PathBuf,
    /// For reports and for data, on a disk.
    pub dir: PathBuf,
    /// Nothing begins after that.
    pub until: Instant,
    /// Only the first side of each row is measured: for a profiler.
    pub ours_only: bool,
    /// Before the names of what this run keeps in the stores.
    pub own: String,
    /// The people are in the stores.
    pub populated: OnceLock<()>,
}

impl Bench {
    /// Measures all sides once in each round, in another order each time. `measure` is told which side and which round.
    pub fn compare(
        &self,
        row: &str,
        sides: &[&'static str],
        mut measure: impl FnMut(usize) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Vec<Side>> {
        let mut measured: Vec<Side> = sides.iter().map(|name| Side { name, samples: Vec::new() }).collect();
        for round in 0..self.effort.rounds {
            for turn in 0..sides.len() {
                let side = (round + turn) % sides.len();
                if self.ours_only && side > 0 {
                    continue;
                }
                ensure!(Instant::now() < self.until, "the time of the whole run is over (--limit)");
                let sample = measure(side).with_context(|| format!("{row}, {}, round {}", sides[side], round + 1))?;
                eprintln!("  {row} {}/{} {}: {sample}", round + 1, self.effort.rounds, sides[side]);
                measured[side].samples.push(sample);
            }
        }
        Ok(measured)
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Sample {
    /// In the row's unit.
    pub value: f64,
    /// CPU time of the measured process for one operation, in microseconds.
    pub cpu_us: f64,
}

impl Sample {
    /// Operations in a second.
    pub fn rate(count: u64, took: Duration, cpu: Duration) -> Self {
        Self { value: per(count, took), cpu_us: each(count, cpu) }
    }

    /// Operations in a second of CPU time.
    pub fn per_cpu_second(count: u64, cpu: Duration) -> Self {
        Self { value: per(count, cpu), cpu_us: each(count, cpu) }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}", self.value)?;
        if self.cpu_us.is_nan() { Ok(()) } else { write!(f, ", {:.1} µs of CPU time each", self.cpu_us) }
    }
}

fn per(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

fn each(count: u64, time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / (count as f64).max(1.0)
}

/// All measurements of one side.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Side {
    /// What it is.
    pub name: &'static str,
    /// By round.
    pub samples: Vec<Sample>,
}

/// Counts what the tasks of one measurement do, and tells them when to stop.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    begun: AtomicU64,
    done: AtomicU64,
}

impl Meter {
    /// The number of the next operation; `None`: no more.
    pub fn next(&self) -> Option<u64> {
        (!self.0.stop.load(Relaxed)).then(|| self.0.begun.fetch_add(1, Relaxed))
    }

    /// So many operations are done.
    pub fn done(&self, count: u64) {
        self.0.done.fetch_add(count, Relaxed);
    }

    /// Lets the tasks run, warms up, counts for the time of a measurement, and waits for their ends. An error of one of them is
    /// that of the measurement.
    pub async fn measure(&self, effort: Effort, mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<Sample> {
        let me = std::process::id();
        wait(effort.warm, &mut tasks).await?;
        let (began, cpu, done) = (Instant::now(), cpu_time(me)?, self.0.done.load(Relaxed));
        wait(effort.time, &mut tasks).await?;
        let (took, count) = (began.elapsed(), self.0.done.load(Relaxed) - done);
        let cpu = cpu_time(me)?.saturating_sub(cpu);
        self.0.stop.store(true, Relaxed);
        let ends = async {
            while let Some(end) = tasks.join_next().await {
                end??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(30), ends).await.context("operations do not end")??;
        ensure!(count > 0, "nothing was done in {took:?}");
        Ok(Sample::rate(count, took, cpu))
    }
}

/// Nobody ends before it is time.
async fn wait(time: Duration, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        Some(end) = tasks.join_next() => {
            end??;
            bail!("an operation ended too early")
        }
    }
}

/// One thread for everything: what is compared per core.
pub fn one_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// As a process that consumes runs, see `carillon`'s `main`.
pub fn one_worker() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// As the others run.
pub fn threads() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(rounds: usize) -> Bench {
        let (warm, time) = (Duration::from_millis(20), Duration::from_millis(200));
        let none = String::new;
        Bench {
            effort: Effort { rounds, warm, time, share: 0.01 },
            engines: Engines { kafka: none(), redis: none(), cassandra: none(), elasticsearch: none() },
            carillon: PathBuf::new(),
            dir: PathBuf::new(),
            until: Instant::now() + Duration::from_secs(60),
            ours_only: false,
            own: String::new(),
            populated: OnceLock::new(),
        }
    }

    #[test]
    fn sides_take_turns() {
        let mut order = Vec::new();
        let sides = bench(3).compare("row", &["a", "b", "c"], |side| {
            order.push(side);
            Ok(Sample { value: 1.0, cpu_us: 1.0 })
        });
        assert_eq!(order, [0, 1, 2, 1, 2, 0, 2, 0, 1]);
        assert!(sides.unwrap().iter().all(|side| side.samples.len() == 3));
        let over = Bench { until: Instant::now(), ..bench(1) };
        assert!(over.compare("row", &["a"], |_| unreachable!()).is_err());
        assert_eq!(bench(1).effort.count(10_000, 10), 100);
    }

    #[test]
    fn a_meter_counts_what_is_done_and_tells_errors() {
        let run = |fail: bool| {
            one_thread().unwrap().block_on(async move {
                let (meter, mut tasks) = (Meter::default(), JoinSet::new());
                for _ in 0..4 {
                    let meter = meter.clone();
                    tasks.spawn(async move {
                        while let Some(n) = meter.next() {
                            ensure!(!fail || n < 10, "the tenth fails");
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            meter.done(1);
                        }
                        Ok(())
                    });
                }
                meter.measure(bench(1).effort, tasks).await
            })
        };
        let rate = run(false).unwrap().value;
        assert!((100.0..4000.0).contains(&rate), "four at a time, a millisecond and more each: {rate}");
        assert!(run(true).unwrap_err().to_string().contains("tenth"));
    }
}
