//! The ledger in Redis: a key for each decision and each delivery, which expire with the claim window, and for each dead address.
//!
//! A claim is as durable as Redis is: with `appendonly yes` an acknowledged claim survives the death of the process, and
//! `appendfsync always` makes it survive that of the machine. A failover to a replica may lose what was not yet copied; then
//! a delivery that a restart re-reads in that moment is sent twice, which the promise (at least once) allows.

use std::{sync::Arc, time::Duration};

use ::redis::{Cmd, ErrorKind, Pipeline, Script, ServerErrorKind, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use domain::{Address, Channel, DeliveryId, NotificationId, TenantId, Timestamp};
use uuid::Uuid;

use super::redis::Redis;
use crate::{Claim, ClaimRequest, Decided, Decision, Ledger, Settled, StoreError, codec, ledger::GONE};

/// Replaces the value if it begins as expected.
const TAKE_OVER: &str = "
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Deletes the value if it begins as expected.
const RELEASE: &str = "
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Writes ends where there is nothing, or a claim that begins as expected; answers what stands elsewhere, and nothing here.
const SETTLE: &str = "
local standing = {}
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if not value or string.sub(value, 1, #ARGV[2]) == ARGV[2] then
    redis.call('SET', key, 's:' .. ARGV[i + 2], 'PX', ARGV[1])
    value = ''
  end
  standing[i] = value
end
return standing";

/// Replaces the value if it is exactly what is expected.
const REOPEN: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Writes a time unless a later one is there; what is there may also be no time, or of another type: then it is replaced.
const MARK: &str = "
local value = redis.pcall('GET', KEYS[1])
local at = type(value) == 'string' and tonumber(value)
if not at or at <= tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end";

/// The longest list for one script, which keeps Redis from everything else while it runs.
const AT_ONCE: usize = 500;

/// Claims in Redis: `c:<owner>:<µs>` while open, `s:<bytes>` when settled. Dead addresses: since when, in µs.
pub(super) struct RedisLedger {
    redis: Arc<Redis>,
    window_ms: u64,
    take_over: Script,
    release: Script,
    settle: Script,
    reopen: Script,
    mark: Script,
}

impl RedisLedger {
    /// A ledger that keeps claims for `window` after they were made or settled.
    pub(super) fn new(redis: Arc<Redis>, window: Duration) -> Self {
        Self {
            redis,
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1),
            take_over: Script::new(TAKE_OVER),
            release: Script::new(RELEASE),
            settle: Script::new(SETTLE),
            reopen: Script::new(REOPEN),
            mark: Script::new(MARK),
        }
    }

    // keys are made for every record, and formatting takes several times as long as putting together
    fn key(&self, delivery: DeliveryId) -> String {
        let mut buffer = Uuid::encode_buffer();
        let delivery = &*delivery.0.hyphenated().encode_lower(&mut buffer);
        [&self.redis.prefix, "claim:", delivery].concat()
    }

    fn decided_key(&self, notification: NotificationId, recipient: &str) -> String {
        let mut buffer = Uuid::encode_buffer();
        let notification = &*notification.0.hyphenated().encode_lower(&mut buffer);
        [&self.redis.prefix, "decided:", notification, ":", recipient].concat()
    }

    /// Writes if there is nothing, and answers what was there.
    fn set_or_get(&self, key: &str, value: &[u8]) -> Cmd {
        // what else there is to say takes less than this
        let mut set = Cmd::with_capacity(7, key.len() + value.len() + 32);
        set.arg("SET").arg(key).arg(value).arg("NX").arg("GET").arg("PX").arg(self.window_ms);
        set
    }

    /// The script's call, put together at once: an invocation would keep each of the long arguments apart first.
    fn settling(&self, owner: u128, ends: &[(DeliveryId, Settled)]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.settle.get_hash()).arg(ends.len());
        for (delivery, _) in ends {
            call.arg(self.key(*delivery));
        }
        call.arg(self.window_ms).arg(open_by(owner));
        for (_, Settled(event)) in ends {
            call.arg(&event[..]);
        }
        call
    }

    /// Holds a hash instead of the address: keys show up in tools and logs.
    fn gone_key(&self, tenant: &TenantId, channel: Channel, address: &Address) -> String {
        [&self.redis.prefix, "gone:", tenant.as_str(), ":", &codec::address_key(channel, address)].concat()
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn decide(&self, decisions: &[Decision]) -> Result<Vec<Option<Decided>>, StoreError> {
        if decisions.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(decisions.len());
        for Decision { notification, recipient, plan } in decisions {
            let key = self.decided_key(*notification, recipient);
            pipeline.add_command(self.set_or_get(&key, &plan.0));
        }
        let stood: Vec<Option<Bytes>> =
            self.redis.run(|mut c| async move { pipeline.query_async(&mut c).await }).await?;
        if stood.len() != decisions.len() {
            return Err(StoreError::unavailable("redis", "an answer for every decision is missing"));
        }
        Ok(stood.into_iter().map(|plan| plan.map(Decided)).collect())
    }

    async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(requests.len());
        for request in requests {
            pipeline.add_command(self.set_or_get(&self.key(request.delivery), open(request).as_bytes()));
        }
        let found: Vec<Option<Bytes>> =
            self.redis.run(|mut c| async move { pipeline.query_async(&mut c).await }).await?;
        if found.len() != requests.len() {
            return Err(StoreError::unavailable("redis", "an answer for every claim is missing"));
        }
        requests
            .iter()
            .zip(found)
            .map(|(r, value)| value.map_or(Ok(Claim::Granted), |v| parse(r.delivery, &v)))
            .collect()
    }

    async fn take_over(&self, request: &ClaimRequest, from: u128) -> Result<bool, StoreError> {
        let mut call = self.take_over.key(self.key(request.delivery));
        call.arg(open_by(from)).arg(open(request)).arg(self.window_ms);
        self.redis.run(|mut c| async move { call.invoke_async(&mut c).await }).await
    }

    async fn release(&self, delivery: DeliveryId, owner: u128) -> Result<(), StoreError> {
        let mut call = self.release.key(self.key(delivery));
        call.arg(open_by(owner));
        // 0 when it was not the owner's any more, which is as good
        let _released: u8 = self.redis.run(|mut c| async move { call.invoke_async(&mut c).await }).await?;
        Ok(())
    }

    async fn settle(&self, owner: u128, ends: &[(DeliveryId, Settled)]) -> Result<Vec<Option<Claim>>, StoreError> {
        let mut standing = Vec::with_capacity(ends.len());
        for ends in ends.chunks(AT_ONCE) {
            let call = self.settling(owner, ends);
            let found: Vec<Bytes> = self
                .redis
                .run(|mut c| async move {
                    match call.query_async(&mut c).await {
                        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                            self.settle.prepare_invoke().load_async(&mut c).await?;
                            call.query_async(&mut c).await
                        }
                        answer => answer,
                    }
                })
                .await?;
            if found.len() != ends.len() {
                return Err(StoreError::unavailable("redis", "an answer for every end is missing"));
            }
            for ((delivery, _), value) in ends.iter().zip(found) {
                standing.push(if value.is_empty() { None } else { Some(parse(*delivery, &value)?) });
            }
        }
        Ok(standing)
    }

    async fn reopen(&self, request: &ClaimRequest, settled: &Settled) -> Result<bool, StoreError> {
        let mut call = self.reopen.key(self.key(request.delivery));
        call.arg(end(settled)).arg(open(request)).arg(self.window_ms);
        self.redis.run(|mut c| async move { call.invoke_async(&mut c).await }).await
    }

    async fn mark_gone(
        &self,
        tenant: &TenantId,
        channel: Channel,
        address: &Address,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let kept_ms = u64::try_from(GONE.as_millis()).unwrap_or(u64::MAX);
        let mut call = self.mark.key(self.gone_key(tenant, channel, address));
        call.arg(at.as_microsecond()).arg(kept_ms);
        self.redis.run(|mut c| async move { call.invoke_async::<()>(&mut c).await }).await
    }

    async fn gone(&self, addresses: &[(TenantId, Channel, Address)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let mut mget = cmd("MGET");
        for (tenant, channel, address) in addresses {
            mget.arg(self.gone_key(tenant, *channel, address));
        }
        let values: Vec<Option<Bytes>> = self.redis.run(|mut c| async move { mget.query_async(&mut c).await }).await?;
        if values.len() != addresses.len() {
            return Err(StoreError::unavailable("redis", "a value for every address is missing"));
        }
        // what is no time says nothing: the provider will, and then it is replaced
        Ok(values.into_iter().map(|value| parse_time(std::str::from_utf8(&value?).ok()?)).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.redis.ping().await
    }
}

/// How every open claim of an owner begins.
fn open_by(owner: u128) -> String {
    ["c:", &HEXLOWER.encode(&owner.to_be_bytes()), ":"].concat()
}

fn open(request: &ClaimRequest) -> String {
    [open_by(request.owner), request.at.as_microsecond().to_string()].concat()
}

/// A claim that has ended.
fn end(settled: &Settled) -> Vec<u8> {
    [b"s:", settled.0.as_ref()].concat()
}

fn parse(delivery: DeliveryId, value: &Bytes) -> Result<Claim, StoreError> {
    if value.starts_with(b"s:") {
        return Ok(Claim::Settled(Settled(value.slice(2..))));
    }
    parse_open(value).ok_or_else(|| StoreError::corrupt("redis", format!("the claim of delivery {delivery}")))
}

fn parse_open(value: &[u8]) -> Option<Claim> {
    let (owner, at) = std::str::from_utf8(value).ok()?.strip_prefix("c:")?.split_once(':')?;
    let owner = u128::from_str_radix(owner, 16).ok()?;
    Some(Claim::Open { owner, at: parse_time(at)? })
}

fn parse_time(micros: &str) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros.parse().ok()?).ok()
}
