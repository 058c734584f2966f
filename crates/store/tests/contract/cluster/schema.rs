//! Connecting: what is missing, what is not needed, what an earlier version has left.

use super::*;

#[tokio::test]
async fn what_cannot_be_reached_is_named_in_time_and_without_credentials() {
    let settings = ready().await;
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
    let settings = ready().await;
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
    let settings = settings();
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

#[tokio::test]
async fn what_the_version_before_has_written_is_read_and_found() {
    let settings = settings();
    let settings = fresh(&settings);
    let session = cassandra(&settings).await;
    for cql in include_str!("../before.cql").split_terminator(';') {
        session.query_unpaged(cql.replace('%', &settings.keyspace), ()).await.expect(cql);
    }
    for family in ["notifications", "deliveries"] {
        let name = format!("{}{family}", settings.index_prefix);
        let template = include_str!("../before.json").replace("NAME", &name);
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
    let device = device(&key.tenant, 1, 1);
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
