//! The suite on Redis, Cassandra and Elasticsearch, and what only a cluster promises. Skipped where there are no engines.

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{
    Address, Channel, Contact, Contacts, DeliveryId, DeliveryStatus, Device, DeviceId, Environment, History,
    NotificationId, Preferences, Priority, State, Status, Timestamp, User, UserId,
};
use elasticsearch::http::{Method, headers::HeaderMap, transport::Transport};
use futures::future::{join, join_all};
use store::{
    Change, Claim, ClaimRequest, DeliveryQuery, IndexError, Settled, StoreError, Stores, UserKey,
    cluster::{self, ClusterSettings, Store},
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
        index_retention: Duration::from_secs(90 * 24 * 3600),
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

fn ana(zone: &str) -> (UserKey, User) {
    let key = UserKey { tenant: tenant(), user: UserId::parse("ana").expect("an id") };
    let user = User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: None,
        time_zone: Some(zone.into()),
        contacts: Contacts::default(),
        devices: vec![],
        preferences: Preferences::default(),
        updated_at: at(0),
    };
    (key, user)
}

fn change(step: i64) -> Change {
    Change { by: "ops".into(), from: "http".into(), at: at(step) }
}

fn device(key: &UserKey, step: i64) -> Device {
    let token = Address::parse(Channel::Apns, &"ab".repeat(32)).expect("a token");
    Device {
        id: DeviceId::derive(&key.tenant, Channel::Apns, "com.example.app", &token),
        channel: Channel::Apns,
        app: "com.example.app".into(),
        token,
        environment: Environment::Production,
        locale: None,
        time_zone: None,
        registered_at: at(step),
        last_active_at: at(step),
    }
}

/// How many devices a lookup finds.
async fn devices(stores: &Stores, key: &UserKey) -> usize {
    let found = stores.users.lookup(std::slice::from_ref(key)).await.expect("lookup").remove(0);
    found.expect("there").devices.len()
}

async fn looked_up(stores: &Stores, key: &UserKey) -> Option<String> {
    stores.users.lookup(std::slice::from_ref(key)).await.expect("lookup").remove(0).and_then(|u| u.time_zone)
}

fn copy_of(key: &UserKey) -> String {
    format!("carillon:user2:{}:{}", key.tenant, key.user)
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
        template: None,
        provider: None,
        leads: true,
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

    let second = User { time_zone: Some("second".into()), ..first };
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

#[tokio::test]
async fn devices_are_there_again_after_redis_has_lost_them() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (key, user) = ana("");
    stores.users.put(&user, &change(1)).await.expect("put");
    let device = device(&key, 2);
    stores.users.put_device(&key, &device, None, 5, &change(2)).await.expect("put_device");
    let whole = stores.users.lookup(std::slice::from_ref(&key)).await.expect("lookup");
    for lost in ["DEL", "HSET", "SET"] {
        let mut command = redis::cmd(lost);
        command.arg(copy_of(&key));
        match lost {
            // of another type, and unreadable
            "HSET" => {
                let _: () = redis::cmd("DEL").arg(copy_of(&key)).query_async(&mut redis).await.expect("DEL");
                command.arg("field").arg("value");
            }
            "SET" => {
                let _: () = redis::cmd("DEL").arg(copy_of(&key)).query_async(&mut redis).await.expect("DEL");
                command.arg("nonsense");
            }
            _ => {}
        }
        let _: () = command.query_async(&mut redis).await.expect(lost);
        for _ in 0..2 {
            let found = stores.users.lookup(std::slice::from_ref(&key)).await.expect("lookup");
            assert_eq!(found, whole, "after {lost}");
        }
        assert_eq!(stores.users.get(&key).await.expect("get"), whole[0], "after {lost}");
    }
}

#[tokio::test]
async fn a_device_that_got_no_further_than_the_record_is_finished_by_its_repetition() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (ana, user) = ana("");
    let bob = UserKey { user: UserId::parse("bob").expect("an id"), ..ana.clone() };
    stores.users.put(&user, &change(1)).await.expect("put");
    stores.users.put(&User { id: bob.user.clone(), ..user }, &change(1)).await.expect("put");
    let device = device(&ana, 0);
    stores.users.put_device(&ana, &device, None, 5, &change(2)).await.expect("put_device");
    let mut olds = Vec::new();
    for key in [&ana, &bob] {
        let old: Vec<u8> = redis::cmd("GET").arg(copy_of(key)).query_async(&mut redis).await.expect("GET");
        olds.push((copy_of(key), old));
    }
    stores.users.put_device(&bob, &device, None, 5, &change(3)).await.expect("put_device");
    // as after a crash before the copies, and before the other's claim was forgotten
    let session = cassandra(&settings).await;
    let claim = format!(
        "INSERT INTO {}.device_owners (tenant, device, user_id, at) VALUES ('{}', {}, 'ana', {})",
        settings.keyspace,
        ana.tenant,
        device.id,
        at(2).as_microsecond()
    );
    session.query_unpaged(claim, ()).await.expect("INSERT");
    for (name, old) in olds {
        let _: () = redis::cmd("SET").arg(name).arg(old).query_async(&mut redis).await.expect("SET");
    }
    assert_eq!((devices(&stores, &ana).await, devices(&stores, &bob).await), (1, 0));
    stores.users.put_device(&bob, &device, None, 5, &change(3)).await.expect("put_device");
    assert_eq!((devices(&stores, &ana).await, devices(&stores, &bob).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_read_model_is_built_again_after_a_flush() {
    let Some(settings) = ready().await else { return };
    // a database of its own, because it is emptied
    let redis_url = format!("{}/9", settings.redis_url.trim_end_matches('/'));
    let settings = ClusterSettings { redis_url, ..settings };
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let address = Address::parse(Channel::Webhook, "https://a.example/x").expect("an address");
    let mut keys = Vec::new();
    for i in 0..30 {
        let (key, mut user) = ana(&i.to_string());
        user.contacts.add(Channel::Webhook, Contact { address: address.clone(), since: at(1) });
        ours.users.put(&user, &change(1)).await.expect("put");
        ours.users.put_device(&key, &device(&key, 2), None, 5, &change(2)).await.expect("put_device");
        if i == 7 {
            assert!(ours.users.delete(&key, &change(3)).await.expect("delete"));
        } else if i % 2 == 0 {
            assert!(ours.users.address_gone(&key, Channel::Webhook, &address, at(3)).await.expect("address_gone"));
        }
        keys.push(key);
    }
    let before = ours.users.lookup(&keys).await.expect("lookup");
    assert_eq!(before.iter().flatten().count(), 29);
    let copies: Vec<_> = keys.iter().map(copy_of).collect();
    for _ in 0..3 {
        let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.expect("FLUSHDB");
        let (one, two) = join(ours.users.lookup(&keys), theirs.users.lookup(&keys)).await;
        assert_eq!((one.expect("lookup"), two.expect("lookup")), (before.clone(), before.clone()));
        let kept: usize = redis::cmd("EXISTS").arg(&copies).query_async(&mut redis).await.expect("EXISTS");
        assert_eq!(kept, 30, "it is whole again");
    }
    // a change goes on from there
    let (key, user) = (&keys[0], before[0].clone().expect("there"));
    let wish = Preferences { all: Some(false), ..Preferences::default() };
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.expect("FLUSHDB");
    assert!(ours.users.put_preferences(key, &wish, &change(9)).await.expect("put_preferences"));
    let seen = theirs.users.lookup(std::slice::from_ref(key)).await.expect("lookup");
    assert_eq!(seen, [Some(User { preferences: wish, updated_at: at(9), ..user })]);
}

#[tokio::test]
async fn a_dead_address_is_known_by_a_hash_and_for_a_week() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (tenant, address) = (tenant(), Address::parse(Channel::Webhook, "https://a.example/x").expect("an address"));
    stores.ledger.mark_gone(&tenant, Channel::Webhook, &address, at(1)).await.expect("mark_gone");
    let pattern = format!("carillon:gone:{tenant}:*");
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.expect("KEYS");
    assert_eq!(keys.len(), 1);
    let name = keys[0].rsplit(':').next().expect("a hash");
    assert!(name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{keys:?}");
    let kept: i64 = redis::cmd("TTL").arg(&keys[0]).query_async(&mut redis).await.expect("TTL");
    assert!((604_000..=604_800).contains(&kept), "{kept}");
    // what is no time, or of another type, is as good as nothing, and replaced
    for spoil in ["SET", "SADD"] {
        let _: () = redis::cmd("DEL").arg(&keys[0]).query_async(&mut redis).await.expect("DEL");
        let _: () = redis::cmd(spoil).arg(&keys[0]).arg("x").query_async(&mut redis).await.expect(spoil);
        let asked = [(tenant.clone(), Channel::Webhook, address.clone())];
        assert_eq!(stores.ledger.gone(&asked).await.expect("gone"), [None]);
        stores.ledger.mark_gone(&tenant, Channel::Webhook, &address, at(2)).await.expect("mark_gone");
        assert_eq!(stores.ledger.gone(&asked).await.expect("gone"), [Some(at(2))]);
    }
}

/// Row 35 of the catalogue (reliability.md, section 7): a lightweight transaction whose outcome is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_write_was_not_answered_is_there_once_after_its_repetition() {
    let Some(settings) = ready().await else { return };
    let (line, slow) = over_a_line(&settings).await;
    let slow = ClusterSettings { timeout: Duration::from_secs(2), ..slow };
    let stores = cluster::connect(&slow).await.expect("connect");
    let steady = cluster::connect(&settings).await.expect("connect");
    for (round, state) in [(0, Link::Cut), (1, Link::Silent), (2, Link::Holding("[applied]".into()))] {
        let (key, user) = ana("");
        stores.users.put(&user, &change(1)).await.expect("put");
        let device = device(&key, 2);
        line.set(state);
        let written = change(2);
        let put = || stores.users.put_device(&key, &device, None, 5, &written);
        let error = put().await.expect_err("no answer");
        assert!(matches!(error, StoreError::Unavailable { store: "cassandra", .. }), "{error}");
        if round == 2 {
            assert_eq!(steady.users.get(&key).await.expect("get").expect("there").devices.len(), 1, "it was done");
        }
        line.set(Link::Up);
        let again = || async { put().await.ok() };
        assert_eq!(eventually("the repetition is answered", again).await, Some(vec![]));
        assert_eq!((devices(&stores, &key).await, devices(&steady, &key).await), (1, 1));
        assert!(steady.users.delete_device(&key, device.id, &change(3)).await.expect("delete_device"));
        assert_eq!(put().await.expect("put_device"), Some(vec![]));
        assert_eq!(devices(&stores, &key).await, 0, "a repetition after the deletion brings nothing back");
    }
}

/// Row 35, `applied = false`: the change is made again, on what the other has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_overtaken_is_put_beside_the_other() {
    let Some(settings) = ready().await else { return };
    let (line, slow) = over_a_line(&settings).await;
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&slow).await.expect("connect");
    let (key, user) = ana("overtaken");
    ours.users.put(&user, &change(1)).await.expect("put");
    let token = Address::parse(Channel::Apns, &"cd".repeat(32)).expect("a token");
    let id = DeviceId::derive(&key.tenant, Channel::Apns, "com.example.app", &token);
    let (first, second) = (device(&key, 2), Device { id, token, ..device(&key, 3) });
    let written = [change(2), change(3)];
    // whether there is such a user is read first, what is swapped is read after it
    line.set(Link::Holding("overtaken".into()));
    let overtake = async {
        line.holds().await;
        line.set(Link::Holding("overtaken".into()));
        line.holds().await;
        let put = ours.users.put_device(&key, &first, None, 5, &written[0]).await.expect("put_device");
        assert_eq!(put, Some(vec![]));
        line.set(Link::Up);
    };
    let (put, ()) = join(theirs.users.put_device(&key, &second, None, 5, &written[1]), overtake).await;
    assert_eq!(put.expect("put_device"), Some(vec![]));
    assert_eq!(devices(&ours, &key).await, 2);
    assert_eq!(ours.users.get(&key).await.expect("get").expect("there").devices.len(), 2);
}

/// Deletion and put are called by two, at once or the deletion last; it is older, so the user is there, as they came.
#[tokio::test]
async fn a_deletion_that_arrives_late_takes_no_wish_along() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let (key, user) = ana("old");
    stores.users.put(&user, &change(1)).await.expect("put");
    let wish = Preferences { all: Some(false), ..Preferences::default() };
    let again = User { time_zone: Some("again".into()), preferences: wish.clone(), ..user };
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
    stores.ledger.settle(1, &[(ended, Settled(Bytes::from_static(b"sent")))]).await.expect("settle");
    for delivery in [open, ended] {
        let request = ClaimRequest { delivery, owner: 1, at: at(0) };
        let claim = || async {
            let answers = stores.ledger.claim(std::slice::from_ref(&request)).await.expect("claim");
            (answers == [Claim::Granted]).then_some(())
        };
        eventually("the claim is granted", claim).await;
    }
}

/// Row 36 of the catalogue (reliability.md, section 7), a document that the mapping refuses.
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
async fn a_store_that_is_not_needed_may_be_away_and_is_named_when_it_is_asked() {
    let Some(settings) = ready().await else { return };
    let settings = ClusterSettings { timeout: Duration::from_secs(2), ..settings };
    let away = format!("127.0.0.1:{}", closed());
    let without_index = ClusterSettings { elasticsearch_url: format!("http://{away}"), ..settings.clone() };
    let stores = cluster::connect_to(&without_index, &[Store::Users, Store::Ledger]).await.expect("connect");
    stores.users.ping().await.expect("users");
    stores.ledger.ping().await.expect("ledger");
    let error = stores.deliveries.ping().await.expect_err("nothing listens");
    assert!(error.to_string().contains(&away), "{error}");

    let only_index =
        ClusterSettings { redis_url: format!("redis://{away}"), cassandra: vec![away.clone()], ..settings.clone() };
    let stores = cluster::connect_to(&only_index, &[Store::Deliveries]).await.expect("connect");
    stores.deliveries.ping().await.expect("deliveries");
    for error in [stores.users.ping().await, stores.ledger.ping().await] {
        assert!(error.expect_err("nothing listens").to_string().contains(&away));
    }

    // what was not connected to at the start is when it is first asked for something
    let stores = cluster::connect_to(&settings, &[]).await.expect("connect");
    assert_eq!(stores.users.get(&ana("UTC").0).await.expect("get"), None);
}

#[tokio::test]
async fn a_missing_schema_is_refused_with_the_remedy_and_two_may_make_it_at_once() {
    let Some(settings) = settings() else { return };
    let settings = fresh(&settings);
    let refused = || async { cluster::connect(&settings).await.err().expect("no schema").to_string() };
    assert!(refused().await.contains("run `carillon schema`"), "{}", refused().await);

    let (one, two) = join(cluster::migrate(&settings), cluster::migrate(&settings)).await;
    let (one, two) = (one.expect("migrate"), two.expect("migrate"));
    assert_eq!(one.len().max(two.len()), 6, "four tables and two templates: {one:?} {two:?}");
    assert_eq!(cluster::migrate(&settings).await.expect("migrate"), Vec::<String>::new(), "nothing is left to do");
    drop(cluster::connect(&settings).await.expect("connect"));

    let elsewhere = ClusterSettings { index_prefix: format!("{}none-", settings.index_prefix), ..settings.clone() };
    let error = cluster::connect(&elsewhere).await.err().expect("no templates").to_string();
    assert!(error.contains("index template") && error.contains("run `carillon schema`"), "{error}");

    let session = cassandra(&settings).await;
    let forget = format!("DELETE FROM {}.schema_version WHERE version = 4", settings.keyspace);
    session.query_unpaged(forget, ()).await.expect("DELETE");
    assert!(refused().await.contains("schema version 3 and 4 is needed; run `carillon schema`"), "{}", refused().await);
    assert_eq!(cluster::migrate(&settings).await.expect("migrate").len(), 1, "the step that is missing, once more");

    clean_up(&settings).await;
}

/// Settings of an installation that no other test has.
fn fresh(settings: &ClusterSettings) -> ClusterSettings {
    let unique = &Uuid::new_v4().simple().to_string()[..12];
    ClusterSettings {
        keyspace: format!("contract_{unique}"),
        index_prefix: format!("contract-{unique}-"),
        ..settings.clone()
    }
}

async fn cassandra(settings: &ClusterSettings) -> scylla::client::session::Session {
    let builder = scylla::client::session_builder::SessionBuilder::new().known_nodes(&settings.cassandra);
    builder.build().await.expect("a session")
}

/// One request to Elasticsearch.
async fn elastic(settings: &ClusterSettings, method: Method, path: &str, body: &str) -> String {
    let transport = Transport::single_node(&settings.elasticsearch_url).expect("a URL");
    let body = (!body.is_empty()).then(|| body.to_owned());
    let answer = transport.send(method, path, HeaderMap::new(), None::<&()>, body, None).await.expect("an answer");
    let ok = answer.status_code().is_success();
    let text = answer.text().await.expect("a text");
    assert!(ok, "{path}: {text}");
    text
}

/// Takes away what a test of a fresh installation has left.
async fn clean_up(settings: &ClusterSettings) {
    let drop = format!("DROP KEYSPACE IF EXISTS {}", settings.keyspace);
    cassandra(settings).await.query_unpaged(drop, ()).await.expect("DROP");
    for name in ["notifications", "deliveries"] {
        let name = format!("{}{name}", settings.index_prefix);
        let found = elastic(settings, Method::Get, &format!("{name}-*/_alias"), "").await;
        let found: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&found).expect("JSON");
        for index in found.keys() {
            elastic(settings, Method::Delete, index, "").await;
        }
        elastic(settings, Method::Delete, &format!("_index_template/{name}"), "").await;
    }
}

#[tokio::test]
async fn what_the_version_before_has_written_is_read_and_found() {
    let Some(settings) = settings() else { return };
    let settings = fresh(&settings);
    let session = cassandra(&settings).await;
    for cql in include_str!("before.cql").split_terminator(';') {
        session.query_unpaged(cql.replace('%', &settings.keyspace), ()).await.expect(cql);
    }
    for family in ["notifications", "deliveries"] {
        let name = format!("{}{family}", settings.index_prefix);
        let template = include_str!("before.json").replace("NAME", &name);
        elastic(&settings, Method::Put, &format!("_index_template/{name}"), &template).await;
        let index = format!("{name}-{}", at(0).strftime("%Y.%m.%d"));
        elastic(&settings, Method::Put, &index, "").await;
    }
    let error = cluster::connect(&settings).await.err().expect("an old schema").to_string();
    assert!(error.contains("run `carillon schema`"), "{error}");

    let done = cluster::migrate(&settings).await.expect("migrate");
    assert_eq!(done.len(), 4, "two tables and two templates: {done:?}");
    let stores = cluster::connect(&settings).await.expect("connect");
    let id = |name: &str| UserId::parse(name).expect("an id");
    let key = UserKey { tenant: domain::TenantId::parse("acme").expect("a name"), user: id("ana") };
    let found = stores.users.get(&key).await.expect("get").expect("there");
    assert_eq!(found.locale.map(|l| l.to_string()).as_deref(), Some("de-CH"));
    let since = Timestamp::from_microsecond(1_790_000_000_000_000).expect("a time");
    let address = Address::parse(Channel::Webhook, "https://a.example/x").expect("an address");
    assert_eq!(found.contacts.on(Channel::Webhook), [Contact { address, since }], "since the profile was written");
    assert_eq!(found.devices, []);
    assert_eq!(found.preferences.all, Some(false));
    let device = device(&key, 1);
    let put = stores.users.put_device(&key, &device, None, 5, &change(0)).await.expect("put_device");
    assert_eq!(put, Some(vec![]));
    assert_eq!(stores.users.get(&key).await.expect("get").expect("there").devices.len(), 1);

    // today's index, which is older than its mapping
    let new = DeliveryStatus {
        template: Some("order@3".into()),
        metadata: [("order".to_owned(), "A-4711".to_owned())].into(),
        ..delivery()
    };
    assert_eq!(stores.deliveries.index(&[Status::Delivery(new.clone())]).await.expect("index"), [Ok(())]);
    let query = DeliveryQuery { template: Some("order".into()), q: Some("4711".into()), ..DeliveryQuery::default() };
    let search = || async {
        let page = stores.deliveries.search(&new.tenant, &query, None, 10).await.expect("search").expect("a page");
        (page.items == std::slice::from_ref(&new)).then_some(())
    };
    eventually("it is found by its new fields", search).await;
    clean_up(&settings).await;
}

#[tokio::test]
async fn days_go_when_they_have_been_over_for_the_retention() {
    let Some(settings) = settings() else { return };
    let day = Duration::from_secs(24 * 3600);
    let settings = ClusterSettings { index_retention: 10 * day, ..fresh(&settings) };
    cluster::migrate(&settings).await.expect("migrate");
    let stores = cluster::connect(&settings).await.expect("connect");
    assert_eq!(stores.deliveries.prune(at(0)).await.expect("prune"), Vec::<String>::new(), "there is nothing");
    let noon: Timestamp = "2026-06-15T12:00:00Z".parse().expect("a time");
    let accepted = |days: u32| DeliveryStatus { accepted_at: noon - days * day, ..delivery() };
    let documents = [0, 9, 10, 11, 40].map(|days| Status::Delivery(accepted(days)));
    assert_eq!(stores.deliveries.index(&documents).await.expect("index"), vec![Ok(()); 5]);
    // what only looks like a day, or like ours
    let other = format!("{}deliveries-2026.01.01-kept", settings.index_prefix);
    elastic(&settings, Method::Put, &other, "").await;

    let mut dropped = stores.deliveries.prune(noon).await.expect("prune");
    dropped.sort();
    let name = |day: &str| format!("elasticsearch: index {}deliveries-{day}", settings.index_prefix);
    assert_eq!(dropped, [name("2026.05.06"), name("2026.06.04")], "the 5th has not been over for ten days");
    assert_eq!(stores.deliveries.prune(noon).await.expect("prune"), Vec::<String>::new());
    let left = elastic(&settings, Method::Get, &format!("{}deliveries-*/_alias", settings.index_prefix), "").await;
    for kept in ["2026.06.15", "2026.06.06", "2026.06.05", "2026.01.01-kept"] {
        assert!(left.contains(kept), "{left}");
    }
    let (one, two) = join(stores.deliveries.prune(noon + day), stores.deliveries.prune(noon + day)).await;
    // Elasticsearch may say so to both
    let dropped = one.expect("prune").into_iter().chain(two.expect("prune")).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(dropped.into_iter().collect::<Vec<_>>(), [name("2026.06.05")]);
    clean_up(&settings).await;
}

/// Row 36, items with 429. What the indexer makes of them is in `services/indexer`.
#[tokio::test]
async fn what_is_not_taken_now_is_taken_later_and_spoils_no_other() {
    let Some(settings) = settings() else { return };
    let settings = fresh(&settings);
    cluster::migrate(&settings).await.expect("migrate");
    let stores = cluster::connect(&settings).await.expect("connect");
    let yesterday = DeliveryStatus { accepted_at: at(0) - Duration::from_secs(24 * 3600), ..delivery() };
    let block = |on: bool| {
        let index = format!("{}deliveries-{}", settings.index_prefix, yesterday.accepted_at.strftime("%Y.%m.%d"));
        let body = format!(r#"{{"index.blocks.read_only_allow_delete": {}}}"#, if on { "true" } else { "null" });
        let settings = &settings;
        async move { elastic(settings, Method::Put, &format!("{index}/_settings"), &body).await }
    };
    assert_eq!(stores.deliveries.index(&[Status::Delivery(yesterday.clone())]).await.expect("index"), [Ok(())]);
    // as when a disk is full
    block(true).await;
    let mut history = yesterday.history.clone();
    history.reached(at(1), State::Sent, None);
    let blocked = DeliveryStatus { state: State::Sent, history, ..yesterday };
    let bad = DeliveryStatus { updated_at: "1900-01-01T00:00:00Z".parse().expect("a time"), ..delivery() };
    let documents = [delivery(), blocked.clone(), bad, delivery()].map(Status::Delivery);
    let results = stores.deliveries.index(&documents).await.expect("index");
    assert_eq!((&results[0], &results[3]), (&Ok(()), &Ok(())));
    assert!(matches!(&results[1], Err(IndexError::Transient(detail)) if detail.contains("429")), "{results:?}");
    assert!(matches!(&results[2], Err(IndexError::Rejected(_))), "{results:?}");
    block(false).await;
    assert_eq!(stores.deliveries.index(&[Status::Delivery(blocked)]).await.expect("index"), [Ok(())]);
    clean_up(&settings).await;
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
    /// Every answer comes so much later.
    Slow(Duration),
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
        let slow = |state: &Link| if let Link::Slow(by) = state { Some(*by) } else { None };
        let by = slow(&line.borrow());
        if let Some(by) = by {
            // what is under way comes at once when it is no longer slow
            let mut changes = line.subscribe();
            drop(tokio::time::timeout(by, changes.wait_for(|state| slow(state).is_none())).await);
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
        let after = User { time_zone: Some("after".into()), ..before };
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
    assert_eq!((seen.time_zone.as_deref(), seen.preferences), (Some("overtaken"), wish));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_overtaken_does_not_hide_a_device() {
    let Some(settings) = ready().await else { return };
    let (line, slow) = over_a_line(&settings).await;
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&slow).await.expect("connect");
    let (key, user) = ana("overtaken");
    line.set(Link::Holding("overtaken".into()));
    let device = device(&key, 1);
    let overtake = async {
        line.holds().await;
        let put = ours.users.put_device(&key, &device, None, 5, &change(1)).await.expect("put_device");
        assert_eq!(put, Some(vec![]));
        line.set(Link::Up);
    };
    let written = change(2);
    let (put, ()) = join(theirs.users.put(&user, &written), overtake).await;
    put.expect("put");
    assert_eq!(devices(&ours, &key).await, 1);
    assert_eq!(looked_up(&ours, &key).await.as_deref(), Some("overtaken"));
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
    let device = device(&key, 1);
    let dead = [(key.tenant.clone(), Channel::Apns, device.token.clone())];
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
        let answers = futures::join!(
            stores.users.put_device(&key, &device, None, 5, &written),
            stores.users.address_gone(&key, Channel::Apns, &device.token, at(1)),
            stores.ledger.gone(&dead),
            stores.deliveries.balance(None, at(0)),
            stores.deliveries.prune(Timestamp::MIN),
        );
        assert!(answers.0.is_err() && answers.1.is_err() && answers.2.is_err(), "{answers:?}");
        assert!(answers.3.is_err() && answers.4.is_err(), "{answers:?}");
        assert!(started.elapsed() < timeout * 4, "the answers took {:?}", started.elapsed());
    }

    lines.iter().for_each(|line| line.set(Link::Up));
    let mended = || async { pings(&stores).await.iter().all(Result::is_ok).then_some(()) };
    eventually("all three answer again", mended).await;
    stores.users.put(&user, &written).await.expect("put");
    assert_eq!(looked_up(&stores, &key).await.as_deref(), Some("de"));
    assert_eq!(stores.ledger.claim(&[request]).await.expect("claim").len(), 1);
}

/// Rows 34 to 36 of the catalogue (reliability.md, section 7), as far as a store is down: an error, in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_go_away_say_so_in_time_and_come_back_by_themselves() {
    outage(Link::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_fall_silent_say_so_in_time_and_come_back_by_themselves() {
    outage(Link::Silent).await;
}

/// Whether a user wants anything, as a lookup tells it; `None`: nobody knows.
async fn wants(stores: &Stores, key: &UserKey) -> Option<bool> {
    let found = stores.users.lookup(std::slice::from_ref(key)).await.ok()?.remove(0);
    Some(found.expect("there").preferences.all != Some(false))
}

/// Row 34 of the catalogue (reliability.md, section 7): a Redis that takes 5 s. Whoever asks is told in time that nobody knows,
/// nothing is granted, and no answer that comes late is taken for that to another question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_grants_nothing_and_says_nothing_wrong() {
    let Some(settings) = ready().await else { return };
    let line = Line::to(&settings.redis_url).await;
    let timeout = Duration::from_millis(500);
    let slow = ClusterSettings { redis_url: format!("redis://{}", line.address), timeout, ..settings.clone() };
    let (steady, stores) = (cluster::connect(&settings).await.expect("connect"), cluster::connect(&slow).await);
    let stores = stores.expect("connect");
    let ((ana, user), (bob, other)) = (ana("de"), ana("fr"));
    let wish = Preferences { all: Some(false), ..Preferences::default() };
    stores.users.put(&User { preferences: wish.clone(), ..user }, &change(1)).await.expect("put");
    stores.users.put(&other, &change(1)).await.expect("put");
    assert_eq!((wants(&stores, &ana).await, wants(&stores, &bob).await), (Some(false), Some(true)));

    line.set(Link::Slow(Duration::from_secs(5)));
    let requests: Vec<_> =
        (0..20).map(|_| ClaimRequest { delivery: DeliveryId(Uuid::new_v4()), owner: 1, at: at(0) }).collect();
    let token = Address::parse(Channel::Apns, "abcd").expect("a token");
    let dead = [(ana.tenant.clone(), Channel::Apns, token)];
    let written = change(2);
    let slowly = Instant::now();
    let mut rounds = requests.iter().cycle();
    // until the answers to the first questions are there
    while slowly.elapsed() < Duration::from_secs(6) {
        let (asked, request) = (Instant::now(), rounds.next().expect("a cycle"));
        let answers = futures::join!(
            stores.ledger.claim(std::slice::from_ref(request)),
            stores.ledger.gone(&dead),
            stores.users.put_preferences(&bob, &wish, &written),
            wants(&stores, &ana),
            wants(&stores, &bob),
        );
        assert!(answers.0.is_err() && answers.1.is_err() && answers.2.is_err(), "{answers:?}");
        assert_eq!((answers.3, answers.4), (None, None), "never as if they had no wishes");
        assert!(asked.elapsed() < timeout * 6, "it took {:?}", asked.elapsed());
    }
    line.set(Link::Up);
    let told = || async { wants(&stores, &ana).await };
    assert!(!eventually("it answers again", told).await);
    // the first claim was made, though nobody was told; it is not made again
    let again = ClaimRequest { owner: 2, ..requests[0].clone() };
    let open = [Claim::Open { owner: 1, at: at(0) }];
    assert_eq!(steady.ledger.claim(&[again]).await.expect("claim"), open);
    let repeat = || async { stores.users.put_preferences(&bob, &wish, &written).await.ok() };
    assert!(eventually("the wish is taken", repeat).await);
    let questions = (0..200).map(|i| async move { (i, i % 2) });
    for (i, which) in join_all(questions).await {
        let key = [&ana, &bob][which];
        assert_eq!((wants(&stores, key).await, wants(&steady, key).await), (Some(false), Some(false)), "{i}");
    }
}

/// Row 34: what lies at our keys and is not ours is never a yes.
#[tokio::test]
async fn what_is_of_another_type_in_redis_is_no_yes() {
    let Some(settings) = ready().await else { return };
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let spoils = [("RPUSH", vec!["x"]), ("HSET", vec!["f", "x"]), ("SET", vec!["x"]), ("SET", vec![""])];
    for (spoil, values) in &spoils {
        let mut put = async |name: &str| {
            let _: () = redis::cmd("DEL").arg(name).query_async(&mut redis).await.expect("DEL");
            let _: () = redis::cmd(spoil).arg(name).arg(values).query_async(&mut redis).await.expect(spoil);
        };
        let (bad, good) = (DeliveryId(Uuid::new_v4()), DeliveryId(Uuid::new_v4()));
        put(&format!("carillon:claim:{bad}")).await;
        let request = |delivery| ClaimRequest { delivery, owner: 1, at: at(0) };
        for _ in 0..2 {
            let claims = stores.ledger.claim(&[request(bad)]).await;
            assert!(matches!(claims, Err(StoreError::Corrupt { store: "redis", .. })), "{spoil}: {claims:?}");
            assert!(stores.ledger.claim(&[request(good), request(bad)]).await.is_err(), "{spoil}");
        }
        assert!(!stores.ledger.take_over(&request(bad), 7).await.unwrap_or(false), "{spoil}");
        let end = Settled(Bytes::from_static(b"sent"));
        assert!(!stores.ledger.reopen(&request(bad), &end).await.unwrap_or(false), "{spoil}");

        let (key, user) = ana("de");
        let wish = Preferences { all: Some(false), ..Preferences::default() };
        stores.users.put(&user, &change(1)).await.expect("put");
        put(&copy_of(&key)).await;
        assert_eq!(wants(&stores, &key).await, Some(true), "{spoil}: the record knows");
        put(&copy_of(&key)).await;
        let written = change(2);
        let wished = || async { stores.users.put_preferences(&key, &wish, &written).await.ok() };
        // the first time it may be said that it did not work
        assert!(eventually("the wish is taken", wished).await, "{spoil}");
        assert_eq!(wants(&stores, &key).await, Some(false), "{spoil}");
        put(&copy_of(&key)).await;
        assert_eq!(wants(&stores, &key).await, Some(false), "{spoil}");
    }
}
