//! The loop itself. It never waits for a stage: it hands out batches, and goes on listening to the log, to the stage, to the
//! clock and to `shutdown`.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ConsumeSettings, Stage, Vitals,
    ack::{Ack, Finished, Slot, Verdict, Work},
    pace::Gathering,
    partition::{Assigned, Entry},
};
use crate::{
    Event, Log, LogError, Partition, Record, Revoked, Subscription, dead::DeadLetters, metrics, trace::Processing,
};

/// A record that makes a stage panic twice, the second time alone, is given up.
const PANICS: u8 = 2;
/// Who makes a record wait for so long misses something.
const TROUBLE: Duration = Duration::from_secs(1);
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

    // === the log's side ===

    fn assign(&mut self, partitions: Vec<Partition>) {
        for partition in partitions {
            self.generation += 1;
            self.assigned.insert(partition, Assigned::new(self.generation, self.settings.pace));
        }
    }

    fn take_in(&mut self, records: Vec<Record>) {
        self.metrics.consumed.inc_by(records.len() as u64);
        for record in records {
            // records that were fetched before a revocation are the new owner's
            let Some(partition) = self.assigned.get_mut(&record.at.partition) else { continue };
            if partition.draining {
                continue;
            }
            self.ready.extend(partition.admit(record));
        }
    }

    fn revoke(&mut self, revoked: Revoked) {
        if revoked.lost {
            for partition in &revoked.partitions {
                self.forget(partition);
            }
            revoked.release();
            return;
        }
        for partition in &revoked.partitions {
            if let Some(assigned) = self.assigned.get_mut(partition) {
                assigned.draining = true;
            }
        }
        let given_up = |e: &Entry| revoked.partitions.contains(&e.record.at.partition);
        self.ready.retain(|e| !given_up(e));
        self.waiting.retain(|_, (_, e)| !given_up(e));
        self.revocations.push((Instant::now() + self.settings.drain, revoked));
    }

    /// Ends the revocations whose records have all been answered, or whose time is up.
    async fn release_drained(&mut self, log: &mut dyn Subscription) {
        let mut i = 0;
        while i < self.revocations.len() {
            let (deadline, revoked) = &self.revocations[i];
            let quiet = |p: &Partition| self.assigned.get(p).is_none_or(|a| a.in_flight.is_empty());
            if *deadline > Instant::now() && !revoked.partitions.iter().all(quiet) {
                i += 1;
                continue;
            }
            let (_, revoked) = self.revocations.swap_remove(i);
            self.commit(log, Some(&revoked.partitions)).await;
            for partition in &revoked.partitions {
                self.forget(partition);
            }
            revoked.release();
        }
    }

    fn forget(&mut self, partition: &Partition) {
        self.assigned.remove(partition);
        self.ready.retain(|e| e.record.at.partition != *partition);
        self.waiting.retain(|_, (_, e)| e.record.at.partition != *partition);
    }

    fn forget_all(&mut self) {
        self.assigned.clear();
        self.ready.clear();
        self.waiting.clear();
        self.revocations.clear();
    }

    /// Commits what is finished, of all partitions or of some. A failure is repeated at the next tick.
    async fn commit(&mut self, log: &mut dyn Subscription, only: Option<&[Partition]>) {
        let wanted = |p: &Partition| only.is_none_or(|list| list.contains(p));
        let offsets: BTreeMap<Partition, i64> = self
            .assigned
            .iter()
            .filter(|(p, _)| wanted(p))
            .filter_map(|(p, a)| Some((p.clone(), a.tracker.pending()?)))
            .collect();
        if offsets.is_empty() {
            return;
        }
        match log.commit(&offsets).await {
            Ok(()) => {
                for (partition, offset) in offsets {
                    if let Some(assigned) = self.assigned.get_mut(&partition) {
                        assigned.tracker.committed(offset);
                    }
                }
            }
            Err(error) => {
                self.metrics.commit_failures.inc();
                tracing::warn!(group = self.settings.group, %error, "could not commit, the records may be read again");
            }
        }
    }

    // === the stage's side ===

    /// Hands out what is ready while there are permits, and keeps the windows bounded.
    fn hand_out(&mut self, log: &mut dyn Subscription) {
        while self.in_flight < self.settings.permits && !self.ready.is_empty() {
            if !self.gathering.due(&self.settings, self.ready.len(), self.in_flight) {
                break;
            }
            let room = self.settings.max_batch.min(self.settings.permits - self.in_flight);
            let mut batch = Vec::with_capacity(room.min(self.ready.len()));
            while batch.len() < room {
                // a record over which the stage has panicked goes alone, so that it takes no other down with it
                let suspect = |e: &Entry| e.panics > 0;
                if self.ready.front().is_none_or(|e| suspect(e) && !batch.is_empty()) {
                    break;
                }
                let Some(entry) = self.ready.pop_front() else { break };
                let alone = suspect(&entry);
                batch.extend(self.work(entry));
                if alone {
                    break;
                }
            }
            self.give(batch);
        }
        for (partition, assigned) in &mut self.assigned {
            let window = assigned.tracker.len();
            if !assigned.paused && window >= self.settings.max_window {
                assigned.paused = true;
                log.pause(partition);
            } else if assigned.paused && window <= self.settings.max_window / 2 {
                assigned.paused = false;
                log.resume(partition);
            }
        }
    }

    fn work(&mut self, entry: Entry) -> Option<(Work, u8)> {
        let mut record = entry.record.clone();
        let panics = entry.panics;
        let assigned = self.assigned.get_mut(&record.at.partition)?;
        let (generation, offset) = (assigned.generation, record.at.offset);
        let slot = Slot { partition: record.at.partition.clone(), generation, offset };
        assigned.in_flight.insert(offset, entry);
        self.in_flight += 1;
        let span = Processing::begin(&mut record, &self.group);
        Some((Work { record, ack: Ack::new(slot, self.finished_tx.clone(), span) }, panics))
    }

    fn give(&self, mut batch: Vec<(Work, u8)>) {
        if batch.last().is_some_and(|(_, panics)| *panics >= PANICS) {
            if let Some((work, _)) = batch.pop() {
                let dead = self.dead.clone();
                self.tasks.spawn(async move {
                    let error = "the stage panicked over this record twice".to_owned();
                    dead.bury_or_wait(vec![(work, error)], "panic").await;
                });
            }
        } else if !batch.is_empty() {
            let stage = self.stage.clone();
            let batch = batch.into_iter().map(|(work, _)| work).collect();
            self.tasks.spawn(async move { stage.handle(batch).await });
        }
    }

    fn settle(&mut self, Finished { slot, verdict }: Finished) {
        self.in_flight -= 1;
        let assigned = self.assigned.get_mut(&slot.partition).filter(|a| a.generation == slot.generation);
        let Some(assigned) = assigned else {
            self.metrics.stale.inc();
            return;
        };
        let Some(mut entry) = assigned.in_flight.remove(&slot.offset) else { return };
        match verdict {
            Verdict::Done => {
                self.metrics.finished.inc();
                let next = assigned.finish(&entry.record);
                if !assigned.draining {
                    self.ready.extend(next);
                }
            }
            Verdict::Retry(_) | Verdict::Panicked if assigned.draining => {}
            Verdict::Retry(after) => {
                self.metrics.retried.inc();
                // shorter waits are the stage's own business
                if after >= TROUBLE {
                    self.vitals.trouble();
                }
                self.wait(after, slot.generation, entry);
            }
            Verdict::Panicked => {
                entry.panics += 1;
                self.wait(Duration::from_millis(100), slot.generation, entry);
            }
        }
    }

    fn wait(&mut self, after: Duration, generation: u64, entry: Entry) {
        self.waits += 1;
        self.waiting.insert((Instant::now() + after, self.waits), (generation, entry));
    }

    /// Makes ready what has waited long enough.
    fn wake(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.waiting.first_entry().filter(|e| e.key().0 <= now) {
            let (generation, entry) = first.remove();
            let current = self.assigned.get(&entry.record.at.partition);
            if current.is_some_and(|a| a.generation == generation && !a.draining) {
                self.ready.push_back(entry);
            }
        }
    }

    // === the end ===

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
