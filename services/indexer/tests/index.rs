//! Row 36 of the catalogue (reliability.md, section 7), on the real Elasticsearch: what is not taken now is tried again alone,
//! what is never taken becomes a dead letter, what is there already is done, and an outage is waited for. Skipped where there
//! are no engines.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus::{FollowEvent, Headers, Outgoing, Record, topic};
use domain::{
    Channel, DeliveryId, DeliveryStatus, History, NotificationId, Priority, State, Status, TenantId, Timestamp,
};
use service_kit::{Kit, Settings};
use store::{
    Balance, Deliveries, DeliveryQuery, Document, IndexError, NotificationView, Page, StoreError, Stores,
    cluster::{self, ClusterSettings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use uuid::Uuid;
use wire::Record as _;

/// Where an engine is; without it a test fails, it is not skipped.
fn engine(name: &str) -> String {
    let name = format!("CARILLON_TEST_{name}");
    std::env::var_os(&name)
        .and_then(|address| address.into_string().ok())
        .unwrap_or_else(|| panic!("{name} is not set; run `make test`, or eval \"$(deploy/dev/engines env)\""))
}

/// Settings of an installation that no other test has, with its schema in place.
async fn settings() -> ClusterSettings {
    let unique = &Uuid::new_v4().simple().to_string()[..12];
    let settings = ClusterSettings {
        redis_url: engine("REDIS"),
        redis_prefix: format!("indexer-{unique}:"),
        cassandra: vec![engine("CASSANDRA")],
        keyspace: "carillon_contract".into(),
        replication: 1,
        elasticsearch_url: engine("ELASTICSEARCH"),
        index_prefix: format!("indexer-{unique}-"),
        claim_window: Duration::from_secs(3600),
        index_retention: Duration::from_secs(90 * 24 * 3600),
        timeout: Duration::from_secs(2),
    };
    // the one keyspace of all tests of stores, which may be made by two at once
    cluster::migrate(&settings).await.expect("migrate");
    settings
}

/// The index, what it was asked to take (how often each document), and how many it has said to have taken.
struct Watched {
    index: Arc<dyn Deliveries>,
    offered: Arc<Mutex<BTreeMap<Uuid, usize>>>,
    taken: Arc<AtomicUsize>,
}

#[async_trait]
impl Deliveries for Watched {
    async fn index(&self, documents: &[Document]) -> Result<Vec<Result<(), IndexError>>, StoreError> {
        for document in documents {
            let Status::Delivery(d) = document else { panic!("only deliveries here") };
            *self.offered.lock().expect("not poisoned").entry(d.id.0).or_default() += 1;
        }
        let results = self.index.index(documents).await?;
        self.taken.fetch_add(results.iter().filter(|r| r.is_ok()).count(), Relaxed);
        Ok(results)
    }

    async fn notification(&self, t: &TenantId, id: NotificationId) -> Result<Option<NotificationView>, StoreError> {
        self.index.notification(t, id).await
    }

    async fn search(
        &self,
        tenant: &TenantId,
        query: &DeliveryQuery,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.index.search(tenant, query, cursor, limit).await
    }

    async fn balance(&self, tenant: Option<&TenantId>, until: Timestamp) -> Result<Vec<Balance>, StoreError> {
        self.index.balance(tenant, until).await
    }

    async fn prune(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        self.index.prune(now).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.index.ping().await
    }
}

/// An indexer over an embedded log and the real index.
struct Desk {
    kit: Kit,
    offered: Arc<Mutex<BTreeMap<Uuid, usize>>>,
    taken: Arc<AtomicUsize>,
    settings: ClusterSettings,
    _dir: tempfile::TempDir,
}

impl Desk {
    /// `index` is where the indexer finds Elasticsearch.
    async fn open(settings: ClusterSettings, index: String) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let own = Settings::load(&[indexer::SETTINGS], None, []).expect("the defaults are valid");
        let Kit { log, .. } = Kit::embedded(own.clone(), dir.path()).await.expect("a kit");
        let reached = ClusterSettings { elasticsearch_url: index, ..settings.clone() };
        let stores = cluster::connect(&reached).await.expect("connect");
        let (offered, taken) = (Arc::default(), Arc::default());
        let index = stores.deliveries.clone();
        let deliveries = Arc::new(Watched { index, offered: Arc::clone(&offered), taken: Arc::clone(&taken) });
        let kit = Kit::new(own, log, Stores { deliveries, ..stores }, true).expect("valid settings");
        indexer::run(&kit).expect("valid settings");
        Self { kit, offered, taken, settings, _dir: dir }
    }

    async fn hand_over(&self, documents: &[DeliveryStatus]) {
        let record = |d: &DeliveryStatus| Outgoing {
            topic: self.kit.topics.status(),
            key: Some(topic::status_key(&d.tenant, &d.recipient_key)),
            headers: Headers::default().with("mine", "kept"),
            value: Some(Status::Delivery(d.clone()).encode()),
        };
        let results = self.kit.log.publish(documents.iter().map(record).collect()).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    fn offered(&self, d: &DeliveryStatus) -> usize {
        self.offered.lock().expect("not poisoned").get(&d.id.0).copied().unwrap_or(0)
    }

    /// Everything of a tenant that the index holds.
    async fn indexed(&self, tenant: &TenantId) -> Vec<DeliveryStatus> {
        let found = self.kit.stores.deliveries.search(tenant, &DeliveryQuery::default(), None, 1000).await;
        found.map_or_else(|_| Vec::new(), |page| page.expect("a page").items)
    }

    async fn dead(&self) -> Vec<Record> {
        let mut follow = self.kit.log.follow(&self.kit.topics.dead(topic::Stage::Indexer)).await.expect("dead letters");
        let mut letters = Vec::new();
        while let FollowEvent::Records(records) = follow.next().await.expect("an event") {
            letters.extend(records);
        }
        letters
    }

    /// Takes its indices away; everything that was handed over is finished by then.
    async fn close(self) {
        self.kit.shutdown.cancel();
        assert!(self.kit.finish().await, "it drains");
        for family in ["notifications", "deliveries"] {
            let name = format!("{}{family}", self.settings.index_prefix);
            for day in [yesterday(), now()] {
                request(&self.settings, "DELETE", &format!("{name}-{}", day.strftime("%Y.%m.%d")), "").await;
            }
            request(&self.settings, "DELETE", &format!("_index_template/{name}"), "").await;
        }
    }
}

/// One request to Elasticsearch; its status.
async fn request(settings: &ClusterSettings, method: &str, path: &str, body: &str) -> u16 {
    let host = settings.elasticsearch_url.rsplit('/').next().expect("an address");
    let mut stream = TcpStream::connect(host).await.expect("elasticsearch");
    let length = body.len();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("now")
}

fn yesterday() -> Timestamp {
    now() - Duration::from_secs(24 * 3600)
}

fn delivery(tenant: &TenantId, accepted_at: Timestamp) -> DeliveryStatus {
    let mut history = History::default();
    history.reached(accepted_at, State::Accepted, None);
    history.reached(accepted_at, State::Queued, None);
    let id = DeliveryId(Uuid::new_v4());
    DeliveryStatus {
        id,
        notification: NotificationId::new(accepted_at),
        tenant: tenant.clone(),
        user: None,
        recipient_key: format!("webhook:{}", id.0.simple()),
        channel: Channel::Webhook,
        address: None,
        category: None,
        priority: Priority::default(),
        state: State::Queued,
        reason: None,
        template: None,
        provider: None,
        leads: true,
        accepted_at,
        updated_at: accepted_at,
        metadata: [].into(),
        history,
    }
}

/// One step later.
fn further(d: &DeliveryStatus, state: State) -> DeliveryStatus {
    let mut d = DeliveryStatus { state, ..d.clone() };
    d.history.reached(d.accepted_at, state, None);
    d
}

fn tenant() -> TenantId {
    TenantId::parse(&format!("t-{}", Uuid::new_v4().simple())).expect("a name")
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_document_of_a_batch_has_its_own_fate() {
    let settings = settings().await;
    let index = settings.elasticsearch_url.clone();
    let desk = Desk::open(settings, index).await;
    let (ours, theirs) = (tenant(), tenant());
    // two days, so that one of them can be full
    let first = delivery(&theirs, yesterday());
    desk.hand_over(std::slice::from_ref(&first)).await;
    until("the first is there", async || desk.indexed(&theirs).await.len() == 1).await;
    let day = format!("{}deliveries-{}", desk.settings.index_prefix, first.accepted_at.strftime("%Y.%m.%d"));
    let full = r#"{"index.blocks.read_only_allow_delete": true}"#;
    assert_eq!(request(&desk.settings, "PUT", &format!("{day}/_settings"), full).await, 200);

    let good: Vec<_> = (0..95).map(|_| delivery(&ours, now())).collect();
    let blocked: Vec<_> = (0..3).map(|_| delivery(&theirs, yesterday())).collect();
    // earlier than the index can tell times apart: the mapping refuses it
    let early = "1900-01-01T00:00:00Z".parse().expect("a time");
    let before = delivery(&ours, now());
    let bad = DeliveryStatus { updated_at: early, ..further(&before, State::Sending) };
    // three versions of one, of which only the last need be written
    let steps = [further(&good[0], State::Sending), further(&further(&good[0], State::Sending), State::Sent)];
    let mut batch = [good.clone(), blocked.clone(), vec![before, bad.clone()], steps.to_vec()].concat();
    // what cannot be taken comes first, so that it would hold up the rest
    batch.reverse();
    desk.hand_over(&batch).await;

    until("the rest is there", async || desk.indexed(&ours).await.len() == 96).await;
    until("one is given up", async || !desk.dead().await.is_empty()).await;
    let [letter] = &desk.dead().await[..] else { panic!("one is given up") };
    assert_eq!(letter.value, Some(Status::Delivery(bad.clone()).encode()));
    let header = |name| letter.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(header(topic::DEAD_REASON).as_deref(), Some("index_rejected"));
    assert!(header(topic::DEAD_ERROR).is_some_and(|error| error.contains("exception")), "{letter:?}");
    assert_eq!(header("mine").as_deref(), Some("kept"));
    until("the blocked are tried again", async || blocked.iter().all(|d| desk.offered(d) > 2)).await;
    assert_eq!(desk.indexed(&theirs).await.len(), 1, "the day is full");

    let room = r#"{"index.blocks.read_only_allow_delete": null}"#;
    assert_eq!(request(&desk.settings, "PUT", &format!("{day}/_settings"), room).await, 200);
    until("the blocked are there", async || desk.indexed(&theirs).await.len() == 4).await;
    assert_eq!(desk.offered(&bad), 2, "what is given up is not tried again, the version before it is");
    for d in &good {
        assert_eq!(desk.offered(d), 1, "nor is what was taken");
    }
    assert!(desk.indexed(&ours).await.contains(&steps[1]), "the newest version is written");
    // late and once more: a conflict, which is no failure
    desk.hand_over(&good[..1]).await;
    until("it is offered again", async || desk.offered(&good[0]) == 2).await;
    desk.hand_over(&good[1..2]).await;
    until("the loop goes on", async || desk.offered(&good[1]) == 2).await;
    assert_eq!(desk.dead().await.len(), 1);
    desk.close().await;
}

/// A line to Elasticsearch that can be cut.
async fn line_to(url: &str) -> (String, watch::Sender<bool>) {
    let engine = url.rsplit('/').next().expect("an address").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (up, state) = watch::channel(true);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let engine = engine.clone();
            let mut state = state.clone();
            tokio::spawn(async move {
                if !*state.borrow() {
                    return;
                }
                let Ok(mut server) = TcpStream::connect(&engine).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = state.wait_for(|up| !up) => {}
                }
            });
        }
    });
    (address, up)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_away_is_waited_for() {
    let settings = settings().await;
    let (address, up) = line_to(&settings.elasticsearch_url).await;
    let desk = Desk::open(settings, address).await;
    let ours = tenant();
    let of = |state| further(&delivery(&ours, now()), state);
    let before: Vec<_> = (0..50).map(|_| of(State::Sent)).collect();
    desk.hand_over(&before).await;
    until("it works", async || desk.indexed(&ours).await.len() == 50).await;
    // what can be found already may still wait for its answer
    until("it knows", async || desk.taken.load(Relaxed) == 50).await;

    up.send_replace(false);
    let during: Vec<_> = (0..500).map(|_| of(State::Sent)).collect();
    desk.hand_over(&during).await;
    until("all are tried more than once", async || during.iter().all(|d| desk.offered(d) > 1)).await;
    assert!(desk.dead().await.is_empty(), "nothing is given up for an outage");
    up.send_replace(true);
    until("it catches up", async || desk.indexed(&ours).await.len() == 550).await;
    assert!(desk.dead().await.is_empty());
    assert!(before.iter().all(|d| desk.offered(d) == 1), "what was taken before is not read again");
    desk.close().await;
}
