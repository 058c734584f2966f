//! The connection to Redis: shared, bounded in time, and replaced when it has gone bad.

use std::{
    future::Future,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use ::redis::{
    Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use crate::StoreError;

const STORE: &str = "redis";

/// Redis, by way of one multiplexed connection.
pub(super) struct Redis {
    client: Client,
    config: ConnectionManagerConfig,
    address: String,
    /// Before the name of every key, so that several installations can share a Redis.
    pub(super) prefix: String,
    limit: Duration,
    /// Numbered, so that many commands that fail together replace it once.
    current: RwLock<(u64, ConnectionManager)>,
}

impl Redis {
    /// Parses the address; the first command connects.
    pub(super) fn new(url: &str, prefix: &str, limit: Duration) -> Result<Self, StoreError> {
        // the library's words on a bad URL could quote its password
        let info = url.into_connection_info().map_err(|e| StoreError::unavailable(STORE, e.category()))?;
        let address = info.addr().to_string();
        let at = |e: &dyn std::fmt::Display| StoreError::unavailable(STORE, format!("{address}: {e}"));
        // RESP3 pushes a disconnection, so that an idle connection is replaced before it is needed
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        // a peer that is gone without a word is noticed when it leaves data unacknowledged for this long
        let info = info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_user_timeout(limit));
        let client = Client::open(info).map_err(|e| at(&e.category()))?;
        // a command during an outage starts the next attempt and fails with it; waiting is up to the caller
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(limit))
            .set_response_timeout(Some(limit))
            .set_pipeline_buffer_size(1024);
        let first = ConnectionManager::new_lazy_with_config(client.clone(), config.clone()).map_err(|e| at(&e))?;
        Ok(Self { client, config, address, prefix: prefix.to_owned(), limit, current: RwLock::new((0, first)) })
    }

    /// Whether it answers, and in a version that will do.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let info: String = self.run(|mut c| async move { ::redis::cmd("INFO").query_async(&mut c).await }).await?;
        self.check_info(&info)
    }

    /// Runs commands on the connection. An error says whether Redis could not be asked or what it holds is wrong.
    pub(super) async fn run<T, F>(&self, ask: impl FnOnce(ConnectionManager) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (number, connection) = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(self.limit, ask(connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => {
                // after a failover the old master still answers here, but takes no writes
                if e.is_timeout() || e.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
                    self.replace(number);
                }
                Err(self.describe(&e))
            }
            Err(_) => {
                self.replace(number);
                Err(StoreError::unavailable(STORE, format!("{}: no answer within {:?}", self.address, self.limit)))
            }
        }
    }

    /// Answers when Redis does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.run(|mut c| async move { ::redis::cmd("PING").query_async(&mut c).await }).await
    }

    fn replace(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != number {
            return;
        }
        match ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            Ok(fresh) => *current = (number + 1, fresh),
            Err(e) => tracing::warn!(error = %e, "the connection to redis is not replaced"),
        }
    }

    fn describe(&self, e: &RedisError) -> StoreError {
        // one for each command of a pipeline that failed
        let errors = e.clone().into_server_errors();
        let foreign = errors.is_some_and(|errors| errors.iter().any(|(_, e)| e.code() == "WRONGTYPE"));
        if foreign || e.kind() == ErrorKind::UnexpectedReturnType {
            StoreError::corrupt(STORE, "a value of another type lies at a key of ours")
        } else {
            StoreError::unavailable(STORE, format!("{}: {e}", self.address))
        }
    }

    fn check_info(&self, info: &str) -> Result<(), StoreError> {
        let field = |name: &str| info.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(':'));
        let version = field("redis_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|m| m.parse().ok()).unwrap_or(0);
        if major < 7 {
            let detail = format!("{}: version {version} is too old, 7.0 or later is needed", self.address);
            return Err(StoreError::unavailable(STORE, detail));
        }
        let policy = field("maxmemory_policy").unwrap_or("noeviction");
        if policy != "noeviction" {
            tracing::warn!(policy, "redis may evict claims; set maxmemory-policy to noeviction");
        }
        Ok(())
    }
}
