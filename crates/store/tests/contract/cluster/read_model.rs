//! What the record and the read model keep to when one of them has lost something, or somebody was overtaken.

use super::*;

#[tokio::test]
async fn what_redis_has_lost_is_read_from_the_record_and_kept_again() {
    let settings = ready().await;
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
    let settings = ready().await;
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
    let settings = ready().await;
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
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (key, user) = ana("");
    stores.users.put(&user, &change(1)).await.expect("put");
    let device = device(&key.tenant, 1, 2);
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
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (ana, user) = ana("");
    let bob = UserKey { user: UserId::parse("bob").expect("an id"), ..ana.clone() };
    stores.users.put(&user, &change(1)).await.expect("put");
    stores.users.put(&User { id: bob.user.clone(), ..user }, &change(1)).await.expect("put");
    let device = device(&ana.tenant, 1, 0);
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
    let settings = ready().await;
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
        ours.users.put_device(&key, &device(&key.tenant, 1, 2), None, 5, &change(2)).await.expect("put_device");
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

/// Row 35 of the catalogue (reliability.md, section 7): a lightweight transaction whose outcome is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_write_was_not_answered_is_there_once_after_its_repetition() {
    let settings = ready().await;
    let (line, slow) = over_a_line(&settings).await;
    let slow = ClusterSettings { timeout: Duration::from_secs(2), ..slow };
    let stores = cluster::connect(&slow).await.expect("connect");
    let steady = cluster::connect(&settings).await.expect("connect");
    for (round, state) in [(0, Link::Cut), (1, Link::Silent), (2, Link::Holding("[applied]".into()))] {
        let (key, user) = ana("");
        stores.users.put(&user, &change(1)).await.expect("put");
        let device = device(&key.tenant, 1, 2);
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
    let settings = ready().await;
    let (line, slow) = over_a_line(&settings).await;
    let ours = cluster::connect(&settings).await.expect("connect");
    let theirs = cluster::connect(&slow).await.expect("connect");
    let (key, user) = ana("overtaken");
    ours.users.put(&user, &change(1)).await.expect("put");
    let token = Address::parse(Channel::Apns, &"cd".repeat(32)).expect("a token");
    let id = DeviceId::derive(&key.tenant, Channel::Apns, "com.example.app", &token);
    let (first, second) = (device(&key.tenant, 1, 2), Device { id, token, ..device(&key.tenant, 1, 3) });
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
    let settings = ready().await;
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
