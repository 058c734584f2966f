//! The stage's side of the loop: what is handed out, what was said of it, what waits for another try.

use std::time::Duration;

use tokio::time::Instant;

use super::Loop;
use crate::{
    Subscription,
    consume::{
        ack::{Ack, Finished, Slot, Verdict, Work},
        partition::Entry,
    },
    trace::Processing,
};

/// A record that makes a stage panic twice, the second time alone, is given up.
const PANICS: u8 = 2;
/// Who makes a record wait for so long misses something.
const TROUBLE: Duration = Duration::from_secs(1);

impl Loop {
    /// Hands out what is ready while there are permits, and keeps the windows bounded.
    pub(super) fn hand_out(&mut self, log: &mut dyn Subscription) {
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
        assigned.in_flight += 1;
        self.in_flight += 1;
        let slot = Slot { entry, generation: assigned.generation };
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

    pub(super) fn settle(&mut self, Finished { slot: Slot { mut entry, generation }, verdict }: Finished) {
        self.in_flight -= 1;
        let assigned = self.assigned.get_mut(&entry.record.at.partition).filter(|a| a.generation == generation);
        let Some(assigned) = assigned else {
            self.metrics.stale.inc();
            return;
        };
        assigned.in_flight -= 1;
        match verdict {
            Verdict::Done => {
                self.metrics.finished.inc();
                let next = assigned.finish(&entry);
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
                self.wait(after, generation, entry);
            }
            Verdict::Panicked => {
                entry.panics += 1;
                self.wait(Duration::from_millis(100), generation, entry);
            }
        }
    }

    fn wait(&mut self, after: Duration, generation: u64, entry: Entry) {
        self.waits += 1;
        self.waiting.insert((Instant::now() + after, self.waits), (generation, entry));
    }

    /// Makes ready what has waited long enough.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.waiting.first_entry().filter(|e| e.key().0 <= now) {
            let (generation, entry) = first.remove();
            let current = self.assigned.get(&entry.record.at.partition);
            if current.is_some_and(|a| a.generation == generation && !a.draining) {
                self.ready.push_back(entry);
            }
        }
    }
}
