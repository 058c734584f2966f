//! Engines that go away, fall silent or are slow, and who is overtaken meanwhile.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_that_read_before_a_write_does_not_hide_it() {
    let settings = ready().await;
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
    let settings = ready().await;
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
    let settings = ready().await;
    let (line, slow) = over_a_line(&settings).await;
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&slow).await.expect("connect");
    let (key, user) = ana("overtaken");
    line.set(Link::Holding("overtaken".into()));
    let device = device(&key.tenant, 1, 1);
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
    let settings = ready().await;
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
    let device = device(&key.tenant, 1, 1);
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

/// Row 34 of the catalogue (reliability.md, section 7): a Redis that takes 5 s. Whoever asks is told in time that nobody knows,
/// nothing is granted, and no answer that comes late is taken for that to another question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_grants_nothing_and_says_nothing_wrong() {
    let settings = ready().await;
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
