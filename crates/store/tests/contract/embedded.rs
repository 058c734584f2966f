//! The suite on SQLite files, and what only files promise.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use domain::{
    Address, Channel, Contact, DeliveryId, DeliveryStatus, Device, Environment, Locale, NotificationId,
    NotificationStatus, State, Status, TenantId, Timestamp, User, UserId,
};
use store::{Balance, Claim, ClaimRequest, DeliveryQuery, IndexError, Settled, StoreError, Stores, UserKey, embedded};
use uuid::Uuid;

use crate::{
    Opened, at, eventually,
    made::{change, delivery, device, key, notification, user},
    tenant,
};

async fn open() -> Opened {
    let dir = tempfile::tempdir().expect("a directory");
    Opened { stores: opened(dir.path()), dir: Some(dir) }
}

contract!();

fn opened(dir: &Path) -> Stores {
    embedded::open(dir, embedded::Options::default()).expect("open")
}

fn request(delivery: DeliveryId) -> ClaimRequest {
    ClaimRequest { delivery, owner: 7, at: at(0) }
}

#[tokio::test]
async fn files_of_the_version_before_are_brought_up_to_date() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = |name| rusqlite::Connection::open(dir.path().join(name)).expect("a file");
    db("users.db").execute_batch(include_str!("before_users.sql")).expect("its old form");
    db("ledger.db").execute_batch(include_str!("before_ledger.sql")).expect("its old form");
    db("index.db").execute_batch(include_str!("before_index.sql")).expect("its old form");
    let stores = opened(dir.path());
    let (tenant, since) = (TenantId::parse("acme").expect("a name"), "2026-09-21T14:13:20Z".parse().expect("a time"));
    let key = key(&tenant, "ana");
    let found = stores.users.get(&key).await.expect("get").expect("there");
    let address = Address::parse(Channel::Webhook, "https://a.example/x").expect("an address");
    assert_eq!(found.contacts.on(Channel::Webhook), [Contact { address: address.clone(), since }]);
    assert_eq!((found.updated_at, found.devices), (since, vec![]));
    stores.users.put_device(&key, &device(&tenant, 1, 1), None, 5, &change(1)).await.expect("put_device");
    stores.ledger.mark_gone(&tenant, Channel::Webhook, &address, at(1)).await.expect("mark_gone");
    let claim = stores.ledger.claim(&[request(DeliveryId(Uuid::from_u128(1)))]).await.expect("claim");
    assert_eq!(claim, [Claim::Settled(Settled(Bytes::from_static(b"sent")))]);

    let view = stores.deliveries.notification(&tenant, NotificationId(Uuid::from_u128(10))).await;
    assert_eq!(view.expect("notification").expect("there").deliveries.len(), 2);
    let query = |q: &str| DeliveryQuery { q: Some(q.into()), ..DeliveryQuery::default() };
    for (q, count) in [("4711", 2), ("überlastet", 1), ("00000000-0000-0000-0000-00000000000b", 1), ("example", 0)] {
        let page = stores.deliveries.search(&tenant, &query(q), None, 10).await.expect("search").expect("a page");
        assert_eq!(page.items.len(), count, "{q}");
    }
    for (user, count) in [("ana", 2), ("Ana", 0), ("an", 0)] {
        let query = DeliveryQuery { user: Some(UserId::parse(user).expect("an id")), ..DeliveryQuery::default() };
        let page = stores.deliveries.search(&tenant, &query, None, 10).await.expect("search").expect("a page");
        assert_eq!(page.items.len(), count, "{user}");
    }
    let forever = embedded::Options { index_retention: Duration::MAX, ..embedded::Options::default() };
    drop(stores);
    let stores = embedded::open(dir.path(), forever).expect("open");
    let channels = [(Channel::Webhook, [(State::Sent, 1), (State::Failed, 1)].into())].into();
    let expected = Balance { tenant, recipients: 1, decided: 1, channels };
    assert_eq!(stores.deliveries.balance(None, at(0)).await.expect("balance"), [expected]);
    assert_eq!(stores.deliveries.prune(Timestamp::MIN).await.expect("prune"), Vec::<String>::new());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let nested = dir.path().join("not/there/yet");
    let key = key(&tenant(), "ana");
    let locale = Locale::parse("de-CH").expect("a locale");
    let ana = User { locale: Some(locale), updated_at: at(1), ..user(&key, "Europe/Zurich") };
    let device = Device { environment: Environment::Sandbox, ..device(&key.tenant, 1, 1) };
    let (claimed, settled) = (DeliveryId(Uuid::new_v4()), DeliveryId(Uuid::new_v4()));
    let end = Settled(Bytes::from_static(b"sent"));
    let n = notification(&tenant());

    let stores = opened(&nested);
    stores.users.put(&ana, &change(1)).await.expect("put");
    stores.users.put_preferences(&key, &ana.preferences, &change(1)).await.expect("put_preferences");
    stores.users.put_device(&key, &device, None, 5, &change(1)).await.expect("put_device");
    stores.ledger.mark_gone(&key.tenant, Channel::Apns, &device.token, at(2)).await.expect("mark_gone");
    assert_eq!(stores.ledger.claim(&[request(claimed)]).await.expect("claim"), [Claim::Granted]);
    stores.ledger.settle(1, &[(settled, end.clone())]).await.expect("settle");
    stores.deliveries.index(&[Status::Notification(n.clone())]).await.expect("index");
    drop(stores);

    let stores = opened(&nested);
    let gone = stores.ledger.gone(&[(key.tenant.clone(), Channel::Apns, device.token.clone())]).await.expect("gone");
    assert_eq!(gone, [Some(at(2))]);
    assert_eq!(stores.users.get(&key).await.expect("get"), Some(User { devices: vec![device], ..ana }));
    assert_eq!(stores.users.history(&key, 9).await.expect("history").len(), 1);
    let claims = stores.ledger.claim(&[request(claimed), request(settled)]).await.expect("claim");
    assert_eq!(claims, [Claim::Open { owner: 7, at: at(0) }, Claim::Settled(end)]);
    let view = stores.deliveries.notification(&n.tenant, n.id).await.expect("notification");
    assert_eq!(view.map(|v| v.notification), Some(n));
}

#[tokio::test]
async fn of_a_deleted_user_the_file_keeps_a_mark_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let stores = opened(dir.path());
    let key = key(&tenant(), "ana");
    stores.users.put(&user(&key, ""), &change(1)).await.expect("put");
    stores.users.delete(&key, &change(1)).await.expect("delete");
    let db = rusqlite::Connection::open(dir.path().join("users.db")).expect("the file");
    let read = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?));
    let kept: (Option<String>, Option<String>) =
        db.query_row("SELECT profile, preferences FROM user", [], read).expect("the mark");
    assert_eq!(kept, (None, None));
}

#[tokio::test]
async fn old_claims_go_and_their_space_is_given_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let size = || std::fs::metadata(dir.path().join("ledger.db")).expect("the file").len();
    let end = Settled(Bytes::from(vec![7; 64 * 1024]));
    let ends: Vec<_> = (0..300).map(|_| (DeliveryId(Uuid::new_v4()), end.clone())).collect();
    let stores = opened(dir.path());
    for part in ends.chunks(50) {
        stores.ledger.settle(1, part).await.expect("settle");
    }
    let asked: Vec<_> = ends.iter().map(|(d, _)| request(*d)).collect();
    assert_eq!(stores.ledger.claim(&asked).await.expect("claim"), vec![Claim::Settled(end); 300], "within the window");
    drop(stores);
    eventually("the closed file has its full size", || async { (size() > 300 * 64 * 1024).then_some(()) }).await;

    let options = embedded::Options { claim_window: Duration::ZERO, ..embedded::Options::default() };
    let stores = embedded::open(dir.path(), options).expect("open");
    let some: Vec<_> = (0..100).map(|_| request(DeliveryId(Uuid::new_v4()))).collect();
    let shrunk = || async {
        stores.ledger.claim(&some).await.expect("claim");
        (size() < 6 * 1024 * 1024).then_some(())
    };
    eventually("the file has shrunk", shrunk).await;
    assert_eq!(stores.ledger.claim(&asked).await.expect("claim"), vec![Claim::Granted; 300]);
}

#[tokio::test]
async fn old_documents_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = embedded::Options { index_retention: Duration::from_secs(3600), ..embedded::Options::default() };
    let stores = embedded::open(dir.path(), options).expect("open");
    let old = NotificationStatus { accepted_at: at(-4_000_000), ..notification(&tenant()) };
    let new = notification(&tenant());
    stores.deliveries.index(&[Status::Notification(old.clone())]).await.expect("index");
    stores.deliveries.index(&[Status::Notification(new.clone())]).await.expect("index");
    assert_eq!(stores.deliveries.notification(&old.tenant, old.id).await.expect("notification"), None);
    assert!(stores.deliveries.notification(&new.tenant, new.id).await.expect("notification").is_some());

    // and without a write to ride on
    let some: Vec<_> = (0..3_000).map(|_| Status::Notification(notification(&tenant()))).collect();
    stores.deliveries.index(&some).await.expect("index");
    let told = stores.deliveries.prune(at(4_000_000)).await.expect("prune");
    assert_eq!(told, ["index.db: 3001 documents"]);
    assert_eq!(stores.deliveries.prune(at(4_000_000)).await.expect("prune"), Vec::<String>::new());
    assert_eq!(stores.deliveries.notification(&new.tenant, new.id).await.expect("notification"), None);
}

#[tokio::test]
async fn what_finds_a_delivery_goes_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let stores = opened(dir.path());
    let metadata = [("k".to_owned(), "needle".to_owned())].into();
    let old = DeliveryStatus { metadata, user: Some(UserId::parse("ana").expect("an id")), ..delivery() };
    let new = DeliveryStatus { id: DeliveryId(Uuid::new_v4()), updated_at: at(5_000_000), ..old.clone() };
    // as one that came first and was driven on later
    stores.deliveries.index(&[Status::Delivery(new.clone()), Status::Delivery(old)]).await.expect("index");
    let retention = embedded::Options::default().index_retention;
    let told = stores.deliveries.prune(at(1_000) + retention).await.expect("prune");
    assert_eq!(told, ["index.db: 1 documents"]);
    let query = DeliveryQuery { q: Some("needle".into()), ..DeliveryQuery::default() };
    let page = stores.deliveries.search(&new.tenant, &query, None, 10).await.expect("search").expect("a page");
    assert_eq!(page.items, [new]);
    let db = rusqlite::Connection::open(dir.path().join("index.db")).expect("the file");
    let counted = |sql: &str| db.query_row(sql, [], |r| r.get::<_, i64>(0)).expect("a number");
    assert_eq!(counted("SELECT count(*) FROM delivery_words WHERE delivery_words MATCH 'words : needle'"), 1);
    let theirs = "delivery_users MATCH (SELECT hex(tenant || ' ' || user) FROM delivery)";
    assert_eq!(counted(&format!("SELECT count(*) FROM delivery_users WHERE {theirs}")), 1);
}

#[tokio::test]
async fn a_refused_document_spoils_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let stores = opened(dir.path());
    let (good, bad, last) = (notification(&tenant()), notification(&tenant()), notification(&tenant()));
    let db = rusqlite::Connection::open(dir.path().join("index.db")).expect("the file");
    let refuse = format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON notification WHEN NEW.tenant = '{}' BEGIN SELECT RAISE(ABORT, 'no'); END",
        bad.tenant
    );
    db.execute_batch(&refuse).expect("a trigger");
    let documents = [&good, &bad, &last].map(|n| Status::Notification(n.clone()));
    let results = stores.deliveries.index(&documents).await.expect("index");
    assert_eq!(results, [Ok(()), Err(IndexError::Rejected("no".into())), Ok(())]);
    for (n, there) in [(good, true), (bad, false), (last, true)] {
        let view = stores.deliveries.notification(&n.tenant, n.id).await.expect("notification");
        assert_eq!(view.is_some(), there);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_by_file_and_without_its_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let stores = opened(dir.path());
    let db = rusqlite::Connection::open(dir.path().join("users.db")).expect("the file");
    let row =
        r#"INSERT INTO user VALUES ('t', 'ana', '{"contacts": {"webhook": "secret"}}', 0, '{}', 0, '', '', NULL)"#;
    db.execute_batch(row).expect("a row");
    let key =
        UserKey { tenant: domain::TenantId::parse("t").expect("a name"), user: UserId::parse("ana").expect("an id") };
    let error = stores.users.get(&key).await.expect_err("it is not readable");
    assert!(matches!(error, StoreError::Corrupt { store: "users.db", .. }), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");

    std::fs::write(dir.path().join("not-a-directory"), "x").expect("a file");
    assert!(embedded::open(&dir.path().join("not-a-directory"), embedded::Options::default()).is_err());
    std::fs::create_dir(dir.path().join("other")).expect("a directory");
    std::fs::write(dir.path().join("other/ledger.db"), "this is no database, it is a text").expect("a file");
    let error = embedded::open(&dir.path().join("other"), embedded::Options::default()).err().expect("unreadable");
    assert!(matches!(error, StoreError::Corrupt { store: "ledger.db", .. }), "{error}");
}
