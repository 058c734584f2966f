//! The suite on Redis, Cassandra and Elasticsearch, and what only a cluster promises. Skipped where there are no engines.

mod claims;
mod index;
mod line;
mod outages;
mod read_model;
mod schema;

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{
    Address, Channel, Contact, DeliveryId, DeliveryStatus, Device, DeviceId, Preferences, State, Status, Timestamp,
    User, UserId,
};
use elasticsearch::http::{Method, headers::HeaderMap, transport::Transport};
use futures::future::{join, join_all};
use store::{
    Claim, ClaimRequest, DeliveryQuery, IndexError, Settled, StoreError, Stores, UserKey,
    cluster::{self, ClusterSettings, Store},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OnceCell, watch},
};
use uuid::Uuid;

use self::line::{Line, Link, over_a_line};
use crate::{
    Opened, at, eventually,
    made::{change, delivery, device, key, user},
    tenant,
};

/// Where an engine is; without it a test fails, it is not skipped.
fn engine(name: &str) -> String {
    let name = format!("CARILLON_TEST_{name}");
    std::env::var_os(&name)
        .and_then(|address| address.into_string().ok())
        .unwrap_or_else(|| panic!("{name} is not set; run `make test`, or eval \"$(deploy/dev/engines env)\""))
}

fn settings() -> ClusterSettings {
    ClusterSettings {
        redis_url: engine("REDIS"),
        redis_prefix: "carillon:".into(),
        cassandra: vec![engine("CASSANDRA")],
        keyspace: "carillon_contract".into(),
        replication: 1,
        elasticsearch_url: engine("ELASTICSEARCH"),
        index_prefix: "contract-".into(),
        claim_window: Duration::from_secs(3600),
        index_retention: Duration::from_secs(90 * 24 * 3600),
        timeout: Duration::from_secs(10),
    }
}

/// Settings with the schema in place.
async fn ready() -> ClusterSettings {
    static MIGRATED: OnceCell<()> = OnceCell::const_new();
    let settings = settings();
    MIGRATED.get_or_init(|| async { drop(cluster::migrate(&settings).await.expect("migrate")) }).await;
    settings
}

async fn open() -> Opened {
    let stores = cluster::connect(&ready().await).await.expect("connect");
    Opened { stores, dir: None }
}

contract!();

/// Ana of a tenant that no other test has, in a time zone.
fn ana(zone: &str) -> (UserKey, User) {
    let key = key(&tenant(), "ana");
    let user = user(&key, zone);
    (key, user)
}

async fn redis(settings: &ClusterSettings) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(settings.redis_url.as_str()).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

/// A port that nothing listens on, and that the system gives to no other test meanwhile.
const fn closed() -> u16 {
    1
}

/// Settings of an installation that no other test has.
fn fresh(settings: &ClusterSettings) -> ClusterSettings {
    let unique = &Uuid::new_v4().simple().to_string()[..12];
    ClusterSettings {
        keyspace: format!("contract_{unique}"),
        index_prefix: format!("contract-{unique}-"),
        ..settings.clone()
    }
}

async fn cassandra(settings: &ClusterSettings) -> scylla::client::session::Session {
    let builder = scylla::client::session_builder::SessionBuilder::new().known_nodes(&settings.cassandra);
    builder.build().await.expect("a session")
}

/// One request to Elasticsearch.
async fn elastic(settings: &ClusterSettings, method: Method, path: &str, body: &str) -> String {
    let transport = Transport::single_node(&settings.elasticsearch_url).expect("a URL");
    let body = (!body.is_empty()).then(|| body.to_owned());
    let answer = transport.send(method, path, HeaderMap::new(), None::<&()>, body, None).await.expect("an answer");
    let ok = answer.status_code().is_success();
    let text = answer.text().await.expect("a text");
    assert!(ok, "{path}: {text}");
    text
}

/// Takes away what a test of a fresh installation has left.
async fn clean_up(settings: &ClusterSettings) {
    let drop = format!("DROP KEYSPACE IF EXISTS {}", settings.keyspace);
    cassandra(settings).await.query_unpaged(drop, ()).await.expect("DROP");
    for name in ["notifications", "deliveries"] {
        let name = format!("{}{name}", settings.index_prefix);
        let found = elastic(settings, Method::Get, &format!("{name}-*/_alias"), "").await;
        let found: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&found).expect("JSON");
        for index in found.keys() {
            elastic(settings, Method::Delete, index, "").await;
        }
        elastic(settings, Method::Delete, &format!("_index_template/{name}"), "").await;
    }
}

fn copy_of(key: &UserKey) -> String {
    format!("carillon:user2:{}:{}", key.tenant, key.user)
}

/// Whether a user wants anything, as a lookup tells it; `None`: nobody knows.
async fn wants(stores: &Stores, key: &UserKey) -> Option<bool> {
    let found = stores.users.lookup(std::slice::from_ref(key)).await.ok()?.remove(0);
    Some(found.expect("there").preferences.all != Some(false))
}

async fn looked_up(stores: &Stores, key: &UserKey) -> Option<String> {
    stores.users.lookup(std::slice::from_ref(key)).await.expect("lookup").remove(0).and_then(|u| u.time_zone)
}

/// How many devices a lookup finds.
async fn devices(stores: &Stores, key: &UserKey) -> usize {
    let found = stores.users.lookup(std::slice::from_ref(key)).await.expect("lookup").remove(0);
    found.expect("there").devices.len()
}
