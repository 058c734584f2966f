//! A running Carillon: processes of the real binary, a sandbox in this process as the outside evidence, a tenant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use domain::Secret;
use sandbox::{Running, Sandbox, SandboxSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const OPERATOR: &str = "operator-key-of-the-tests";
pub(crate) const KEY: &str = "tenant-key-of-the-tests";
/// The secret that the tenant's webhooks are signed with; the sandbox knows it too.
pub(crate) const SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiB0aGUgdGVzdHMsIDMyIGI=";

/// What Carillon runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engines {
    Embedded,
    Cluster,
}

/// The services that can be started and killed: one process on the embedded default, one each on a cluster.
pub(crate) const CLUSTER: [&[&str]; 4] =
    [&["ingress"], &["router"], &["gateway", "--channel", "apns,email,webhook"], &["indexer"]];
pub(crate) const EMBEDDED: [&[&str]; 1] = [&["standalone", "--data", "data"]];

pub(crate) struct World {
    pub(crate) engines: Engines,
    pub(crate) url: String,
    pub(crate) sandbox: Running,
    pub(crate) http: reqwest::Client,
    /// Where gRPC is served.
    pub(crate) grpc: String,
    /// Where Kafka clients connect to: the brokers, or the listener of the embedded log.
    pub(crate) kafka: String,
    dir: TempDir,
    settings: BTreeMap<String, String>,
    processes: HashMap<String, Child>,
}

/// The binary that `make test` has built beside the tests.
pub(crate) fn binary() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().and_then(Path::parent).unwrap().join("carillon");
    assert!(path.exists(), "{} is missing: run `make test`, or `cargo build -p carillon` first", path.display());
    path
}

/// Sends a signal by the system's own command.
pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// A port that nobody listens on. It lies below those that the system hands out by itself: no other test's connection takes it
/// before it is used, or while its process is killed and started again.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(10_000..28_000);
        if TAKEN.lock().unwrap().insert(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where the engines are; a cluster test without engines fails, it is not skipped.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the engines are")]
pub(crate) fn engine(name: &str) -> String {
    let name = format!("CARILLON_TEST_{name}");
    std::env::var(&name)
        .unwrap_or_else(|_| panic!("{name} is not set; run `make test`, or eval \"$(deploy/dev/engines env)\""))
}

/// Settings that put a Carillon on engines of its own: nothing is shared with another test.
pub(crate) fn settings(engines: Engines) -> BTreeMap<String, String> {
    let own = format!("it{:08x}", fastrand::u32(..));
    let mut settings: BTreeMap<String, String> = [
        ("ingress.operator_key", OPERATOR),
        ("gateway.apns.open_networks", "127.0.0.0/8"),
        ("gateway.email.open_networks", "127.0.0.0/8"),
        ("gateway.webhook.open_networks", "127.0.0.0/8"),
        ("gateway.webhook.timeout", "2s"),
        ("gateway.retry.base", "100ms"),
        ("gateway.retry.cap", "1s"),
        ("topics.partitions", "4"),
        ("drain", "10s"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    if engines == Engines::Cluster {
        let mut set = |k: &str, v: String| settings.insert(k.to_owned(), v);
        set("topics.prefix", format!("{own}."));
        set("kafka.brokers", engine("KAFKA"));
        set("redis.url", engine("REDIS"));
        set("redis.prefix", format!("{own}:"));
        set("cassandra.nodes", engine("CASSANDRA"));
        set("cassandra.keyspace", own.clone());
        set("elasticsearch.url", engine("ELASTICSEARCH"));
        set("elasticsearch.index_prefix", format!("{own}-"));
    }
    settings
}

impl World {
    /// Starts everything and sets the tenant up, all from outside.
    pub(crate) async fn start(engines: Engines) -> Self {
        Self::start_with(engines, &[]).await
    }

    /// The same with some settings of the test's own.
    pub(crate) async fn start_with(engines: Engines, own: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut settings = settings(engines);
        let [http, grpc, listener] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        settings.insert("ingress.listen".into(), http.clone());
        settings.insert("ingress.grpc_listen".into(), grpc.clone());
        settings.insert("admin.listen".into(), String::new());
        settings.extend(own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let sandbox = Sandbox::start(SandboxSettings::local(Secret::new(SECRET))).await.unwrap();
        let kafka = if engines == Engines::Cluster { engine("KAFKA") } else { listener };
        let http_client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        let (url, grpc) = (format!("http://{http}"), format!("http://{grpc}"));
        let processes = HashMap::new();
        let mut world = Self { engines, url, sandbox, http: http_client, grpc, kafka, dir, settings, processes };
        if engines == Engines::Cluster {
            world.run_to_end(&["schema"]);
            world.run_to_end(&["topics"]);
        }
        for service in world.services() {
            world.spawn(service);
        }
        world.ready().await;
        world.set_up_tenant().await;
        world
    }

    pub(crate) fn services(&self) -> Vec<&'static [&'static str]> {
        match self.engines {
            Engines::Embedded => EMBEDDED.to_vec(),
            Engines::Cluster => CLUSTER.to_vec(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        if args[0] == "standalone" {
            command.args(["--kafka-listen", &self.kafka]);
        }
        for (key, value) in &self.settings {
            command.env(format!("CARILLON__{}", key.to_uppercase().replace('.', "__")), value);
        }
        command.env("CARILLON_URL", &self.url).env("CARILLON_KEY", KEY);
        command
    }

    pub(crate) fn run_to_end(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert!(out.status.success(), "carillon {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// A file in the folder where every command runs.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// The name of a topic in this installation.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.settings.get("topics.prefix").map_or("carillon.", String::as_str))
    }

    /// Starts a service; its log is appended to a file.
    pub(crate) fn spawn(&mut self, args: &[&str]) {
        self.spawn_as(args[0], args);
    }

    /// One more process of a service, under a name of its own.
    pub(crate) fn spawn_as(&mut self, name: &str, args: &[&str]) {
        let log = self.log_path(name);
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.processes.insert(name.to_owned(), child);
    }

    fn log_path(&self, service: &str) -> PathBuf {
        self.dir.path().join(format!("{service}.log"))
    }

    pub(crate) fn process(&mut self, service: &str) -> &mut Child {
        self.processes.get_mut(service).unwrap()
    }

    /// SIGTERM, and the end that it asks for.
    pub(crate) async fn terminate(&mut self, name: &str) {
        signal(self.process(name).id(), "TERM");
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.process(name).try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{name} does not stop\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status.code(), Some(0), "{}", self.logs());
        self.processes.remove(name);
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(&mut self, service: &str) {
        let mut child = self.processes.remove(service).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) async fn ready(&mut self) {
        let url = format!("{}/readyz", self.url);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return,
                other => assert!(Instant::now() < deadline, "not ready: {other:?}\n{}", self.logs()),
            }
            for (name, child) in &mut self.processes {
                assert!(child.try_wait().unwrap().is_none(), "{name} ended");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The end of every service's log, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let tail = |name: &String| {
            let text = std::fs::read_to_string(self.log_path(name)).unwrap_or_default();
            let from = text.len().saturating_sub(3000);
            format!("--- {name}\n{}\n", text.get(from..).unwrap_or_default())
        };
        self.processes.keys().map(tail).collect()
    }

    /// Calls the API; the body is JSON or null.
    pub(crate) async fn call(&self, method: &str, path: &str, key: &str, body: Option<&Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{path}: {e:?}\n{}", self.logs()));
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    pub(crate) async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let key = if path.starts_with("/v1/config") { OPERATOR } else { KEY };
        let (status, answer) = self.call(method, path, key, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}\n{}", self.logs());
        answer
    }

    async fn set_up_tenant(&self) {
        let scopes = json!(["notifications:write", "notifications:read", "users:write", "users:read", "operator"]);
        for (path, body) in [
            ("/v1/config/tenants/acme?tenant=acme", json!({})),
            ("/v1/config/keys/tests?tenant=acme", json!({"key": KEY, "scopes": scopes})),
            ("/v1/config/categories/orders?tenant=acme", json!({"channels": ["webhook"]})),
            ("/v1/config/categories/marketing?tenant=acme", json!({"channels": ["webhook"], "opt_in": true})),
            ("/v1/config/accounts/webhook?tenant=acme", json!({"channel": "webhook", "secret": SECRET})),
        ] {
            self.ok("PUT", path, Some(&body)).await;
        }
        // the key just made has to have reached this ingress, and the account every gateway
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.call("GET", "/v1/deliveries", KEY, None).await.0 != 200 {
            assert!(Instant::now() < deadline, "the key does not work\n{}", self.logs());
        }
    }

    /// A user who is reached at a path of the sandbox.
    pub(crate) async fn user(&self, id: &str, path: &str) {
        let url = format!("http://{}{path}", self.sandbox.receiver);
        self.ok("PUT", &format!("/v1/users/{id}"), Some(&json!({"contacts": {"webhook": [url]}}))).await;
    }

    /// A notification once it has ended and is indexed.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (status, n) = self.call("GET", &format!("/v1/notifications/{id}"), KEY, None).await;
            let state = n["state"].as_str().unwrap_or("none").to_owned();
            if status == 200 && !["accepted", "queued", "sending", "deferred"].contains(&state.as_str()) {
                return n;
            }
            assert!(Instant::now() < deadline, "{id}: {status} {n}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            // it may have ended by itself
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
