//! A plan, carried out; at the end everything is whole again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use domain::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::{
    engines::{Deed, Hands},
    installation::Installation,
    plan::{Fault, Plan, Target, Turn},
};

/// How often what ended by itself is looked for.
const TEND: Duration = Duration::from_millis(250);
/// A replica that was asked to leave has to have left by then.
const LEAVE: Duration = Duration::from_secs(20);

/// What was really done.
#[derive(Debug, Default)]
pub struct Performed {
    /// Seconds since the beginning, and what; for the report.
    pub log: Vec<(f64, String)>,
    /// Somebody who could send was stopped then, so that what it had decided before came out late.
    pub pauses: Vec<(Timestamp, Timestamp)>,
    /// Somebody who could send was killed then.
    pub deaths: Vec<Timestamp>,
    /// What did not go as planned, and is no fault of the plan.
    pub trouble: Vec<String>,
}

/// A plan at work.
pub struct Performer<'a> {
    plan: &'a Plan,
    installation: &'a mut Installation,
    hands: Option<Hands>,
    begun: Instant,
    performed: Performed,
    /// Since when somebody is stopped, by step.
    stopped: Vec<Option<Timestamp>>,
    /// Second replicas that were asked to leave, and by when they have to have left.
    leaving: Vec<(String, Instant)>,
}

impl<'a> Performer<'a> {
    /// Begins now.
    pub fn new(plan: &'a Plan, installation: &'a mut Installation, hands: Option<Hands>) -> Self {
        let stopped = vec![None; plan.steps.len()];
        let (performed, leaving) = (Performed::default(), Vec::new());
        Self { plan, installation, hands, begun: Instant::now(), performed, stopped, leaving }
    }

    /// All of the plan, at least for `window`, and then until everything is whole.
    ///
    /// # Errors
    /// A process cannot be started, or the API is not ready in the end.
    pub async fn run(mut self, window: Duration) -> anyhow::Result<Performed> {
        for (at, turn) in self.plan.turns() {
            self.tend_until(self.begun + at).await?;
            self.take(turn).await?;
        }
        self.tend_until(self.begun + window).await?;
        if let Some(hands) = self.hands.take() {
            // waits for engines that start; services that need them end and are started again meanwhile
            let mut finish = std::pin::pin!(hands.finish());
            loop {
                tokio::select! {
                    failures = &mut finish => {
                        self.performed.trouble.extend(failures);
                        break;
                    }
                    () = tokio::time::sleep(TEND) => self.tend()?,
                }
            }
        }
        while !self.leaving.is_empty() {
            self.tend_until(Instant::now() + TEND).await?;
        }
        let trouble = self.performed.trouble.join("\n");
        self.installation.ready(Duration::from_secs(60)).await.context(trouble)?;
        self.note("whole again");
        let mut ended: BTreeMap<String, usize> = BTreeMap::new();
        self.installation.ended.drain(..).for_each(|how| *ended.entry(how).or_default() += 1);
        let told = ended
            .into_iter()
            .map(|(how, times)| format!("ended by itself and was started again: {how}, {times} times"));
        self.performed.trouble.extend(told);
        Ok(self.performed)
    }

    async fn tend_until(&mut self, until: Instant) -> anyhow::Result<()> {
        loop {
            self.tend()?;
            let next = Instant::now() + TEND;
            if next >= until {
                sleep_until(until).await;
                return Ok(());
            }
            sleep_until(next).await;
        }
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        let leaving: BTreeSet<_> = self.leaving.iter().map(|(name, _)| name.clone()).collect();
        self.installation.tend(&leaving)?;
        for (name, by) in std::mem::take(&mut self.leaving) {
            if self.installation.is_gone(&name) {
                continue;
            }
            if Instant::now() < by {
                self.leaving.push((name, by));
                continue;
            }
            self.performed.trouble.push(format!("{name} was asked to leave and did not"));
            self.installation.kill(&name)?;
        }
        Ok(())
    }

    fn note(&mut self, what: impl Into<String>) {
        self.performed.log.push((self.begun.elapsed().as_secs_f64(), what.into()));
    }

    async fn take(&mut self, turn: Turn) -> anyhow::Result<()> {
        let (Turn::Begin(i) | Turn::End(i)) = turn;
        let step = self.plan.steps[i];
        let (target, name) = (step.target, step.target.name());
        let second = format!("{name}-{i}");
        let begins = turn == Turn::Begin(i);
        match (step.fault, begins) {
            (Fault::Flush, true) => self.order(target, Deed::Flush).await?,
            (Fault::Flush, false) => return Ok(()),
            (Fault::Kill, _) if target.is_engine() => {
                self.order(target, if begins { Deed::Kill } else { Deed::Start }).await?;
            }
            (Fault::Kill, true) => self.kill(name, target)?,
            (Fault::Kill, false) => self.installation.spawn(name, target)?,
            (Fault::Pause, true) => {
                self.stopped[i] = Some(Timestamp::now());
                self.installation.signal(name, "STOP")?;
            }
            (Fault::Pause, false) => {
                self.installation.signal(name, "CONT")?;
                if let Some(since) = self.stopped[i].filter(|_| can_send(target)) {
                    self.performed.pauses.push((since, Timestamp::now()));
                }
            }
            (Fault::Join | Fault::JoinAndDie, true) => self.installation.spawn(&second, target)?,
            (Fault::JoinAndDie, false) => self.kill(&second, target)?,
            (Fault::Join, false) => {
                self.installation.signal(&second, "TERM")?;
                self.leaving.push((second, Instant::now() + LEAVE));
            }
        }
        let what = if begins { step.fault.name() } else { "mended" };
        self.note(format!("{name:<13} {what} (step {})", i + 1));
        Ok(())
    }

    fn kill(&mut self, name: &str, target: Target) -> anyhow::Result<()> {
        self.installation.kill(name)?;
        if can_send(target) {
            self.performed.deaths.push(Timestamp::now());
        }
        Ok(())
    }

    async fn order(&self, target: Target, deed: Deed) -> anyhow::Result<()> {
        match &self.hands {
            Some(hands) => hands.order(target, deed).await,
            None => Ok(()),
        }
    }
}

const fn can_send(target: Target) -> bool {
    matches!(target, Target::Gateway | Target::Standalone)
}
