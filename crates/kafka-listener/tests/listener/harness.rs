//! A listener on a free port, over a log in a directory of its own.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Cleanup, Headers, Log, LogError, Outgoing, Partition, TopicSpec,
    embedded::{Embedded, EmbeddedSettings},
};
use kafka_listener::Options;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Nothing here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const EVENTS: &str = "carillon.events";
pub const STATUS: &str = "carillon.status";
/// The configuration: nobody may see it.
pub const CONFIG: &str = "carillon.config";
/// Closed, unless an operator opens it; compacted here, so that it has gaps.
pub const DEAD: &str = "carillon.dead.router";
pub const PARTITIONS: i32 = 3;

pub struct Listener {
    pub log: Arc<Embedded>,
    pub address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    dir: TempDir,
}

pub fn options() -> Options {
    Options {
        max_connections: 50,
        max_frame: 4 * 1024 * 1024,
        max_in_flight: 16 * 1024 * 1024,
        idle_timeout: Duration::from_secs(60),
        advertised: None,
        readable: vec![EVENTS.into(), STATUS.into()],
        writable: vec![EVENTS.into()],
    }
}

/// With a topic opened that is closed otherwise.
pub fn opened(topic: &str) -> Options {
    let mut options = options();
    options.readable.push(topic.into());
    options.writable.push(topic.into());
    options
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

pub fn events(index: i32) -> Partition {
    Partition { topic: EVENTS.into(), index }
}

impl Listener {
    pub async fn start() -> Self {
        Self::with(options()).await
    }

    pub async fn with(options: Options) -> Self {
        Self::on(TempDir::new().unwrap(), options).await
    }

    async fn on(dir: TempDir, options: Options) -> Self {
        let log = Arc::new(open(dir.path()).await);
        let spec = |name: &str, partitions, cleanup| TopicSpec {
            name: name.into(),
            partitions,
            replication: 1,
            cleanup,
            retention_ms: 3_600_000,
            max_message_bytes: 1024 * 1024,
        };
        let specs = [
            spec(EVENTS, PARTITIONS, Cleanup::Delete),
            spec(STATUS, 2, Cleanup::Delete),
            spec(CONFIG, 1, Cleanup::Compact),
            spec(DEAD, 1, Cleanup::Compact),
        ];
        log.ensure_topics(&specs).await.expect("topics");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = kafka_listener::serve(listener, log.clone(), options, shutdown.clone());
        Self { log, address, shutdown, task: tokio::spawn(serving), dir }
    }

    /// A new process, as it were: another listener over the same directory.
    pub async fn restart(self) -> Self {
        let Self { log, dir, .. } = self.stop().await;
        drop(log);
        Self::on(dir, options()).await
    }

    /// Ends as the process would: without waiting for whoever is silent.
    pub async fn stop(mut self) -> Self {
        self.shutdown.cancel();
        let stopped = Instant::now();
        within("the end of the listener", &mut self.task).await.expect("no panic");
        assert!(stopped.elapsed() < Duration::from_secs(3), "it waited for a client");
        self
    }

    /// What another part of the process writes.
    pub async fn publish(&self, topic: &str, key: &str, value: Option<&str>) {
        let value = value.map(|value| value.to_owned().into());
        let record =
            Outgoing { topic: topic.into(), key: Some(key.to_owned().into()), headers: Headers::default(), value };
        let done: Result<Vec<_>, LogError> = self.log.publish(vec![record]).await.into_iter().collect();
        done.expect("published");
    }

    pub fn written(&self) -> i64 {
        (0..PARTITIONS).map(|index| self.log.latest(&events(index)).unwrap()).sum()
    }
}

/// The thread that closes a file may take a moment after its last handle is gone.
async fn open(dir: &std::path::Path) -> Embedded {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Embedded::open(dir, EmbeddedSettings::default()) {
            Ok(log) => return log,
            Err(e) if Instant::now() > deadline => panic!("{e}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
