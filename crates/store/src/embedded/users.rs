//! Users in `users.db`.

use std::path::Path;

use async_trait::async_trait;
use domain::{Address, Channel, Device, DeviceId, Preferences, TenantId, Timestamp, User, UserId};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use sqlite::SHORT_WAL;

use super::file::{File, parsed, time};
use crate::{
    Change, HistoryEntry, StoreError, UserKey, Users, codec,
    roster::{self, Roster},
};

/// Times are in microseconds. A profile and the preferences have a version each, so that a change of one never hides a
/// concurrent change of the other. A deleted user keeps a row without either, so that a late older write stays refused.
/// `roster` is what is kept of the devices; `device_owner` says which user has one.
const STEPS: &[&str] = &[
    "
    CREATE TABLE user (
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        profile TEXT,
        profile_at INTEGER NOT NULL,
        preferences TEXT,
        preferences_at INTEGER NOT NULL,
        changed_by TEXT NOT NULL,
        changed_from TEXT NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT;
    CREATE TABLE preferences_change (
        tenant TEXT NOT NULL,
        user TEXT NOT NULL,
        at INTEGER NOT NULL,
        changed_by TEXT NOT NULL,
        changed_from TEXT NOT NULL,
        preferences TEXT NOT NULL
    ) STRICT;
    CREATE INDEX preferences_change_by_user ON preferences_change (tenant, user, at);
",
    "
    ALTER TABLE user ADD COLUMN roster TEXT;
    CREATE TABLE device_owner (
        tenant TEXT NOT NULL,
        device BLOB NOT NULL,
        user TEXT NOT NULL,
        PRIMARY KEY (tenant, device)
    ) STRICT, WITHOUT ROWID;
",
];

pub(super) struct EmbeddedUsers {
    file: File,
}

impl EmbeddedUsers {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { file: File::open(dir, "users.db", STEPS, SHORT_WAL)? })
    }
}

#[async_trait]
impl Users for EmbeddedUsers {
    async fn put(&self, user: &User, change: &Change) -> Result<(), StoreError> {
        let (user, change) = (user.clone(), change.clone());
        self.file.write(move |tx| put(tx, &user, &change)).await
    }

    async fn put_preferences(
        &self,
        key: &UserKey,
        preferences: &Preferences,
        change: &Change,
    ) -> Result<bool, StoreError> {
        let (key, preferences, change) = (key.clone(), codec::encode_preferences(preferences), change.clone());
        let job = move |tx: &Transaction<'_>| {
            let there = exists(tx, &key)?;
            if there {
                put_preferences(tx, &key, &preferences, &change)?;
            }
            Ok(there)
        };
        self.file.write(job).await
    }

    async fn put_device(
        &self,
        key: &UserKey,
        device: &Device,
        replaces: Option<DeviceId>,
        max: usize,
        change: &Change,
    ) -> Result<Option<Vec<Device>>, StoreError> {
        let (key, device, at) = (key.clone(), device.clone(), change.at);
        self.file.write(move |tx| put_device(tx, &key, &device, replaces, max, at)).await
    }

    async fn delete_device(&self, key: &UserKey, device: DeviceId, change: &Change) -> Result<bool, StoreError> {
        let (key, at) = (key.clone(), change.at);
        let job = move |tx: &Transaction<'_>| {
            change_devices(tx, &key, |user, roster| user.map(|_| roster.remove(device, at)))
        };
        Ok(self.file.write(job).await?.unwrap_or(false))
    }

    async fn address_gone(
        &self,
        key: &UserKey,
        channel: Channel,
        address: &Address,
        gone_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (key, address) = (key.clone(), address.clone());
        let job = move |tx: &Transaction<'_>| {
            let go = |user: Option<&User>, roster: &mut Roster| {
                user.map(|user| roster.gone(&user.contacts, channel, &address, gone_at))
            };
            change_devices(tx, &key, go)
        };
        Ok(self.file.write(job).await?.unwrap_or(false))
    }

    async fn delete(&self, key: &UserKey, change: &Change) -> Result<bool, StoreError> {
        let (key, change) = (key.clone(), change.clone());
        let job = move |tx: &Transaction<'_>| {
            let there = exists(tx, &key)?;
            delete(tx, &key, &change)?;
            change_devices(tx, &key, |_, roster| {
                roster.erase(change.at);
                Some(())
            })?;
            Ok(there)
        };
        self.file.write(job).await
    }

    async fn get(&self, key: &UserKey) -> Result<Option<User>, StoreError> {
        let key = key.clone();
        self.file.read(move |db| get(db, &key)).await
    }

    async fn lookup(&self, keys: &[UserKey]) -> Result<Vec<Option<User>>, StoreError> {
        let keys = keys.to_vec();
        self.file.read(move |db| keys.iter().map(|key| get(db, key)).collect()).await
    }

    async fn preferences(&self, keys: &[UserKey]) -> Result<Vec<Option<Preferences>>, StoreError> {
        let keys = keys.to_vec();
        self.file.read(move |db| keys.iter().map(|key| preferences(db, key)).collect()).await
    }

    async fn history(&self, key: &UserKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let key = key.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let job = move |db: &Connection| {
            let sql = "SELECT at, changed_by, changed_from, preferences FROM preferences_change \
                       WHERE tenant = ?1 AND user = ?2 ORDER BY at DESC, rowid DESC LIMIT ?3";
            let mut changes = db.prepare_cached(sql)?;
            changes.query_map(params![key.tenant.as_str(), key.user.as_str(), limit], entry)?.collect()
        };
        self.file.read(job).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.file.ping().await
    }
}

fn put(tx: &Transaction<'_>, user: &User, change: &Change) -> rusqlite::Result<()> {
    let there = get(tx, &UserKey { tenant: user.tenant.clone(), user: user.id.clone() })?;
    let profile = codec::encode_profile(user, there.as_ref());
    let preferences = codec::encode_preferences(&user.preferences);
    let sql = "INSERT INTO user (tenant, id, profile, profile_at, preferences, preferences_at, changed_by, changed_from) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?6, ?7) ON CONFLICT DO UPDATE SET \
               preferences = iif(profile IS NULL, excluded.preferences, preferences), \
               preferences_at = iif(profile IS NULL, excluded.preferences_at, preferences_at), \
               profile = excluded.profile, profile_at = excluded.profile_at, \
               changed_by = excluded.changed_by, changed_from = excluded.changed_from \
               WHERE excluded.profile_at >= profile_at";
    let (tenant, id, at) = (user.tenant.as_str(), user.id.as_str(), change.at.as_microsecond());
    let row = params![tenant, id, profile, at, preferences, change.by, change.from];
    tx.prepare_cached(sql)?.execute(row).map(|_| ())
}

/// A repeated call adds nothing to the history.
fn put_preferences(tx: &Transaction<'_>, key: &UserKey, preferences: &str, change: &Change) -> rusqlite::Result<()> {
    let (tenant, user, at) = (key.tenant.as_str(), key.user.as_str(), change.at.as_microsecond());
    let sql = "UPDATE user SET preferences = ?3, preferences_at = ?4 \
               WHERE tenant = ?1 AND id = ?2 AND preferences_at <= ?4";
    tx.prepare_cached(sql)?.execute(params![tenant, user, preferences, at])?;
    let sql = "INSERT INTO preferences_change SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS \
               (SELECT 1 FROM preferences_change WHERE tenant = ?1 AND user = ?2 AND at = ?3 \
                AND changed_by = ?4 AND changed_from = ?5 AND preferences = ?6)";
    tx.prepare_cached(sql)?.execute(params![tenant, user, at, change.by, change.from, preferences]).map(|_| ())
}

/// Leaves a mark also where nobody is: an older `put` may still be on its way.
fn delete(tx: &Transaction<'_>, key: &UserKey, change: &Change) -> rusqlite::Result<()> {
    let sql = "INSERT INTO user (tenant, id, profile, profile_at, preferences, preferences_at, changed_by, changed_from) \
               VALUES (?1, ?2, NULL, ?3, NULL, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET \
               profile = NULL, preferences = NULL, profile_at = excluded.profile_at, \
               changed_by = excluded.changed_by, changed_from = excluded.changed_from \
               WHERE excluded.profile_at >= profile_at";
    let (tenant, user, at) = (key.tenant.as_str(), key.user.as_str(), change.at.as_microsecond());
    tx.prepare_cached(sql)?.execute(params![tenant, user, at, change.by, change.from]).map(|_| ())
}

/// Of two users who register one device the later one has it, whoever is written first.
fn put_device(
    tx: &Transaction<'_>,
    key: &UserKey,
    device: &Device,
    replaces: Option<DeviceId>,
    max: usize,
    at: Timestamp,
) -> rusqlite::Result<Option<Vec<Device>>> {
    let put = |user: Option<&User>, roster: &mut Roster| {
        user.map(|_| (roster.put(device, replaces, max, at), roster.get(device.id).is_some()))
    };
    let Some((evicted, has_it)) = change_devices(tx, key, put)? else { return Ok(None) };
    if !has_it {
        return Ok(Some(evicted));
    }
    if let Some(other) = owner(tx, &key.tenant, device.id)?.filter(|other| other != key) {
        let lose = |_: Option<&User>, roster: &mut Roster| {
            roster.remove(device.id, at);
            roster.get(device.id).map(|theirs| theirs.last_active_at)
        };
        if let Some(later) = change_devices(tx, &other, lose)? {
            change_devices(tx, key, |_, roster| Some(roster.remove(device.id, later)))?;
            return Ok(Some(evicted));
        }
    }
    let sql = "INSERT OR REPLACE INTO device_owner VALUES (?1, ?2, ?3)";
    tx.prepare_cached(sql)?.execute(params![key.tenant.as_str(), device.id.0.as_bytes(), key.user.as_str()])?;
    Ok(Some(evicted))
}

/// The user who has a device.
fn owner(db: &Connection, tenant: &TenantId, device: DeviceId) -> rusqlite::Result<Option<UserKey>> {
    let sql = "SELECT user FROM device_owner WHERE tenant = ?1 AND device = ?2";
    let key =
        |row: &Row<'_>| Ok(UserKey { tenant: tenant.clone(), user: parsed(UserId::parse(row.get_ref(0)?.as_str()?))? });
    db.prepare_cached(sql)?.query_row(params![tenant.as_str(), device.0.as_bytes()], key).optional()
}

/// Writes what `change` leaves of a user's devices, also where it answers `None`.
fn change_devices<T>(
    tx: &Transaction<'_>,
    key: &UserKey,
    change: impl FnOnce(Option<&User>, &mut Roster) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    let (tenant, user) = (key.tenant.as_str(), key.user.as_str());
    let sql = "SELECT roster FROM user WHERE tenant = ?1 AND id = ?2";
    let kept = |row: &Row<'_>| parsed(roster::decode(row.get_ref(0)?.as_str_or_null()?));
    let before = tx.prepare_cached(sql)?.query_row([tenant, user], kept).optional()?.unwrap_or_default();
    let mut after = before.clone();
    let result = change(get(tx, key)?.as_ref(), &mut after);
    if after != before {
        let sql = "UPDATE user SET roster = ?3 WHERE tenant = ?1 AND id = ?2";
        tx.prepare_cached(sql)?.execute(params![tenant, user, roster::encode(&after)])?;
    }
    for lost in before.devices.iter().filter(|device| after.get(device.id).is_none()) {
        let sql = "DELETE FROM device_owner WHERE tenant = ?1 AND device = ?2 AND user = ?3";
        tx.prepare_cached(sql)?.execute(params![tenant, lost.id.0.as_bytes(), user])?;
    }
    Ok(result)
}

fn exists(db: &Connection, key: &UserKey) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM user WHERE tenant = ?1 AND id = ?2 AND profile IS NOT NULL";
    db.prepare_cached(sql)?.exists([key.tenant.as_str(), key.user.as_str()])
}

fn get(db: &Connection, key: &UserKey) -> rusqlite::Result<Option<User>> {
    let sql = "SELECT profile, preferences, max(profile_at, preferences_at), profile_at, roster FROM user \
               WHERE tenant = ?1 AND id = ?2 AND profile IS NOT NULL";
    let mut found = db.prepare_cached(sql)?;
    found.query_row([key.tenant.as_str(), key.user.as_str()], |row| user(key, row)).optional()
}

fn preferences(db: &Connection, key: &UserKey) -> rusqlite::Result<Option<Preferences>> {
    let sql = "SELECT preferences FROM user WHERE tenant = ?1 AND id = ?2 AND profile IS NOT NULL";
    let read = |row: &Row<'_>| parsed(codec::decode_preferences(row.get_ref(0)?.as_str()?));
    db.prepare_cached(sql)?.query_row([key.tenant.as_str(), key.user.as_str()], read).optional()
}

fn user(key: &UserKey, row: &Row<'_>) -> rusqlite::Result<User> {
    let profile = parsed(codec::decode_profile(row.get_ref(0)?.as_str()?, time(row.get(3)?)?))?;
    let roster = parsed(roster::decode(row.get_ref(4)?.as_str_or_null()?))?;
    Ok(User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: profile.locale,
        time_zone: profile.time_zone,
        contacts: roster.visible(profile.contacts),
        devices: roster.devices,
        preferences: parsed(codec::decode_preferences(row.get_ref(1)?.as_str()?))?,
        updated_at: time(row.get(2)?)?,
    })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    Ok(HistoryEntry {
        change: Change { at: time(row.get(0)?)?, by: row.get(1)?, from: row.get(2)? },
        preferences: parsed(codec::decode_preferences(row.get_ref(3)?.as_str()?))?,
    })
}
