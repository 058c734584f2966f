//! What happens before any handler: keys, scopes, bodies, limits, paths.

use std::time::Duration;

use axum::body::{Body, Bytes};
use serde_json::{Value, json};

use crate::api::{ACME, Api, GLOBEX, OPERATOR, notification, options, request};

#[tokio::test]
async fn bodies_that_cannot_be_read_say_why() {
    let api = Api::start().await;
    let send = async |name: &'static str, value: &'static str, body: Body| {
        let mut request = request("POST", "/v1/notifications", ACME, body);
        request.headers_mut().insert(name, value.parse().unwrap());
        api.send(request).await
    };
    let good = || Body::from(notification().to_string());
    send("content-type", "text/plain", good()).await.refused(415, "Content-Type: application/json");
    send("content-encoding", "gzip", good()).await.refused(415, "Content-Encoding");
    send("content-length", "1048577", good()).await.refused(413, "at most 1 MiB");
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 * 1024])));
    let endless = Body::from_stream(futures::stream::iter(chunks));
    send("x-length", "unknown", endless).await.refused(413, "at most 1 MiB");
    let broken = futures::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("reset"))]);
    send("x-broken", "yes", Body::from_stream(broken)).await.refused(400, "broke off");
    let answer = send("idempotency-key", "\"17\"", good()).await;
    answer.refused(400, "`Idempotency-Key` is not yet built in this version");

    let mut bare = request("POST", "/v1/notifications", ACME, good());
    bare.headers_mut().remove("content-type");
    api.send(bare).await.refused(415, "Content-Type: application/json");
    let deep = format!(r#"{{"content": {}"#, r#"{"a":"#.repeat(100_000));
    for (body, says) in [
        (r#"{"to": [}"#, "malformed JSON: expected value at line 1 column 9"),
        ("{\n  \"to\": \"", "line 2 column 9"),
        ("", "EOF while parsing"),
        (r#"{"to": [{"user": "a\u0000b"}]}"#, "NUL"),
        (r#"{"to": [{"user": "\ud800"}]}"#, "malformed JSON: unexpected end of hex escape"),
        (&deep, "recursion limit"),
        (r#"{"data": 1e400}"#, "number out of range"),
        ("\"text\"", "expected struct"),
    ] {
        let answer = api.call("POST", "/v1/notifications", ACME, body.to_owned()).await;
        assert_eq!(answer.problem(400)[0].0, "", "{}", answer.body);
        answer.refused(400, says);
    }
    let utf8 = api.call("POST", "/v1/notifications", ACME, vec![b'{', b'"', 0xff, b'"', b'}']).await;
    utf8.refused(400, "malformed JSON");
    assert_eq!(api.published().await, 0, "nothing of a refused request is on the log");
}

#[tokio::test]
async fn several_problems_come_together() {
    let api = Api::start().await;
    let body = json!({"to": [{"user": "a b"}, {"channel": "webhook", "address": "nope"}], "priority": 11,
        "category": "ordrs", "chanels": [], "send_at": "2026-12-01T08:00:00Z", "expires_at": "2020-01-01T00:00:00Z"});
    let mut request = request("POST", "/v1/notifications", ACME, body.to_string());
    request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
    let answer = api.send(request).await;
    let mut pointers: Vec<_> = answer.problem(400).into_iter().map(|(pointer, _)| pointer).collect();
    pointers.sort_unstable();
    let all = [
        "",
        "/category",
        "/chanels",
        "/content",
        "/expires_at",
        "/priority",
        "/send_at",
        "/to/0/user",
        "/to/1/address",
    ];
    assert_eq!(pointers, all, "{}", answer.body);
    answer.refused(400, "9 fields are wrong");
}

#[tokio::test]
async fn a_key_is_asked_for_before_anything_is_read() {
    let api = Api::start().await;
    let over = || vec![b'x'; 2 * 1024 * 1024];
    for value in ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer unknown-key", "Bearer \u{e9}"] {
        let mut request = request("POST", "/v1/notifications", ACME, over());
        request.headers_mut().insert("authorization", value.as_bytes().try_into().unwrap());
        let answer = api.send(request).await;
        answer.problem(401);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    let mut twice = request("POST", "/v1/notifications", ACME, over());
    twice.headers_mut().append("authorization", format!("Bearer {ACME}").parse().unwrap());
    api.send(twice).await.refused(401, "one header");
    let mut lower = request("GET", "/v1/deliveries", ACME, Body::empty());
    lower.headers_mut().insert("authorization", format!("bearer {ACME}").parse().unwrap());
    api.send(lower).await.ok(200);

    let key = json!({"key": "a-key-to-be-revoked-0123", "scopes": ["notifications:write"]});
    api.put("/v1/config/keys/old", ACME, &key).await.ok(200);
    api.call("POST", "/v1/notifications", "a-key-to-be-revoked-0123", notification().to_string()).await.ok(202);
    let mut kept = api.get("/v1/config/keys/old", ACME).await.ok(200);
    kept["revoked"] = json!(true);
    api.put("/v1/config/keys/old", ACME, &kept).await.ok(200);
    let answer = api.call("POST", "/v1/notifications", "a-key-to-be-revoked-0123", over()).await;
    answer.refused(401, "the key `old` was revoked");
}

#[tokio::test]
async fn every_call_names_the_scope_that_it_lacks() {
    let api = Api::start().await;
    let calls = [
        ("POST", "/v1/notifications", "notifications:write"),
        ("POST", "/v1/notifications/batch", "notifications:write"),
        ("GET", "/v1/notifications/018f0000-0000-7000-8000-000000000000", "notifications:read"),
        ("GET", "/v1/deliveries", "notifications:read"),
        ("PUT", "/v1/users/ana", "users:write"),
        ("GET", "/v1/users/ana", "users:read"),
        ("DELETE", "/v1/users/ana", "users:write"),
        ("GET", "/v1/users/ana/preferences", "users:read"),
        ("PUT", "/v1/users/ana/preferences", "users:write"),
        ("PATCH", "/v1/users/ana/preferences", "users:write"),
        ("GET", "/v1/users/ana/preferences/history", "users:read"),
        ("POST", "/v1/users/ana/devices", "users:write"),
        ("GET", "/v1/users/ana/devices", "users:read"),
        ("DELETE", "/v1/users/ana/devices/x", "users:write"),
        ("GET", "/v1/templates", "operator"),
        ("GET", "/v1/templates/t", "operator"),
        ("PUT", "/v1/templates/t", "operator"),
        ("DELETE", "/v1/templates/t", "operator"),
        ("GET", "/v1/templates/t/versions/1", "operator"),
        ("POST", "/v1/templates/t/publish", "operator"),
        ("POST", "/v1/templates/t/preview", "operator"),
        ("GET", "/v1/config/keys", "operator"),
        ("GET", "/v1/config/keys/main", "operator"),
        ("PUT", "/v1/config/keys/main", "operator"),
        ("DELETE", "/v1/config/keys/main", "operator"),
    ];
    let scopes = ["notifications:write", "notifications:read", "users:write", "users:read", "operator"];
    for needed in scopes {
        let others: Vec<_> = scopes.iter().filter(|s| **s != needed).collect();
        let key = format!("all-but-one-{needed}-0123456789");
        let name = needed.replace(':', "-");
        api.put(&format!("/v1/config/keys/{name}"), ACME, &json!({"key": key, "scopes": others})).await.ok(200);
        for (method, path, _) in calls.iter().filter(|(_, _, scope)| *scope == needed) {
            // a body that would be refused as too large, were it read
            let answer = api.call(method, path, &key, vec![b'x'; 2 * 1024 * 1024]).await;
            answer.refused(403, &format!("`{needed}`"));
        }
    }
    api.call("POST", "/v1/notifications", OPERATOR, notification().to_string()).await.problem(403);
}

#[tokio::test]
async fn paths_that_are_not_served_say_so() {
    let api = Api::start().await;
    for (path, feature) in [
        ("/v1/topics/match-7/subscribers/ana", "topics"),
        ("/v1/campaigns", "campaigns"),
        ("/v1/inbox/ana/messages/7", "inbox"),
        ("/v1/notifications/018f0000-0000-7000-8000-000000000000/acknowledge", "acknowledging"),
        ("/v1/receipts/twilio/main", "receipts"),
        ("/v1/sources/grafana/main", "Grafana"),
    ] {
        let answer = api.call("POST", path, ACME, "{}").await;
        answer.refused(501, feature);
        answer.refused(501, "not yet built in this version");
        api.call("POST", path, "no-key", "{}").await.problem(401);
    }
    api.call("DELETE", "/v1/notifications/x", ACME, "").await.refused(501, "cancelling");
    api.get("/v1/config/switches/x", ACME).await.refused(501, "not yet built");
    api.get("/v1/nothing", ACME).await.refused(404, "/openapi.json");
    api.get("/", ACME).await.refused(404, "/openapi.json");
    let answer = api.call("PUT", "/v1/notifications", ACME, "{}").await;
    answer.refused(405, "Allow");
    assert_eq!(answer.headers["allow"], "POST");
    api.call("FOO", "/v1/users/ana", ACME, "{}").await.problem(405);
    api.get("/v1/users/%ff", ACME).await.problem(400);
    let mut insane = request("GET", "/v1/deliveries", ACME, Body::empty());
    insane.headers_mut().insert("x-request-id", "with spaces".parse().unwrap());
    let made = api.send(insane).await.headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 36, "an insane id is replaced: {made}");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let api = Api::start().await;
    let document = api.get("/openapi.json", "no-key").await.ok(200);
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            let path: Vec<_> = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
            let path = path.join("/");
            let answer = api.call(&method.to_uppercase(), &path, "no-key", "{}").await;
            assert_eq!(answer.status, 401, "{method} {path} is described, so it is there");
        }
    }
    let described = ["/v1/notifications", "/v1/deliveries", "/v1/users/{user}/devices", "/v1/templates/{key}/publish"];
    assert!(described.iter().all(|path| paths.contains_key(*path)), "{:?}", paths.keys());
}

#[tokio::test]
async fn what_is_at_work_is_bounded() {
    let api = Api::with(options()).await;
    let mut options = options();
    options.in_flight = 1;
    options.publishing_mib = 1;
    options.request_timeout = Duration::from_millis(200);
    let narrow = |api: Api, config: bus::Config| {
        let log = std::sync::Arc::new(api.log.clone());
        let ingress = ingress::Ingress::new(log, api.topics.clone(), config, &api.stores, &options);
        Api { router: ingress::router(ingress), ..api }
    };
    let config = api.config.clone();
    let api = narrow(api, config);

    let big = json!({"default": {"title": "T", "body": "x".repeat(16_000)}});
    let to: Vec<Value> = (0..100).map(|i| json!({"user": format!("u{i}")})).collect();
    let body = json!({"to": to, "category": "orders", "content": big});
    api.post("/v1/notifications", &body).await.refused(413, "fewer recipients at a time");

    let never = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let (slow, second) = tokio::join!(
        api.call("POST", "/v1/notifications", ACME, never()),
        api.call("GET", "/v1/deliveries", GLOBEX, Body::empty())
    );
    slow.refused(408, "did not arrive in time");
    second.refused(503, "too many requests");
    assert_eq!(second.headers["retry-after"], "1");
    api.get("/v1/deliveries", ACME).await.ok(200);

    let unread = bus::Config::new(std::sync::Arc::new(api.log.clone()), &api.topics);
    let api = narrow(api, unread);
    for key in [ACME, OPERATOR] {
        let answer = api.get("/v1/config/tenants", key).await;
        answer.refused(503, "configuration is still being read");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert_eq!(api.published().await, 0);
}
