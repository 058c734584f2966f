//! A member of a group of the simulated log.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Id, Shared, Step};
use crate::{
    Event, LogError, Partition, Position, Record, Subscription,
    group::{Change, Member},
};

/// Records of one partition in one event.
const RECORDS: usize = 512;

pub(super) struct Reader {
    shared: Arc<Shared>,
    id: Id,
    member: Member,
    wake: Arc<Notify>,
    /// The position of each partition that is ours, and whether it is paused.
    positions: BTreeMap<Partition, (i64, bool)>,
    /// When the delivery goes on.
    late: Option<Instant>,
}

pub(super) fn subscribe(shared: &Arc<Shared>, group: &str, topics: &[Arc<str>]) -> Result<Reader, LogError> {
    let wake = Arc::new(Notify::new());
    let counts = {
        let mut state = shared.lock();
        state.readers.push(Arc::downgrade(&wake));
        topics.iter().map(|name| Ok((Arc::clone(name), state.topic(name)?.count()))).collect::<Result<_, LogError>>()?
    };
    let member = shared.groups.join(group, counts, Arc::clone(&wake));
    let id = Id { group: group.into(), number: member.id() };
    Ok(Reader { shared: Arc::clone(shared), id, member, wake, positions: BTreeMap::new(), late: None })
}

impl Reader {
    /// Moves some partition of the group, by chance.
    fn rebalance(&self) {
        let faults = &self.shared.faults;
        let mut state = self.shared.lock();
        if !state.happens(faults.rebalance) {
            return;
        }
        let lost = state.happens(faults.rebalance_lost);
        let (partitions, members) = self.shared.groups.roster(&self.id.group);
        let (partition, to) = (state.chance.choice(&partitions), state.chance.choice(&members));
        drop(state);
        if let (Some(partition), Some(to)) = (partition, to) {
            self.shared.groups.hand_over(&self.id.group, partition, *to, lost);
        }
    }

    fn assigned(&mut self, partitions: Vec<Partition>) -> Event {
        let mut state = self.shared.lock();
        let mut from = Vec::new();
        for partition in &partitions {
            let mut offset =
                state.committed.get(&(Arc::clone(&self.id.group), partition.clone())).copied().unwrap_or(0);
            if state.happens(self.shared.faults.redelivery) {
                offset -= state.chance.i64(0..=offset.min(5));
            }
            self.positions.insert(partition.clone(), (offset, false));
            from.push(Position { partition: partition.clone(), offset });
        }
        self.shared.note(&mut state, Step::Assigned { member: self.id.clone(), from });
        Event::Assigned(partitions)
    }

    fn told(&mut self, change: Change) -> Event {
        match change {
            Change::Assigned(partitions) => self.assigned(partitions),
            Change::Revoked(revoked) => {
                self.positions.retain(|partition, _| !revoked.partitions.contains(partition));
                let (partitions, lost) = (revoked.partitions.clone(), revoked.lost);
                let step = Step::Revoked { member: self.id.clone(), partitions, lost };
                self.shared.note(&mut self.shared.lock(), step);
                Event::Revoked(revoked)
            }
        }
    }

    /// Some partition with something to deliver.
    fn due(&self) -> Option<Partition> {
        let mut state = self.shared.lock();
        let due = self.positions.iter().filter(|(p, (at, paused))| !paused && state.head(p) > *at);
        let due: Vec<Partition> = due.map(|(p, _)| p.clone()).collect();
        state.chance.choice(due)
    }

    fn deliver(&mut self, partition: &Partition) -> Vec<Record> {
        let mut state = self.shared.lock();
        let small = state.happens(self.shared.faults.batch_small);
        let most = if small { state.chance.usize(1..=3) } else { RECORDS };
        let Some((position, _)) = self.positions.get_mut(partition) else { return Vec::new() };
        let records = state.read(partition, *position, most);
        if let Some(first) = records.first() {
            let step = Step::Delivered { member: self.id.clone(), from: first.at.clone(), count: records.len() };
            self.shared.note(&mut state, step);
        }
        *position += i64::try_from(records.len()).unwrap_or(0);
        records
    }
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self) -> Result<Event, LogError> {
        self.rebalance();
        if self.shared.lock().happens(self.shared.faults.next_fails) {
            return Err(LogError::Unavailable("a simulated fault".into()));
        }
        loop {
            if let Some(change) = self.member.poll() {
                return Ok(self.told(change));
            }
            let Some(partition) = self.due() else {
                self.wake.notified().await;
                continue;
            };
            if self.late.is_none() {
                let pause = self.shared.lock().pause(self.shared.faults.delivery_late, self.shared.faults.longest);
                self.late = Some(Instant::now() + pause.unwrap_or_default());
            }
            if let Some(until) = self.late.filter(|until| *until > Instant::now()) {
                tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = sleep_until(until) => {}
                }
                continue;
            }
            self.late = None;
            return Ok(Event::Records(self.deliver(&partition)));
        }
    }

    async fn commit(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError> {
        let faults = self.shared.faults;
        self.shared.dawdle(faults.commit_slow).await;
        let fence = self.member.fence();
        let (mut refused, fails) = (false, {
            let mut state = self.shared.lock();
            let fails = state.happens(faults.commit_fails);
            (fails, !fails || state.chance.bool())
        });
        for (partition, offset) in offsets {
            let mut state = self.shared.lock();
            let stands = fails.1 && fence.owns(partition);
            refused |= !fence.owns(partition);
            if stands {
                state.committed.insert((Arc::clone(&self.id.group), partition.clone()), *offset);
            }
            let next = Position { partition: partition.clone(), offset: *offset };
            let step = Step::Committed { member: self.id.clone(), next, stands, failed: fails.0 || refused };
            self.shared.note(&mut state, step);
        }
        self.shared.dawdle(faults.commit_slow).await;
        match (fails.0, refused) {
            (true, _) => Err(LogError::Unavailable("a simulated fault, the outcome is open".into())),
            (false, true) => Err(LogError::NotAssigned),
            (false, false) => Ok(()),
        }
    }

    fn pause(&mut self, partition: &Partition) {
        self.positions.entry(partition.clone()).and_modify(|(_, paused)| *paused = true);
    }

    fn resume(&mut self, partition: &Partition) {
        self.positions.entry(partition.clone()).and_modify(|(_, paused)| *paused = false);
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.note(&mut self.shared.lock(), Step::Left { member: self.id.clone() });
    }
}
