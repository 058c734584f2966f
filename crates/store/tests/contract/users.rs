//! What every `Users` does.

use std::collections::BTreeMap;

use domain::{Address, Channel, Contact, Contacts, Device, Environment, Locale, Preferences, TenantId, User};
use futures::future::join_all;
use store::{Change, HistoryEntry, UserKey, Users};

use crate::{
    at,
    made::{change, device, key, user},
    tenant,
};

fn contact(url: &str, since: i64) -> Contact {
    Contact { address: Address::parse(Channel::Webhook, url).expect("an address"), since: at(since) }
}

/// A user who is there since step 0.
async fn someone(users: &dyn Users, tenant: &TenantId, id: &str) -> UserKey {
    let key = key(tenant, id);
    users.put(&user(&key, ""), &change(0)).await.expect("put");
    key
}

async fn put_device(users: &dyn Users, key: &UserKey, n: u32, step: i64) -> Vec<Device> {
    let device = device(&key.tenant, n, step);
    users.put_device(key, &device, None, 5, &change(step)).await.expect("put_device").expect("there is such a user")
}

/// What a user has, in the order of the ids.
async fn devices(users: &dyn Users, key: &UserKey) -> Vec<Device> {
    let mut devices = look(users, key).await.expect("there").devices;
    devices.sort_unstable_by_key(|d| d.id.0);
    devices
}

fn sorted(mut devices: Vec<Device>) -> Vec<Device> {
    devices.sort_unstable_by_key(|d| d.id.0);
    devices
}

fn preferences(json: &str) -> Preferences {
    serde_json::from_str(json).expect("preferences")
}

/// The user, by `get` and by `lookup`.
async fn look(users: &dyn Users, key: &UserKey) -> Option<User> {
    let read = users.get(key).await.expect("get");
    let found = users.lookup(std::slice::from_ref(key)).await.expect("lookup");
    assert_eq!(found, std::slice::from_ref(&read), "the same by lookup");
    read
}

async fn zone(users: &dyn Users, key: &UserKey) -> Option<String> {
    look(users, key).await.and_then(|u| u.time_zone)
}

pub async fn a_user_comes_back_whole(users: &dyn Users) {
    let key = key(&tenant(), "ana+test@example.com");
    assert_eq!(users.get(&key).await.expect("get"), None);
    let mut contacts = Contacts::default();
    for url in
        ["https://b.example/", "https://a.example/höre?x=%22'--\\&y=ü#".trim_end_matches('#'), "http://[::1]:8080/"]
    {
        contacts.add(Channel::Webhook, contact(url, 0));
    }
    let whole = User {
        locale: Some(Locale::parse("sr-Latn-RS").expect("a locale")),
        time_zone: Some("America/Argentina/Buenos_Aires".into()),
        contacts,
        preferences: preferences(
            r#"{"all": false, "channels": {"webhook": true, "sms": false},
                "categories": {"orders": {"all": true, "channels": {"chat": false}}, "news_2-x": {"all": false}, "bare": {}}}"#,
        ),
        ..user(&key, "")
    };
    users.put(&whole, &change(1)).await.expect("put");
    let expected = User { updated_at: at(1), ..whole };
    assert_eq!(users.get(&key).await.expect("get"), Some(expected.clone()));
    assert_eq!(users.lookup(std::slice::from_ref(&key)).await.expect("lookup"), [Some(expected.clone())]);

    let bare = User { locale: None, time_zone: None, contacts: Contacts::default(), ..expected };
    users.put(&bare, &change(2)).await.expect("put");
    let expected = User { updated_at: at(2), ..bare };
    assert_eq!(users.get(&key).await.expect("get"), Some(expected.clone()), "what a later write leaves out is gone");
    assert_eq!(users.lookup(&[key]).await.expect("lookup"), [Some(expected)]);
}

pub async fn a_later_write_wins_in_whatever_order_they_arrive(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    for (step, winner) in [(20, "20"), (10, "20"), (30, "30"), (20, "30"), (29, "30")] {
        users.put(&user(&key, &step.to_string()), &change(step)).await.expect("put");
        assert_eq!(zone(users, &key).await.as_deref(), Some(winner), "after a write at {step}");
    }
    for (step, all, winner) in [(50, false, false), (40, true, false), (60, true, true), (50, false, true)] {
        let wish = Preferences { all: Some(all), ..Preferences::default() };
        assert!(users.put_preferences(&key, &wish, &change(step)).await.expect("put_preferences"));
        let read = users.get(&key).await.expect("get").expect("there");
        assert_eq!(read.preferences.all, Some(winner), "after a write at {step}");
        assert_eq!(users.lookup(std::slice::from_ref(&key)).await.expect("lookup"), [Some(read)]);
    }
    // an older deletion neither, and an older write after a deletion neither
    users.delete(&key, &change(15)).await.expect("delete");
    assert_eq!(zone(users, &key).await.as_deref(), Some("30"));
    users.delete(&key, &change(70)).await.expect("delete");
    users.put(&user(&key, "late"), &change(65)).await.expect("put");
    assert_eq!(zone(users, &key).await, None);
}

pub async fn of_two_writes_at_the_same_time_the_later_call_wins(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    for now in ["m", "z", "a"] {
        users.put(&user(&key, now), &change(1)).await.expect("put");
        assert_eq!(zone(users, &key).await.as_deref(), Some(now));
    }
    for all in [Some(true), Some(false), None, Some(true)] {
        let wish = Preferences { all, ..Preferences::default() };
        users.put_preferences(&key, &wish, &change(1)).await.expect("put_preferences");
        assert_eq!(users.get(&key).await.expect("get").expect("there").preferences, wish);
    }
}

pub async fn put_leaves_the_preferences_of_a_known_user_alone(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    let first = User { preferences: preferences(r#"{"all": false}"#), ..user(&key, "de") };
    users.put(&first, &change(1)).await.expect("put");
    let second = User { preferences: preferences(r#"{"all": true, "channels": {"sms": true}}"#), ..user(&key, "fr") };
    users.put(&second, &change(2)).await.expect("put");
    assert_eq!(zone(users, &key).await.as_deref(), Some("fr"));
    assert_eq!(users.get(&key).await.expect("get").expect("there").preferences, first.preferences);
}

pub async fn a_change_of_one_half_never_hides_a_change_of_the_other(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    users.put(&user(&key, "de"), &change(10)).await.expect("put");
    let wish = preferences(r#"{"all": false}"#);
    assert!(users.put_preferences(&key, &wish, &change(30)).await.expect("put_preferences"));
    users.put(&user(&key, "fr"), &change(20)).await.expect("put");
    let read = users.get(&key).await.expect("get").expect("there");
    assert_eq!((read.time_zone.as_deref(), &read.preferences), (Some("fr"), &wish));
    assert_eq!(read.updated_at, at(30), "its latest change");
    assert_eq!(users.lookup(&[key]).await.expect("lookup"), [Some(read)]);
}

pub async fn preferences_of_a_stranger_are_not_written(users: &dyn Users) {
    let key = key(&tenant(), "nobody");
    let wish = preferences(r#"{"all": false}"#);
    assert!(!users.put_preferences(&key, &wish, &change(1)).await.expect("put_preferences"));
    assert_eq!(users.history(&key, 10).await.expect("history"), []);
    users.put(&user(&key, "de"), &change(2)).await.expect("put");
    assert_eq!(users.get(&key).await.expect("get").expect("there").preferences, Preferences::default());
}

pub async fn a_deleted_user_is_gone_and_the_history_stays(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    assert!(!users.delete(&key, &change(0)).await.expect("delete"), "there was none");
    users.put(&user(&key, "de"), &change(10)).await.expect("put");
    let wish = preferences(r#"{"all": false}"#);
    assert!(users.put_preferences(&key, &wish, &change(11)).await.expect("put_preferences"));
    assert!(users.delete(&key, &change(12)).await.expect("delete"));
    assert_eq!(zone(users, &key).await, None);
    assert!(!users.delete(&key, &change(13)).await.expect("delete"), "it is gone");
    assert!(!users.put_preferences(&key, &wish, &change(14)).await.expect("put_preferences"), "nobody is there");
    let kept = users.history(&key, 10).await.expect("history");
    assert_eq!(kept, [HistoryEntry { change: change(11), preferences: wish }]);

    let again = User { preferences: preferences(r#"{"all": true}"#), ..user(&key, "fr") };
    users.put(&again, &change(15)).await.expect("put");
    assert_eq!(users.get(&key).await.expect("get"), Some(User { updated_at: at(15), ..again }), "a new user");
    assert_eq!(users.history(&key, 10).await.expect("history"), kept);
}

pub async fn history_is_latest_first_and_limited(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    users.put(&user(&key, "de"), &change(0)).await.expect("put");
    assert_eq!(users.history(&key, 10).await.expect("history"), []);
    let entry = |step: i64| HistoryEntry {
        change: Change { by: format!("key-{step}"), ..change(step) },
        preferences: Preferences { all: Some(step % 2 == 0), ..Preferences::default() },
    };
    // one arrives late, one is repeated
    for step in [1, 2, 4, 3, 5, 5] {
        let HistoryEntry { change, preferences } = entry(step);
        assert!(users.put_preferences(&key, &preferences, &change).await.expect("put_preferences"));
    }
    assert_eq!(users.history(&key, 10).await.expect("history"), [5, 4, 3, 2, 1].map(entry));
    assert_eq!(users.history(&key, 2).await.expect("history"), [5, 4].map(entry));
}

pub async fn lookup_answers_every_key_in_order(users: &dyn Users) {
    let tenant = tenant();
    let keys: Vec<_> = (0..600).map(|i| key(&tenant, &format!("user-{i}"))).collect();
    let there = |i: usize| !i.is_multiple_of(3);
    let puts = keys.iter().enumerate().filter(|(i, _)| there(*i)).map(|(i, key)| async move {
        users.put(&user(key, &i.to_string()), &change(1)).await.expect("put");
    });
    join_all(puts).await;
    let asked: Vec<_> = (0..keys.len()).chain((0..keys.len()).rev()).chain([1, 1, 0, 0, 1]).collect();
    let wanted: Vec<_> = asked.iter().map(|i| keys[*i].clone()).collect();
    let found = users.lookup(&wanted).await.expect("lookup");
    let found: Vec<_> = found.into_iter().map(|u| u.map(|u| (u.id.to_string(), u.time_zone))).collect();
    let expected: Vec<_> =
        asked.iter().map(|i| there(*i).then(|| (format!("user-{i}"), Some(i.to_string())))).collect();
    assert_eq!(found, expected);
    assert_eq!(users.lookup(&[]).await.expect("lookup"), []);
}

pub async fn lookup_sees_every_write_that_was_answered(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    let look = || async { users.lookup(std::slice::from_ref(&key)).await.expect("lookup").remove(0) };
    assert_eq!(look().await, None);
    for step in (0..60).step_by(3) {
        users.put(&user(&key, &step.to_string()), &change(step)).await.expect("put");
        assert_eq!(look().await.and_then(|u| u.time_zone), Some(step.to_string()));
        let wish = Preferences { all: Some(step % 2 == 0), ..Preferences::default() };
        users.put_preferences(&key, &wish, &change(step + 1)).await.expect("put_preferences");
        assert_eq!(look().await.map(|u| u.preferences), Some(wish));
        if step % 4 == 0 {
            assert!(users.delete(&key, &change(step + 2)).await.expect("delete"));
            assert_eq!(look().await, None);
        }
    }
}

/// Row 48 of the catalogue (reliability.md, section 7).
pub async fn tenants_and_odd_ids_stay_apart(users: &dyn Users) {
    let (ours, theirs) = (tenant(), tenant());
    let longest = "x".repeat(128);
    let ids = ["a", "A", "a:b", "a.b", "a~b", "a@b", "a+b", "a-b", "a_b", ":", "~", longest.as_str()];
    for id in ids {
        users.put(&user(&key(&ours, id), id), &change(1)).await.expect("put");
    }
    for id in ids {
        assert_eq!(zone(users, &key(&ours, id)).await.as_deref(), Some(id));
        assert_eq!(zone(users, &key(&theirs, id)).await, None);
    }
    assert!(!users.delete(&key(&theirs, "a"), &change(2)).await.expect("delete"));
    assert!(users.delete(&key(&ours, "a"), &change(2)).await.expect("delete"));
    assert_eq!(zone(users, &key(&ours, "A")).await.as_deref(), Some("A"));
}

pub async fn concurrent_writes_leave_record_and_read_model_alike(users: &dyn Users) {
    let tenant = tenant();
    for round in 0..5 {
        let key = key(&tenant, &format!("user-{round}"));
        users.put(&user(&key, "first"), &change(0)).await.expect("put");
        let writes = (1..=20_i64).map(|step| {
            let key = &key;
            async move {
                if step % 2 == 0 {
                    users.put(&user(key, &step.to_string()), &change(step)).await.expect("put");
                } else {
                    let channels = BTreeMap::from([("sms".to_owned(), step == 19)]);
                    let wish = Preferences { channels, ..Preferences::default() };
                    assert!(users.put_preferences(key, &wish, &change(step)).await.expect("put_preferences"));
                }
            }
        });
        join_all(writes).await;
        assert_eq!(zone(users, &key).await.as_deref(), Some("20"));
        let read = users.get(&key).await.expect("get").expect("there");
        assert!(read.preferences.channels["sms"], "the wish of step 19");
        assert_eq!(read.updated_at, at(20));
        assert_eq!(users.history(&key, 100).await.expect("history").len(), 10);
    }
}

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

pub async fn an_address_that_is_gone_is_taken_out_unless_it_is_newer(users: &dyn Users) {
    let tenant = tenant();
    let ana = key(&tenant, "ana");
    let (dead, alive) = (contact("https://a.example/dead", 10), contact("https://a.example/alive", 10));
    let with = |list: &[&Contact]| {
        let mut contacts = Contacts::default();
        list.iter().for_each(|c| contacts.add(Channel::Webhook, (*c).clone()));
        User { contacts, ..user(&ana, "") }
    };
    let gone = |channel, address: Address, step| {
        let ana = &ana;
        async move { users.address_gone(ana, channel, &address, at(step)).await.expect("address_gone") }
    };
    let contacts = || async { look(users, &ana).await.expect("there").contacts };
    users.put(&with(&[&dead, &alive]), &change(10)).await.expect("put");
    assert!(!gone(Channel::Webhook, dead.address.clone(), 9).await, "it was registered after that");
    assert_eq!(contacts().await, with(&[&dead, &alive]).contacts);
    assert!(gone(Channel::Webhook, dead.address.clone(), 10).await);
    assert_eq!(contacts().await, with(&[&alive]).contacts);
    assert!(!gone(Channel::Webhook, dead.address.clone(), 20).await, "it is not there any more");
    users.put(&with(&[&dead, &alive]), &change(10)).await.expect("put");
    assert_eq!(contacts().await, with(&[&alive]).contacts, "a repeated write does not bring it back");
    let again = contact("https://a.example/dead", 30);
    users.put(&with(&[&again, &alive]), &change(30)).await.expect("put");
    assert_eq!(contacts().await, with(&[&again, &alive]).contacts, "but who registers it anew does");
    assert!(!gone(Channel::Webhook, dead.address.clone(), 20).await);

    let token = device(&tenant, 1, 0).token;
    put_device(users, &ana, 1, 40).await;
    assert!(!gone(Channel::Apns, token.clone(), 39).await);
    assert!(gone(Channel::Apns, token.clone(), 45).await);
    assert!(!gone(Channel::Apns, token.clone(), 45).await, "it is not there any more");
    put_device(users, &ana, 1, 44).await;
    assert_eq!(devices(users, &ana).await, []);
    put_device(users, &ana, 1, 46).await;
    put_device(users, &ana, 1, 50).await;
    assert!(!gone(Channel::Apns, token.clone(), 48).await, "it was registered once more after that");
    assert_eq!(devices(users, &ana).await, [device(&tenant, 1, 50)], "so it is new since then");
    assert_eq!(contacts().await, with(&[&again, &alive]).contacts);
}

pub async fn a_contact_that_is_put_again_keeps_its_date_until_it_is_removed(users: &dyn Users) {
    let tenant = tenant();
    let ana = key(&tenant, "ana");
    let list = |of: &[(&str, i64)]| {
        let mut contacts = Contacts::default();
        for (name, since) in of {
            contacts.add(Channel::Webhook, contact(&format!("https://{name}.example/"), *since));
        }
        contacts
    };
    let put = |names: &'static [&'static str], step| {
        let of: Vec<_> = names.iter().map(|name| (*name, step)).collect();
        let (ana, user) = (&ana, User { contacts: list(&of), ..user(&ana, "") });
        async move {
            users.put(&user, &change(step)).await.expect("put");
            look(users, ana).await.expect("there").contacts
        }
    };
    let gone = |name: &str, step| {
        let (ana, address) = (&ana, contact(&format!("https://{name}.example/"), 0).address);
        async move { users.address_gone(ana, Channel::Webhook, &address, at(step)).await.expect("address_gone") }
    };
    assert_eq!(put(&["a", "b"], 10).await, list(&[("a", 10), ("b", 10)]));
    for _ in 0..2 {
        assert_eq!(put(&["c", "a"], 20).await, list(&[("c", 20), ("a", 10)]), "also when it is repeated");
    }
    assert_eq!(put(&["c", "a"], 15).await, list(&[("c", 20), ("a", 10)]), "an older write says nothing new");
    assert_eq!(put(&["a", "b"], 30).await, list(&[("a", 10), ("b", 30)]), "one that was left out is a new one");

    assert!(gone("a", 20).await, "to be named again at 30 was no registration");
    assert!(!gone("b", 20).await, "but to be named anew was");
    for _ in 0..2 {
        assert_eq!(put(&["a", "b"], 40).await, list(&[("a", 40), ("b", 30)]), "one that was gone is a new one");
        assert!(!gone("a", 39).await, "and was not meant");
    }
    assert!(users.delete(&ana, &change(50)).await.expect("delete"));
    assert_eq!(put(&["b"], 60).await, list(&[("b", 60)]), "of somebody else");
}

/// Both are called at once; it ends as if one had been called after the other.
pub async fn a_contact_that_goes_while_it_is_put_ends_in_one_order_or_the_other(users: &dyn Users) {
    let tenant = tenant();
    let since = |user: Option<User>| {
        let contacts = user.expect("there").contacts;
        contacts.on(Channel::Webhook).iter().map(|c| c.since).collect::<Vec<_>>()
    };
    let address = contact("https://a.example/x", 0).address;
    for round in 0..12 {
        let ana = someone(users, &tenant, &format!("ana-{round}")).await;
        let put = |step| {
            let mut contacts = Contacts::default();
            contacts.add(Channel::Webhook, Contact { address: address.clone(), since: at(step) });
            let user = User { contacts, ..user(&ana, "") };
            async move { users.put(&user, &change(step)).await.expect("put") }
        };
        let (known, gone_at) = [(true, 5), (true, 15), (false, 5)][round % 3];
        if known {
            put(1).await;
        }
        let ((), gone) = futures::join!(put(10), users.address_gone(&ana, Channel::Webhook, &address, at(gone_at)));
        assert_eq!(gone.expect("address_gone"), known);
        let left = since(look(users, &ana).await);
        match (known, gone_at) {
            (true, 5) => assert!(left.is_empty() || left == [at(10)], "{left:?}"),
            (true, _) => assert_eq!(left, [], "neither was after 15"),
            (false, _) => assert_eq!(left, [at(10)]),
        }
        put(20).await;
        let expected = left.first().copied().unwrap_or(at(20));
        assert_eq!(since(look(users, &ana).await), [expected]);
    }
}

pub async fn ping(users: &dyn Users) {
    users.ping().await.expect("it answers");
}
