#![doc = include_str!("../README.md")]

pub mod check;
pub mod engines;
pub mod evidence;
pub mod flow;
pub mod installation;
pub mod people;
pub mod perform;
pub mod plan;
pub mod report;
pub mod sim;

mod quiet;

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::Context as _;
use domain::{Secret, Timestamp};
use sandbox::{Sandbox, SandboxSettings};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    check::Violation,
    engines::Hands,
    evidence::Evidence,
    flow::{Flow, Told},
    installation::{Installation, SECRET},
    people::Person,
    perform::{Performed, Performer},
    plan::{Engines, Plan},
};
pub use report::Report;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One process for each service, on real engines.
    Cluster,
    /// Everything in one process, on the embedded log and stores.
    Standalone,
    /// No process: the loop, the router and the gateway over the deterministic log.
    Sim,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Standalone => "standalone",
            Self::Sim => "sim",
        })
    }
}

/// Where the engines of a cluster are.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// `host:port`, separated by commas.
    pub kafka: String,
    /// A URL.
    pub redis: String,
    /// `host:port`.
    pub cassandra: String,
    /// A URL.
    pub elasticsearch: String,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Options {
    /// All follows from it.
    pub seed: u64,
    /// How many things break.
    pub kills: usize,
    /// Of what.
    pub mode: Mode,
    /// The binary `carillon`.
    pub binary: PathBuf,
    /// For [`Mode::Cluster`].
    pub engines: Addresses,
    /// `deploy/dev/engines`; `None` if others use the engines too, so that they must not break.
    pub breaks_engines: Option<PathBuf>,
    /// Made by [`Options::short`].
    pub short: bool,
    /// How many people there are.
    pub people: usize,
    /// Notifications per second.
    pub rate: f64,
    /// How long the flow lasts.
    pub window: Duration,
    /// How long everything has to come to its end afterwards; and again after the re-drive.
    pub quiet: Duration,
}

impl Options {
    /// A run of a minute at most, on engines that stay as they are.
    pub fn short(seed: u64, mode: Mode, binary: PathBuf, engines: Addresses) -> Self {
        Self {
            seed,
            kills: 5,
            mode,
            binary,
            engines,
            breaks_engines: None,
            short: true,
            people: 60,
            rate: 25.0,
            window: Duration::from_secs(14),
            quiet: Duration::from_secs(60),
        }
    }

    /// A run that takes its time: some seconds for everything that breaks.
    pub fn long(seed: u64, kills: usize, mode: Mode, binary: PathBuf, engines: Addresses) -> Self {
        let each = if mode == Mode::Cluster { 4 } else { 3 };
        Self {
            kills,
            short: false,
            people: 150,
            rate: 30.0,
            window: Duration::from_secs(if mode == Mode::Cluster { 25 } else { 10 } + each * kills as u64),
            quiet: Duration::from_secs(120),
            ..Self::short(seed, mode, binary, engines)
        }
    }

    /// What will be broken.
    pub fn plan(&self) -> Plan {
        let brokers = u8::try_from(self.engines.kafka.split(',').count()).unwrap_or(1);
        let engines = Engines { breakable: self.breaks_engines.is_some(), brokers };
        // what is broken last has to hit something, too
        let window = self.window.mul_f64(0.85);
        Plan::new(self.seed, self.mode, self.kills, window, engines)
    }
}

/// Breaks what the seed says while a flow goes through, mends it, waits for quiet, and checks.
///
/// # Errors
/// The run itself went wrong, so that nothing can be said; a violation is no error.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    anyhow::ensure!(options.mode != Mode::Sim, "the sim has no processes: chaos::sim::run_many");
    let plan = options.plan();
    println!("{} seed {}: the plan\n{plan}", options.mode, options.seed);
    let dir = TempDir::with_prefix("carillon-chaos-")?;
    let sandbox = Sandbox::start(SandboxSettings::local(Secret::new(SECRET))).await?;
    let started = Installation::start(options.mode, &options.binary, dir.path(), &options.engines).await;
    let mut run =
        Run { people: people::people(options.seed, options.people), installation: started?, sandbox, options, plan };
    let outcome = run.play().await;
    let (performed, counts, violations) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let logs = run.installation.logs();
            let left = dir.keep();
            return Err(error.context(format!("{logs}\nthe run broke off; logs and data: {}", left.display())));
        }
    };
    let Run { installation, sandbox, options, plan, .. } = run;
    drop(installation);
    sandbox.shutdown().await;
    let left = if violations.is_empty() { None } else { Some(dir.keep()) };
    let Performed { log, trouble, .. } = performed;
    Ok(Report { mode: options.mode, short: options.short, plan, performed: log, trouble, counts, violations, left })
}

/// What runs.
struct Run {
    people: Vec<Person>,
    installation: Installation,
    sandbox: sandbox::Running,
    options: Options,
    plan: Plan,
}

type Outcome = (Performed, Vec<(&'static str, usize)>, Vec<Violation>);

impl Run {
    async fn play(&mut self) -> anyhow::Result<Outcome> {
        self.installation.set_up(&self.sandbox, &self.people).await.context("cannot set the tenant up")?;
        let (told, performed) = self.break_things().await?;
        self.quiet(&told).await?;
        let before = Evidence::gather(&self.installation, &self.sandbox, told, &performed).await?;
        let mut violations = check::check(&before, &self.people);
        let (after, found) = self.redrive(&before, &performed).await?;
        violations.extend(found);
        violations.extend(self.balance(&after).await?);
        violations.sort();
        violations.dedup();
        let counts = counts(&after, &before);
        Ok((performed, counts, violations))
    }

    /// What is wrong with the balance, once the index has had time to show all of it.
    async fn balance(&self, after: &Evidence) -> anyhow::Result<Vec<Violation>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let path = format!("/v1/conservation?until={}", Timestamp::now());
            let wrong = check::balanced(after, &self.people, &self.installation.api.get_patiently(&path).await?);
            if wrong.is_empty() || Instant::now() > deadline {
                return Ok(wrong);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// The plan and the flow at the same time; all is whole when it returns.
    async fn break_things(&mut self) -> anyhow::Result<(Told, Performed)> {
        let Options { seed, rate, window, .. } = self.options;
        let way_in = (self.installation.kafka.as_str(), self.installation.topics.events());
        let flow = Flow::new(seed, self.people.clone(), self.installation.api.clone(), way_in, (rate, window))?;
        let hands = self.options.breaks_engines.clone().map(|c| Hands::new(c, self.options.engines.redis.clone()));
        let flow = tokio::spawn(flow.run());
        let performed = Performer::new(&self.plan, &mut self.installation, hands).run(window).await?;
        Ok((flow.await?, performed))
    }

    /// Waits until all that was accepted has ended, as far as it does in time: what is missing then is for the checker.
    async fn quiet(&self, told: &Told) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.options.quiet;
        let mut quiet = quiet::Quiet::default();
        while !quiet.has_come(told, &self.sandbox, evidence::indexed(&self.installation.api).await?) {
            if Instant::now() > deadline {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Sends every dead letter of the gateway on its way again, and checks once more.
    async fn redrive(&self, before: &Evidence, performed: &Performed) -> anyhow::Result<(Evidence, Vec<Violation>)> {
        let mut violations = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = serde_json::json!({"stage": "gateway"});
            if let Some(cursor) = &cursor {
                request["cursor"] = cursor.as_str().into();
            }
            let answer = self.installation.api.post("/v1/dead-letters/redrive", &request).await?;
            let (open, answered) = open_and_answered(&answer);
            violations.extend(check::refused(before, &self.people, &answered.into()));
            violations.extend(check::refused(before, &self.people, &self.ask_again(open).await?.into()));
            match answer["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        let deadline = Instant::now() + self.options.quiet;
        let mut quiet = quiet::Quiet::default();
        loop {
            let index = evidence::indexed(&self.installation.api).await?;
            let heard = quiet::heard(before, &index);
            let come = quiet.has_come(&before.told, &self.sandbox, index);
            if (heard && come) || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        let told = Told {
            accepted: before.told.accepted.clone(),
            strange: before.told.strange.clone(),
            opt_outs: before.told.opt_outs.clone(),
            doubtful: before.told.doubtful,
        };
        let after = Evidence::gather(&self.installation, &self.sandbox, told, performed).await?;
        violations.extend(check::check(&after, &self.people));
        violations.extend(check::redriven(before, &after, &self.people));
        Ok((after, violations))
    }

    /// Asks for those once more of which the answer was that nobody knows, as it says; gives those that stay so. One that was
    /// taken all the same has nothing to be asked for any more.
    async fn ask_again(&self, mut open: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        let deadline = Instant::now() + self.options.quiet;
        while !open.is_empty() && Instant::now() < deadline {
            sleep(Duration::from_secs(1)).await;
            let ids: Vec<_> = open.iter().map(|result| &result["id"]).collect();
            let request = serde_json::json!({"ids": ids});
            (open, _) = open_and_answered(&self.installation.api.post("/v1/dead-letters/redrive", &request).await?);
        }
        Ok(open)
    }
}

/// The results of a re-drive: those with an open outcome, and the others.
fn open_and_answered(answer: &Value) -> (Vec<Value>, Vec<Value>) {
    let results = answer["results"].as_array().into_iter().flatten().cloned();
    results.partition(|result| result["outcome"] == "failed")
}

fn counts(after: &Evidence, before: &Evidence) -> Vec<(&'static str, usize)> {
    let again = after.index.iter().filter(|d| d.unknowns() > 0).count();
    let by_state = |state| after.index.iter().filter(|d| d.state == state).count();
    vec![
        ("accepted", after.told.accepted.len()),
        ("requests without an answer", after.told.doubtful),
        ("deliveries", after.index.len()),
        ("receptions", after.receptions.len()),
        ("with an unknown outcome", again),
        ("sent", by_state(domain::State::Sent)),
        ("failed", by_state(domain::State::Failed)),
        ("unknown", by_state(domain::State::Unknown)),
        ("suppressed", by_state(domain::State::Suppressed)),
        ("expired", by_state(domain::State::Expired)),
        ("opt-outs", after.told.opt_outs.len()),
        ("dead letters re-driven", before.dead.iter().filter(|l| l.stage == "gateway").count()),
    ]
}
