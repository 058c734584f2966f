//! The stores of a cluster: Cassandra or ScyllaDB, Redis, Elasticsearch.

mod balance;
mod cassandra;
mod copy;
mod deliveries;
mod devices;
mod elastic;
mod ledger;
mod read_model;
mod record;
mod redis;
mod users;

use std::{sync::Arc, time::Duration};

use futures::future::try_join3;

use self::{cassandra::Cassandra, elastic::Elastic, redis::Redis};
use crate::{StoreError, Stores};

/// Where the stores of a cluster are, and how long they may take.
#[derive(Clone)]
pub struct ClusterSettings {
    /// `redis://[user:password@]host:port[/db]`, version 7 or later.
    pub redis_url: String,
    /// Before the name of every key in Redis.
    pub redis_prefix: String,
    /// Contact points, `host:port`.
    pub cassandra: Vec<String>,
    /// Of our tables.
    pub keyspace: String,
    /// Copies of each row; used when [`migrate`] creates the keyspace.
    pub replication: u32,
    /// `http[s]://[user:password@]host:port`.
    pub elasticsearch_url: String,
    /// Before the names of indices and templates.
    pub index_prefix: String,
    /// How long a claim is kept.
    pub claim_window: Duration,
    /// How long the indices of a day are kept after it.
    pub index_retention: Duration,
    /// For one request to a store, and for connecting to it.
    pub timeout: Duration,
}

/// One of the three, as something that a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// People: Cassandra and Redis.
    Users,
    /// Claims: Redis.
    Ledger,
    /// The search index: Elasticsearch.
    Deliveries,
}

impl Store {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Users, Self::Ledger, Self::Deliveries];
}

/// Connects to all three and checks that their schema is there. The error names the one that could not be reached, or says
/// that `carillon schema` has to run.
pub async fn connect(settings: &ClusterSettings) -> Result<Stores, StoreError> {
    connect_to(settings, &Store::ALL).await
}

/// The same for those that a process cannot work without. The others are connected to when they are first asked for something,
/// so that one that is down keeps nobody from starting who does not need it.
pub async fn connect_to(settings: &ClusterSettings, needed: &[Store]) -> Result<Stores, StoreError> {
    let redis = Arc::new(Redis::new(&settings.redis_url, &settings.redis_prefix, settings.timeout)?);
    let users = users::ClusterUsers::new(settings, Arc::clone(&redis));
    let elastic = Elastic::new(&settings.elasticsearch_url, &settings.index_prefix, settings.timeout)?;
    let needs = |store| needed.contains(&store);
    let check_redis = async { if needs(Store::Users) || needs(Store::Ledger) { redis.check().await } else { Ok(()) } };
    let check_record = async { if needs(Store::Users) { users.connect().await } else { Ok(()) } };
    let check_index = async { if needs(Store::Deliveries) { elastic.check_templates().await } else { Ok(()) } };
    try_join3(check_redis, check_record, check_index).await?;
    Ok(Stores {
        users: Arc::new(users),
        ledger: Arc::new(ledger::RedisLedger::new(redis, settings.claim_window)),
        deliveries: Arc::new(deliveries::ElasticDeliveries::new(elastic, settings.index_retention)),
    })
}

/// Brings the schema of Cassandra and Elasticsearch to this version; says what it did, one line for each step. It can be
/// repeated, and two may run at once.
pub async fn migrate(settings: &ClusterSettings) -> Result<Vec<String>, StoreError> {
    let cassandra = Cassandra::connect(&settings.cassandra, &settings.keyspace, settings.timeout).await?;
    let elastic = Elastic::new(&settings.elasticsearch_url, &settings.index_prefix, settings.timeout)?;
    let mut done = cassandra.migrate(settings.replication).await?;
    done.extend(elastic.put_templates().await?);
    Ok(done)
}

/// An error with its causes; libraries often say only in the last one that a connection was refused.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
