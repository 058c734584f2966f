//! Devices in Cassandra: a row for each user, changed by one at a time, and who claims which token.
//!
//! **A user's devices** are one value with a revision, swapped by a lightweight transaction: at most so many devices, also
//! when many are registered at once, needs one order of all changes. A swap whose fate is unknown fails the call; repeated,
//! the change finds itself done, because all its rules compare times.
//!
//! **A token belongs to whoever registered it last.** Before a device is put, a claim is written for its user and that time;
//! after it was, all claims of the device are read, and everyone but the latest loses it. Of two users at once, the one who
//! reads last sees both claims, and both would see the same winner. A claim is written with its own time as that of Cassandra,
//! so removing one never removes a newer one.

use std::sync::Arc;

use domain::{Device, DeviceId, TenantId, Timestamp, UserId};
use scylla::{
    statement::prepared::PreparedStatement,
    value::{CqlValue, Row},
};

use super::cassandra::Cassandra;
use crate::{
    StoreError, UserKey,
    roster::{self, Roster},
};

const READ: &str = "SELECT roster, revision FROM %.devices WHERE tenant = ? AND user_id = ?";
const SWAP: &str = "UPDATE %.devices USING TTL ? SET roster = ?, revision = ? WHERE tenant = ? AND user_id = ? \
     IF revision = ?";
const CLAIM: &str = "INSERT INTO %.device_owners (tenant, device, user_id, at) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
const CLAIMS: &str = "SELECT user_id, at FROM %.device_owners WHERE tenant = ? AND device = ?";
const UNCLAIM: &str = "DELETE FROM %.device_owners USING TIMESTAMP ? WHERE tenant = ? AND device = ? AND user_id = ?";

/// How long it is remembered that a user was deleted, in seconds: as long as the mark in `users` (see `record.rs`).
const DELETED: i32 = 864_000;

/// What is kept of a user's devices, and the number of changes so far; `None` before the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) roster: Roster,
    pub(super) revision: Option<i64>,
}

/// A user who registered a device, and when.
pub(super) struct Claim {
    pub(super) user: UserId,
    pub(super) at: Timestamp,
}

/// The tables `devices` and `device_owners`.
pub(super) struct Devices {
    cassandra: Arc<Cassandra>,
    read: PreparedStatement,
    swap: PreparedStatement,
    claim: PreparedStatement,
    claims: PreparedStatement,
    unclaim: PreparedStatement,
}

impl Devices {
    /// Prepares the statements.
    pub(super) async fn new(cassandra: Arc<Cassandra>) -> Result<Self, StoreError> {
        let mut swap = cassandra.prepare(SWAP).await?;
        // repeated by the driver, it would fail by its own success
        swap.set_is_idempotent(false);
        Ok(Self {
            read: cassandra.prepare(READ).await?,
            swap,
            claim: cassandra.prepare(CLAIM).await?,
            claims: cassandra.prepare(CLAIMS).await?,
            unclaim: cassandra.prepare(UNCLAIM).await?,
            cassandra,
        })
    }

    /// What is kept of a user.
    pub(super) async fn read(&self, key: &UserKey) -> Result<Kept, StoreError> {
        let found = self.cassandra.session.execute_unpaged(&self.read, (key.tenant.as_str(), key.user.as_str())).await;
        let rows = found.map_err(|e| self.cassandra.failed(&e))?.into_rows_result();
        let row = rows.map_err(|e| self.cassandra.failed(&e))?.maybe_first_row::<(Option<String>, Option<i64>)>();
        let Some((json, revision)) = row.map_err(|e| self.cassandra.failed(&e))? else { return Ok(Kept::default()) };
        let roster = roster::decode(json.as_deref()).map_err(|e| StoreError::corrupt("cassandra", e))?;
        Ok(Kept { roster, revision })
    }

    /// Replaces what is kept, if it is still what was `there`; `false`: it is not. For a user who is `deleted` it goes by
    /// itself after a while.
    pub(super) async fn swap(
        &self,
        key: &UserKey,
        there: &Kept,
        roster: &Roster,
        deleted: bool,
    ) -> Result<bool, StoreError> {
        let ttl = if deleted { DELETED } else { 0 };
        let next = there.revision.unwrap_or(0) + 1;
        let (tenant, user) = (key.tenant.as_str(), key.user.as_str());
        let values = (ttl, roster::encode(roster), next, tenant, user, there.revision);
        let done =
            self.cassandra.session.execute_unpaged(&self.swap, values).await.map_err(|e| self.cassandra.failed(&e))?;
        // the columns after the first are what was there, which some versions leave out
        let row = done.into_rows_result().map_err(|e| self.cassandra.failed(&e))?.first_row::<Row>();
        match row.map_err(|e| self.cassandra.failed(&e))?.columns.first() {
            Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
            _ => Err(StoreError::unavailable("cassandra", "a swap was not answered with yes or no")),
        }
    }

    /// Notes that a user registered a device at `at`.
    pub(super) async fn claim(&self, key: &UserKey, device: DeviceId, at: Timestamp) -> Result<(), StoreError> {
        let at = at.as_microsecond();
        let values = (key.tenant.as_str(), device.0, key.user.as_str(), at, at);
        self.cassandra
            .session
            .execute_unpaged(&self.claim, values)
            .await
            .map(drop)
            .map_err(|e| self.cassandra.failed(&e))
    }

    /// Everyone who registered a device and has not lost it yet.
    pub(super) async fn claims(&self, tenant: &TenantId, device: DeviceId) -> Result<Vec<Claim>, StoreError> {
        let found = self.cassandra.session.execute_unpaged(&self.claims, (tenant.as_str(), device.0)).await;
        let rows =
            found.map_err(|e| self.cassandra.failed(&e))?.into_rows_result().map_err(|e| self.cassandra.failed(&e))?;
        let claims = rows.rows::<(String, i64)>().map_err(|e| self.cassandra.failed(&e))?;
        let unreadable = |detail: String| StoreError::corrupt("cassandra", detail);
        claims
            .map(|row| {
                let (user, at) = row.map_err(|e| self.cassandra.failed(&e))?;
                let at = Timestamp::from_microsecond(at).map_err(|e| unreadable(e.to_string()))?;
                Ok(Claim { user: UserId::parse(&user).map_err(unreadable)?, at })
            })
            .collect()
    }

    /// Forgets that a user registered devices which they have lost.
    pub(super) async fn unclaim(&self, key: &UserKey, lost: &[Device]) -> Result<(), StoreError> {
        for device in lost {
            self.unclaim_until(key, device.id, device.last_active_at).await?;
        }
        Ok(())
    }

    /// Forgets that a user registered a device up to `at`.
    pub(super) async fn unclaim_until(&self, key: &UserKey, device: DeviceId, at: Timestamp) -> Result<(), StoreError> {
        let values = (at.as_microsecond(), key.tenant.as_str(), device.0, key.user.as_str());
        self.cassandra
            .session
            .execute_unpaged(&self.unclaim, values)
            .await
            .map(drop)
            .map_err(|e| self.cassandra.failed(&e))
    }
}
