//! A Carillon of processes that can be killed, stopped and started again; whatever it needs is its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bus::Topics;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{Addresses, Mode, flow::SOURCE, people::Person, plan::Target};

/// The tenant of a run.
pub const TENANT: &str = "chaos";
/// Its key.
pub const KEY: &str = "tenant-key-of-the-chaos";
const OPERATOR: &str = "operator-key-of-the-chaos";
/// What its webhooks are signed with; the sandbox knows it too.
pub const SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiB0aGUgdGVzdHMsIDMyIGI=";

/// The HTTP API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    /// Where gRPC is served.
    pub grpc: String,
}

impl Api {
    /// One call; an answer that is not 2xx is an error.
    async fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let key = if path.starts_with("/v1/config") { OPERATOR } else { KEY };
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path}: {status} {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// `GET`.
    ///
    /// # Errors
    /// No answer, or none that is 2xx.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(reqwest::Method::GET, path, None).await
    }

    /// `GET`, again and again for a minute: an engine that has just come back may take its time.
    ///
    /// # Errors
    /// No answer that is 2xx within a minute.
    pub async fn get_patiently(&self, path: &str) -> anyhow::Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.get(path).await {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(500)).await,
                answer => return answer,
            }
        }
    }

    /// `POST`.
    ///
    /// # Errors
    /// No answer, or none that is 2xx.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(reqwest::Method::POST, path, Some(body)).await
    }

    /// `PUT`.
    ///
    /// # Errors
    /// No answer, or none that is 2xx.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(reqwest::Method::PUT, path, Some(body)).await
    }
}

/// A Carillon that runs.
pub struct Installation {
    mode: Mode,
    binary: PathBuf,
    dir: PathBuf,
    settings: BTreeMap<String, String>,
    processes: BTreeMap<String, Process>,
    /// The API.
    pub api: Api,
    /// Where Kafka clients connect to: the brokers, or the listener of the embedded log.
    pub kafka: String,
    /// The names of the topics.
    pub topics: Topics,
    /// Processes that ended by themselves, and how.
    pub ended: Vec<String>,
}

struct Process {
    args: Vec<String>,
    child: Child,
}

impl Installation {
    /// Starts all services in `dir`, on engines whose contents are its own.
    ///
    /// # Errors
    /// Something does not start, or is not ready within a minute.
    pub async fn start(mode: Mode, binary: &Path, dir: &Path, engines: &Addresses) -> anyhow::Result<Self> {
        let own = format!("chaos{:08x}", fastrand::u32(..));
        let mut settings = common_settings(&own);
        let [http, grpc, listener] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        settings.insert("ingress.listen".into(), http.clone());
        settings.insert("ingress.grpc_listen".into(), grpc.clone());
        let topics = Topics::new(&format!("{own}."));
        let kafka = match mode {
            Mode::Cluster => {
                cluster_settings(&mut settings, &own, engines);
                engines.kafka.clone()
            }
            Mode::Standalone | Mode::Sim => {
                settings.insert("kafka_listener.topics".into(), crate::evidence::topics_to_read(&topics).join(","));
                listener
            }
        };
        let http_client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let api = Api { http: http_client, url: format!("http://{http}"), grpc: format!("http://{grpc}") };
        let (binary, dir, processes, ended) = (binary.to_owned(), dir.to_owned(), BTreeMap::new(), Vec::new());
        let mut it = Self { mode, binary, dir, settings, processes, api, kafka, topics, ended };
        if mode == Mode::Cluster {
            it.run_to_end("schema")?;
            it.run_to_end("topics")?;
        }
        for target in it.services() {
            it.spawn(target.name(), *target)?;
        }
        it.ready(Duration::from_secs(60)).await?;
        Ok(it)
    }

    /// What runs when nothing is broken.
    pub fn services(&self) -> &'static [Target] {
        match self.mode {
            Mode::Cluster => &[Target::Ingress, Target::Router, Target::Gateway, Target::Indexer],
            Mode::Standalone | Mode::Sim => &[Target::Standalone],
        }
    }

    fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        for (key, value) in &self.settings {
            command.env(format!("CARILLON__{}", key.to_uppercase().replace('.', "__")), value);
        }
        command
    }

    fn run_to_end(&self, command: &str) -> anyhow::Result<()> {
        let out = self.command(&[command.to_owned()]).output().context("cannot start carillon")?;
        if !out.status.success() {
            bail!("carillon {command}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(())
    }

    /// Starts a process of a service under a name; its log is appended to a file.
    ///
    /// # Errors
    /// The binary does not start.
    pub fn spawn(&mut self, name: &str, service: Target) -> anyhow::Result<()> {
        let mut args = vec![service.name().to_owned()];
        match service {
            Target::Standalone => {
                args.extend(["--data".into(), "data".into(), "--kafka-listen".into(), self.kafka.clone()]);
            }
            Target::Gateway => args.extend(["--channel".into(), "apns,email,webhook".into()]),
            _ => {}
        }
        let child = self.launch(name, &args)?;
        self.processes.insert(name.to_owned(), Process { args, child });
        Ok(())
    }

    fn launch(&self, name: &str, args: &[String]) -> anyhow::Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let child = self.command(args).stdout(Stdio::null()).stderr(log).spawn();
        child.with_context(|| format!("cannot start {name}"))
    }

    /// SIGKILL: no chance to tidy up.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut process = self.processes.remove(name).with_context(|| format!("{name} does not run"))?;
        // it may have ended by itself
        let _ended = process.child.kill();
        process.child.wait()?;
        Ok(())
    }

    /// SIGSTOP, SIGCONT or SIGTERM.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&mut self, name: &str, signal: &str) -> anyhow::Result<()> {
        let process = self.processes.get(name).with_context(|| format!("{name} does not run"))?;
        let pid = process.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).stderr(Stdio::null()).status()?;
        // one that has ended meanwhile is started again by `tend`
        if !sent.success() && self.ended(name) {
            Ok(())
        } else {
            anyhow::ensure!(sent.success(), "kill -{signal} {pid}");
            Ok(())
        }
    }

    fn ended(&mut self, name: &str) -> bool {
        self.processes.get_mut(name).is_none_or(|p| !matches!(p.child.try_wait(), Ok(None)))
    }

    /// Whether a process that was asked to end has ended; then it is forgotten.
    pub fn is_gone(&mut self, name: &str) -> bool {
        let gone = self.ended(name);
        if gone {
            self.processes.remove(name);
        }
        gone
    }

    /// Starts again what ended by itself, as a supervisor does.
    ///
    /// # Errors
    /// The binary does not start.
    pub fn tend(&mut self, leaving: &BTreeSet<String>) -> anyhow::Result<()> {
        let names: Vec<String> = self.processes.keys().filter(|name| !leaving.contains(*name)).cloned().collect();
        for name in names {
            let Some(process) = self.processes.get_mut(&name) else { continue };
            let Some(status) = process.child.try_wait()? else { continue };
            self.ended.push(format!("{name}: {status}"));
            let args = process.args.clone();
            let child = self.launch(&name, &args)?;
            self.processes.insert(name, Process { args, child });
        }
        Ok(())
    }

    /// Waits until the API is ready; starts again what ends meanwhile.
    ///
    /// # Errors
    /// It is not ready in time; the logs' ends are in the error.
    pub async fn ready(&mut self, within: Duration) -> anyhow::Result<()> {
        let url = format!("{}/readyz", self.api.url);
        let deadline = Instant::now() + within;
        loop {
            match self.api.http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if Instant::now() > deadline => bail!("not ready\n{}", self.logs()),
                _ => {}
            }
            self.tend(&BTreeSet::new())?;
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of every log.
    pub fn logs(&self) -> String {
        let tail = |name: &String| {
            let text = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(4)..].join("\n"))
        };
        self.processes.keys().map(tail).collect()
    }

    /// The tenant, its accounts at the sandbox, and the people.
    ///
    /// # Errors
    /// The API refuses something, or does not answer.
    pub async fn set_up(&self, sandbox: &sandbox::Running, people: &[Person]) -> anyhow::Result<()> {
        let scopes = json!(["notifications:write", "notifications:read", "users:write", "users:read", "operator"]);
        let all = json!({"channels": ["push", "email", "webhook"]});
        for (path, body) in [
            ("tenants/chaos", json!({})),
            ("keys/chaos", json!({"key": KEY, "scopes": scopes})),
            ("categories/orders", all.clone()),
            ("categories/news", all),
            ("sources/shop", json!({"source": SOURCE})),
            ("accounts/webhook", json!({"channel": "webhook", "secret": SECRET})),
            ("accounts/apns", sandbox.apns_account()),
            ("accounts/email", sandbox.email_account()),
        ] {
            self.api.put(&format!("/v1/config/{path}?tenant={TENANT}"), &body).await?;
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        while let Err(error) = self.api.get("/v1/deliveries").await {
            anyhow::ensure!(Instant::now() < deadline, "the new key does not work: {error}");
            sleep(Duration::from_millis(50)).await;
        }
        let receiver = sandbox.receiver.to_string();
        for person in people {
            let path = format!("/v1/users/{}", person.id);
            self.api.put(&path, &person.record(&receiver)).await?;
            if let Some(device) = person.device() {
                self.api.post(&format!("{path}/devices"), &device).await?;
            }
        }
        Ok(())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            // it may have ended by itself
            let _ended = process.child.kill();
            let _reaped = process.child.wait();
        }
    }
}

/// Short times, so that all that can happen happens within a run.
fn common_settings(own: &str) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<String, String> = [
        ("ingress.operator_key", OPERATOR),
        ("gateway.apns.open_networks", "127.0.0.0/8"),
        ("gateway.email.open_networks", "127.0.0.0/8"),
        ("gateway.webhook.open_networks", "127.0.0.0/8"),
        ("gateway.apns.timeout", "3s"),
        ("gateway.email.timeout", "20s"),
        ("gateway.webhook.timeout", "1500ms"),
        ("gateway.retry.attempts", "5"),
        ("gateway.retry.base", "100ms"),
        ("gateway.retry.cap", "1s"),
        ("topics.partitions", "4"),
        ("drain", "10s"),
        ("admin.listen", ""),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    settings.insert("topics.prefix".into(), format!("{own}."));
    settings
}

fn cluster_settings(settings: &mut BTreeMap<String, String>, own: &str, engines: &Addresses) {
    let brokers = engines.kafka.split(',').count();
    for (key, value) in [
        ("topics.replication", brokers.min(3).to_string()),
        ("kafka.brokers", engines.kafka.clone()),
        ("redis.url", engines.redis.clone()),
        ("redis.prefix", format!("{own}:")),
        ("cassandra.nodes", engines.cassandra.clone()),
        ("cassandra.keyspace", own.to_owned()),
        ("elasticsearch.url", engines.elasticsearch.clone()),
        ("elasticsearch.index_prefix", format!("{own}-")),
    ] {
        settings.insert(key.to_owned(), value);
    }
}

/// A port that nobody listens on, below those that the system hands out by itself: no connection takes it while its process
/// is dead.
fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(10_000..28_000);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.insert(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
