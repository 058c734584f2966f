//! The read model of users in Redis: copies of the record that make a lookup one round trip.

use std::sync::Arc;

use ::redis::{Script, cmd};
use bytes::Bytes;

use super::{copy, record::Stored, redis::Redis};
use crate::{StoreError, UserKey};

/// How long a copy is kept: the bound on whatever may be stale, see `users.rs`.
const KEPT_MS: u32 = 600_000;
/// How long a lookup remembers that nobody was there, so that names nobody has do not fill Redis.
const NOBODY_MS: u32 = 60_000;

/// Writes copies unless a newer one is there. A value begins with its version in hex, so values compare as versions do.
const WRITE: &str = "
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if not value or value <= ARGV[i * 2] then
    redis.call('SET', key, ARGV[i * 2], 'PX', ARGV[i * 2 - 1])
  end
end";

/// The longest list for one script, which keeps Redis from everything else while it runs.
const AT_ONCE: usize = 500;

/// A key in Redis holds 16 hex digits of version, then `|` and the user, or `~` if there is none.
pub(super) struct ReadModel {
    redis: Arc<Redis>,
    write: Script,
}

impl ReadModel {
    /// The read model on a connection.
    pub(super) fn new(redis: Arc<Redis>) -> Self {
        Self { redis, write: Script::new(WRITE) }
    }

    /// What `decode` reads out of the copies, in order: `None` where the record has to be asked.
    pub(super) async fn read<T>(
        &self,
        keys: &[UserKey],
        decode: fn(&UserKey, &[u8]) -> Option<T>,
    ) -> Result<Vec<Option<Option<T>>>, StoreError> {
        let mut mget = cmd("MGET");
        for key in keys {
            mget.arg(self.name(key));
        }
        let values: Vec<Option<Bytes>> = self.redis.run(|mut c| async move { mget.query_async(&mut c).await }).await?;
        if values.len() != keys.len() {
            return Err(StoreError::unavailable("redis", "a value for every user is missing"));
        }
        Ok(keys.iter().zip(values).map(|(key, value)| parse(key, &value?, decode)).collect())
    }

    /// Keeps what a lookup found in the record.
    pub(super) async fn fill(&self, found: &[(&UserKey, &Stored)]) -> Result<(), StoreError> {
        for found in found.chunks(AT_ONCE) {
            self.write(found, NOBODY_MS).await?;
        }
        Ok(())
    }

    /// Keeps what a write left in the record, deletions for as long as users: a lookup that has read the row before may
    /// still be about to write its copy.
    pub(super) async fn replace(&self, key: &UserKey, stored: &Stored) -> Result<(), StoreError> {
        let Err(error) = self.write(&[(key, stored)], KEPT_MS).await else { return Ok(()) };
        // A Redis that is out of memory can still forget. The write fails all the same, because a lookup that is under way
        // may put the old copy back.
        let mut forget = cmd("DEL");
        forget.arg(self.name(key));
        if let Err(e) = self.redis.run(|mut c| async move { forget.query_async::<()>(&mut c).await }).await {
            tracing::debug!(error = %e, "an old copy of a user stays until it expires");
        }
        Err(error)
    }

    /// Answers when Redis does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.redis.ping().await
    }

    /// The number is that of the way in which values are compared.
    fn name(&self, key: &UserKey) -> String {
        [&self.redis.prefix, "user2:", key.tenant.as_str(), ":", key.user.as_str()].concat()
    }

    async fn write(&self, copies: &[(&UserKey, &Stored)], nobody_ms: u32) -> Result<(), StoreError> {
        let mut call = self.write.prepare_invoke();
        for (key, stored) in copies {
            let kept_ms = if stored.user.is_some() { KEPT_MS } else { nobody_ms };
            call.key(self.name(key)).arg(kept_ms).arg(value(stored)?);
        }
        self.redis.run(|mut c| async move { call.invoke_async(&mut c).await }).await
    }
}

/// A user was JSON once (`{`): `|` is greater, so that it takes the place of such a copy of the same version.
fn value(stored: &Stored) -> Result<Vec<u8>, StoreError> {
    let mut value = format!("{:016x}", stored.version).into_bytes();
    match &stored.user {
        Some(user) => {
            value.push(b'|');
            value.extend(copy::encode(user)?);
        }
        None => value.push(b'~'),
    }
    Ok(value)
}

/// `None` for what cannot be read: the record decides then.
fn parse<T>(key: &UserKey, value: &[u8], decode: fn(&UserKey, &[u8]) -> Option<T>) -> Option<Option<T>> {
    match value.get(16..)?.split_first()? {
        (b'~', []) => Some(None),
        (b'|', copy) => decode(key, copy).map(Some),
        _ => None,
    }
}
