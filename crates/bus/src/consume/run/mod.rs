//! The loop itself. It never waits for a stage: it hands out batches, and goes on listening to the log, to the stage, to the
//! clock and to `shutdown`.

mod log;
mod stage;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::{HashMap, HashMapExt as _};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ConsumeSettings, Stage, Vitals,
    ack::Finished,
    pace::Gathering,
    partition::{Assigned, Entry},
};
use crate::{Event, Log, LogError, Partition, Revoked, Subscription, dead::DeadLetters, metrics};

/// Between two attempts to join the group.
const REJOIN: Duration = Duration::from_secs(1);

pub(super) struct Loop {
    log: Arc<dyn Log>,
    stage: Arc<dyn Stage>,
    dead: DeadLetters,
    settings: ConsumeSettings,
    /// For spans.
    group: Arc<str>,
    metrics: metrics::Group,
    vitals: Vitals,
    assigned: HashMap<Partition, Assigned>,
    generation: u64,
    /// May be handed out now.
    ready: VecDeque<Entry>,
    gathering: Gathering,
    /// Wait for their time, keyed by it and a number that keeps equal times apart.
    waiting: BTreeMap<(Instant, u64), (u64, Entry)>,
    waits: u64,
    revocations: Vec<(Instant, Revoked)>,
    in_flight: usize,
    tasks: TaskTracker,
    finished_tx: mpsc::Sender<Finished>,
    finished: mpsc::Receiver<Finished>,
}

impl Loop {
    pub(super) fn new(
        log: Arc<dyn Log>,
        stage: Arc<dyn Stage>,
        dead: DeadLetters,
        settings: ConsumeSettings,
        vitals: Vitals,
    ) -> Self {
        let (finished_tx, finished) = mpsc::channel(settings.permits.max(1));
        Self {
            log,
            stage,
            dead,
            group: settings.group.as_str().into(),
            metrics: metrics::Group::of(&settings.group),
            settings,
            vitals,
            assigned: HashMap::new(),
            generation: 0,
            ready: VecDeque::new(),
            gathering: Gathering::default(),
            waiting: BTreeMap::new(),
            waits: 0,
            revocations: Vec::new(),
            in_flight: 0,
            tasks: TaskTracker::new(),
            finished_tx,
            finished,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) -> bool {
        loop {
            let joined = tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.drain(None).await,
                joined = self.log.subscribe(&self.settings.group, &self.settings.topics, self.settings.pace.gather()) => joined,
            };
            let error = match joined {
                Ok(mut subscription) => {
                    self.vitals.joined(true);
                    match self.turn(subscription.as_mut(), &shutdown).await {
                        Ok(()) => return self.drain(Some(subscription)).await,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.vitals.joined(false);
            self.forget_all();
            tracing::warn!(group = self.settings.group, %error, "lost the log, joining again");
            self.beat();
            tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(REJOIN) => {} }
        }
    }

    /// Goes round until `shutdown` (`Ok`) or until the subscription is broken.
    async fn turn(&mut self, log: &mut dyn Subscription, shutdown: &CancellationToken) -> Result<(), LogError> {
        let mut tick = interval(self.settings.commit_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.hand_out(log);
            self.beat();
            let due = self.next_due();
            tokio::select! {
                // in this order, so that a simulated run repeats itself
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(finished) = self.finished.recv() => {
                    self.settle(finished);
                    while let Ok(more) = self.finished.try_recv() {
                        self.settle(more);
                    }
                    self.release_drained(log).await;
                }
                _ = tick.tick() => self.commit(log, None).await,
                () = sleep_until(due) => {
                    self.wake();
                    self.release_drained(log).await;
                }
                event = log.next() => match event? {
                    Event::Assigned(partitions) => self.assign(partitions),
                    Event::Records(records) => self.take_in(records),
                    Event::Revoked(revoked) => {
                        self.revoke(revoked);
                        self.release_drained(log).await;
                    }
                },
            }
        }
    }

    fn beat(&self) {
        let oldest = self.assigned.values().filter_map(|a| a.tracker.oldest()).min();
        self.vitals.beat(self.assigned.len(), self.in_flight, self.waiting.len(), oldest);
    }

    /// When the next retry, a batch or the end of a revocation is due; far away if nothing is.
    fn next_due(&self) -> Instant {
        let retry = self.waiting.keys().next().map(|(at, _)| *at);
        let revocation = self.revocations.iter().map(|(at, _)| *at).min();
        let batch = self.gathering.until(self.settings.pace);
        let batch = batch.filter(|_| self.in_flight == 0 && !self.ready.is_empty());
        retry
            .into_iter()
            .chain(revocation)
            .chain(batch)
            .min()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// Finishes what is in flight within the deadline, commits, leaves.
    async fn drain(mut self, log: Option<Box<dyn Subscription>>) -> bool {
        let deadline = Instant::now() + self.settings.finish_within;
        self.ready.clear();
        self.waiting.clear();
        while self.in_flight > 0 {
            self.beat();
            let next = tokio::time::timeout_at(deadline, self.finished.recv()).await;
            let Ok(Some(finished)) = next else { break };
            self.settle(finished);
            self.ready.clear();
        }
        if let Some(mut log) = log {
            self.commit(log.as_mut(), None).await;
            log.close().await;
        }
        self.tasks.close();
        let quiet = tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_ok();
        self.vitals.joined(false);
        quiet && self.in_flight == 0
    }
}
