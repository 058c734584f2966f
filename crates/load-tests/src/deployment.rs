//! The product as it runs: processes of the real binary, with a tenant and people, and what is asked of it from outside.

use std::{
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    bare::http1::Connection,
    cluster::{self, Cluster, KEY, OPERATOR},
    fixture,
    harness::Bench,
    machine,
    peer::Peer,
    peers::{Ready, Received, post},
};

/// Notifications in one request of a flood, and requests at a time.
const BATCH: u64 = 100;
const AT_ONCE: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(120);
/// In which it shows whether a process has work.
const WINDOW: Duration = Duration::from_millis(1500);
/// How closely it is watched.
const STEP: Duration = Duration::from_millis(250);

/// Running processes. They end when it is dropped, and with this process, however that ends: what went on would take its share
/// of the machine from whatever is measured next.
pub struct Deployment {
    processes: Vec<Child>,
    /// Of the public API, on 127.0.0.1.
    pub port: u16,
    /// How many people there are.
    pub people: u64,
    http: reqwest::Client,
    dir: TempDir,
    /// CPU time that it uses in a `STEP` when it has nothing to do.
    idle: Duration,
}

impl Deployment {
    /// One process on the embedded log and stores, with a tenant that sends to the sink.
    pub async fn standalone(bench: &Bench, sink: &Ready) -> anyhow::Result<Self> {
        let settings: BTreeMap<_, _> = [
            ("ingress.operator_key".to_owned(), OPERATOR.to_owned()),
            ("gateway.apns.open_networks".to_owned(), "127.0.0.0/8".to_owned()),
        ]
        .into();
        let environment: Vec<_> = settings.iter().map(|(key, value)| cluster::variable(key, value)).collect();
        let mut deployment = Self::new(bench)?;
        let data = deployment.dir.path().join("data");
        let data = data.to_str().context("a path that is text")?.to_owned();
        deployment.spawn(bench, &["standalone", "--data", &data], &environment)?;
        deployment.ready().await?;
        deployment.settle_in(sink).await?;
        Ok(deployment)
    }

    /// A process for each service, on the engines.
    pub async fn cluster(bench: &Bench, cluster: &Cluster) -> anyhow::Result<Self> {
        let environment: Vec<_> = cluster.environment().collect();
        let mut deployment = Self::new(bench)?;
        deployment.people = cluster.people;
        for service in [&["ingress"][..], &["router"], &["gateway", "--channel", "apns"], &["indexer"]] {
            deployment.spawn(bench, service, &environment)?;
        }
        deployment.ready().await?;
        // consumers ask brokers all the time; what comes right after a start is over by then
        tokio::time::sleep(2 * WINDOW).await;
        deployment.idle = deployment.used(2 * WINDOW).await?.mul_f64(STEP.div_duration_f64(2 * WINDOW));
        Ok(deployment)
    }

    /// As somebody starts who tries it out.
    pub async fn demo(bench: &Bench) -> anyhow::Result<Self> {
        let mut deployment = Self::new(bench)?;
        let data = deployment.dir.path().join("data");
        let data = data.to_str().context("a path that is text")?.to_owned();
        let any = |key| cluster::variable(key, "127.0.0.1:0");
        let sandbox = ["sandbox.listen", "sandbox.control", "sandbox.apns", "sandbox.smtp"].map(any);
        deployment.spawn(bench, &["standalone", "--sandbox", "--demo", "--data", &data], &sandbox)?;
        deployment.ready().await?;
        Ok(deployment)
    }

    fn new(bench: &Bench) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let dir = TempDir::new_in(&bench.dir).context("no room for data")?;
        let people = bench.effort.count(1000, 100);
        Ok(Self { processes: Vec::new(), port: free_port()?, people, http, dir, idle: Duration::ZERO })
    }

    fn spawn(&mut self, bench: &Bench, args: &[&str], environment: &[(String, String)]) -> anyhow::Result<()> {
        let binary = &bench.carillon;
        ensure!(binary.exists(), "{} is missing: scripts/bench builds it", binary.display());
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        // of util-linux; the system keeps the wish when the program becomes another one (prctl(2), PR_SET_PDEATHSIG). It looks at
        // the thread that starts it: here the main one, which `block_on` has all rows start theirs on
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary).args(args);
        command.envs(environment.iter().map(|(k, v)| (k, v)));
        command.env("CARILLON__INGRESS__LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("CARILLON__INGRESS__GRPC_LISTEN", "").env("CARILLON__ADMIN__LISTEN", "");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.processes.push(child.context("cannot start setpriv, which is in the package util-linux")?);
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let until = Instant::now() + PATIENCE;
        loop {
            match self.http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                other => ensure!(Instant::now() < until, "it is not ready: {other:?}\n{}", self.log()),
            }
            for child in &mut self.processes {
                if let Some(status) = child.try_wait()? {
                    bail!("a process has ended: {status}\n{}", self.log());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The end of what it has said.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Tenant, key, account and people, by way of the API.
    async fn settle_in(&self, sink: &Ready) -> anyhow::Result<()> {
        let scopes = json!(["notifications:write", "notifications:read", "users:write", "users:read", "operator"]);
        for (path, body) in [
            ("tenants/bench", json!({})),
            ("keys/bench", json!({"key": KEY, "scopes": scopes})),
            ("accounts/apns", fixture::apns_account(sink)?),
        ] {
            self.call(Method::PUT, &format!("/v1/config/{path}?tenant=bench"), OPERATOR, &body).await?;
        }
        let put = |number| async move {
            let path = format!("/v1/users/{}", fixture::user(number)?);
            self.call(Method::PUT, &path, KEY, &json!({"locale": "en"})).await?;
            let token = fixture::token(number)?;
            let device = json!({"platform": "apns", "app": fixture::APP, "token": token.expose()});
            self.call(Method::POST, &format!("{path}/devices"), KEY, &device).await
        };
        let people = futures::stream::iter((0..self.people).map(put)).buffer_unordered(16);
        people.try_for_each(|_| async { Ok(()) }).await
    }

    /// One call, whose answer has to be a success.
    pub async fn call(&self, method: Method, path: &str, key: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let answer = self.http.request(method, url).bearer_auth(key).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// CPU time of all processes so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(|child| machine::cpu_time(child.id())).sum()
    }

    /// Resident memory of all processes, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.processes.iter().map(|child| machine::resident(child.id())).sum()
    }

    /// Waits until it has nothing to do any more; since when that is so.
    pub async fn quiet(&self) -> anyhow::Result<Instant> {
        let until = Instant::now() + PATIENCE;
        let mut since = Instant::now();
        while since.elapsed() < WINDOW {
            ensure!(Instant::now() < until, "it does not come to rest");
            if self.used(STEP).await? > self.idle.mul_f64(1.5) + STEP / 25 {
                since = Instant::now();
            }
        }
        Ok(since)
    }

    /// CPU time in a while.
    async fn used(&self, time: Duration) -> anyhow::Result<Duration> {
        let ran = || self.processes.iter().map(|child| machine::ran(child.id())).sum::<anyhow::Result<Duration>>();
        let before = ran()?;
        tokio::time::sleep(time).await;
        Ok(ran()?.saturating_sub(before))
    }

    /// Hands so many notifications over, as fast as they are taken, many in one request; the id of the last.
    pub async fn flood(&self, count: u64) -> anyhow::Result<String> {
        let (port, people) = (self.port, self.people);
        let (next, last) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(String::new())));
        let mut clients = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (next, last, mut connection) = (next.clone(), last.clone(), Connection::open(port).await?);
            clients.spawn(async move {
                loop {
                    let first = next.fetch_add(BATCH, Relaxed);
                    if first >= count {
                        return anyhow::Ok(());
                    }
                    let batch = (first..count.min(first + BATCH)).map(|n| post::notification(n % people));
                    let body = json!({"notifications": batch.collect::<anyhow::Result<Vec<_>>>()?});
                    let request = post::request(port, "/v1/notifications/batch", Bytes::from(body.to_string()))?;
                    let answer: Value = serde_json::from_slice(&connection.send(request).await?)?;
                    let results = answer["results"].as_array().context("no results")?;
                    let ids = results.iter().map(|r| r["id"].as_str().with_context(|| format!("refused: {r}")));
                    let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
                    *last.lock().await = ids.last().context("an empty answer")?.to_string();
                }
            });
        }
        while let Some(end) = clients.join_next().await {
            end??;
        }
        Ok(std::mem::take(&mut *last.lock().await))
    }
}

/// Waits until the sink has received so many since it was last asked.
pub async fn received(sink: &mut Peer, count: u64) -> anyhow::Result<Received> {
    let until = Instant::now() + PATIENCE;
    let mut all = sink.received()?;
    while all.count < count {
        ensure!(Instant::now() < until, "only {} of {count} were sent", all.count);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let more = sink.received()?;
        all = Received { count: all.count + more.count, bytes: all.bytes + more.bytes, ..more };
    }
    Ok(all)
}

/// A port that nobody listens on, below those that the system hands out by itself.
fn free_port() -> anyhow::Result<u16> {
    let port =
        (0..100).map(|_| fastrand::u16(10_000..28_000)).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    port.context("no port is free")
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // it may have ended by itself
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
