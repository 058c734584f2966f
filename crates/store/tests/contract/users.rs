//! What every `Users` does.

use std::collections::BTreeMap;

use domain::{Address, Channel, Contacts, Preferences, TenantId, Timestamp, User, UserId};
use futures::future::join_all;
use store::{Change, HistoryEntry, UserKey, Users};

use crate::{at, tenant};

fn key(tenant: &TenantId, user: &str) -> UserKey {
    UserKey { tenant: tenant.clone(), user: UserId::parse(user).expect("a user id") }
}

fn user(key: &UserKey, locale: &str) -> User {
    User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: Some(locale.into()),
        time_zone: None,
        contacts: Contacts::default(),
        preferences: Preferences::default(),
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn change(step: i64) -> Change {
    Change { by: "ops \"ключ\" 🔑".into(), from: "http 192.0.2.7".into(), at: at(step) }
}

fn preferences(json: &str) -> Preferences {
    serde_json::from_str(json).expect("preferences")
}

async fn locale(users: &dyn Users, key: &UserKey) -> Option<String> {
    let read = users.get(key).await.expect("get");
    let found = users.lookup(std::slice::from_ref(key)).await.expect("lookup");
    assert_eq!(found, std::slice::from_ref(&read), "the same by lookup");
    read.and_then(|u| u.locale)
}

pub async fn a_user_comes_back_whole(users: &dyn Users) {
    let key = key(&tenant(), "ana+test@example.com");
    assert_eq!(users.get(&key).await.expect("get"), None);
    let mut contacts = Contacts::default();
    for url in
        ["https://b.example/", "https://a.example/höre?x=%22'--\\&y=ü#".trim_end_matches('#'), "http://[::1]:8080/"]
    {
        contacts.add(Channel::Webhook, Address::parse(Channel::Webhook, url).expect("an address"));
    }
    let whole = User {
        time_zone: Some("America/Argentina/Buenos_Aires".into()),
        contacts,
        preferences: preferences(
            r#"{"all": false, "channels": {"webhook": true, "sms": false},
                "categories": {"orders": {"all": true, "channels": {"chat": false}}, "news_2-x": {"all": false}, "bare": {}}}"#,
        ),
        ..user(&key, "sr-Latn-RS")
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
        assert_eq!(locale(users, &key).await.as_deref(), Some(winner), "after a write at {step}");
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
    assert_eq!(locale(users, &key).await.as_deref(), Some("30"));
    users.delete(&key, &change(70)).await.expect("delete");
    users.put(&user(&key, "late"), &change(65)).await.expect("put");
    assert_eq!(locale(users, &key).await, None);
}

pub async fn of_two_writes_at_the_same_time_the_later_call_wins(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    for locale_now in ["m", "z", "a"] {
        users.put(&user(&key, locale_now), &change(1)).await.expect("put");
        assert_eq!(locale(users, &key).await.as_deref(), Some(locale_now));
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
    assert_eq!(locale(users, &key).await.as_deref(), Some("fr"));
    assert_eq!(users.get(&key).await.expect("get").expect("there").preferences, first.preferences);
}

pub async fn a_change_of_one_half_never_hides_a_change_of_the_other(users: &dyn Users) {
    let key = key(&tenant(), "ana");
    users.put(&user(&key, "de"), &change(10)).await.expect("put");
    let wish = preferences(r#"{"all": false}"#);
    assert!(users.put_preferences(&key, &wish, &change(30)).await.expect("put_preferences"));
    users.put(&user(&key, "fr"), &change(20)).await.expect("put");
    let read = users.get(&key).await.expect("get").expect("there");
    assert_eq!((read.locale.as_deref(), &read.preferences), (Some("fr"), &wish));
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
    assert_eq!(locale(users, &key).await, None);
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
    let found: Vec<_> = found.into_iter().map(|u| u.map(|u| (u.id.to_string(), u.locale))).collect();
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
        assert_eq!(look().await.and_then(|u| u.locale), Some(step.to_string()));
        let wish = Preferences { all: Some(step % 2 == 0), ..Preferences::default() };
        users.put_preferences(&key, &wish, &change(step + 1)).await.expect("put_preferences");
        assert_eq!(look().await.map(|u| u.preferences), Some(wish));
        if step % 4 == 0 {
            assert!(users.delete(&key, &change(step + 2)).await.expect("delete"));
            assert_eq!(look().await, None);
        }
    }
}

pub async fn tenants_and_odd_ids_stay_apart(users: &dyn Users) {
    let (ours, theirs) = (tenant(), tenant());
    let longest = "x".repeat(128);
    let ids = ["a", "A", "a:b", "a.b", "a~b", "a@b", "a+b", "a-b", "a_b", ":", "~", longest.as_str()];
    for id in ids {
        users.put(&user(&key(&ours, id), id), &change(1)).await.expect("put");
    }
    for id in ids {
        assert_eq!(locale(users, &key(&ours, id)).await.as_deref(), Some(id));
        assert_eq!(locale(users, &key(&theirs, id)).await, None);
    }
    assert!(!users.delete(&key(&theirs, "a"), &change(2)).await.expect("delete"));
    assert!(users.delete(&key(&ours, "a"), &change(2)).await.expect("delete"));
    assert_eq!(locale(users, &key(&ours, "A")).await.as_deref(), Some("A"));
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
        assert_eq!(locale(users, &key).await.as_deref(), Some("20"));
        let read = users.get(&key).await.expect("get").expect("there");
        assert!(read.preferences.channels["sms"], "the wish of step 19");
        assert_eq!(read.updated_at, at(20));
        assert_eq!(users.history(&key, 100).await.expect("history").len(), 10);
    }
}

pub async fn ping(users: &dyn Users) {
    users.ping().await.expect("it answers");
}
