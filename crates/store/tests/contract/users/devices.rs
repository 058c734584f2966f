//! Devices and tokens.

use super::*;

pub async fn a_device_is_registered_and_refreshed(users: &dyn Users) {
    let tenant = tenant();
    let ana = someone(users, &tenant, "ana").await;
    assert_eq!(devices(users, &ana).await, []);
    let first = Device {
        environment: Environment::Sandbox,
        locale: Some(Locale::parse("de-CH").expect("a locale")),
        time_zone: Some("Europe/Zurich".into()),
        ..device(&tenant, 1, 1)
    };
    assert_eq!(users.put_device(&ana, &first, None, 5, &change(1)).await.expect("put_device"), Some(vec![]));
    assert_eq!(devices(users, &ana).await, std::slice::from_ref(&first));

    let again = Device { environment: Environment::Production, ..device(&tenant, 1, 9) };
    assert_eq!(users.put_device(&ana, &again, None, 5, &change(9)).await.expect("put_device"), Some(vec![]));
    let refreshed = Device { registered_at: at(1), ..again };
    assert_eq!(devices(users, &ana).await, std::slice::from_ref(&refreshed), "it keeps the day of its registration");
    users.put_device(&ana, &first, None, 5, &change(5)).await.expect("put_device");
    assert_eq!(devices(users, &ana).await, std::slice::from_ref(&refreshed), "an older write says nothing new");

    users.put(&user(&ana, "other"), &change(20)).await.expect("put");
    let wish = preferences(r#"{"all": false}"#);
    assert!(users.put_preferences(&ana, &wish, &change(21)).await.expect("put_preferences"));
    assert_eq!(devices(users, &ana).await, [refreshed], "what else is written leaves it alone");

    let nobody = key(&tenant, "nobody");
    assert_eq!(users.put_device(&nobody, &first, None, 5, &change(2)).await.expect("put_device"), None);
    assert_eq!(look(users, &nobody).await, None);
    assert!(!users.delete_device(&nobody, first.id, &change(30)).await.expect("delete_device"));
    assert!(!users.address_gone(&nobody, Channel::Apns, &first.token, at(30)).await.expect("address_gone"));
}

pub async fn the_least_recently_active_devices_make_room(users: &dyn Users) {
    let tenant = tenant();
    let ana = someone(users, &tenant, "ana").await;
    for n in 1..=5 {
        assert_eq!(put_device(users, &ana, n, n.into()).await, []);
    }
    put_device(users, &ana, 1, 6).await;
    assert_eq!(put_device(users, &ana, 7, 7).await, [device(&tenant, 2, 2)], "the first one was active since");
    let six = device(&tenant, 8, 8);
    let evicted = users.put_device(&ana, &six, None, 3, &change(8)).await.expect("put_device");
    assert_eq!(evicted, Some(vec![device(&tenant, 3, 3), device(&tenant, 4, 4), device(&tenant, 5, 5)]));
    let one = Device { registered_at: at(1), ..device(&tenant, 1, 6) };
    assert_eq!(devices(users, &ana).await, sorted(vec![one, device(&tenant, 7, 7), six]));
    assert_eq!(put_device(users, &ana, 2, 2).await, [], "a repeated write of one that made room");
    assert_eq!(devices(users, &ana).await.len(), 3);
}

pub async fn a_device_takes_the_place_of_another(users: &dyn Users) {
    let tenant = tenant();
    let ana = someone(users, &tenant, "ana").await;
    for n in 1..=5 {
        put_device(users, &ana, n, n.into()).await;
    }
    let (old, new) = (device(&tenant, 3, 3), device(&tenant, 9, 9));
    for _ in 0..2 {
        let evicted = users.put_device(&ana, &new, Some(old.id), 5, &change(9)).await.expect("put_device");
        assert_eq!(evicted, Some(vec![]), "nobody else has to make room");
        let left = [1, 2, 4, 5].map(|n| device(&tenant, n, n.into())).into_iter().chain([new.clone()]);
        assert_eq!(devices(users, &ana).await, sorted(left.collect()), "also when it is repeated");
    }
    put_device(users, &ana, 3, 3).await;
    assert_eq!(devices(users, &ana).await.len(), 5, "the old one does not come back with a repeated write");
    let itself = users.put_device(&ana, &new, Some(new.id), 5, &change(10)).await.expect("put_device");
    assert_eq!(itself, Some(vec![]));
    assert_eq!(devices(users, &ana).await.len(), 5);
}

/// Row 35 of the catalogue (reliability.md, section 7).
pub async fn a_removed_device_does_not_come_back_with_an_old_write(users: &dyn Users) {
    let tenant = tenant();
    let ana = someone(users, &tenant, "ana").await;
    let id = device(&tenant, 1, 0).id;
    put_device(users, &ana, 1, 10).await;
    assert!(users.delete_device(&ana, id, &change(20)).await.expect("delete_device"));
    assert!(!users.delete_device(&ana, id, &change(20)).await.expect("delete_device"), "it is gone");
    for step in [10, 15, 19] {
        put_device(users, &ana, 1, step).await;
        assert_eq!(devices(users, &ana).await, []);
    }
    put_device(users, &ana, 1, 30).await;
    assert_eq!(devices(users, &ana).await, [device(&tenant, 1, 30)], "a new one");
    assert!(!users.delete_device(&ana, id, &change(20)).await.expect("delete_device"), "an old deletion");
    assert_eq!(devices(users, &ana).await, [device(&tenant, 1, 30)]);
    // one that arrives before what it removes
    let early = device(&tenant, 2, 0).id;
    assert!(!users.delete_device(&ana, early, &change(50)).await.expect("delete_device"));
    put_device(users, &ana, 2, 40).await;
    assert_eq!(devices(users, &ana).await, [device(&tenant, 1, 30)]);
}

pub async fn devices_go_with_their_user(users: &dyn Users) {
    let tenant = tenant();
    let ana = someone(users, &tenant, "ana").await;
    let bob = someone(users, &tenant, "bob").await;
    put_device(users, &ana, 1, 1).await;
    put_device(users, &ana, 2, 2).await;
    assert!(users.delete(&ana, &change(10)).await.expect("delete"));
    assert_eq!(look(users, &ana).await, None);
    let late = device(&tenant, 3, 3);
    assert_eq!(users.put_device(&ana, &late, None, 5, &change(3)).await.expect("put_device"), None);
    users.put(&user(&ana, "again"), &change(20)).await.expect("put");
    assert_eq!(devices(users, &ana).await, []);
    put_device(users, &ana, 1, 5).await;
    assert_eq!(devices(users, &ana).await, [], "a repeated write from before");
    put_device(users, &ana, 1, 30).await;
    assert_eq!(devices(users, &ana).await, [device(&tenant, 1, 30)]);
    put_device(users, &bob, 2, 5).await;
    assert_eq!(devices(users, &bob).await, [device(&tenant, 2, 5)], "nobody else has it any more");
}

pub async fn a_token_belongs_to_whoever_registered_it_last(users: &dyn Users) {
    let (ours, theirs) = (tenant(), tenant());
    let ana = someone(users, &ours, "ana").await;
    let bob = someone(users, &ours, "bob").await;
    let stranger = someone(users, &theirs, "ana").await;
    put_device(users, &stranger, 1, 1).await;
    put_device(users, &ana, 1, 10).await;
    put_device(users, &ana, 2, 10).await;
    put_device(users, &bob, 1, 20).await;
    assert_eq!(devices(users, &ana).await, [device(&ours, 2, 10)]);
    assert_eq!(devices(users, &bob).await, [device(&ours, 1, 20)]);
    put_device(users, &ana, 1, 15).await;
    assert_eq!(devices(users, &ana).await, [device(&ours, 2, 10)], "an older write");
    assert_eq!(devices(users, &bob).await, [device(&ours, 1, 20)]);
    put_device(users, &ana, 1, 30).await;
    assert_eq!(devices(users, &bob).await, []);
    assert_eq!(devices(users, &ana).await, sorted(vec![device(&ours, 1, 30), device(&ours, 2, 10)]));
    assert_eq!(devices(users, &stranger).await, [device(&theirs, 1, 1)], "another tenant's is another one");

    assert!(!users.delete_device(&bob, device(&ours, 1, 0).id, &change(40)).await.expect("delete_device"));
    assert_eq!(devices(users, &ana).await.len(), 2, "it is not bob's to delete");
    assert!(users.delete_device(&ana, device(&ours, 1, 0).id, &change(41)).await.expect("delete_device"));
    put_device(users, &bob, 1, 42).await;
    assert_eq!(devices(users, &bob).await, [device(&ours, 1, 42)]);
}

pub async fn many_registrations_at_once_leave_as_many_as_may_be(users: &dyn Users) {
    let tenant = tenant();
    let ana = someone(users, &tenant, "ana").await;
    let puts = (1..=20).map(|n| put_device(users, &ana, n, n.into()));
    let evicted: usize = join_all(puts).await.iter().map(Vec::len).sum();
    let latest = (16..=20).map(|n| device(&tenant, n, n.into())).collect();
    assert_eq!(devices(users, &ana).await, sorted(latest), "the most recent ones");
    assert_eq!(evicted, 15, "each of the others was said to go, once");
}

pub async fn of_many_who_register_one_token_at_once_the_last_has_it(users: &dyn Users) {
    let tenant = tenant();
    for round in 0..5 {
        let mut people = Vec::new();
        for n in 0..6 {
            people.push(someone(users, &tenant, &format!("user-{round}-{n}")).await);
        }
        let puts = people.iter().zip(1..).map(|(key, step)| put_device(users, key, round, step));
        join_all(puts).await;
        for (key, step) in people.iter().zip(1..) {
            let expected = if step == 6 { vec![device(&tenant, round, 6)] } else { vec![] };
            assert_eq!(devices(users, key).await, expected, "{key:?}");
        }
    }
}
