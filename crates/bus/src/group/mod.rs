//! Who of a group reads which partition: one small coordinator in the process, for the logs that have no broker.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::timeout,
};

use crate::{Partition, Revoked};

/// All groups of a log.
pub(crate) struct Groups {
    groups: Mutex<BTreeMap<Arc<str>, Group>>,
    /// How long a revoked partition waits for its old owner.
    patience: Duration,
}

/// What a member is to be told next.
#[derive(Debug)]
pub(crate) enum Change {
    Assigned(Vec<Partition>),
    Revoked(Revoked),
}

/// A place in a group; dropping it leaves the group.
pub(crate) struct Member(Fence);

/// Says whether a member still owns a partition; outlives the membership.
#[derive(Clone)]
pub(crate) struct Fence {
    groups: Arc<Groups>,
    group: Arc<str>,
    id: u64,
}

#[derive(Default)]
struct Group {
    peers: BTreeMap<u64, Peer>,
    slots: BTreeMap<Partition, Slot>,
    joined: u64,
}

/// A member, and what it has not been told yet. Revocations are told first.
struct Peer {
    topics: Vec<(Arc<str>, i32)>,
    wake: Arc<Notify>,
    assigned: Vec<Partition>,
    revoked: VecDeque<Revoked>,
}

struct Slot {
    target: u64,
    holder: Option<u64>,
    /// The holder was asked to give it up.
    leaving: bool,
}

/// A revocation that somebody has to wait for.
struct Leaving {
    from: u64,
    partitions: Vec<Partition>,
    released: oneshot::Receiver<()>,
}

impl Groups {
    pub(crate) fn new(patience: Duration) -> Arc<Self> {
        Arc::new(Self { groups: Mutex::default(), patience })
    }

    /// Joins with the topics and their partition counts; `wake` is notified whenever [`Member::poll`] has something.
    pub(crate) fn join(self: &Arc<Self>, group: &str, topics: Vec<(Arc<str>, i32)>, wake: Arc<Notify>) -> Member {
        let name: Arc<str> = group.into();
        let mut groups = self.lock();
        let state = groups.entry(Arc::clone(&name)).or_default();
        state.joined += 1;
        let id = state.joined;
        state.peers.insert(id, Peer { topics, wake, assigned: Vec::new(), revoked: VecDeque::new() });
        state.balance();
        let leaving = state.settle();
        drop(groups);
        self.wait_for(&name, leaving);
        Member(Fence { groups: Arc::clone(self), group: name, id })
    }

    /// The partitions of a group that somebody reads, and its members.
    pub(crate) fn roster(&self, group: &str) -> (Vec<Partition>, Vec<u64>) {
        let groups = self.lock();
        let Some(state) = groups.get(group) else { return Default::default() };
        (state.slots.keys().cloned().collect(), state.peers.keys().copied().collect())
    }

    /// Takes a partition from its owner, `lost` or in good order, and gives it to `to`, who may be the same.
    pub(crate) fn hand_over(self: &Arc<Self>, group: &Arc<str>, partition: &Partition, to: u64, lost: bool) {
        let mut groups = self.lock();
        let leaving = groups.get_mut(group).map_or_else(Vec::new, |state| state.hand_over(partition, to, lost));
        drop(groups);
        self.wait_for(group, leaving);
    }

    fn wait_for(self: &Arc<Self>, group: &Arc<str>, leaving: Vec<Leaving>) {
        for Leaving { from, partitions, released } in leaving {
            let Ok(runtime) = Handle::try_current() else {
                // nobody can release anything any more
                self.freed(group, from, &partitions, true);
                continue;
            };
            let (groups, group, patience) = (Arc::downgrade(self), Arc::clone(group), self.patience);
            runtime.spawn(async move {
                let late = timeout(patience, released).await.is_err();
                if let Some(groups) = groups.upgrade() {
                    groups.freed(&group, from, &partitions, late);
                }
            });
        }
    }

    fn freed(self: &Arc<Self>, group: &Arc<str>, from: u64, partitions: &[Partition], late: bool) {
        let mut groups = self.lock();
        let Some(state) = groups.get_mut(group) else { return };
        for partition in partitions {
            if let Some(slot) = state.slots.get_mut(partition).filter(|s| s.leaving && s.holder == Some(from)) {
                (slot.holder, slot.leaving) = (None, false);
            }
        }
        if late && let Some(peer) = state.peers.get_mut(&from) {
            peer.revoked.iter_mut().filter(|r| r.partitions == partitions).for_each(|r| r.lost = true);
        }
        let leaving = state.settle();
        drop(groups);
        self.wait_for(group, leaving);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Decides who should have what: per topic everybody the same number, give or take one, and the fewest moves.
    fn balance(&mut self) {
        let topics: BTreeMap<Arc<str>, i32> = self.peers.values().flat_map(|p| p.topics.iter().cloned()).collect();
        self.slots.retain(|p, _| topics.contains_key(&p.topic));
        let mut load: BTreeMap<u64, usize> = BTreeMap::new();
        for (topic, count) in topics {
            let readers = self.peers.iter().filter(|(_, p)| p.topics.iter().any(|(t, _)| *t == topic));
            let mut shares: BTreeMap<u64, Vec<Partition>> = readers.map(|(id, _)| (*id, Vec::new())).collect();
            let mut open = Vec::new();
            for index in 0..count {
                let partition = Partition { topic: Arc::clone(&topic), index };
                let share = self.slots.get(&partition).and_then(|slot| shares.get_mut(&slot.target));
                share.unwrap_or(&mut open).push(partition);
            }
            let mut order: Vec<u64> = shares.keys().copied().collect();
            // those with the most keep one more, so that it need not move; else those who have least in all
            order.sort_by_key(|id| (Reverse(shares[id].len()), load.get(id).copied().unwrap_or(0), *id));
            let total = usize::try_from(count).unwrap_or(0);
            let (each, more) = (total / order.len().max(1), total % order.len().max(1));
            let quota = |rank: usize| each + usize::from(rank < more);
            for (rank, id) in order.iter().enumerate() {
                let share = shares.entry(*id).or_default();
                open.extend(share.drain(quota(rank).min(share.len())..));
            }
            for (rank, id) in order.iter().enumerate() {
                let share = shares.entry(*id).or_default();
                share.extend(open.drain(..(quota(rank) - share.len()).min(open.len())));
                *load.entry(*id).or_default() += share.len();
                for partition in share.drain(..) {
                    let slot =
                        self.slots.entry(partition).or_insert(Slot { target: *id, holder: None, leaving: false });
                    slot.target = *id;
                }
            }
        }
    }

    /// Gives what is free to its target and asks for what another holds.
    fn settle(&mut self) -> Vec<Leaving> {
        let mut revoke: BTreeMap<u64, Vec<Partition>> = BTreeMap::new();
        for (partition, slot) in self.slots.iter_mut().filter(|(_, s)| !s.leaving && s.holder != Some(s.target)) {
            if let Some(holder) = slot.holder
                && let Some(peer) = self.peers.get_mut(&holder)
            {
                let untold = peer.assigned.iter().position(|p| p == partition);
                if let Some(at) = untold {
                    peer.assigned.remove(at);
                } else {
                    slot.leaving = true;
                    revoke.entry(holder).or_default().push(partition.clone());
                    continue;
                }
            }
            slot.holder = Some(slot.target);
            if let Some(peer) = self.peers.get_mut(&slot.target) {
                peer.assigned.push(partition.clone());
                peer.wake.notify_one();
            }
        }
        revoke.into_iter().filter_map(|(from, partitions)| self.revoke(from, partitions, false)).collect()
    }

    fn revoke(&mut self, from: u64, partitions: Vec<Partition>, lost: bool) -> Option<Leaving> {
        let peer = self.peers.get_mut(&from)?;
        let (revoked, released) = Revoked::new(partitions.clone(), lost);
        peer.revoked.push_back(revoked);
        peer.wake.notify_one();
        (!lost).then_some(Leaving { from, partitions, released })
    }

    fn hand_over(&mut self, partition: &Partition, to: u64, lost: bool) -> Vec<Leaving> {
        let told = |id: &u64| self.peers.get(id).is_some_and(|peer| !peer.assigned.contains(partition));
        let Some(slot) = self.slots.get_mut(partition).filter(|slot| !slot.leaving) else { return Vec::new() };
        let Some(from) = slot.holder.filter(told) else { return Vec::new() };
        slot.target = to;
        (slot.holder, slot.leaving) = if lost { (None, false) } else { (Some(from), true) };
        let mut leaving: Vec<Leaving> = self.revoke(from, vec![partition.clone()], lost).into_iter().collect();
        leaving.extend(self.settle());
        leaving
    }

    fn leave(&mut self, id: u64) -> Vec<Leaving> {
        self.peers.remove(&id);
        for slot in self.slots.values_mut().filter(|slot| slot.holder == Some(id)) {
            (slot.holder, slot.leaving) = (None, false);
        }
        self.balance();
        self.settle()
    }
}

impl Member {
    /// What this member has not been told yet.
    pub(crate) fn poll(&self) -> Option<Change> {
        let mut groups = self.0.groups.lock();
        let peer = groups.get_mut(&self.0.group)?.peers.get_mut(&self.0.id)?;
        if let Some(revoked) = peer.revoked.pop_front() {
            return Some(Change::Revoked(revoked));
        }
        (!peer.assigned.is_empty()).then(|| Change::Assigned(std::mem::take(&mut peer.assigned)))
    }

    pub(crate) fn fence(&self) -> Fence {
        self.0.clone()
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }
}

impl Fence {
    /// A commit of this partition by this member is right.
    pub(crate) fn owns(&self, partition: &Partition) -> bool {
        let groups = self.groups.lock();
        groups.get(&self.group).and_then(|g| g.slots.get(partition)).is_some_and(|slot| slot.holder == Some(self.id))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Fence { groups, group, id } = &self.0;
        let mut all = groups.lock();
        // an empty group stays: its next member must not be taken for this one, whose revocations may still be waited for
        let leaving = all.get_mut(group).map_or_else(Vec::new, |state| state.leave(*id));
        drop(all);
        groups.wait_for(group, leaving);
    }
}

#[cfg(test)]
mod tests;
