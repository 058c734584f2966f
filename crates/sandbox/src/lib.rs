#![doc = include_str!("../README.md")]

mod behaviour;
mod control;
mod receiver;
mod records;
mod rules;
mod verify;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use domain::Secret;
use service_kit::{Reader, Section};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use records::{Reception, Summary};

/// The settings of `[sandbox]`.
pub const SETTINGS: Section =
    Section { defaults: include_str!("../settings.default.toml"), check: |r| drop(SandboxSettings::read(r)) };

/// Where the sandbox listens and what it checks.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// Where webhooks arrive; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The control port; port 0 takes a free one.
    pub control: SocketAddr,
    /// The folder of `received.jsonl`; it is made if it is missing, an existing file is continued.
    pub record_dir: Option<PathBuf>,
    /// The secret that senders sign with: `whsec_` and 24 to 64 bytes in base64.
    pub secret: Secret,
}

impl SandboxSettings {
    /// `[sandbox]` of the settings; nothing is recorded on disk.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let secret = r.secret("sandbox.webhook_secret");
        if let Err(wrong) = verify::Verifier::new(&secret) {
            r.problem("sandbox.webhook_secret", &wrong.to_string());
        }
        Self {
            listen: r.socket_addr("sandbox.listen"),
            control: r.socket_addr("sandbox.control"),
            record_dir: None,
            secret,
        }
    }
}

/// The fake providers.
pub struct Sandbox;

/// What both ports work on.
struct Shared {
    verifier: verify::Verifier,
    records: records::Records,
    rules: Mutex<rules::Rules>,
}

impl Sandbox {
    /// Binds both ports and serves them in the background. Errors: a bad secret, a port that is taken, a record file that
    /// cannot be opened.
    pub async fn start(settings: SandboxSettings) -> anyhow::Result<Running> {
        let shared = Arc::new(Shared {
            verifier: verify::Verifier::new(&settings.secret)?,
            records: records::Records::open(settings.record_dir.as_deref())?,
            rules: Mutex::default(),
        });
        let listener = bind(settings.listen).await?;
        let control_listener = bind(settings.control).await?;
        let running = Running {
            receiver: listener.local_addr()?,
            control: control_listener.local_addr()?,
            shared: shared.clone(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (stop, tasks) = (&running.stop, &running.tasks);
        tasks.spawn(receiver::serve(listener, shared.clone(), stop.clone(), tasks.clone()));
        tasks.spawn(control::serve(control_listener, shared, stop.clone()));
        tracing::info!(receiver = %running.receiver, control = %running.control, "the sandbox listens");
        Ok(running)
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// A running sandbox. Dropping it stops it as well, without waiting.
pub struct Running {
    /// Where webhooks arrive.
    pub receiver: SocketAddr,
    /// The control port.
    pub control: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// The URL that makes the receiver behave as `/hook/<behaviour>` says.
    pub fn hook(&self, behaviour: &str) -> String {
        format!("http://{}/hook/{behaviour}", self.receiver)
    }

    /// The kept requests whose path begins with `path`, in order of arrival.
    pub fn received(&self, path: &str) -> anyhow::Result<Vec<Reception>> {
        self.shared.records.receptions(path)
    }

    /// Counts over all that arrived.
    pub fn summary(&self) -> Summary {
        self.shared.records.summary()
    }

    /// Closes both ports and every connection, and waits for that, a few seconds at most.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("the sandbox leaves open connections behind");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
