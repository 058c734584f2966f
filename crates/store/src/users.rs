//! Users: contacts, devices and preferences, the record and the read model.

use async_trait::async_trait;
use domain::{Address, Channel, Device, DeviceId, Preferences, Recipient, TenantId, Timestamp, User, UserId};
use futures::future::BoxFuture;

use crate::StoreError;

/// A user of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey {
    /// The owner.
    pub tenant: TenantId,
    /// The person.
    pub user: UserId,
}

impl UserKey {
    /// The user that a recipient is; `None` for a raw address.
    pub fn of(tenant: &TenantId, recipient: &Recipient) -> Option<Self> {
        recipient.user().map(|user| Self { tenant: tenant.clone(), user: user.clone() })
    }
}

/// Who changed something, and from where: kept with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The name of the API key.
    pub by: String,
    /// `http`, `apply` and so on, with the client's address where there is one.
    pub from: String,
    /// When; also the version: of two writes the later one wins, whatever order they arrive in.
    pub at: Timestamp,
}

/// One change of a user's preferences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Who, when, from where.
    pub change: Change,
    /// The preferences after it.
    pub preferences: Preferences,
}

/// Users, by tenant and id.
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// Writes contacts, locale and time zone of `user`, and its preferences if the user is new; preferences of a user who
    /// exists are left alone, and devices always are. A contact that the user has keeps its `since`, one that was removed
    /// meanwhile, or is gone, is a new one. `user.updated_at` is ignored in favour of `change.at`. Durable when it resolves, and
    /// seen by every later `lookup`.
    async fn put(&self, user: &User, change: &Change) -> Result<(), StoreError>;

    /// Replaces a user's preferences and adds to their history. `false`: there is no such user, nothing was written.
    async fn put_preferences(
        &self,
        key: &UserKey,
        preferences: &Preferences,
        change: &Change,
    ) -> Result<bool, StoreError>;

    /// Registers a device, or once more with what is new about it; `device.registered_at` and `device.last_active_at` are
    /// ignored in favour of `change.at`, and one that is there keeps its `registered_at`. It takes the place of `replaces`,
    /// the one that the same app had before. Another user of the tenant who had the token loses it to whoever registered it
    /// last. Of more than `max` devices the least recently active make room, at any concurrency. A device that was removed, or
    /// was gone, at `change.at` or later stays away: an old write that is repeated brings nothing back.
    ///
    /// `None`: there is no such user, nothing was written. `Some`: those that had to make room, the least recently active
    /// first. Durable when it resolves, and seen by every later `lookup` of everyone concerned.
    async fn put_device(
        &self,
        key: &UserKey,
        device: &Device,
        replaces: Option<DeviceId>,
        max: usize,
        change: &Change,
    ) -> Result<Option<Vec<Device>>, StoreError>;

    /// Removes a device, unless it was registered anew after `change.at`. `false`: the user had none of that id.
    async fn delete_device(&self, key: &UserKey, device: DeviceId, change: &Change) -> Result<bool, StoreError>;

    /// Takes an address that does not exist any more out of the user, as device or contact, unless it was registered after
    /// `gone_at`. `false`: it is registered since, or was not there.
    async fn address_gone(
        &self,
        key: &UserKey,
        channel: Channel,
        address: &Address,
        gone_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Removes a user with their devices and preferences. `false`: there was none. The history of changes stays (it is
    /// evidence).
    async fn delete(&self, key: &UserKey, change: &Change) -> Result<bool, StoreError>;

    /// The record, always current.
    async fn get(&self, key: &UserKey) -> Result<Option<User>, StoreError>;

    /// Many users in one round trip, from the read model; `None` where there is no such user. One answer per key, in order.
    /// Sees every write that was answered before.
    async fn lookup(&self, keys: &[UserKey]) -> Result<Vec<Option<User>>, StoreError>;

    /// The preferences of [`Self::lookup`], for whoever asks for nothing else: contacts and devices are not read for it.
    async fn preferences(&self, keys: &[UserKey]) -> Result<Vec<Option<Preferences>>, StoreError>;

    /// A user's changes of preferences, the latest first, at most `limit`.
    async fn history(&self, key: &UserKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Answers when the store can be reached.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// What was found for one recipient; `Err` for a user whose record cannot be read, whom an operator has to mend.
pub type Found<T> = Result<Option<T>, StoreError>;

impl dyn Users {
    /// The users of a batch of recipients, in one round trip; `None` for one who is no user or not known. One who cannot be
    /// read does not keep the others from being found. `Err` when nobody could be looked up.
    pub async fn look_up_each(
        &self,
        recipients: impl Iterator<Item = Option<UserKey>>,
    ) -> Result<Vec<Found<User>>, StoreError> {
        self.each(recipients, |users, keys| users.lookup(keys)).await
    }

    /// The same for their preferences alone.
    pub async fn preferences_of_each(
        &self,
        recipients: impl Iterator<Item = Option<UserKey>>,
    ) -> Result<Vec<Found<Preferences>>, StoreError> {
        self.each(recipients, |users, keys| users.preferences(keys)).await
    }

    /// One question for all; one each when that fails over the record of one of them.
    async fn each<T>(
        &self,
        recipients: impl Iterator<Item = Option<UserKey>>,
        ask: Ask<T>,
    ) -> Result<Vec<Found<T>>, StoreError> {
        let mut keys = Vec::new();
        let is_user: Vec<bool> = recipients.map(|key| key.map(|key| keys.push(key)).is_some()).collect();
        let found = if keys.is_empty() { Ok(Vec::new()) } else { ask(self, &keys).await };
        let found: Vec<Found<T>> = match found {
            Ok(all) => all.into_iter().map(Ok).collect(),
            Err(StoreError::Corrupt { .. }) => self.one_by_one(&keys, ask).await?,
            Err(error) => return Err(error),
        };
        let mut found = found.into_iter();
        Ok(is_user.into_iter().map(|is_user| is_user.then(|| found.next()).flatten().unwrap_or(Ok(None))).collect())
    }

    async fn one_by_one<T>(&self, keys: &[UserKey], ask: Ask<T>) -> Result<Vec<Found<T>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(match ask(self, std::slice::from_ref(key)).await {
                Ok(mut one) => Ok(one.pop().flatten()),
                Err(error @ StoreError::Corrupt { .. }) => Err(error),
                Err(error) => return Err(error),
            });
        }
        Ok(found)
    }
}

/// What is asked of the store about some users.
type Ask<T> = for<'a> fn(&'a dyn Users, &'a [UserKey]) -> BoxFuture<'a, Result<Vec<Option<T>>, StoreError>>;
