//! Users and their preferences.

use serde_json::json;

use crate::api::{ACME, Api, GLOBEX};

#[tokio::test]
async fn a_user_from_the_first_to_the_last_call() {
    let api = Api::start().await;
    api.get("/v1/users/ana", ACME).await.refused(404, "PUT /v1/users/{user}");
    let user = json!({"locale": "de-CH", "time_zone": "Europe/Zurich",
        "contacts": {"webhook": ["https://example.com/secret-path", "https://other.example/?token=1"]}});
    let written = api.put("/v1/users/ana", ACME, &user).await.ok(200);
    assert_eq!(written["contacts"], json!({"webhook": ["https://example.com/…", "https://other.example/…"]}));
    let read = api.get("/v1/users/ana", ACME).await.ok(200);
    assert_eq!(read, written);
    assert_eq!(
        (&read["id"], &read["locale"], &read["time_zone"]),
        (&json!("ana"), &json!("de-CH"), &json!("Europe/Zurich"))
    );

    api.get("/v1/users/ana", GLOBEX).await.problem(404);
    api.call("DELETE", "/v1/users/ana", GLOBEX, "").await.problem(404);
    api.put("/v1/users/ana/preferences", GLOBEX, &json!({"all": false})).await.problem(404);

    let rules = json!({"channels": {"sms": false}, "categories": {"orders": {"all": false}}});
    assert_eq!(api.put("/v1/users/ana/preferences", ACME, &rules).await.ok(200), rules);
    assert_eq!(api.get("/v1/users/ana/preferences", ACME).await.ok(200), rules);
    api.put("/v1/users/ana", ACME, &json!({})).await.ok(200);
    assert_eq!(api.get("/v1/users/ana/preferences", ACME).await.ok(200), rules, "contacts and rules are apart");
    assert_eq!(api.get("/v1/users/ana", ACME).await.ok(200)["contacts"], json!({}));

    assert_eq!(api.call("DELETE", "/v1/users/ana", ACME, "").await.status, 204);
    api.get("/v1/users/ana", ACME).await.problem(404);
    api.call("DELETE", "/v1/users/ana", ACME, "").await.problem(404);
    api.put("/v1/users/ana/preferences", ACME, &rules).await.problem(404);
    let history = api.get("/v1/users/ana/preferences/history", ACME).await.ok(200);
    assert!(!history["items"].as_array().unwrap().is_empty(), "the evidence outlives the user: {history}");
    api.get("/v1/users/nobody/preferences/history", ACME).await.problem(404);
}

#[tokio::test]
async fn preferences_are_patched_and_every_change_is_kept() {
    let api = Api::start().await;
    api.put("/v1/users/ana", ACME, &json!({})).await.ok(200);
    api.put("/v1/users/ana/preferences", ACME, &json!({"all": true, "channels": {"sms": false, "chat": true}}))
        .await
        .ok(200);
    let patch =
        json!({"all": null, "channels": {"sms": null}, "categories": {"orders": {"channels": {"webhook": false}}}});
    let patched = api.call("PATCH", "/v1/users/ana/preferences", ACME, patch.to_string()).await.ok(200);
    let expected = json!({"channels": {"chat": true}, "categories": {"orders": {"channels": {"webhook": false}}}});
    assert_eq!(patched, expected);

    let bad = json!({"channels": {"pigeon": true}, "quiet_hours": [{"from": "22:00"}], "caps": {}, "al": true});
    for method in ["PUT", "PATCH"] {
        let answer = api.call(method, "/v1/users/ana/preferences", ACME, bad.to_string()).await;
        let mut errors = answer.problem(400);
        errors.sort_unstable();
        let pointers: Vec<_> = errors.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/al", "/caps", "/channels/pigeon", "/quiet_hours"]);
        assert!(errors[3].1.contains("`quiet_hours` is not yet built in this version"), "{}", answer.body);
        assert!(errors[0].1.contains("did you mean `all`"), "{}", answer.body);
    }
    for (bad, pointer) in
        [(json!({"all": 7}), "/all"), (json!([]), ""), (json!({"categories": {"A b": {}}}), "/categories")]
    {
        let answer = api.put("/v1/users/ana/preferences", ACME, &bad).await;
        assert!(answer.problem(400)[0].0.starts_with(pointer), "{}", answer.body);
    }
    assert_eq!(api.get("/v1/users/ana/preferences", ACME).await.ok(200), expected, "what is refused changes nothing");

    let history = api.get("/v1/users/ana/preferences/history", ACME).await.ok(200);
    assert_eq!((&history["items"][0]["preferences"], &history["items"][0]["by"]), (&expected, &json!("main")));
    assert!(history["items"][0]["from"].as_str().unwrap().starts_with("http"));
    let one = api.get("/v1/users/ana/preferences/history?limit=1", ACME).await.ok(200);
    assert_eq!(one["items"].as_array().map(Vec::len), Some(1));
    let answer = api.get("/v1/users/ana/preferences/history?limit=0", ACME).await;
    assert_eq!(answer.problem(400)[0].0, "/limit");
}

#[tokio::test]
async fn concurrent_patches_lose_nothing() {
    let api = Api::start().await;
    api.put("/v1/users/ana", ACME, &json!({})).await.ok(200);
    let patches = (0..20).map(|i| {
        let patch = json!({"categories": {format!("c{i}"): {"all": false}}}).to_string();
        api.call("PATCH", "/v1/users/ana/preferences", ACME, patch)
    });
    for answer in futures::future::join_all(patches).await {
        answer.ok(200);
    }
    let all = api.get("/v1/users/ana/preferences", ACME).await.ok(200);
    assert_eq!(all["categories"].as_object().map(serde_json::Map::len), Some(20));
}

#[tokio::test]
async fn bad_users_are_refused_field_by_field() {
    let api = Api::start().await;
    let many: Vec<_> = (0..6).map(|i| format!("https://a.example/{i}")).collect();
    for (body, pointer, says) in [
        (json!({"locale": "german!"}), "/locale", "de-CH"),
        (json!({"time_zone": "Mars/Base"}), "/time_zone", "Europe/Zurich"),
        (json!({"contacts": {"sms": ["+1"]}}), "/contacts/sms", "not yet built"),
        (json!({"contacts": {"email": ["a@b.cd\r\nBcc: x@y.zz"]}}), "/contacts/email/0", "like ana@example.com"),
        (json!({"contacts": {"apns": ["c0ff"]}}), "/contacts/apns", "POST /v1/users/{user}/devices"),
        (json!({"contacts": {"pigeon": []}}), "/contacts/pigeon", "no channel or type"),
        (json!({"contacts": {"webhook": "https://a.example/"}}), "/contacts/webhook", "expected a sequence"),
        (json!({"contacts": {"webhook": ["ftp://a.example/"]}}), "/contacts/webhook/0", "https://"),
        (json!({"contacts": {"webhook": many}}), "/contacts/webhook", "at most 5"),
        (json!({"contact": {}}), "/contact", "did you mean `contacts`"),
    ] {
        let answer = api.put("/v1/users/ana", ACME, &body).await;
        let [(at, detail)] = answer.problem(400).try_into().expect("one problem");
        assert!(at == pointer && detail.contains(says), "{}", answer.body);
    }
    api.put("/v1/users/a%20b", ACME, &json!({})).await.refused(400, "1 to 128 characters");
    api.get("/v1/users/a%20b", ACME).await.problem(404);
    api.get("/v1/users/ana", ACME).await.problem(404);
}
