//! Devices: registered, refreshed, replaced, rebound, evicted, removed.

use domain::Channel;
use serde_json::{Value, json};

use crate::api::{ACME, Answer, Api, GLOBEX};

const PATH: &str = "/v1/users/ana/devices";

fn token(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn device(n: u8) -> Value {
    json!({"platform": "apns", "app": "com.example.app", "token": token(n)})
}

/// With users `ana` and `ben`.
async fn api() -> Api {
    let api = Api::start().await;
    for user in ["ana", "ben"] {
        api.put(&format!("/v1/users/{user}"), ACME, &json!({})).await.ok(200);
    }
    api
}

async fn register(api: &Api, path: &str, body: &Value) -> Answer {
    api.call("POST", path, ACME, body.to_string()).await
}

async fn ids(api: &Api, path: &str) -> Vec<String> {
    let list = api.get(path, ACME).await.ok(200);
    list["items"].as_array().expect("items").iter().map(|d| d["id"].as_str().expect("id").to_owned()).collect()
}

#[tokio::test]
async fn a_device_is_registered_refreshed_and_removed() {
    let api = api().await;
    let mut body = device(0xAB);
    body["locale"] = json!("de_ch");
    body["time_zone"] = json!("europe/zurich");
    body["environment"] = json!("sandbox");
    let first = register(&api, PATH, &body).await.ok(201);
    let id = first["id"].as_str().expect("id");
    assert_eq!(
        (&first["platform"], &first["app"], &first["token"], &first["environment"], &first["evicted"]),
        (&json!("apns"), &json!("com.example.app"), &json!("…abab"), &json!("sandbox"), &json!([]))
    );
    assert_eq!((&first["locale"], &first["time_zone"]), (&json!("de-CH"), &json!("Europe/Zurich")));

    // the same token again, written otherwise
    body["token"] = json!(token(0xAB).to_uppercase());
    body["locale"] = json!("fr");
    body["environment"] = Value::Null;
    let again = register(&api, PATH, &body).await.ok(200);
    assert_eq!((&again["id"], &again["registered_at"]), (&first["id"], &first["registered_at"]));
    assert_eq!((&again["locale"], &again["environment"]), (&json!("fr"), &json!("production")));
    assert!(again["last_active_at"].as_str() > first["last_active_at"].as_str(), "{again}");
    let list = api.get(PATH, ACME).await.ok(200);
    assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["locale"]), (Some(1), &json!("fr")));
    assert!(!list.to_string().contains(&token(0xAB)), "a token is never shown");
    let key = store::UserKey {
        tenant: domain::TenantId::parse("acme").unwrap(),
        user: domain::UserId::parse("ana").unwrap(),
    };
    let kept = api.stores.users.lookup(&[key]).await.unwrap().remove(0).expect("ana");
    let [(target, locale)] = kept.targets(Channel::Apns).try_into().expect("one target");
    assert_eq!((target.address.expose(), locale.map(|l| l.as_str())), (token(0xAB).as_str(), Some("fr")));

    // writing the user leaves devices alone
    api.put("/v1/users/ana", ACME, &json!({"locale": "it"})).await.ok(200);
    assert_eq!(ids(&api, PATH).await, [id]);
    let path = format!("{PATH}/{id}");
    for (path, key) in [(path.as_str(), GLOBEX), (&path.replace("ana", "ben"), ACME), (&format!("{PATH}/x"), ACME)] {
        api.call("DELETE", path, key, "").await.problem(404);
    }
    assert_eq!(api.call("DELETE", &path, ACME, "").await.status, 204);
    api.call("DELETE", &path, ACME, "").await.refused(404, "no such device");
    assert_eq!(ids(&api, PATH).await, [""; 0]);
    register(&api, PATH, &device(0xAB)).await.ok(201);
    assert_eq!(api.call("DELETE", "/v1/users/ana", ACME, "").await.status, 204);
    api.get(PATH, ACME).await.problem(404);
    api.put("/v1/users/ana", ACME, &json!({})).await.ok(200);
    assert_eq!(ids(&api, PATH).await, [""; 0], "devices go with their user");
}

#[tokio::test]
async fn devices_make_room_are_replaced_and_change_hands() {
    let api = api().await;
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(register(&api, PATH, &device(n)).await.ok(201)["id"].as_str().expect("id").to_owned());
    }
    register(&api, PATH, &device(0)).await.ok(200);
    let sixth = register(&api, PATH, &device(5)).await.ok(201);
    assert_eq!(sixth["evicted"], json!([all[1]]), "the least recently active one, not the oldest");
    let sixth = sixth["id"].as_str().expect("id");
    assert_eq!(ids(&api, PATH).await, [sixth, &all[0], &all[4], &all[3], &all[2]], "the most recently active first");

    // twice, as a client repeats what it got no answer to
    let mut replacing = device(6);
    replacing["replaces"] = json!(all[2]);
    let seventh = register(&api, PATH, &replacing).await.ok(201);
    assert_eq!(seventh["evicted"], json!([]), "it takes the place of the other");
    register(&api, PATH, &replacing).await.ok(200);
    let left = ids(&api, PATH).await;
    assert!(left.len() == 5 && !left.contains(&all[2]), "{left:?}");

    let moved = register(&api, "/v1/users/ben/devices", &device(6)).await.ok(201);
    assert_eq!(moved["id"], seventh["id"]);
    assert_eq!(ids(&api, "/v1/users/ben/devices").await.len(), 1);
    assert!(!ids(&api, PATH).await.contains(&moved["id"].as_str().unwrap().to_owned()), "a token is one user's");

    // the same token of another tenant is another device
    api.put("/v1/users/ana", GLOBEX, &json!({})).await.ok(200);
    let other = api.call("POST", PATH, GLOBEX, device(6).to_string()).await.ok(201);
    assert_ne!(other["id"], seventh["id"]);
    assert_eq!(ids(&api, "/v1/users/ben/devices").await.len(), 1);
}

#[tokio::test]
async fn many_registrations_at_once_leave_five() {
    let api = api().await;
    let bodies: Vec<_> = (0..12).map(device).collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| register(&api, PATH, body))).await;
    let mut evicted = 0;
    for answer in answers {
        match answer.status.as_u16() {
            201 => evicted += answer.body["evicted"].as_array().map_or(0, Vec::len),
            // it had to make room before it could be confirmed
            _ => answer.refused(409, "send it again"),
        }
    }
    assert_eq!(ids(&api, PATH).await.len(), 5);
    assert!(evicted <= 7, "{evicted}");
}

#[tokio::test]
async fn bad_devices_are_refused_field_by_field() {
    let api = api().await;
    let long = "ab".repeat(101);
    for (field, value, pointer, says) in [
        ("platform", json!("fcm"), "/platform", "`fcm` is not yet built in this version; use apns"),
        ("platform", json!("webpush"), "/platform", "not yet built"),
        ("platform", json!("email"), "/platform", "`email` is unknown; there are apns"),
        ("platform", json!("apn"), "/platform", "did you mean `apns`"),
        ("platform", Value::Null, "/platform", "is missing"),
        ("app", Value::Null, "/app", "is missing"),
        ("app", json!("com.example/../x"), "/app", "a bundle id like com.example.app"),
        ("app", json!("com.example\r\napns-priority: 10"), "/app", "a bundle id"),
        ("app", json!("a".repeat(156)), "/app", "a bundle id"),
        ("app", json!(""), "/app", "a bundle id"),
        ("token", Value::Null, "/token", "is missing"),
        ("token", json!("not hexadecimal"), "/token", "hexadecimal"),
        ("token", json!("../../3/device/c0ff"), "/token", "hexadecimal"),
        ("token", json!("c0ff\r\nauthorization: x"), "/token", "hexadecimal"),
        ("token", json!("c0f"), "/token", "an even number"),
        ("token", json!(""), "/token", "2 to 200"),
        ("token", json!(long), "/token", "2 to 200"),
        ("token", json!(["c0ff"]), "/token", "expected a string"),
        ("locale", json!("german"), "/locale", "like de, de-CH"),
        ("time_zone", json!("Mars/Base"), "/time_zone", "Europe/Zurich"),
        ("environment", json!("prod"), "/environment", "production, sandbox"),
        ("replaces", json!("x"), "/replaces", "UUID"),
        ("subscription", json!({}), "/subscription", "not yet built"),
        ("tokn", json!("x"), "/tokn", "did you mean `token`"),
    ] {
        let mut body = device(1);
        body[field] = value;
        let answer = register(&api, PATH, &body).await;
        let [(at, detail)] = answer.problem(400).try_into().expect("one problem");
        assert!(at == pointer && detail.contains(says), "{}", answer.body);
    }
    let answer = register(&api, PATH, &json!({"platform": "apns"})).await;
    assert_eq!(answer.problem(400).len(), 2, "all that is wrong at once: {}", answer.body);
    assert_eq!(ids(&api, PATH).await, [""; 0]);
    register(&api, "/v1/users/nobody/devices", &device(1)).await.refused(404, "PUT /v1/users/{user}");
    api.get("/v1/users/nobody/devices", ACME).await.problem(404);
    api.call("POST", PATH, GLOBEX, device(1).to_string()).await.problem(404);
}
