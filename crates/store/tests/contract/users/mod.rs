//! What every `Users` does.

mod devices;

use std::collections::BTreeMap;

use domain::{Address, Channel, Contact, Contacts, Device, Environment, Locale, Preferences, TenantId, User};
use futures::future::join_all;
use store::{Change, HistoryEntry, UserKey, Users};

use crate::{
    at,
    made::{change, device, key, user},
    tenant,
};

pub use devices::*;

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

/// The user, by `get`, by `lookup` and by `preferences`.
async fn look(users: &dyn Users, key: &UserKey) -> Option<User> {
    let read = users.get(key).await.expect("get");
    let found = users.lookup(std::slice::from_ref(key)).await.expect("lookup");
    assert_eq!(found, std::slice::from_ref(&read), "the same by lookup");
    let wanted = users.preferences(std::slice::from_ref(key)).await.expect("preferences");
    assert_eq!(wanted, [read.as_ref().map(|user| user.preferences.clone())], "and so are their preferences");
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
    let known = users.preferences(&wanted).await.expect("preferences");
    assert_eq!(
        known.iter().map(Option::is_some).collect::<Vec<_>>(),
        asked.iter().map(|i| there(*i)).collect::<Vec<_>>()
    );
    assert_eq!(users.preferences(&[]).await.expect("preferences"), []);
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
