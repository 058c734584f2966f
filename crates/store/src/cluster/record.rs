//! The record of users in Cassandra: a row for each user whose columns are each won by the latest write, and their devices.

use std::sync::Arc;

use domain::{Device, Preferences, Timestamp, User};
use futures::{StreamExt, TryStreamExt, future::try_join, stream};
use scylla::{
    DeserializeRow,
    statement::{
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
};

use super::{
    cassandra::Cassandra,
    devices::{Devices, Kept},
};
use crate::{Change, HistoryEntry, StoreError, UserKey, codec, roster::Roster};

/// How many users are read at the same time.
const CONCURRENCY: usize = 64;

/// How often a change of a user's devices is tried when others get in before it.
const SWAPS: usize = 100;

const READ: &str = "SELECT profile, profile_at, preferences, preferences_at, initial, offered, deleted_at, \
     WRITETIME(profile) AS profile_stamp, WRITETIME(preferences) AS preferences_stamp, \
     WRITETIME(initial) AS initial_stamp, WRITETIME(offered) AS offered_stamp, \
     WRITETIME(deleted_at) AS deleted_stamp FROM %.users WHERE tenant = ? AND user_id = ?";
const CREATE: &str = "UPDATE %.users USING TIMESTAMP ? SET profile = ?, profile_at = ?, initial = ?, offered = ? \
     WHERE tenant = ? AND user_id = ?";
const UPDATE: &str = "UPDATE %.users USING TIMESTAMP ? SET profile = ?, profile_at = ?, offered = ? \
     WHERE tenant = ? AND user_id = ?";
const PREFER: &str = "UPDATE %.users USING TIMESTAMP ? SET preferences = ?, preferences_at = ? \
     WHERE tenant = ? AND user_id = ?";
const NOTE: &str = "INSERT INTO %.preference_history (tenant, user_id, at, changed_by, changed_from, preferences) \
     VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
/// The mark stays for as long as Cassandra keeps the deletion itself (`gc_grace_seconds`, 10 days).
const ERASE: &str = "UPDATE %.users USING TIMESTAMP ? AND TTL 864000 SET deleted_at = ?, profile = null, \
     profile_at = null, preferences = null, preferences_at = null, initial = null, offered = null \
     WHERE tenant = ? AND user_id = ?";
const HISTORY: &str = "SELECT at, changed_by, changed_from, preferences FROM %.preference_history \
     WHERE tenant = ? AND user_id = ? LIMIT ?";

/// A row of `users`. `…_at` is the time of the change, `…_stamp` the time that Cassandra compares, both in microseconds.
#[derive(Debug, Default, DeserializeRow)]
struct Row {
    profile: Option<String>,
    profile_at: Option<i64>,
    preferences: Option<String>,
    preferences_at: Option<i64>,
    initial: Option<String>,
    offered: Option<String>,
    deleted_at: Option<i64>,
    profile_stamp: Option<i64>,
    preferences_stamp: Option<i64>,
    initial_stamp: Option<i64>,
    offered_stamp: Option<i64>,
    deleted_stamp: Option<i64>,
}

/// The time of a change, and the time that it was written with.
type Written = (Option<i64>, Option<i64>);

/// What the record says of a user at one moment.
#[derive(Debug)]
pub(super) struct Stored {
    /// Grows with every write that changes the row, deletions included.
    pub version: u64,
    /// The user, if there is one.
    pub user: Option<User>,
    profile: Written,
    preferences: Written,
    deletion: Written,
    kept: Kept,
}

/// A change of a user's devices that was made.
pub(super) struct Changed<T> {
    /// What the change says of itself.
    pub(super) result: T,
    /// What is left.
    pub(super) roster: Roster,
    /// What went.
    pub(super) lost: Vec<Device>,
}

/// The tables `users` and `preference_history`, and those of the devices.
pub(super) struct Record {
    cassandra: Arc<Cassandra>,
    pub(super) devices: Devices,
    read: PreparedStatement,
    create: PreparedStatement,
    update: PreparedStatement,
    /// Both or none: a change of preferences is evidence.
    prefer_and_note: Batch,
    erase: PreparedStatement,
    history: PreparedStatement,
}

impl Record {
    /// Prepares the statements.
    pub(super) async fn new(cassandra: Cassandra) -> Result<Self, StoreError> {
        let mut prefer_and_note = Batch::new(BatchType::Logged);
        prefer_and_note.append_statement(cassandra.prepare(PREFER).await?);
        prefer_and_note.append_statement(cassandra.prepare(NOTE).await?);
        prefer_and_note.set_is_idempotent(true);
        let cassandra = Arc::new(cassandra);
        Ok(Self {
            devices: Devices::new(Arc::clone(&cassandra)).await?,
            read: cassandra.prepare(READ).await?,
            create: cassandra.prepare(CREATE).await?,
            update: cassandra.prepare(UPDATE).await?,
            prefer_and_note,
            erase: cassandra.prepare(ERASE).await?,
            history: cassandra.prepare(HISTORY).await?,
            cassandra,
        })
    }

    /// One user.
    pub(super) async fn read(&self, key: &UserKey) -> Result<Stored, StoreError> {
        let (row, kept) = try_join(self.row(key), self.devices.read(key)).await?;
        stored(key, row, kept)
    }

    async fn row(&self, key: &UserKey) -> Result<Row, StoreError> {
        let session = &self.cassandra.session;
        let found = session.execute_unpaged(&self.read, (key.tenant.as_str(), key.user.as_str())).await;
        let rows = found.map_err(|e| self.cassandra.failed(&e))?.into_rows_result();
        let row = rows.map_err(|e| self.cassandra.failed(&e))?.maybe_first_row::<Row>();
        Ok(row.map_err(|e| self.cassandra.failed(&e))?.unwrap_or_default())
    }

    /// Many users, concurrently, in order.
    pub(super) async fn read_many(&self, keys: &[&UserKey]) -> Result<Vec<Stored>, StoreError> {
        let reads: Vec<_> = keys.iter().map(|key| self.read(key)).collect();
        stream::iter(reads).buffered(CONCURRENCY).try_collect().await
    }

    /// Writes the profile over what was `there`, and what preferences the user came with: as `initial` too if nobody was.
    pub(super) async fn put(&self, user: &User, at: Timestamp, there: &Stored) -> Result<(), StoreError> {
        let profile = codec::encode_profile(user, there.user.as_ref());
        let preferences = codec::encode_preferences(&user.preferences);
        let (at, tenant, id) = (at.as_microsecond(), user.tenant.as_str(), user.id.as_str());
        let stamp = stamp(at, [there.profile, there.deletion]);
        let session = &self.cassandra.session;
        let done = if there.user.is_none() {
            session.execute_unpaged(&self.create, (stamp, profile, at, &preferences, &preferences, tenant, id)).await
        } else {
            session.execute_unpaged(&self.update, (stamp, profile, at, preferences, tenant, id)).await
        };
        done.map(drop).map_err(|e| self.cassandra.failed(&e))
    }

    /// Writes what the user wants over what was `there`, and that it was changed.
    pub(super) async fn prefer(
        &self,
        key: &UserKey,
        wanted: &Preferences,
        change: &Change,
        there: &Stored,
    ) -> Result<(), StoreError> {
        let wanted = codec::encode_preferences(wanted);
        let (at, tenant, id) = (change.at.as_microsecond(), key.tenant.as_str(), key.user.as_str());
        let stamp = stamp(at, [there.preferences, there.deletion]);
        let note = (tenant, id, at, change.by.as_str(), change.from.as_str(), wanted.as_str(), stamp);
        let values = ((stamp, wanted.as_str(), at, tenant, id), note);
        let done = self.cassandra.session.batch(&self.prefer_and_note, values).await;
        done.map(drop).map_err(|e| self.cassandra.failed(&e))
    }

    /// Removes whatever was written up to `at`.
    pub(super) async fn erase(&self, key: &UserKey, at: Timestamp, there: &Stored) -> Result<(), StoreError> {
        let at = at.as_microsecond();
        let stamp = stamp(at, [there.profile, there.preferences]);
        let values = (stamp, at, key.tenant.as_str(), key.user.as_str());
        let done = self.cassandra.session.execute_unpaged(&self.erase, values).await;
        done.map(drop).map_err(|e| self.cassandra.failed(&e))
    }

    /// Changes a user's devices, one change at a time; `None`, and nothing is written, where `change` says so.
    pub(super) async fn change_devices<T>(
        &self,
        key: &UserKey,
        change: impl Fn(Option<&User>, &mut Roster) -> Option<T>,
    ) -> Result<Option<Changed<T>>, StoreError> {
        for _ in 0..SWAPS {
            let there = self.read(key).await?;
            let mut roster = there.roster()?;
            let Some(result) = change(there.user.as_ref(), &mut roster) else { return Ok(None) };
            let unchanged = roster == there.kept.roster;
            if unchanged || self.devices.swap(key, &there.kept, &roster, there.user.is_none()).await? {
                let lost = |d: &Device| roster.get(d.id).is_none();
                let lost = there.kept.roster.devices.into_iter().filter(lost).collect();
                return Ok(Some(Changed { result, roster, lost }));
            }
        }
        Err(StoreError::unavailable("cassandra", "too many change the devices of one user at once"))
    }

    /// Changes of preferences, the latest first.
    pub(super) async fn history(&self, key: &UserKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let values = (key.tenant.as_str(), key.user.as_str(), limit);
        let found = self.cassandra.session.execute_unpaged(&self.history, values).await;
        let rows = found.map_err(|e| self.cassandra.failed(&e))?.into_rows_result();
        let rows = rows.map_err(|e| self.cassandra.failed(&e))?;
        let entries = rows.rows::<(i64, String, String, String)>().map_err(|e| self.cassandra.failed(&e))?;
        entries
            .map(|row| {
                let (at, by, from, preferences) = row.map_err(|e| self.cassandra.failed(&e))?;
                let change = Change { by, from, at: time(at)? };
                let preferences = codec::decode_preferences(&preferences).map_err(unreadable)?;
                Ok(HistoryEntry { change, preferences })
            })
            .collect()
    }

    /// Answers when Cassandra does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.cassandra.ping().await
    }
}

impl Stored {
    /// What counts of what is kept: a deletion may not have got as far as the devices.
    fn roster(&self) -> Result<Roster, StoreError> {
        let mut roster = self.kept.roster.clone();
        if let (Some(deleted), _) = self.deletion {
            roster.erase(time(deleted)?);
        }
        Ok(roster)
    }
}

/// The time to write with: that of the change. Of two writes with one time Cassandra would keep the greater value; so that
/// the later call wins, it is written a microsecond after what is there, unless that is of a later change.
fn stamp<const N: usize>(at: i64, there: [Written; N]) -> i64 {
    let beaten = there.into_iter().filter(|(was, _)| was.is_some_and(|was| was <= at));
    beaten.filter_map(|(_, stamp)| stamp).map(|stamp| stamp + 1).fold(at, i64::max)
}

/// The row as a user. There is one if there is a profile; of the preferences, what the user said counts, then what they
/// came with, then what the latest `put` offered (all that is left when a deletion arrives after a later `put`).
fn stored(key: &UserKey, row: Row, kept: Kept) -> Result<Stored, StoreError> {
    // A deletion leaves columns without a stamp of their own. So none of these numbers ever falls, and nor does their sum; the
    // two tables are not read at one moment, but whoever reads them last has the highest of each.
    let last = |stamp: Option<i64>| u64::try_from(stamp.max(row.deleted_stamp).unwrap_or(0)).unwrap_or(0);
    let columns = [row.profile_stamp, row.preferences_stamp, row.initial_stamp, row.offered_stamp];
    let mut stored = Stored {
        version: columns.into_iter().map(last).sum::<u64>() + u64::try_from(kept.revision.unwrap_or(0)).unwrap_or(0),
        user: None,
        profile: (row.profile_at, row.profile_stamp),
        preferences: (row.preferences_at, row.preferences_stamp),
        deletion: (row.deleted_at, row.deleted_stamp),
        kept,
    };
    let Some(profile) = row.profile else { return Ok(stored) };
    let profile_at = time(row.profile_at.unwrap_or(0))?;
    let codec::Profile { locale, time_zone, contacts } =
        codec::decode_profile(&profile, profile_at).map_err(unreadable)?;
    let preferences = row.preferences.or(row.initial).or(row.offered);
    let preferences = preferences.map(|p| codec::decode_preferences(&p)).transpose().map_err(unreadable)?;
    let roster = stored.roster()?;
    stored.user = Some(User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale,
        time_zone,
        contacts: roster.visible(contacts),
        devices: roster.devices,
        preferences: preferences.unwrap_or_default(),
        updated_at: time(row.profile_at.max(row.preferences_at).unwrap_or(0))?,
    });
    Ok(stored)
}

fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(unreadable)
}

fn unreadable(detail: impl ToString) -> StoreError {
    StoreError::corrupt("cassandra", detail)
}
