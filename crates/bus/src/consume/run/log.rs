//! The log's side of the loop: partitions that come and go, records that come in, offsets that go out.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Loop;
use crate::{
    Partition, Record, Revoked, Subscription,
    consume::partition::{Assigned, Entry},
};

impl Loop {
    pub(super) fn assign(&mut self, partitions: Vec<Partition>) {
        for partition in partitions {
            self.generation += 1;
            self.assigned.insert(partition, Assigned::new(self.generation, self.settings.pace));
        }
    }

    pub(super) fn take_in(&mut self, records: Vec<Record>) {
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

    pub(super) fn revoke(&mut self, revoked: Revoked) {
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
    pub(super) async fn release_drained(&mut self, log: &mut dyn Subscription) {
        let mut i = 0;
        while i < self.revocations.len() {
            let (deadline, revoked) = &self.revocations[i];
            let quiet = |p: &Partition| self.assigned.get(p).is_none_or(|a| a.in_flight == 0);
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

    pub(super) fn forget_all(&mut self) {
        self.assigned.clear();
        self.ready.clear();
        self.waiting.clear();
        self.revocations.clear();
    }

    /// Commits what is finished, of all partitions or of some. A failure is repeated at the next tick.
    pub(super) async fn commit(&mut self, log: &mut dyn Subscription, only: Option<&[Partition]>) {
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
}
