//! What a service is given.

use std::{
    fs::{DirBuilder, File},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use bus::{
    Log,
    consume::{ConsumeSettings, Stage, Vitals, consume},
    dead::DeadLetters,
    embedded::Embedded,
    kafka::Kafka,
    log::TopicReport,
    topic,
};
use store::{StoreError, Stores, cluster::Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Health, Problems, Settings, engines,
    health::{self, Need},
    serve::{bind, serve},
    settings::socket_addr,
    telemetry,
};

/// The stores that a process uses. It does not start without those that are required, and is not ready while they are away;
/// what it does with the others waits or fails.
pub type Uses<'a> = &'a [(Store, Need)];

/// What everything in one process uses. The index follows later by itself; meanwhile notifications are taken and sent.
const EVERYTHING: Uses<'static> =
    &[(Store::Users, Need::Required), (Store::Ledger, Need::Required), (Store::Deliveries, Need::Optional)];

/// Something that this process needs cannot be reached: what it is, and what was tried. Exit code 69.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// What a service is given: everything outside of it. All clones share the same parts.
#[derive(Clone)]
pub struct Kit {
    /// All settings.
    pub settings: Settings,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The log once more, where it is on this machine: then it can be read by offset.
    pub embedded: Option<Arc<Embedded>>,
    /// The names of the topics.
    pub topics: bus::Topics,
    /// The configuration; [`Kit::spawn_config`] fills it.
    pub config: bus::Config,
    /// The stores.
    pub stores: Stores,
    /// How this process is.
    pub health: Health,
    /// Cancelled when this process is to end.
    pub shutdown: CancellationToken,
    /// Everything that runs, and that [`Kit::finish`] waits for.
    pub tasks: TaskTracker,
    /// This process, as the owner of claims; random at each start.
    pub owner: u128,
    /// No other process lives that could hold claims, so that an open one needs no waiting time.
    pub exclusive: bool,
    drain: Duration,
    /// The admin port outlives everything else, so that a drain can be watched.
    admin: (CancellationToken, TaskTracker),
    failed: Arc<AtomicBool>,
}

impl Kit {
    /// A kit on a log and stores that are there already, all of which it watches.
    ///
    /// # Errors
    /// Settings that are wrong.
    pub fn new(settings: Settings, log: Arc<dyn Log>, stores: Stores, exclusive: bool) -> Result<Self, Problems> {
        Self::using(EVERYTHING, settings, log, stores, exclusive)
    }

    fn using(
        uses: Uses,
        settings: Settings,
        log: Arc<dyn Log>,
        stores: Stores,
        exclusive: bool,
    ) -> Result<Self, Problems> {
        let (topics, drain, silence) =
            settings.read(|r| (engines::topics(r), r.duration("drain"), health::silence(r)))?;
        let log: Arc<dyn Log> = Arc::new(bus::Traced(log));
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let health = Health::new(shutdown.clone(), tasks.clone(), silence);
        watch(&health, uses, &log, &stores);
        Ok(Self {
            config: bus::Config::new(log.clone(), &topics),
            settings,
            log,
            embedded: None,
            topics,
            stores,
            health,
            shutdown,
            tasks,
            owner: uuid::Uuid::new_v4().as_u128(),
            exclusive,
            drain,
            admin: (CancellationToken::new(), TaskTracker::new()),
            failed: Arc::default(),
        })
    }

    /// Connects to all engines of a cluster.
    ///
    /// # Errors
    /// [`Problems`]; [`Unreachable`] at once when an engine does not answer; others when topics or a schema are missing.
    pub async fn cluster(settings: Settings) -> anyhow::Result<Self> {
        let all = Store::ALL.map(|store| (store, Need::Required));
        Self::cluster_using(&all, settings).await
    }

    /// Connects to the log of a cluster and to the stores that are required; only the stores that it uses are watched.
    ///
    /// # Errors
    /// Like [`Kit::cluster`].
    pub async fn cluster_using(uses: Uses<'_>, settings: Settings) -> anyhow::Result<Self> {
        // all problems before the first connection
        let (kafka, stores, topics, specs, _) = settings.read(|r| {
            (engines::kafka(r), engines::stores(r), engines::topics(r), engines::cluster_topics(r), r.duration("drain"))
        })?;
        let log = connect(kafka).await?;
        let required: Vec<_> =
            uses.iter().filter(|(_, need)| *need == Need::Required).map(|(store, _)| *store).collect();
        let stores = store::cluster::connect_to(&stores, &required).await.map_err(unreachable)?;
        // last: what cannot be reached at all comes first
        log.check_topics(topics.specs(specs).into_iter().map(|spec| spec.name).collect()).await?;
        Ok(Self::using(uses, settings, log, stores, false)?)
    }

    /// Opens the embedded log and stores in a data directory, which one process may have open; makes both and the topics
    /// when they are missing.
    ///
    /// # Errors
    /// [`Problems`]; others when the directory cannot be used.
    pub async fn embedded(settings: Settings, data: &Path) -> anyhow::Result<Self> {
        let (log, stores, topics, specs) = settings.read(|r| {
            (engines::embedded_log(r), engines::embedded_stores(r), engines::topics(r), engines::embedded_topics(r))
        })?;
        let (log_dir, store_dir) = (data.join("log"), data.join("store"));
        for dir in [&log_dir, &store_dir] {
            make_dir(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        }
        // its lock guards the stores as well
        let log = Embedded::open(&log_dir, log)?;
        let stores = store::embedded::open(&store_dir, stores)
            .with_context(|| format!("cannot open the stores in {}", store_dir.display()))?;
        log.ensure_topics(&topics.specs(specs)).await.context("cannot make the topics")?;
        let log = Arc::new(log);
        Ok(Self { embedded: Some(log.clone()), ..Self::new(settings, log, stores, true)? })
    }

    /// Makes the topics that a cluster lacks; says of each what was found.
    ///
    /// # Errors
    /// Like [`Kit::cluster`].
    pub async fn ensure_topics(settings: &Settings) -> anyhow::Result<Vec<TopicReport>> {
        let (kafka, topics, specs) =
            settings.read(|r| (engines::kafka(r), engines::topics(r), engines::cluster_topics(r)))?;
        if specs.replication == 1 && kafka.brokers.contains(',') {
            tracing::warn!("topics.replication is 1: records are lost with the broker that has them");
        }
        Ok(connect(kafka).await?.ensure_topics(&topics.specs(specs)).await?)
    }

    /// Brings the schemas of a cluster's stores up to date; says what it did.
    ///
    /// # Errors
    /// Like [`Kit::cluster`].
    pub async fn migrate(settings: &Settings) -> anyhow::Result<Vec<String>> {
        let stores = settings.read(engines::stores)?;
        if stores.replication == 1 && stores.cassandra.len() > 1 {
            tracing::warn!("cassandra.replication is 1: users are lost with the node that has them");
        }
        store::cluster::migrate(&stores).await.map_err(unreachable)
    }

    /// Runs a consume loop until shutdown. `name` is for health and metrics, `dead` says whose dead letters it writes.
    pub fn consume(&self, name: &str, stage: Arc<dyn Stage>, dead: topic::Stage, settings: ConsumeSettings) {
        let vitals = Vitals::new(name);
        self.health.register(vitals.clone());
        // what is left of the time is for the last commit and for leaving the group
        let settings = ConsumeSettings { finish_within: self.drain.mul_f64(0.8), ..settings };
        let dead = DeadLetters::new(self.log.clone(), &self.topics, dead);
        let drained = consume(self.log.clone(), stage, dead, settings, vitals, self.shutdown.clone());
        let failed = self.failed.clone();
        self.spawn(name, async move {
            if !drained.await {
                failed.store(true, Relaxed);
            }
        });
    }

    /// Follows the configuration until shutdown; the process is not ready before it has all of it.
    pub fn spawn_config(&self) {
        let config = self.config.clone();
        self.health.register_condition("the configuration is not read yet", move || config.is_ready());
        self.spawn("config", self.config.clone().run(self.shutdown.clone()));
    }

    /// Serves health and metrics on `admin.listen` until everything else has ended; says where, `None` if nowhere.
    ///
    /// # Errors
    /// [`Problems`], or the port cannot be had.
    pub async fn spawn_admin(&self) -> anyhow::Result<Option<SocketAddr>> {
        let Some(address) = self.settings.read(|r| r.optional("admin.listen", socket_addr))? else { return Ok(None) };
        let listener = bind(address, "admin.listen").await?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "admin port");
        let (end, tasks) = &self.admin;
        tasks.spawn(serve(listener, self.health.routes(), end.clone()));
        Ok(Some(address))
    }

    /// Runs a task that ends with `shutdown`. One that ends earlier, or panics, ends the process: half of a service is worse
    /// than a restart.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let guard = Guard { name: name.to_owned(), shutdown: self.shutdown.clone(), failed: self.failed.clone() };
        self.tasks.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Waits for `shutdown`, then until everything has ended, at most as long as the setting `drain`, and sends the last
    /// spans. `false`: something had not ended by then, or ended before it should have.
    pub async fn finish(self) -> bool {
        self.shutdown.cancelled().await;
        self.tasks.close();
        let ended = tokio::time::timeout(self.drain, self.tasks.wait()).await.is_ok();
        if !ended {
            let busy: Vec<_> =
                self.health.loops().iter().filter(|v| v.in_flight() > 0).map(|v| v.name().to_owned()).collect();
            tracing::warn!(?busy, "not everything has ended within {:?}", self.drain);
        }
        telemetry::flush().await;
        let (end, tasks) = &self.admin;
        end.cancel();
        tasks.close();
        tasks.wait().await;
        ended && !self.failed.load(Relaxed)
    }
}

/// Notices the end of a task, also by a panic.
struct Guard {
    name: String,
    shutdown: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.shutdown.is_cancelled() {
            tracing::error!(task = self.name, "ended before it should have; so the process ends");
            self.failed.store(true, Relaxed);
            self.shutdown.cancel();
        }
    }
}

/// The engines that are used, as dependencies.
fn watch(health: &Health, uses: Uses<'_>, log: &Arc<dyn Log>, stores: &Stores) {
    fn words<E: ToString>(result: Result<(), E>) -> Result<(), String> {
        result.map_err(|e| e.to_string())
    }
    let log = log.clone();
    health.register_dependency("log", Need::Required, move || {
        let log = log.clone();
        async move { words(log.ping().await) }
    });
    for (store, need) in uses.iter().copied() {
        let stores = stores.clone();
        let name = match store {
            Store::Users => "users",
            Store::Ledger => "ledger",
            Store::Deliveries => "deliveries",
        };
        health.register_dependency(name, need, move || {
            let stores = stores.clone();
            async move {
                words(match store {
                    Store::Users => stores.users.ping().await,
                    Store::Ledger => stores.ledger.ping().await,
                    Store::Deliveries => stores.deliveries.ping().await,
                })
            }
        });
    }
}

async fn connect(settings: bus::kafka::KafkaSettings) -> anyhow::Result<Arc<Kafka>> {
    let brokers = settings.brokers.clone();
    // nothing is sent yet: what is refused here is a setting
    let log = Kafka::new(settings).map_err(|e| Problems(vec![format!("kafka: {e}")]))?;
    log.ping().await.map_err(|e| Unreachable(format!("kafka at {brokers} (kafka.brokers): {e}")))?;
    Ok(Arc::new(log))
}

fn unreachable(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Unavailable { .. } => Unreachable(error.to_string()).into(),
        StoreError::Corrupt { .. } => error.into(),
    }
}

/// Makes a directory that only we may read, and those above it, so that they are still there after a power failure.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    File::open(parent)?.sync_all()
}
