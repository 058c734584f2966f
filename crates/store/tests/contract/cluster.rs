//! The suite on Redis, Cassandra and Elasticsearch, and what only a cluster promises. Skipped where there are no engines.

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{
    Channel, Contacts, DeliveryId, DeliveryStatus, History, NotificationId, Preferences, Priority, State, Status,
    Timestamp, User, UserId,
};
use futures::future::{join, join_all};
use store::{
    Change, Claim, ClaimRequest, DeliveryQuery, IndexError, Settled, StoreError, Stores, UserKey,
    cluster::{self, ClusterSettings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OnceCell, watch},
};
use uuid::Uuid;

use crate::{Opened, at, eventually, tenant};

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the engines are")]
fn engine(name: &str) -> Option<String> {
    let name = format!("CARILLON_TEST_{name}");
    let address = std::env::var(&name).ok();
    if address.is_none() {
        eprintln!("skipped: {name} is not set, see deploy/dev/engines");
    }
    address
}

fn settings() -> Option<ClusterSettings> {
    Some(ClusterSettings {
        redis_url: engine("REDIS")?,
        redis_prefix: "carillon:".into(),
        cassandra: vec![engine("CASSANDRA")?],
        keyspace: "carillon_contract".into(),
        replication: 1,
        elasticsearch_url: engine("ELASTICSEARCH")?,
        index_prefix: "contract-".into(),
        claim_window: Duration::from_secs(3600),
        timeout: Duration::from_secs(10),
    })
}

/// Settings with the schema in place.
async fn ready() -> Option<ClusterSettings> {
    static MIGRATED: OnceCell<()> = OnceCell::const_new();
    let settings = settings()?;
    MIGRATED.get_or_init(|| async { drop(cluster::migrate(&settings).await.expect("migrate")) }).await;
    Some(settings)
}

async fn open() -> Option<Opened> {
    let stores = cluster::connect(&ready().await?).await.expect("connect");
    Some(Opened { stores, dir: None })
}

contract!();

fn ana(locale: &str) -> (UserKey, User) {
    let key = UserKey { tenant: tenant(), user: UserId::parse("ana").expect("an id") };
    let user = User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: Some(locale.into()),
        time_zone: None,
        contacts: Contacts::default(),
        preferences: Preferences::default(),
        updated_at: at(0),
    };
    (key, user)
}

fn change(step: i64) -> Change {
    Change { by: "ops".into(), from: "http".into(), at: at(step) }
}

async fn looked_up(stores: &Stores, key: &UserKey) -> Option<String> {
    stores.users.lookup(std::slice::from_ref(key)).await.expect("lookup").remove(0).and_then(|u| u.locale)
}

fn copy_of(key: &UserKey) -> String {
    format!("carillon:user1:{}:{}", key.tenant, key.user)
}

async fn redis(settings: &ClusterSettings) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(settings.redis_url.as_str()).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

fn delivery() -> DeliveryStatus {
    let mut history = History::default();
    history.reached(at(0), State::Accepted, None);
    DeliveryStatus {
        id: DeliveryId(Uuid::new_v4()),
        notification: NotificationId::new(at(0)),
        tenant: tenant(),
        user: None,
        recipient_key: "webhook:0".into(),
        channel: Channel::Webhook,
        address: None,
        category: None,
        priority: Priority::default(),
        state: State::Accepted,
        reason: None,
        accepted_at: at(0),
        updated_at: at(0),
        metadata: [].into(),
        history,
    }
}

#[tokio::test]
async fn what_redis_has_lost_is_read_from_the_record_and_kept_again() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let (key, user) = ana("de");
    let (gone, other) = ana("fr");
    stores.users.put(&user, &change(1)).await.expect("put");
    stores.users.put(&other, &change(1)).await.expect("put");
    assert!(stores.users.delete(&gone, &change(2)).await.expect("delete"));
    let mut redis = redis(&settings).await;
    let names = [copy_of(&key), copy_of(&gone)];
    let _: () = redis::cmd("DEL").arg(&names).query_async(&mut redis).await.expect("DEL");
    assert_eq!(looked_up(&stores, &key).await.as_deref(), Some("de"));
    assert_eq!(looked_up(&stores, &gone).await, None);
    let kept: Vec<i64> = join_all(names.map(|name| {
        let mut redis = redis.clone();
        async move { redis::cmd("PTTL").arg(name).query_async(&mut redis).await.expect("PTTL") }
    }))
    .await;
    assert!((60_001..=600_000).contains(&kept[0]), "a user is kept for ten minutes, {kept:?}");
    assert!((1..=60_000).contains(&kept[1]), "that nobody is there for one, {kept:?}");
}

#[tokio::test]
async fn a_lookup_that_fills_while_somebody_writes_hides_nothing() {
    let Some(settings) = ready().await else { return };
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&settings).await.expect("connect");
    for round in 0..50 {
        let (key, user) = ana("new");
        let change = change(round);
        let lookups = join_all((0..8).map(|i| looked_up(if i % 2 == 0 { &ours } else { &theirs }, &key)));
        let (written, _) = join(ours.users.put(&user, &change), lookups).await;
        written.expect("put");
        assert_eq!(looked_up(&theirs, &key).await.as_deref(), Some("new"), "in round {round}");
    }
}

#[tokio::test]
async fn a_write_that_got_no_further_than_the_record_is_finished_by_its_repetition() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (key, first) = ana("first");
    stores.users.put(&first, &change(1)).await.expect("put");
    let old: Vec<u8> = redis::cmd("GET").arg(copy_of(&key)).query_async(&mut redis).await.expect("GET");
    let mut put_back = redis::cmd("SET");
    put_back.arg(copy_of(&key)).arg(old);

    let second = User { locale: Some("second".into()), ..first };
    stores.users.put(&second, &change(2)).await.expect("put");
    let _: () = put_back.query_async(&mut redis).await.expect("SET");
    assert_eq!(looked_up(&stores, &key).await.as_deref(), Some("first"), "as after a crash between the two");
    stores.users.put(&second, &change(2)).await.expect("put");
    assert_eq!(looked_up(&stores, &key).await.as_deref(), Some("second"));

    assert!(stores.users.delete(&key, &change(3)).await.expect("delete"));
    let _: () = put_back.query_async(&mut redis).await.expect("SET");
    assert!(!stores.users.delete(&key, &change(3)).await.expect("delete"), "the record has done it");
    assert_eq!(looked_up(&stores, &key).await, None);
}

/// Deletion and put are called by two, at once or the deletion last; it is older, so the user is there, as they came.
#[tokio::test]
async fn a_deletion_that_arrives_late_takes_no_wish_along() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let (key, user) = ana("old");
    stores.users.put(&user, &change(1)).await.expect("put");
    let wish = Preferences { all: Some(false), ..Preferences::default() };
    let again = User { locale: Some("again".into()), preferences: wish.clone(), ..user };
    stores.users.put(&again, &change(9)).await.expect("put");
    stores.users.delete(&key, &change(5)).await.expect("delete");
    assert_eq!(looked_up(&stores, &key).await.as_deref(), Some("again"));
    assert_eq!(stores.users.get(&key).await.expect("get").expect("there").preferences, wish);
}

#[tokio::test]
async fn a_claim_expires_with_its_window() {
    let Some(settings) = ready().await else { return };
    let settings = ClusterSettings { claim_window: Duration::from_millis(300), ..settings };
    let stores = cluster::connect(&settings).await.expect("connect");
    let (open, ended) = (DeliveryId(Uuid::new_v4()), DeliveryId(Uuid::new_v4()));
    stores.ledger.settle(&[(ended, Settled(Bytes::from_static(b"sent")))]).await.expect("settle");
    for delivery in [open, ended] {
        let request = ClaimRequest { delivery, owner: 1, at: at(0) };
        let claim = || async {
            let answers = stores.ledger.claim(std::slice::from_ref(&request)).await.expect("claim");
            (answers == [Claim::Granted]).then_some(())
        };
        eventually("the claim is granted", claim).await;
    }
}

#[tokio::test]
async fn a_refused_document_spoils_no_other() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let (good, last) = (delivery(), delivery());
    // earlier than the index can tell times apart
    let bad = DeliveryStatus { updated_at: "1900-01-01T00:00:00Z".parse().expect("a time"), ..delivery() };
    let documents = [&good, &bad, &last].map(|d| Status::Delivery(d.clone()));
    let results = stores.deliveries.index(&documents).await.expect("index");
    assert_eq!((&results[0], &results[2]), (&Ok(()), &Ok(())));
    assert!(matches!(&results[1], Err(IndexError::Rejected(kind)) if kind.ends_with("_exception")), "{results:?}");
    for d in [good, last] {
        let search = || async {
            let page = stores.deliveries.search(&d.tenant, &DeliveryQuery::default(), None, 10).await.expect("search");
            (page.expect("a page").items == std::slice::from_ref(&d)).then_some(())
        };
        eventually("it is indexed", search).await;
    }
}

#[tokio::test]
async fn a_query_for_a_time_that_no_document_can_have_finds_none() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    for (since, until) in [(Some(Timestamp::MAX), None), (None, Some(Timestamp::MIN))] {
        let query = DeliveryQuery { since, until, ..DeliveryQuery::default() };
        let page = stores.deliveries.search(&tenant(), &query, None, 10).await.expect("search").expect("a page");
        assert_eq!(page.items, []);
    }
}

/// A port that nothing listens on, and that the system gives to no other test meanwhile.
const fn closed() -> u16 {
    1
}

#[tokio::test]
async fn what_cannot_be_reached_is_named_in_time_and_without_credentials() {
    let Some(settings) = ready().await else { return };
    let settings = ClusterSettings { timeout: Duration::from_secs(2), ..settings };
    let port = closed();
    let redis = format!("redis://carillon:hunter2@127.0.0.1:{port}");
    let elastic = format!("http://carillon:hunter2@127.0.0.1:{port}");
    for (name, settings) in [
        ("redis", ClusterSettings { redis_url: redis, ..settings.clone() }),
        ("cassandra", ClusterSettings { cassandra: vec![format!("127.0.0.1:{port}")], ..settings.clone() }),
        ("elasticsearch", ClusterSettings { elasticsearch_url: elastic, ..settings.clone() }),
    ] {
        let started = Instant::now();
        let error = cluster::connect(&settings).await.err().expect("nothing listens");
        assert!(started.elapsed() < Duration::from_secs(4), "{name} took {:?}", started.elapsed());
        assert!(matches!(error, StoreError::Unavailable { store, .. } if store == name), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")) && !text.contains("hunter2"), "{text}");
    }
    for redis_url in ["http://hunter2@x", "redis://carillon:hunter2@", "hunter2"] {
        let settings = ClusterSettings { redis_url: redis_url.into(), ..settings.clone() };
        let error = cluster::connect(&settings).await.err().expect("no such address");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_schema_is_refused_with_the_remedy_and_two_may_make_it_at_once() {
    let Some(settings) = settings() else { return };
    let unique = Uuid::new_v4().simple().to_string();
    let keyspace = format!("contract_{}", &unique[..12]);
    let settings = ClusterSettings { keyspace, index_prefix: format!("contract-{}-", &unique[..12]), ..settings };
    let refused = || async { cluster::connect(&settings).await.err().expect("no schema").to_string() };
    assert!(refused().await.contains("run `carillon schema`"), "{}", refused().await);

    let (one, two) = join(cluster::migrate(&settings), cluster::migrate(&settings)).await;
    let (one, two) = (one.expect("migrate"), two.expect("migrate"));
    assert_eq!(one.len().max(two.len()), 4, "two tables and two templates: {one:?} {two:?}");
    assert_eq!(cluster::migrate(&settings).await.expect("migrate"), Vec::<String>::new(), "nothing is left to do");
    drop(cluster::connect(&settings).await.expect("connect"));

    let elsewhere = ClusterSettings { index_prefix: format!("{}none-", settings.index_prefix), ..settings.clone() };
    let error = cluster::connect(&elsewhere).await.err().expect("no templates").to_string();
    assert!(error.contains("index template") && error.contains("run `carillon schema`"), "{error}");

    let session = scylla::client::session_builder::SessionBuilder::new().known_nodes(&settings.cassandra);
    let session = session.build().await.expect("a session");
    let forget = format!("DELETE FROM {}.schema_version WHERE version = 2", settings.keyspace);
    session.query_unpaged(forget, ()).await.expect("DELETE");
    assert!(refused().await.contains("schema version 1 and 2 is needed; run `carillon schema`"), "{}", refused().await);
    assert_eq!(cluster::migrate(&settings).await.expect("migrate").len(), 1, "the step that is missing, once more");

    session.query_unpaged(format!("DROP KEYSPACE {}", settings.keyspace), ()).await.expect("DROP");
    let transport = elasticsearch::http::transport::Transport::single_node(&settings.elasticsearch_url).expect("a URL");
    let name = format!("{}*", settings.index_prefix);
    let delete = elasticsearch::indices::IndicesDeleteIndexTemplateParts::Name(&name);
    let client = elasticsearch::Elasticsearch::new(transport);
    client.indices().delete_index_template(delete).send().await.expect("DELETE").error_for_status_code().expect("200");
}

/// Stands between a client and an engine.
struct Line {
    address: String,
    state: watch::Sender<Link>,
}

#[derive(Debug, Clone, PartialEq)]
enum Link {
    Up,
    /// Connections are closed.
    Cut,
    /// Connections are taken and kept, and nothing is ever said on them again.
    Silent,
    /// The engine's answer that contains this text is kept back.
    Holding(String),
    /// It is there, and waits.
    Held,
}

impl Line {
    async fn to(engine: &str) -> Self {
        let engine = engine.rsplit('/').next().expect("an address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (state, _) = watch::channel(Link::Up);
        let line = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, engine.clone(), line.clone()));
            }
        });
        Self { address, state }
    }

    fn set(&self, state: Link) {
        self.state.send_replace(state);
    }

    async fn holds(&self) {
        let mut state = self.state.subscribe();
        let held = tokio::time::timeout(Duration::from_secs(10), state.wait_for(|s| *s == Link::Held)).await;
        drop(held.expect("the answer comes").expect("the line is there"));
    }
}

async fn connection(mut client: TcpStream, engine: String, line: watch::Sender<Link>) {
    let mut state = line.subscribe();
    let down = |state: &Link| matches!(state, Link::Cut | Link::Silent);
    if !down(&state.borrow()) {
        let Ok(mut server) = TcpStream::connect(&engine).await else { return };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => return,
            _ = answers(&mut from_server, &mut to_client, &line) => return,
            _ = state.wait_for(down) => {}
        }
    }
    let silent = *state.borrow() == Link::Silent;
    if silent {
        std::future::pending::<()>().await;
    }
}

async fn answers(
    server: &mut (impl AsyncReadExt + Unpin),
    client: &mut (impl AsyncWriteExt + Unpin),
    line: &watch::Sender<Link>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = server.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let keep = |state: &mut Link| {
            let Link::Holding(text) = state else { return false };
            let found = buffer[..read].windows(text.len()).any(|w| w == text.as_bytes());
            if found {
                *state = Link::Held;
            }
            found
        };
        if line.send_if_modified(keep) {
            drop(line.subscribe().wait_for(|state| *state != Link::Held).await);
        }
        client.write_all(&buffer[..read]).await?;
    }
}

/// Settings under which Cassandra is reached over a line.
async fn over_a_line(settings: &ClusterSettings) -> (Line, ClusterSettings) {
    let line = Line::to(&settings.cassandra[0]).await;
    let settings = ClusterSettings { cassandra: vec![line.address.clone()], ..settings.clone() };
    (line, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_that_read_before_a_write_does_not_hide_it() {
    let Some(settings) = ready().await else { return };
    let (line, slow) = over_a_line(&settings).await;
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&slow).await.expect("connect");
    let (key, before) = ana("before");
    ours.users.put(&before, &change(1)).await.expect("put");
    let _: () = redis::cmd("DEL").arg(copy_of(&key)).query_async(&mut redis(&settings).await).await.expect("DEL");

    line.set(Link::Holding("before".into()));
    let lookup = looked_up(&theirs, &key);
    let write = async {
        line.holds().await;
        let after = User { locale: Some("after".into()), ..before };
        ours.users.put(&after, &change(2)).await.expect("put");
        line.set(Link::Up);
    };
    let (seen, ()) = join(lookup, write).await;
    assert_eq!(seen.as_deref(), Some("before"), "it began first");
    assert_eq!(looked_up(&ours, &key).await.as_deref(), Some("after"));

    // the same with a deletion, whose copy is that nobody is there
    let _: () = redis::cmd("DEL").arg(copy_of(&key)).query_async(&mut redis(&settings).await).await.expect("DEL");
    line.set(Link::Holding("after".into()));
    let erase = async {
        line.holds().await;
        assert!(ours.users.delete(&key, &change(3)).await.expect("delete"));
        line.set(Link::Up);
    };
    join(looked_up(&theirs, &key), erase).await;
    assert_eq!(looked_up(&ours, &key).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_overtaken_does_not_hide_the_other() {
    let Some(settings) = ready().await else { return };
    let (line, slow) = over_a_line(&settings).await;
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&slow).await.expect("connect");
    let (key, first) = ana("overtaken");
    line.set(Link::Holding("overtaken".into()));
    // the other half of the row, and earlier: it is newer all the same
    let wish = Preferences { all: Some(false), ..Preferences::default() };
    let overtake = async {
        line.holds().await;
        assert!(ours.users.put_preferences(&key, &wish, &change(1)).await.expect("put_preferences"));
        line.set(Link::Up);
    };
    let written = change(2);
    let (put, ()) = join(theirs.users.put(&first, &written), overtake).await;
    put.expect("put");
    let seen = ours.users.lookup(std::slice::from_ref(&key)).await.expect("lookup").remove(0).expect("there");
    assert_eq!((seen.locale.as_deref(), seen.preferences), (Some("overtaken"), wish));
}

async fn pings(stores: &Stores) -> [Result<(), StoreError>; 3] {
    let (users, ledger, deliveries) =
        futures::join!(stores.users.ping(), stores.ledger.ping(), stores.deliveries.ping());
    [users, ledger, deliveries]
}

async fn outage(state: Link) {
    let Some(settings) = ready().await else { return };
    let redis = Line::to(&settings.redis_url).await;
    let cassandra = Line::to(&settings.cassandra[0]).await;
    let elastic = Line::to(&settings.elasticsearch_url).await;
    let timeout = Duration::from_secs(2);
    let settings = ClusterSettings {
        redis_url: format!("redis://{}", redis.address),
        cassandra: vec![cassandra.address.clone()],
        elasticsearch_url: format!("http://{}", elastic.address),
        timeout,
        ..settings
    };
    let stores = cluster::connect(&settings).await.expect("connect");
    assert!(pings(&stores).await.iter().all(Result::is_ok));

    let lines = [&redis, &cassandra, &elastic];
    lines.iter().for_each(|line| line.set(state.clone()));
    let ((key, user), written, all) = (ana("de"), change(1), DeliveryQuery::default());
    let request = ClaimRequest { delivery: DeliveryId(Uuid::new_v4()), owner: 1, at: at(0) };
    for _ in 0..3 {
        let started = Instant::now();
        for answer in pings(&stores).await {
            assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
        }
        let answers = futures::join!(
            stores.users.put(&user, &written),
            stores.users.lookup(std::slice::from_ref(&key)),
            stores.ledger.claim(std::slice::from_ref(&request)),
            stores.deliveries.search(&key.tenant, &all, None, 10),
        );
        assert!(answers.0.is_err() && answers.1.is_err() && answers.2.is_err() && answers.3.is_err(), "{answers:?}");
        assert!(started.elapsed() < timeout * 4, "the answers took {:?}", started.elapsed());
    }

    lines.iter().for_each(|line| line.set(Link::Up));
    let mended = || async { pings(&stores).await.iter().all(Result::is_ok).then_some(()) };
    eventually("all three answer again", mended).await;
    stores.users.put(&user, &written).await.expect("put");
    assert_eq!(looked_up(&stores, &key).await.as_deref(), Some("de"));
    assert_eq!(stores.ledger.claim(&[request]).await.expect("claim").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_go_away_say_so_in_time_and_come_back_by_themselves() {
    outage(Link::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_fall_silent_say_so_in_time_and_come_back_by_themselves() {
    outage(Link::Silent).await;
}
