//! Users of a cluster: Cassandra is the record, Redis the read model.
//!
//! **The record.** Every column is written with `change.at` as its time, so that of two writes the later one wins, in whatever
//! order they arrive, and a deletion beats every older write. (A write with the very time of the one before it is stamped a
//! microsecond later.) A user exists if there is a profile. Whether a `put` is the first one is read before it is written,
//! which two writers may do at once; so what it brings along goes into a column of its own, and can never replace what the
//! user has said in `preferences` meanwhile. No lightweight transaction is needed, but for devices: see `devices.rs`.
//!
//! **The read model follows before a write is answered.** A write goes to the record, reads all of the user back (both at
//! `LOCAL_QUORUM`), and then sets the copy in Redis unless that one is newer. The version of a user is the sum of the row's
//! columns' times and of the number of changes of their devices, none of which ever falls.
//! - *Two writers:* whoever reads back last sees both writes, so its version is the highest and its copy stays, whichever
//!   reaches Redis last.
//! - *A lookup that fills a miss while somebody writes:* it may have read the row before the write, but its copy then has a
//!   lower version and does not replace the writer's.
//! - *A crash, or Redis failing, between the two stores:* the write was not answered, so nobody relies on it. The caller
//!   repeats it, which is harmless; until then copies are stale for at most their 10 minutes.
//! - *What is left:* a copy that Redis has lost (evicted, flushed, a failover) leaves nothing to compare with. A lookup that
//!   was reading the row just then can put an older one back, and a replica can come up with one. It is gone after 10 minutes.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{Address, Channel, Device, DeviceId, Preferences, TenantId, Timestamp, User};
use tokio::sync::OnceCell;

use super::{ClusterSettings, cassandra::Cassandra, copy, read_model::ReadModel, record::Record, redis::Redis};
use crate::{Change, HistoryEntry, StoreError, UserKey, Users, roster::Roster};

/// Users in Cassandra and Redis.
pub(super) struct ClusterUsers {
    settings: ClusterSettings,
    /// Connected to by whoever asks first.
    record: OnceCell<Record>,
    read_model: ReadModel,
}

impl ClusterUsers {
    /// Nothing is connected yet.
    pub(super) fn new(settings: &ClusterSettings, redis: Arc<Redis>) -> Self {
        Self { settings: settings.clone(), record: OnceCell::new(), read_model: ReadModel::new(redis) }
    }

    /// Connects to Cassandra and checks the schema, unless that is done.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        self.record().await.map(drop)
    }

    async fn record(&self) -> Result<&Record, StoreError> {
        let ClusterSettings { cassandra, keyspace, timeout, .. } = &self.settings;
        let connect = || async {
            let cassandra = Cassandra::connect(cassandra, keyspace, *timeout).await?;
            cassandra.check_schema().await?;
            Record::new(cassandra).await
        };
        self.record.get_or_try_init(connect).await
    }

    /// Brings the read model up to the record. After every write, also one that changed nothing: it may be the repetition of
    /// one that got no further than the record.
    async fn publish(&self, key: &UserKey) -> Result<(), StoreError> {
        self.read_model.replace(key, &self.record().await?.read(key).await?).await
    }

    /// What is asked for of many users: of their copies, and where there is none of the record, which fills it.
    async fn look_up<T>(
        &self,
        keys: &[UserKey],
        of_copy: fn(&UserKey, &[u8]) -> Option<T>,
        of_record: fn(User) -> T,
    ) -> Result<Vec<Option<T>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let copies = self.read_model.read(keys, of_copy).await?;
        let missing: Vec<_> = keys.iter().zip(&copies).filter(|(_, copy)| copy.is_none()).map(|(key, _)| key).collect();
        let found = self.record().await?.read_many(&missing).await?;
        let fill: Vec<_> = missing.into_iter().zip(&found).collect();
        if let Err(e) = self.read_model.fill(&fill).await {
            tracing::warn!(error = %e, "users were read from the record, which the read model could not keep");
        }
        let mut found = found.into_iter();
        let mut next = || found.next().and_then(|stored| stored.user).map(of_record);
        Ok(copies.into_iter().map(|copy| copy.unwrap_or_else(&mut next)).collect())
    }

    /// Takes a device from everyone but who registered it last.
    async fn settle_owner(&self, tenant: &TenantId, device: DeviceId) -> Result<(), StoreError> {
        let record = self.record().await?;
        let claims = record.devices.claims(tenant, device).await?;
        let Some(owner) = claims.iter().max_by_key(|claim| (claim.at, &claim.user)) else { return Ok(()) };
        for claim in claims.iter().filter(|claim| claim.user != owner.user) {
            let loser = UserKey { tenant: tenant.clone(), user: claim.user.clone() };
            let lose = |user: Option<&User>, roster: &mut Roster| user.map(|_| roster.remove(device, owner.at));
            record.change_devices(&loser, lose).await?;
            self.publish(&loser).await?;
            // last, so that whoever repeats this after a crash finds the claim and does all of it
            record.devices.unclaim_until(&loser, device, claim.at).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Users for ClusterUsers {
    async fn put(&self, user: &User, change: &Change) -> Result<(), StoreError> {
        let record = self.record().await?;
        let key = UserKey { tenant: user.tenant.clone(), user: user.id.clone() };
        let there = record.read(&key).await?;
        record.put(user, change.at, &there).await?;
        self.publish(&key).await
    }

    async fn put_preferences(
        &self,
        key: &UserKey,
        preferences: &Preferences,
        change: &Change,
    ) -> Result<bool, StoreError> {
        let record = self.record().await?;
        let there = record.read(key).await?;
        if there.user.is_none() {
            return Ok(false);
        }
        record.prefer(key, preferences, change, &there).await?;
        self.publish(key).await?;
        Ok(true)
    }

    async fn put_device(
        &self,
        key: &UserKey,
        device: &Device,
        replaces: Option<DeviceId>,
        max: usize,
        change: &Change,
    ) -> Result<Option<Vec<Device>>, StoreError> {
        let record = self.record().await?;
        if record.read(key).await?.user.is_none() {
            return Ok(None);
        }
        let devices = &record.devices;
        // first, so that whoever has a device has a claim to it, also after a crash
        devices.claim(key, device.id, change.at).await?;
        let put = |user: Option<&User>, roster: &mut Roster| user.map(|_| roster.put(device, replaces, max, change.at));
        let Some(changed) = record.change_devices(key, put).await? else {
            devices.unclaim_until(key, device.id, change.at).await?;
            return Ok(None);
        };
        self.settle_owner(&key.tenant, device.id).await?;
        self.publish(key).await?;
        devices.unclaim(key, &changed.lost).await?;
        if changed.roster.get(device.id).is_none() {
            devices.unclaim_until(key, device.id, change.at).await?;
        }
        Ok(Some(changed.result))
    }

    async fn delete_device(&self, key: &UserKey, device: DeviceId, change: &Change) -> Result<bool, StoreError> {
        let record = self.record().await?;
        let remove = |user: Option<&User>, roster: &mut Roster| user.map(|_| roster.remove(device, change.at));
        let Some(changed) = record.change_devices(key, remove).await? else { return Ok(false) };
        self.publish(key).await?;
        record.devices.unclaim_until(key, device, change.at).await?;
        Ok(changed.result)
    }

    async fn address_gone(
        &self,
        key: &UserKey,
        channel: Channel,
        address: &Address,
        gone_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let record = self.record().await?;
        let go = |user: Option<&User>, roster: &mut Roster| {
            user.map(|user| roster.gone(&user.contacts, channel, address, gone_at))
        };
        let Some(changed) = record.change_devices(key, go).await? else { return Ok(false) };
        self.publish(key).await?;
        record.devices.unclaim(key, &changed.lost).await?;
        Ok(changed.result)
    }

    async fn delete(&self, key: &UserKey, change: &Change) -> Result<bool, StoreError> {
        let record = self.record().await?;
        let there = record.read(key).await?;
        // also when nobody is there: an older write may still be on its way
        record.erase(key, change.at, &there).await?;
        let erase = |_: Option<&User>, roster: &mut Roster| {
            roster.erase(change.at);
            Some(())
        };
        let changed = record.change_devices(key, erase).await?;
        self.publish(key).await?;
        if let Some(changed) = changed {
            record.devices.unclaim(key, &changed.lost).await?;
        }
        Ok(there.user.is_some())
    }

    async fn get(&self, key: &UserKey) -> Result<Option<User>, StoreError> {
        Ok(self.record().await?.read(key).await?.user)
    }

    async fn lookup(&self, keys: &[UserKey]) -> Result<Vec<Option<User>>, StoreError> {
        self.look_up(keys, copy::decode, |user| user).await
    }

    async fn preferences(&self, keys: &[UserKey]) -> Result<Vec<Option<Preferences>>, StoreError> {
        self.look_up(keys, copy::preferences, |user| user.preferences).await
    }

    async fn history(&self, key: &UserKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.record().await?.history(key, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.record().await?.ping().await?;
        self.read_model.ping().await
    }
}
