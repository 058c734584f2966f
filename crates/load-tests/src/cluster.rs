//! An installation of its own on the real engines: topics, keyspace, indices and keys that nobody else uses, a tenant, people.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bus::{Headers, Log, Outgoing, kafka::KafkaSettings};
use bytes::Bytes;
use domain::{
    Channel, Contacts, Device, DeviceId, Environment, Locale, Preferences, Timestamp, User,
    config::{EntryKey, Kind, Scope},
};
use futures::{StreamExt as _, TryStreamExt as _};
use scylla::client::session_builder::SessionBuilder;
use serde_json::{Value, json};
use service_kit::{Kit, Section, Settings};
use store::{Change, UserKey, cluster::ClusterSettings};
use wire::TraceContext;

use crate::{
    bare::{self, bulk},
    fixture,
    harness::{Bench, Engines, threads},
    machine::cpu_time,
    peers::Ready,
};

/// Of every service that runs in this process.
const SECTIONS: [Section; 4] = [ingress::SETTINGS, router::SETTINGS, gateway::SETTINGS, indexer::SETTINGS];
/// The tenant's key.
pub const KEY: &str = "tenant-key-of-the-bench";
/// The installation's key.
pub const OPERATOR: &str = "operator-key-of-the-bench";
/// Records in one call.
const BATCH: usize = 5000;
/// The longest that a measurement may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// The installation: topics of its own, stores of the whole run. Its topics, indices and keys are removed when it is dropped, the
/// keyspace by [`forget`].
#[derive(Debug)]
pub struct Cluster {
    /// Before the names of everything in the stores.
    own: String,
    /// Before the names of its topics.
    pub prefix: String,
    /// Where the engines are.
    pub engines: Engines,
    /// How many people there are.
    pub people: u64,
    settings: BTreeMap<String, String>,
}

impl Cluster {
    /// Makes it, with a tenant that sends to the sink, and people who have a device each.
    pub async fn make(bench: &Bench, sink: &Ready) -> anyhow::Result<Self> {
        Self::with(bench, sink, &[]).await
    }

    /// The same, with some settings of the row's own.
    pub async fn with(bench: &Bench, sink: &Ready, own_settings: &[(&str, String)]) -> anyhow::Result<Self> {
        let engines = bench.engines.clone();
        let known = [&engines.kafka, &engines.redis, &engines.cassandra, &engines.elasticsearch];
        ensure!(known.iter().all(|e| !e.is_empty()), "it is not said where the engines are; scripts/bench does that");
        let own = bench.own.clone();
        let prefix = format!("{own}.{:04x}.", fastrand::u16(..));
        let mut settings = settings(&engines, &own, &prefix);
        settings.extend(own_settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let people = bench.effort.count(2000, 100);
        let cluster = Self { own, prefix, engines, people, settings };
        let settings = cluster.settings()?;
        Kit::migrate(&settings).await?;
        Kit::ensure_topics(&settings).await?;
        let kit = cluster.kit().await?;
        configure(&kit, sink).await?;
        if bench.populated.get().is_none() {
            cluster.populate(&kit).await?;
            bench.populated.get_or_init(|| ());
        }
        stop(kit).await?;
        Ok(cluster)
    }

    /// Everything that is set, as the environment of a process has it.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        self.settings.iter().map(|(key, value)| variable(key, value))
    }

    /// Before the names of keys in Redis.
    pub fn redis_prefix(&self) -> String {
        format!("{}:", self.own)
    }

    /// Before the names of indices.
    pub fn index_prefix(&self) -> String {
        format!("{}-", self.own)
    }

    /// Connections, and a configuration that is read.
    pub async fn kit(&self) -> anyhow::Result<Kit> {
        let kit = Kit::cluster(self.settings()?).await?;
        kit.spawn_config();
        kit.config.ready().await;
        Ok(kit)
    }

    /// Its stores, with Elasticsearch at another address.
    pub fn stores(&self, elasticsearch: &str) -> ClusterSettings {
        ClusterSettings {
            redis_url: self.engines.redis.clone(),
            redis_prefix: self.redis_prefix(),
            cassandra: vec![self.engines.cassandra.clone()],
            keyspace: self.own.clone(),
            replication: 1,
            elasticsearch_url: elasticsearch.to_owned(),
            index_prefix: self.index_prefix(),
            claim_window: Duration::from_secs(3600),
            index_retention: Duration::from_secs(86_400),
            timeout: Duration::from_secs(5),
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        load(self.environment())
    }

    async fn populate(&self, kit: &Kit) -> anyhow::Result<()> {
        let put = |n| async move { put_person(kit, n, 1).await };
        futures::stream::iter((0..self.people).map(put)).buffer_unordered(32).try_collect().await
    }

    /// Puts records on topics; all of them are durable when it returns.
    pub async fn fill(&self, records: impl Iterator<Item = anyhow::Result<Outgoing>>) -> anyhow::Result<()> {
        let log = bus::kafka::Kafka::new(KafkaSettings::new(self.engines.kafka.clone(), "load-tests"))?;
        let mut records = records.peekable();
        while records.peek().is_some() {
            let batch = records.by_ref().take(BATCH).collect::<anyhow::Result<Vec<_>>>()?;
            for result in log.publish(batch).await {
                result?;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let topics = bus::Topics::new(&self.prefix);
        let settings = bus::topic::TopicSettings { partitions: 1, replication: 1, retention_ms: 1 };
        let names: Vec<_> = topics.specs(settings).into_iter().map(|spec| spec.name).collect();
        if let Err(error) = bare::kafka::delete(&self.engines.kafka, &names) {
            eprintln!("topics stay behind: {error:#}");
        }
        let prefix = self.index_prefix();
        let indices = bulk::drop_indices(&self.engines.elasticsearch, &prefix);
        if let Err(error) = threads().and_then(|runtime| runtime.block_on(indices)) {
            eprintln!("indices stay behind: {error:#}");
        }
        let (redis, own) = (self.engines.redis.clone(), self.redis_prefix());
        let keys = bare::store::forget(&redis, &own);
        if let Err(error) = threads().and_then(|runtime| runtime.block_on(keys)) {
            eprintln!("keys stay behind: {error:#}");
        }
    }
}

/// Drops the keyspace that the rows of a run share. Cassandra keeps some of its heap for every table: with those of twenty runs
/// it does little but collect garbage, on a core of its own, beside what is measured.
pub async fn forget(bench: &Bench) -> anyhow::Result<()> {
    let session = SessionBuilder::new().known_node(&bench.engines.cassandra).build().await?;
    session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {}", bench.own), ()).await?;
    Ok(())
}

/// A record as services publish it.
pub fn outgoing(topic: &Arc<str>, key: Bytes, value: Bytes) -> Outgoing {
    let trace = bus::trace::context(None).to_string();
    let headers = Headers::default().with(TraceContext::HEADER, trace).with("content-type", "application/protobuf");
    Outgoing { topic: topic.clone(), key: Some(key), headers, value: Some(value) }
}

/// Ends what runs on a kit, which commits what is finished.
pub async fn stop(kit: Kit) -> anyhow::Result<()> {
    kit.shutdown.cancel();
    ensure!(kit.finish().await, "it did not drain");
    Ok(())
}

/// CPU time of this process, from when `counter` reaches the one number until it reaches the other, and how long that took.
pub async fn between(counter: &AtomicU64, from: u64, to: u64) -> anyhow::Result<(Duration, Duration)> {
    let until = Instant::now() + PATIENCE;
    let reached = async |count| {
        while counter.load(Relaxed) < count {
            ensure!(Instant::now() < until, "only {} of {to} are done in time", counter.load(Relaxed));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok((counter.load(Relaxed), Instant::now(), cpu_time(std::process::id())?))
    };
    let (_, began, cpu) = reached(from).await?;
    let (_, ended, cpu_then) = reached(to).await?;
    Ok((cpu_then.saturating_sub(cpu), ended - began))
}

/// A setting as a variable of the environment.
pub fn variable(key: &str, value: &str) -> (String, String) {
    (format!("CARILLON__{}", key.to_uppercase().replace('.', "__")), value.to_owned())
}

fn settings(engines: &Engines, own: &str, prefix: &str) -> BTreeMap<String, String> {
    [
        ("topics.prefix", prefix.to_owned()),
        ("kafka.brokers", engines.kafka.clone()),
        ("redis.url", engines.redis.clone()),
        ("redis.prefix", format!("{own}:")),
        ("cassandra.nodes", engines.cassandra.clone()),
        ("cassandra.keyspace", own.to_owned()),
        ("elasticsearch.url", engines.elasticsearch.clone()),
        ("elasticsearch.index_prefix", format!("{own}-")),
        ("ingress.operator_key", OPERATOR.to_owned()),
        ("gateway.apns.open_networks", "127.0.0.0/8".to_owned()),
        // what is left behind in Redis goes by itself
        ("store.claim_window", "1h".to_owned()),
        ("admin.listen", String::new()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Settings with their defaults, but for what `environment` says.
pub fn load(environment: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Settings> {
    Ok(Settings::load(&SECTIONS, None, environment)?)
}

/// Puts the tenant's configuration in place.
pub async fn configure(kit: &Kit, sink: &Ready) -> anyhow::Result<()> {
    for (kind, name, value) in entries(sink)? {
        let at = EntryKey { tenant: fixture::tenant()?, kind, name: name.to_owned() };
        kit.config.put(&at, Some(&value)).await?;
    }
    Ok(())
}

fn entries(sink: &Ready) -> anyhow::Result<Vec<(Kind, &'static str, Value)>> {
    let scopes =
        [Scope::NotificationsWrite, Scope::NotificationsRead, Scope::UsersWrite, Scope::UsersRead, Scope::Operator];
    let now = Timestamp::now();
    let text = json!({"title": "On its way", "body": "Order {{ order }} has left the house this morning and will be with you {{ when }}."});
    let template =
        json!({"default_locale": "en", "variables": {"order": {}, "when": {}}, "contents": {"en": {"default": text}}});
    Ok(vec![
        (Kind::Tenants, "bench", json!({})),
        (Kind::Keys, "bench", json!({"sha256": ingress::auth::fingerprint(KEY), "scopes": scopes})),
        (Kind::Accounts, "apns", fixture::apns_account(sink)?),
        (Kind::Templates, "shipped@1", json!({"template": template, "published_at": now, "published_by": "bench"})),
        (Kind::Templates, "shipped", json!({"published": 1, "latest": 1, "updated_at": now, "updated_by": "bench"})),
    ])
}

/// A person, and so many devices of theirs.
pub async fn put_person(kit: &Kit, number: u64, devices: u64) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let change = Change { by: "bench".into(), from: "load-tests".into(), at: now };
    let user = User {
        tenant: fixture::tenant()?,
        id: fixture::user(number)?,
        locale: Some(Locale::parse("en").map_err(anyhow::Error::msg)?),
        time_zone: None,
        contacts: Contacts::default(),
        devices: vec![],
        preferences: Preferences::default(),
        updated_at: now,
    };
    kit.stores.users.put(&user, &change).await?;
    let key = UserKey { tenant: user.tenant, user: user.id };
    for device in 0..devices {
        let token = fixture::token(number + device * 10_000_000)?;
        let device = Device {
            id: DeviceId::derive(&key.tenant, Channel::Apns, fixture::APP, &token),
            channel: Channel::Apns,
            app: fixture::APP.into(),
            token,
            environment: Environment::Production,
            locale: None,
            time_zone: None,
            registered_at: now,
            last_active_at: now,
        };
        kit.stores.users.put_device(&key, &device, None, 5, &change).await?.context("the user is not there")?;
    }
    Ok(())
}
