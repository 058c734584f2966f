//! The stores of a cluster: Cassandra or ScyllaDB, Redis, Elasticsearch.

mod balance;
mod cassandra;
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

/// Connects to all three and checks that their schema is there. The error names the one that could not be reached, or says
/// that `carillon schema` has to run.
pub async fn connect(settings: &ClusterSettings) -> Result<Stores, StoreError> {
    let (redis, cassandra, elastic) = try_join3(
        Redis::connect(&settings.redis_url, &settings.redis_prefix, settings.timeout),
        async {
            let cassandra = Cassandra::connect(&settings.cassandra, &settings.keyspace, settings.timeout).await?;
            cassandra.check_schema().await.map(|()| cassandra)
        },
        async {
            let elastic = Elastic::new(&settings.elasticsearch_url, &settings.index_prefix, settings.timeout)?;
            elastic.check_templates().await.map(|()| elastic)
        },
    )
    .await?;
    let redis = Arc::new(redis);
    Ok(Stores {
        users: Arc::new(users::ClusterUsers::new(cassandra, Arc::clone(&redis)).await?),
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
