//! The fake APNs over its port, as a client of any make would meet it: each row of the README's table.

mod client;

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use client::{Answer, Client, DEADLINE, PAYLOAD, finish, provider_token, tls};
use domain::Secret;
use jiff::Timestamp;
use sandbox::{Running, Sandbox, SandboxSettings};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

const ID: &str = "eabeae54-14a8-11e5-b60b-1697f925ec7b";

fn settings() -> SandboxSettings {
    SandboxSettings::local(Secret::new(format!("whsec_{}", BASE64_STANDARD.encode([5; 32]))))
}

async fn start() -> Running {
    Sandbox::start(settings()).await.expect("started")
}

/// A device whose token says what happens.
fn device(code: &str) -> String {
    format!("{code:0<64}")
}

fn reset(result: Result<Answer, h2::Error>) -> Option<h2::Reason> {
    let error = result.expect_err("no answer");
    if error.is_reset() && error.is_remote() { error.reason() } else { None }
}

async fn put(running: &Running, rule: Value) {
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let body = json!({"channel": "apns", "rule": rule}).to_string();
    let put = client.put(format!("http://{}/behaviour", running.control)).body(body).send();
    put.await.expect("answered").error_for_status().expect("a valid rule");
}

#[tokio::test]
async fn a_push_is_taken_echoed_and_recorded_without_what_lets_others_send() {
    let running = start().await;
    let mut client = Client::connect(&running.apns_account()).await;
    let taken = client.push_as(&ID.to_uppercase(), &device("0200")).await.expect("answered");
    assert_eq!((taken.status, taken.body.as_str(), taken.header("apns-id")), (200, "", ID));
    assert_eq!(taken.header("apns-unique-id").len(), 36);
    let made = client.push("ABcd").await.expect("answered");
    assert_eq!((made.status, made.header("apns-id").len()), (200, 36));
    client.token = None;
    assert_eq!(client.push("abcd").await.expect("answered").reason(), "MissingProviderToken");

    let got = running.received("/3/device/").expect("records");
    assert_eq!(got.len(), 3);
    let first = &got[0];
    assert_eq!((first.channel.as_str(), first.id.as_deref(), first.answered), ("apns", Some(ID), Some(200)));
    assert_eq!((first.path.clone(), first.body.as_str()), (format!("/3/device/{}", device("0200")), PAYLOAD));
    assert!(first.verified && first.connection == 1 && first.headers["apns-topic"] == "com.example.app", "{first:?}");
    let authorization = &first.headers["authorization"];
    assert!(authorization.starts_with("bearer ey") && authorization.ends_with(".…"), "{authorization}");
    assert_eq!((got[2].verified, got[2].problem.as_deref()), (false, Some("MissingProviderToken")));

    let of = async |channel: &str| -> Value {
        let url = format!("http://{}/received?channel={channel}", running.control);
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        client.get(url).send().await.expect("answered").json().await.expect("JSON")
    };
    assert_eq!((&of("apns").await["count"], &of("webhook").await["count"]), (&json!(3), &json!(0)));
    running.shutdown().await;
}

#[tokio::test]
async fn a_device_token_says_what_is_answered() {
    let running = start().await;
    let mut client = Client::connect(&running.apns_account()).await;
    for (code, expected) in [
        ("0200", vec![(200, "")]),
        ("0400", vec![(400, "BadDeviceToken")]),
        ("0401", vec![(400, "DeviceTokenNotForTopic")]),
        ("0402", vec![(400, "TopicDisallowed")]),
        ("0403", vec![(403, "ExpiredProviderToken"), (200, ""), (200, "")]),
        ("0404", vec![(404, "BadPath")]),
        ("0405", vec![(405, "MethodNotAllowed")]),
        ("0406", vec![(403, "InvalidProviderToken")]),
        ("0407", vec![(403, "BadEnvironmentKeyIdInToken")]),
        ("0408", vec![(403, "BadCertificateEnvironment")]),
        ("0409", vec![(403, "Forbidden")]),
        ("040a", vec![(403, "UnrelatedKeyIdInToken")]),
        ("040b", vec![(400, "IdleTimeout")]),
        ("040c", vec![(403, "ExpiredProviderToken"), (403, "ExpiredProviderToken")]),
        ("0410", vec![(410, "Unregistered")]),
        ("0411", vec![(410, "Unregistered")]),
        ("0412", vec![(410, "ExpiredToken")]),
        ("0413", vec![(413, "PayloadTooLarge")]),
        ("0429", vec![(429, "TooManyRequests"), (429, "TooManyRequests")]),
        ("042a", vec![(429, "TooManyProviderTokenUpdates")]),
        ("042e", vec![(429, "TooManyRequests"), (200, "")]),
        ("0500", vec![(500, "InternalServerError")]),
        ("0503", vec![(503, "ServiceUnavailable"), (503, "ServiceUnavailable")]),
        ("05f2", vec![(503, "ServiceUnavailable"), (503, "ServiceUnavailable"), (200, ""), (200, "")]),
        ("0650", vec![(400, "AReasonThatIsNew")]),
        ("0653", vec![(410, "Unregistered")]),
        ("beef", vec![(200, "")]),
    ] {
        let id = uuid::Uuid::new_v4().to_string();
        for (status, reason) in expected {
            let answer = client.push_as(&id, &device(code)).await.expect("answered");
            let got = if answer.body.is_empty() { String::new() } else { answer.reason() };
            assert_eq!(
                (answer.status, got.as_str(), answer.header("apns-id")),
                (status, reason, id.as_str()),
                "{code}"
            );
        }
    }
    let gone = async |client: &mut Client, code: &str| -> Value {
        let answer = client.push(&device(code)).await.expect("answered");
        serde_json::from_str::<Value>(&answer.body).expect("JSON")["timestamp"].clone()
    };
    let now = Timestamp::now().as_millisecond();
    assert!((now..now + 20_000).contains(&gone(&mut client, "0410").await.as_i64().expect("milliseconds")));
    assert_eq!(gone(&mut client, "0411").await, json!(1_600_000_000_000_i64));
    assert_eq!(gone(&mut client, "0653").await, Value::Null);
    let html = client.push(&device("0651")).await.expect("answered");
    assert_eq!((html.status, html.header("content-type"), &html.body[..6]), (502, "text/html", "<html>"));
    let empty = client.push(&device("0652")).await.expect("answered");
    assert_eq!((empty.status, empty.body.as_str()), (500, ""));
    assert!(client.push(&device("0654")).await.expect("answered").body.len() > 1024 * 1024);
    let asked = Instant::now();
    assert_eq!(client.push(&device("070000300")).await.expect("answered").status, 200);
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_request_is_checked_as_apple_does() {
    let running = start().await;
    let account = running.apns_account();
    let mut client = Client::connect(&account).await;
    let good = device("0200");
    let with = |client: &Client, name: &str, value: &str| client.request(&good).header(name, value);
    let long = "x".repeat(65);
    let large = format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(4077));
    let huge = format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(200_000));
    let cases = [
        (client.request(&good).method("GET"), PAYLOAD, 405, "MethodNotAllowed"),
        (client.request(""), PAYLOAD, 400, "MissingDeviceToken"),
        (client.request("00/00"), PAYLOAD, 404, "BadPath"),
        (client.request("not-hex-"), PAYLOAD, 400, "BadDeviceToken"),
        (with(&client, "apns-topic", "com.example.other"), PAYLOAD, 400, "DuplicateHeaders"),
        (with(&client, "apns-id", "1"), PAYLOAD, 400, "BadMessageId"),
        (with(&client, "apns-priority", "11"), PAYLOAD, 400, "BadPriority"),
        (with(&client, "apns-expiration", "never"), PAYLOAD, 400, "BadExpirationDate"),
        (with(&client, "apns-collapse-id", &long), PAYLOAD, 400, "BadCollapseId"),
        (with(&client, "apns-push-type", "shout"), PAYLOAD, 400, "InvalidPushType"),
        (with(&client, "apns-push-type", "voip"), PAYLOAD, 400, "TopicDisallowed"),
        (client.request(&good), "", 400, "PayloadEmpty"),
        (client.request(&good), &large[..], 413, "PayloadTooLarge"),
        (client.request(&good), &huge[..], 413, "PayloadTooLarge"),
    ];
    for (request, body, status, reason) in cases {
        let answer = client.ask(request, body).await.expect("answered");
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason));
    }
    assert_eq!(client.push(&good).await.expect("answered").status, 200);
    let refused = running.received("").expect("records").into_iter().filter(|r| !r.verified && r.problem.is_some());
    assert_eq!(refused.count(), 14);

    // one team and key per connection, and few tokens of it
    let second = running.second_apns_account();
    client.token = Some(provider_token(&second, 0));
    assert_eq!(client.push(&good).await.expect("answered").reason(), "UnrelatedKeyIdInToken");
    client.token = Some(provider_token(&account, 3700));
    assert_eq!(client.push(&good).await.expect("answered").reason(), "ExpiredProviderToken");
    for (age, expected) in [(2, 200), (3, 429)] {
        client.token = Some(provider_token(&account, age));
        assert_eq!(client.push(&good).await.expect("answered").status, expected);
    }
    assert_eq!(Client::connect(&second).await.push(&good).await.expect("answered").status, 200);
}

#[tokio::test]
async fn it_speaks_nothing_but_http2_over_tls_and_one_bad_client_harms_no_other() {
    let running = start().await;
    let account = running.apns_account();
    let mut good = Client::connect(&account).await;
    assert!(tls(&account, &["http/1.1"]).await.is_err());
    for (alpn, says) in [(&[][..], "GET / HTTP/1.1\r\n\r\n"), (&["h2"], "GET / HTTP/1.1\r\nhost: apns.example\r\n\r\n")]
    {
        let mut stream = tls(&account, alpn).await.expect("TLS");
        let _closed_before = stream.write_all(says.as_bytes()).await;
        let mut rest = Vec::new();
        let _or_reset = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("closed in time");
    }
    let stranger = start().await;
    let mut account_there = running.apns_certificate_account();
    account_there["base_url"] = stranger.apns_account()["base_url"].clone();
    assert!(tls(&account_there, &["h2"]).await.is_err(), "another CA is not trusted");
    assert_eq!(good.push(&device("0200")).await.expect("answered").status, 200);
}

#[tokio::test]
async fn a_connection_has_one_stream_until_a_valid_token_came() {
    let running = start().await;
    let account = running.apns_account();
    let mut client = Client::connect(&account).await;
    assert_eq!(client.send.current_max_send_streams(), 1);
    let token = client.token.take();
    assert_eq!(client.push(&device("0200")).await.expect("answered").status, 403);
    assert_eq!(client.send.current_max_send_streams(), 1);
    client.token = token;
    assert_eq!(client.push(&device("0200")).await.expect("answered").status, 200);
    client.streams(|n| n == 1000).await;

    // many at once, and fewer in the middle of them
    let slow = client.request(&device("070000500"));
    let mut open = vec![client.start(slow, PAYLOAD).await.expect("sent")];
    for _ in 0..20 {
        open.push(client.start(client.request(&device("070000500")), PAYLOAD).await.expect("sent"));
    }
    let shrinks = client.start(client.request(&device("0640")), PAYLOAD).await.expect("sent");
    assert_eq!(finish(shrinks).await.expect("answered").status, 200);
    client.streams(|n| n == 1).await;
    for answer in open {
        assert_eq!(finish(answer).await.expect("answered").status, 200);
    }
    assert_eq!(client.push(&device("0641")).await.expect("answered").status, 200);
    client.streams(|n| n == 1000).await;
    put(&running, json!({"max_streams": 7, "path": "/3/device/77"})).await;
    assert_eq!(client.push("77").await.expect("answered").status, 200);
    client.streams(|n| n == 7).await;

    let mut certified = Client::connect(&running.apns_certificate_account()).await;
    assert_eq!(certified.send.current_max_send_streams(), 1000);
    assert_eq!(certified.push(&device("0200")).await.expect("answered").status, 200);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let running = start().await;
    let stream = tls(&running.apns_account(), &["h2"]).await.expect("TLS");
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    // without a token, and before SETTINGS are read
    let mut client = Client { send, driver: tokio::spawn(async { Ok(()) }), token: None };
    let mut open = Vec::new();
    for _ in 0..3 {
        let (answer, mut body) =
            client.send.send_request(client.request("00").body(()).expect("a request"), false).expect("sent");
        open.push((answer, body.send_data("{".into(), false).map(|()| body).expect("sent")));
    }
    client.driver = tokio::spawn(connection);
    let mut open = open.into_iter();
    let (first, mut rest) = open.next().expect("one");
    for (answer, _) in open {
        assert_eq!(reset(finish(answer).await), Some(h2::Reason::REFUSED_STREAM));
    }
    rest.send_data("}".into(), true).expect("sent");
    assert_eq!(finish(first).await.expect("answered").status, 403);
}

#[tokio::test]
async fn goaway_says_what_was_not_processed_and_why() {
    let running = start().await;
    let account = running.apns_account();
    let mut client = Client::connect(&account).await;
    assert_eq!(client.push(&device("0200")).await.expect("answered").status, 200);
    client.streams(|n| n == 1000).await;
    let before = client.start(client.request(&device("070000400")), PAYLOAD).await.expect("sent");
    let trigger = client.start(client.request(&device("0600")).header("apns-id", ID), PAYLOAD).await.expect("sent");
    let after = client.start(client.request(&device("0200ff")), PAYLOAD).await.expect("sent");
    for lost in [trigger, after] {
        let error = finish(lost).await.expect_err("not processed");
        assert!(error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR), "{error:?}");
        assert!(error.to_string().contains(r#"{\"reason\":\"Shutdown\"}"#), "{error}");
    }
    assert_eq!(finish(before).await.expect("answered").status, 200);
    let _closed = client.end().await;
    assert!(running.received(&format!("/3/device/{}", device("0200ff"))).expect("records").is_empty());

    let mut again = Client::connect(&account).await;
    assert_eq!(again.push_as(ID, &device("0600")).await.expect("answered").status, 200);
    // taken and never answered
    let error = again.push_as(ID, &device("0601")).await.map(|a| a.status);
    assert_eq!(error.expect("seen before"), 200);
    let error = again.push(&device("0601")).await.expect_err("no answer");
    assert!(!error.is_go_away() || error.is_io(), "{error:?}");

    for (code, status) in [("0602", 200), ("0504", 503)] {
        let mut client = Client::connect(&account).await;
        assert_eq!(client.push(&device(code)).await.expect("answered").status, status);
        let _closed = client.end().await;
    }
}

#[tokio::test]
async fn it_breaks_off_in_every_way() {
    let running = start().await;
    let account = running.apns_account();
    for code in ["0610", "0612", "0611"] {
        let mut client = Client::connect(&account).await;
        let id = uuid::Uuid::new_v4().to_string();
        assert!(client.push_as(&id, &device(code)).await.expect_err("no answer").is_io(), "{code}");
        let again = Client::connect(&account).await.push_as(&id, &device(code)).await;
        assert_eq!(again.is_ok(), code != "0611", "{code}: {again:?}");
    }
    let mut client = Client::connect(&account).await;
    for (code, reason) in [("0630", h2::Reason::REFUSED_STREAM), ("0632", h2::Reason::INTERNAL_ERROR)] {
        let id = uuid::Uuid::new_v4().to_string();
        assert_eq!(reset(client.push_as(&id, &device(code)).await), Some(reason));
        assert_eq!(client.push_as(&id, &device(code)).await.expect("answered").status, 200);
    }
    for _ in 0..2 {
        assert_eq!(reset(client.push_as(ID, &device("0631")).await), Some(h2::Reason::REFUSED_STREAM));
    }
    // a stalled stream lets the others pass, and gives its place back when the client gives it up
    put(&running, json!({"max_streams": 2, "path": "/3/device/02"})).await;
    assert_eq!(client.push(&device("0200")).await.expect("answered").status, 200);
    client.streams(|n| n == 2).await;
    for _ in 0..5 {
        let stalled = client.start(client.request(&device("0620")), PAYLOAD).await.expect("sent");
        assert_eq!(client.push(&device("0200")).await.expect("answered").status, 200);
        drop(stalled);
    }
    // a dead connection: nothing is answered, not even a PING, and other connections live
    let mut dead = Client::connect(&account).await;
    let silent = dead.start(dead.request(&device("0621")), PAYLOAD).await.expect("sent");
    let early = timeout(Duration::from_millis(200), finish(silent)).await;
    assert!(early.is_err(), "{early:?}");
    assert!(timeout(Duration::from_millis(200), dead.push(&device("0200"))).await.is_err());
    let alive = Client::connect(&account).await.push(&device("0200")).await;
    assert_eq!(alive.expect("answered").status, 200);
    running.shutdown().await;
}

#[tokio::test]
async fn a_rule_strikes_its_devices() {
    let running = start().await;
    let account = running.apns_account();
    let mut client = Client::connect(&account).await;
    put(&running, json!({"status": 410, "path": "/3/device/aa"})).await;
    assert_eq!(client.push("aa").await.expect("answered").reason(), "Unregistered");
    assert_eq!(client.push("ab").await.expect("answered").status, 200);
    put(&running, json!({"status": 400, "reason": "BadTopic", "delay": "50ms", "jitter": "50ms"})).await;
    let asked = Instant::now();
    assert_eq!(client.push("ab").await.expect("answered").reason(), "BadTopic");
    assert!(asked.elapsed() >= Duration::from_millis(50));
    put(&running, json!({"goaway": true})).await;
    assert!(client.push("ab").await.expect_err("not processed").is_go_away());
    put(&running, json!({"drop": true})).await;
    assert!(Client::connect(&account).await.push("ab").await.expect_err("reset").is_io());
}

#[tokio::test]
async fn the_authority_and_the_keys_outlive_the_process() {
    let dir = tempfile::tempdir().expect("dir");
    let start = async || {
        let settings = SandboxSettings { record_dir: Some(dir.path().to_owned()), ..settings() };
        Sandbox::start(settings).await.expect("started")
    };
    let first = start().await;
    let mut accounts = [first.apns_account(), first.apns_certificate_account()];
    assert_eq!(std::fs::read_to_string(dir.path().join("ca.pem")).expect("a file"), first.ca_pem());
    first.shutdown().await;
    let second = start().await;
    assert_eq!(second.ca_pem(), accounts[0]["ca"].as_str().expect("a text"));
    for account in &mut accounts {
        account["base_url"] = second.apns_account()["base_url"].clone();
        let parsed: domain::Account = serde_json::from_value(account.clone()).expect("an account");
        parsed.check().expect("a good one");
        assert_eq!(Client::connect(account).await.push(&device("0200")).await.expect("answered").status, 200);
    }
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let of = async |path: &str| client.get(format!("http://{}/{path}", second.control)).send().await.expect("answered");
    assert_eq!(of("ca.pem").await.text().await.expect("text"), second.ca_pem());
    let shown: Value = of("accounts").await.json().await.expect("JSON");
    assert_eq!((&shown["apns"], &shown["email"]), (&second.apns_account(), &second.email_account()));
    let email: domain::Account = serde_json::from_value(second.email_account()).expect("an account");
    email.check().expect("a good one");
}
