#![doc = include_str!("../README.md")]

mod accounts;
mod apns;
mod behaviour;
mod control;
mod listen;
mod receiver;
mod records;
mod rules;
mod smtp;
mod tls;
mod verify;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use domain::{Channel, Secret};
use serde_json::Value;
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
    /// Where the fake APNs listens; port 0 takes a free one.
    pub apns: SocketAddr,
    /// How many streams a connection may have once a valid token has come.
    pub apns_max_streams: u32,
    /// Where the fake SMTP server listens; port 0 takes a free one.
    pub smtp: SocketAddr,
    /// What its clients log in with.
    pub smtp_password: Secret,
    /// The folder of `received.jsonl`, `ca.pem` and the keys; it is made if it is missing, what
    /// exists is continued.
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
            apns: r.socket_addr("sandbox.apns"),
            apns_max_streams: u32::try_from(r.integer("sandbox.apns_max_streams", 1..=100_000)).unwrap_or(1),
            smtp: r.socket_addr("sandbox.smtp"),
            smtp_password: r.secret("sandbox.smtp_password"),
            record_dir: None,
            secret,
        }
    }

    /// For tests: free ports of 127.0.0.1, nothing on disk.
    pub fn local(secret: Secret) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any,
            control: any,
            apns: any,
            apns_max_streams: 1000,
            smtp: any,
            smtp_password: Secret::new("a password of the tests"),
            record_dir: None,
            secret,
        }
    }
}

/// The fake providers.
pub struct Sandbox;

/// What all ports work on.
pub(crate) struct Shared {
    verifier: verify::Verifier,
    tls: Arc<tls::Tls>,
    records: records::Records,
    rules: Mutex<rules::Rules>,
    apns: SocketAddr,
    apns_max_streams: u32,
    smtp: SocketAddr,
    smtp_password: Secret,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, rules::Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the channel's rule wants done to a request, if it strikes.
    fn strike(&self, channel: Channel, path: &str) -> Option<rules::Rule> {
        self.rules().strike(channel, path)
    }
}

impl Sandbox {
    /// Binds the ports and serves them in the background. Errors: a bad secret, a port that is taken, a file that cannot be
    /// opened.
    pub async fn start(settings: SandboxSettings) -> anyhow::Result<Running> {
        let [webhooks, control, apns, smtp] = [
            bind(settings.listen).await?,
            bind(settings.control).await?,
            bind(settings.apns).await?,
            bind(settings.smtp).await?,
        ];
        let hosts = [settings.apns.ip(), settings.smtp.ip()];
        let shared = Arc::new(Shared {
            verifier: verify::Verifier::new(&settings.secret)?,
            tls: Arc::new(tls::Tls::open(settings.record_dir.as_deref(), &hosts)?),
            records: records::Records::open(settings.record_dir.as_deref())?,
            rules: Mutex::default(),
            apns: apns.local_addr()?,
            apns_max_streams: settings.apns_max_streams,
            smtp: smtp.local_addr()?,
            smtp_password: settings.smtp_password,
        });
        let running = Running {
            receiver: webhooks.local_addr()?,
            control: control.local_addr()?,
            apns: shared.apns,
            smtp: shared.smtp,
            shared: shared.clone(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (stop, tasks) = (&running.stop, &running.tasks);
        let acceptor = shared.tls.mutual_acceptor(&[b"h2"])?;
        tasks.spawn(receiver::serve(webhooks, shared.clone(), stop.clone(), tasks.clone()));
        tasks.spawn(apns::serve(apns, acceptor, shared.clone(), stop.clone(), tasks.clone()));
        tasks.spawn(smtp::serve(smtp, shared.clone(), stop.clone(), tasks.clone()));
        tasks.spawn(control::serve(control, shared, stop.clone()));
        let Running { receiver, control, apns, smtp, .. } = running;
        tracing::info!(%receiver, %control, %apns, %smtp, "the sandbox listens");
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
    /// The fake APNs.
    pub apns: SocketAddr,
    /// The fake SMTP server.
    pub smtp: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// The URL that makes the receiver behave as `/hook/<behaviour>` says.
    pub fn hook(&self, behaviour: &str) -> String {
        format!("http://{}/hook/{behaviour}", self.receiver)
    }

    /// The certificate, in PEM, that a client of the fake APNs and the fake SMTP server has to trust.
    pub fn ca_pem(&self) -> &str {
        &self.shared.tls.ca_pem
    }

    /// An account that reaches the fake APNs with provider tokens.
    pub fn apns_account(&self) -> Value {
        accounts::apns(&self.shared, 0)
    }

    /// One of another team, with a key of its own.
    pub fn second_apns_account(&self) -> Value {
        accounts::apns(&self.shared, 1)
    }

    /// An account that reaches the fake APNs with a client certificate.
    pub fn apns_certificate_account(&self) -> Value {
        accounts::apns_certificate(&self.shared)
    }

    /// An account that reaches the fake SMTP server.
    pub fn email_account(&self) -> Value {
        accounts::email(&self.shared)
    }

    /// The kept requests whose path begins with `path`, in order of arrival.
    pub fn received(&self, path: &str) -> anyhow::Result<Vec<Reception>> {
        self.shared.records.receptions(path)
    }

    /// Counts over all that arrived.
    pub fn summary(&self) -> Summary {
        self.shared.records.summary()
    }

    /// Closes all ports and every connection, and waits for that, a few seconds at most.
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
