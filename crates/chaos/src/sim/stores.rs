//! The stores' contracts in memory, with every fault between a question and its answer.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{
    Address, Channel, Contacts, DeliveryId, Device, DeviceId, NotificationId, Preferences, Status, TenantId, Timestamp,
    User,
};
use store::{
    Balance, Change, Claim, ClaimRequest, Decided, Decision, Deliveries, DeliveryQuery, Document, HistoryEntry,
    IndexError, Ledger, NotificationView, Page, Settled, StoreError, Stores, UserKey, Users,
};
use tokio::time::Instant;

use super::life::{Held, Life};

pub(super) struct Memory(Arc<Life>);

/// All three, as a process sees them that can die.
pub(super) fn stores(life: &Arc<Life>) -> Stores {
    let memory = Arc::new(Memory(life.clone()));
    Stores { users: memory.clone(), ledger: memory.clone(), deliveries: memory }
}

/// What no service of a run calls.
fn not_here<T>() -> Result<T, StoreError> {
    Err(StoreError::unavailable("sim", "no service asks that"))
}

impl Held {
    /// As others see it: its age is the simulated one.
    fn claim(&self) -> Claim {
        match self {
            Self::Open { owner, since } => Claim::Open { owner: *owner, at: Timestamp::now() - since.elapsed() },
            Self::Settled(settled) => Claim::Settled(settled.clone()),
        }
    }

    fn is_open_under(&self, whose: u128) -> bool {
        matches!(self, Self::Open { owner, .. } if *owner == whose)
    }
}

const fn open(owner: u128, since: Instant) -> Held {
    Held::Open { owner, since }
}

#[async_trait]
impl Ledger for Memory {
    async fn decide(&self, decisions: &[Decision]) -> Result<Vec<Option<Decided>>, StoreError> {
        let one = |state: &mut super::life::State, d: &Decision| {
            let key = (d.notification, d.recipient.clone());
            let stood = state.decisions.get(&key).cloned();
            if stood.is_none() {
                state.decisions.insert(key, d.plan.clone());
            }
            stood
        };
        self.0.act(|state| decisions.iter().map(|d| one(state, d)).collect()).await
    }

    async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
        let one = |state: &mut super::life::State, r: &ClaimRequest| match state.claims.get(&r.delivery) {
            Some(held) => held.claim(),
            None => {
                state.claims.insert(r.delivery, open(r.owner, Instant::now()));
                Claim::Granted
            }
        };
        self.0.act(|state| requests.iter().map(|r| one(state, r)).collect()).await
    }

    async fn take_over(&self, request: &ClaimRequest, from: u128) -> Result<bool, StoreError> {
        let take = |state: &mut super::life::State| {
            let held = state.claims.get_mut(&request.delivery).filter(|held| held.is_open_under(from));
            held.map(|held| *held = open(request.owner, Instant::now())).is_some()
        };
        self.0.act(take).await
    }

    async fn release(&self, delivery: DeliveryId, owner: u128) -> Result<(), StoreError> {
        let release = |state: &mut super::life::State| {
            if state.claims.get(&delivery).is_some_and(|held| held.is_open_under(owner)) {
                state.claims.remove(&delivery);
            }
        };
        self.0.act(release).await
    }

    async fn settle(&self, owner: u128, ends: &[(DeliveryId, Settled)]) -> Result<Vec<Option<Claim>>, StoreError> {
        let settle = |state: &mut super::life::State| {
            let one = |(delivery, end): &(DeliveryId, Settled)| {
                if let Some(held) = state.claims.get(delivery).filter(|held| !held.is_open_under(owner)) {
                    return Some(held.claim());
                }
                state.claims.insert(*delivery, Held::Settled(end.clone()));
                None
            };
            ends.iter().map(one).collect()
        };
        self.0.act(settle).await
    }

    async fn reopen(&self, request: &ClaimRequest, settled: &Settled) -> Result<bool, StoreError> {
        let reopen = |state: &mut super::life::State| {
            let held = state.claims.get_mut(&request.delivery);
            let held = held.filter(|held| matches!(held, Held::Settled(end) if end == settled));
            held.map(|held| *held = open(request.owner, Instant::now())).is_some()
        };
        self.0.act(reopen).await
    }

    async fn mark_gone(
        &self,
        tenant: &TenantId,
        channel: Channel,
        address: &Address,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let key = (tenant.clone(), channel, address.clone());
        let mark = |state: &mut super::life::State| {
            let known = state.gone.entry(key).or_insert(at);
            *known = at.max(*known);
        };
        self.0.act(mark).await
    }

    async fn gone(&self, addresses: &[(TenantId, Channel, Address)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        self.0.act(|state| addresses.iter().map(|key| state.gone.get(key).copied()).collect()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Users for Memory {
    async fn lookup(&self, keys: &[UserKey]) -> Result<Vec<Option<User>>, StoreError> {
        self.0.act(|state| keys.iter().map(|key| state.users.get(key).cloned()).collect()).await
    }

    async fn preferences(&self, keys: &[UserKey]) -> Result<Vec<Option<Preferences>>, StoreError> {
        let one = |state: &super::life::State, key| state.users.get(key).map(|user| user.preferences.clone());
        self.0.act(|state| keys.iter().map(|key| one(state, key)).collect()).await
    }

    async fn address_gone(
        &self,
        key: &UserKey,
        channel: Channel,
        address: &Address,
        gone_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let remove = |state: &mut super::life::State| {
            let Some(user) = state.users.get_mut(key) else { return false };
            let mut left = Contacts::default();
            let is_it = |c: &domain::Contact| c.address == *address && c.since <= gone_at;
            let removed = user.contacts.on(channel).iter().any(is_it);
            for (on, contact) in user.contacts.iter().filter(|(on, contact)| *on != channel || !is_it(contact)) {
                left.add(on, contact.clone());
            }
            user.contacts = left;
            removed
        };
        self.0.act(remove).await
    }

    async fn put(&self, _: &User, _: &Change) -> Result<(), StoreError> {
        not_here()
    }

    async fn put_preferences(&self, _: &UserKey, _: &Preferences, _: &Change) -> Result<bool, StoreError> {
        not_here()
    }

    async fn put_device(
        &self,
        _: &UserKey,
        _: &Device,
        _: Option<DeviceId>,
        _: usize,
        _: &Change,
    ) -> Result<Option<Vec<Device>>, StoreError> {
        not_here()
    }

    async fn delete_device(&self, _: &UserKey, _: DeviceId, _: &Change) -> Result<bool, StoreError> {
        not_here()
    }

    async fn delete(&self, _: &UserKey, _: &Change) -> Result<bool, StoreError> {
        not_here()
    }

    async fn get(&self, _: &UserKey) -> Result<Option<User>, StoreError> {
        not_here()
    }

    async fn history(&self, _: &UserKey, _: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        not_here()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Deliveries for Memory {
    async fn index(&self, documents: &[Document]) -> Result<Vec<Result<(), IndexError>>, StoreError> {
        let index = |state: &mut super::life::State| {
            for document in documents {
                let (id, version) = match document {
                    Status::Notification(n) => (n.id.to_string(), 0),
                    Status::Delivery(d) => (d.id.to_string(), d.version()),
                };
                let known = state.index.entry(id).or_insert_with(|| (version, document.clone()));
                if version > known.0 {
                    *known = (version, document.clone());
                }
            }
            documents.iter().map(|_| Ok(())).collect()
        };
        self.0.act(index).await
    }

    async fn notification(&self, _: &TenantId, _: NotificationId) -> Result<Option<NotificationView>, StoreError> {
        not_here()
    }

    async fn search(
        &self,
        _: &TenantId,
        _: &DeliveryQuery,
        _: Option<&str>,
        _: usize,
    ) -> Result<Option<Page>, StoreError> {
        not_here()
    }

    async fn balance(&self, _: Option<&TenantId>, _: Timestamp) -> Result<Vec<Balance>, StoreError> {
        not_here()
    }

    async fn prune(&self, _: Timestamp) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
