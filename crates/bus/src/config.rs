//! The compacted `config` topic in memory: every replica holds all of it and sees a change within milliseconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domain::{
    CategoryKey, Channel, TemplateKey, TemplateRef, TenantId,
    config::{Account, ApiKey, Category, EntryKey, Kind, Source, Tenant},
    template::{Head, Template, Version},
};
use foldhash::HashMap;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{FollowEvent, Headers, Log, LogError, Outgoing, Position, Record, Topics};

/// One state of the whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Every valid entry, as it was put.
    pub entries: BTreeMap<EntryKey, Arc<Value>>,
    tenants: HashMap<TenantId, Tenant>,
    /// By the SHA-256 of the key, in hex.
    keys: HashMap<String, (EntryKey, ApiKey)>,
    categories: HashMap<TenantId, HashMap<CategoryKey, Category>>,
    accounts: HashMap<(TenantId, Channel), Account>,
    /// By the source.
    sources: HashMap<String, EntryKey>,
    templates: HashMap<(TenantId, TemplateKey), Arc<Head>>,
    versions: HashMap<TenantId, HashMap<TemplateRef, Arc<Template>>>,
}

impl Snapshot {
    /// The tenant, if there is one.
    pub fn tenant(&self, tenant: &TenantId) -> Option<&Tenant> {
        self.tenants.get(tenant)
    }

    /// The API key with this SHA-256 (hex), with the tenant and name that it has.
    pub fn key(&self, sha256: &str) -> Option<(&EntryKey, &ApiKey)> {
        self.keys.get(sha256).map(|(at, key)| (at, key))
    }

    /// A tenant's category.
    pub fn category(&self, tenant: &TenantId, category: &CategoryKey) -> Option<&Category> {
        self.categories.get(tenant)?.get(category)
    }

    /// The names of a tenant's categories.
    pub fn categories(&self, tenant: &TenantId) -> impl Iterator<Item = &CategoryKey> {
        self.categories.get(tenant).into_iter().flat_map(HashMap::keys)
    }

    /// A tenant's account on a channel.
    pub fn account(&self, tenant: &TenantId, channel: Channel) -> Option<&Account> {
        self.accounts.get(&(tenant.clone(), channel))
    }

    /// The entry that binds a CloudEvents source to its tenant.
    pub fn source(&self, source: &str) -> Option<&EntryKey> {
        self.sources.get(source)
    }

    /// Where a tenant's template stands.
    pub fn template(&self, tenant: &TenantId, key: &TemplateKey) -> Option<&Arc<Head>> {
        self.templates.get(&(tenant.clone(), key.clone()))
    }

    /// A published version of a tenant's template. The same `Arc` for as long as it is not removed.
    pub fn template_version(&self, tenant: &TenantId, version: &TemplateRef) -> Option<&Arc<Template>> {
        self.versions.get(tenant)?.get(version)
    }

    fn remove(&mut self, at: &EntryKey) {
        self.entries.remove(at);
        match at.kind {
            Kind::Tenants => drop(self.tenants.remove(&at.tenant)),
            Kind::Keys => self.keys.retain(|_, (key, _)| key != at),
            Kind::Categories => {
                if let Some(of_tenant) = self.categories.get_mut(&at.tenant) {
                    of_tenant.retain(|name, _| name.as_str() != at.name);
                }
            }
            Kind::Accounts => {
                self.accounts.retain(|(tenant, channel), _| *tenant != at.tenant || channel.as_str() != at.name)
            }
            Kind::Sources => self.sources.retain(|_, bound| bound != at),
            Kind::Templates => {
                if let Ok(version) = TemplateRef::parse(&at.name) {
                    if let Some(of_tenant) = self.versions.get_mut(&at.tenant) {
                        of_tenant.remove(&version);
                    }
                } else if let Ok(key) = TemplateKey::parse(&at.name) {
                    self.templates.remove(&(at.tenant.clone(), key));
                }
            }
        }
    }

    fn put(&mut self, at: EntryKey, entry: Entry, value: Value) {
        self.remove(&at);
        match entry {
            Entry::Tenant(tenant) => drop(self.tenants.insert(at.tenant.clone(), tenant)),
            Entry::Key(key) => drop(self.keys.insert(key.sha256.clone(), (at.clone(), key))),
            Entry::Category(name, category) => {
                self.categories.entry(at.tenant.clone()).or_default().insert(name, category);
            }
            Entry::Account(account) => drop(self.accounts.insert((at.tenant.clone(), account.channel()), account)),
            Entry::Source(Source { source }) => drop(self.sources.insert(source, at.clone())),
            Entry::Head(key, head) => drop(self.templates.insert((at.tenant.clone(), key), head)),
            Entry::Version(version, template) => {
                self.versions.entry(at.tenant.clone()).or_default().insert(version, template);
            }
        }
        self.entries.insert(at, value.into());
    }
}

/// A checked entry.
enum Entry {
    Tenant(Tenant),
    Key(ApiKey),
    Category(CategoryKey, Category),
    Account(Account),
    Source(Source),
    Head(TemplateKey, Arc<Head>),
    Version(TemplateRef, Arc<Template>),
}

fn parse_entry(at: &EntryKey, value: &Value) -> Result<Entry, String> {
    fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
        T::deserialize(value).map_err(|e| e.to_string())
    }
    match at.kind {
        Kind::Tenants if at.name == at.tenant.as_str() => read(value).map(Entry::Tenant),
        Kind::Tenants => Err("a tenant's entry bears the tenant's name".into()),
        Kind::Keys => read(value).map(Entry::Key),
        Kind::Categories => Ok(Entry::Category(CategoryKey::parse(&at.name)?, read(value)?)),
        Kind::Accounts => {
            let account: Account = read(value)?;
            if account.channel().as_str() != at.name {
                return Err(format!("an account is named like its channel, here `{}`", account.channel()));
            }
            Ok(Entry::Account(account))
        }
        Kind::Sources => read(value).map(Entry::Source),
        Kind::Templates if at.name.contains('@') => {
            let version: Version = read(value)?;
            Ok(Entry::Version(TemplateRef::parse(&at.name)?, version.template.into()))
        }
        Kind::Templates => Ok(Entry::Head(TemplateKey::parse(&at.name)?, Arc::new(read(value)?))),
    }
}

/// Checks an entry before it is put; the error says what is wrong.
pub fn check(at: &EntryKey, value: &Value) -> Result<(), String> {
    parse_entry(at, value).map(drop)
}

/// The configuration in this process's memory. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Config {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    now: Arc<Mutex<Arc<Snapshot>>>,
    /// The next offset to be applied, and whether everything that was there at the start is in.
    applied: Arc<watch::Sender<(i64, bool)>>,
}

impl Config {
    /// An empty configuration that [`Config::run`] will fill.
    pub fn new(log: Arc<dyn Log>, topics: &Topics) -> Self {
        let applied = Arc::new(watch::Sender::new((0, false)));
        Self { log, topic: topics.config(), now: Arc::default(), applied }
    }

    /// The current state; holding it costs nothing.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything that was in the topic at the start is in memory.
    pub fn is_ready(&self) -> bool {
        self.applied.borrow().1
    }

    /// Resolves when [`Config::is_ready`].
    pub async fn ready(&self) {
        // the sender lives in self, so the wait cannot fail
        let _seen = self.applied.subscribe().wait_for(|(_, ready)| *ready).await.is_ok();
    }

    /// Puts an entry (`None` removes it) and waits until this process has seen it itself. The entry is checked by the
    /// caller ([`check`]).
    pub async fn put(&self, at: &EntryKey, value: Option<&Value>) -> Result<(), LogError> {
        let record = Outgoing {
            topic: self.topic.clone(),
            key: Some(at.record_key().into()),
            headers: Headers::default(),
            value: value.map(|v| Bytes::from(v.to_string())),
        };
        let results = self.log.publish(vec![record]).await;
        let Position { offset, .. } =
            results.into_iter().next().ok_or_else(|| LogError::Unavailable("no answer".into()))??;
        let mut applied = self.applied.subscribe();
        let seen = applied.wait_for(|(next, _)| *next > offset);
        // it is durable already; a replica that lags will see it later
        let _late = tokio::time::timeout(Duration::from_secs(5), seen).await.is_err();
        Ok(())
    }

    /// Follows the topic until `shutdown`; reconnects by itself.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let end = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                end = self.follow() => end,
            };
            if let Err(error) = end {
                tracing::warn!(%error, "cannot follow the configuration, trying again");
            }
            let pause = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! { () = shutdown.cancelled() => {}, () = pause => {} }
        }
    }

    /// Begins anew each time: what was removed while nobody listened may have left no trace in the topic.
    async fn follow(&self) -> Result<(), LogError> {
        let mut follow = self.log.follow(&self.topic).await?;
        let mut building = Some(Snapshot::default());
        let mut next = 0;
        loop {
            match follow.next().await? {
                FollowEvent::Records(records) => {
                    next = records.last().map_or(next, |last| last.at.offset + 1);
                    match &mut building {
                        Some(snapshot) => apply(snapshot, &records),
                        None => self.change(|now| apply(Arc::make_mut(now), &records)),
                    }
                }
                FollowEvent::CaughtUp => {
                    if let Some(snapshot) = building.take() {
                        self.change(|now| *now = Arc::new(snapshot));
                    }
                }
            }
            if building.is_none() {
                self.applied.send_replace((next, true));
            }
        }
    }

    fn change(&self, with: impl FnOnce(&mut Arc<Snapshot>)) {
        with(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn apply(snapshot: &mut Snapshot, records: &[Record]) {
    for record in records {
        if let Err(error) = apply_one(snapshot, record) {
            // one bad entry must not keep the others from being seen
            tracing::error!(offset = record.at.offset, error, "skipped an unreadable configuration entry");
        }
    }
}

fn apply_one(snapshot: &mut Snapshot, record: &Record) -> Result<(), String> {
    let key = record.key.as_ref().ok_or("no key")?;
    let at = EntryKey::parse(std::str::from_utf8(key).map_err(|e| e.to_string())?)?;
    let Some(value) = &record.value else {
        snapshot.remove(&at);
        return Ok(());
    };
    let value: Value = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    let entry = parse_entry(&at, &value)?;
    snapshot.put(at, entry, value);
    Ok(())
}
