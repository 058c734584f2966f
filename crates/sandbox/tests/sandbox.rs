//! The sandbox over its two ports, asked as anybody would ask it.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::Secret;
use jiff::Timestamp;
use reqwest::{Client, Response, StatusCode};
use ring::hmac;
use sandbox::{Reception, Running, Sandbox, SandboxSettings};
use serde_json::{Value, json};

const KEY: [u8; 32] = [5; 32];

async fn start(record_dir: Option<&Path>) -> Running {
    let secret = Secret::new(format!("whsec_{}", BASE64_STANDARD.encode(KEY)));
    let record_dir = record_dir.map(Into::into);
    Sandbox::start(SandboxSettings { record_dir, ..SandboxSettings::local(secret) }).await.expect("started")
}

fn client() -> Client {
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(20)).build().expect("client")
}

async fn post(client: &Client, url: &str, id: &str) -> reqwest::Result<Response> {
    let (time, body) = (Timestamp::now().as_second(), r#"{"type":"notification","data":{}}"#);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), format!("{id}.{time}.{body}").as_bytes());
    let signed = client.post(url).header("content-type", "application/json").header("webhook-id", id);
    let signed = signed.header("webhook-timestamp", time).body(body);
    signed.header("webhook-signature", format!("v1,{}", BASE64_STANDARD.encode(tag))).send().await
}

async fn json_of(client: &Client, url: String) -> Value {
    client.get(url).send().await.expect("answered").json().await.expect("JSON")
}

#[tokio::test]
async fn what_was_received_is_listed_counted_and_forgotten() {
    let (running, client) = (start(None).await, client());
    let control = format!("http://{}", running.control);
    for (behaviour, id, expected) in [
        ("ok/ana", "a", 200),
        ("flaky/1/bob", "b", 503),
        ("flaky/1/bob", "b", 200),
        ("ok/ana", "a", 200),
        ("oh", "c", 404),
    ] {
        let answer = post(&client, &running.hook(behaviour), id).await.expect("answered");
        assert_eq!(answer.status().as_u16(), expected, "{behaviour}");
    }
    let unsigned = client.post(running.hook("ok/ana")).body("{}").send().await.expect("answered");
    assert_eq!(unsigned.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        client.get(running.hook("ok/ana")).send().await.expect("answered").status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(post(&client, &running.hook("drop"), "d").await.is_err());

    let all = json_of(&client, format!("{control}/received?channel=webhook")).await;
    let paths: Vec<_> =
        all["items"].as_array().expect("list").iter().map(|r| r["path"].as_str().expect("path")).collect();
    assert_eq!(all["count"], 8);
    assert_eq!(&paths[..3], ["/hook/ok/ana", "/hook/flaky/1/bob", "/hook/flaky/1/bob"]);
    let first: Reception = serde_json::from_value(all["items"][0].clone()).expect("a reception");
    assert!(first.verified && first.answered == Some(200) && first.headers["webhook-id"] == "a", "{first:?}");
    assert_eq!(first.address, running.hook("ok/ana"));
    assert_eq!(all["items"][5]["problem"], "content-type is not application/json");
    assert_eq!(all["items"][7]["answered"], Value::Null);

    let some = json_of(&client, format!("{control}/received?path=/hook/ok/&limit=1&since=1")).await;
    assert_eq!((&some["count"], &some["items"][0]["number"]), (&json!(3), &json!(4)));
    let since = json_of(&client, format!("{control}/received?since={}", Timestamp::now())).await;
    assert_eq!(since["count"], 0);
    for bad in ["since=yesterday", "channel=pigeon", "colour=red", "limit=-1"] {
        let answer = client.get(format!("{control}/received?{bad}")).send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad}");
    }

    let summary = json_of(&client, format!("{control}/received/summary")).await;
    assert_eq!(summary["answered"], json!({"200": 3, "400": 1, "404": 1, "405": 1, "503": 1, "none": 1}));
    assert_eq!(summary["repeated"], json!({"a": 2, "b": 2}));
    assert_eq!(summary["taken_again"], json!({"a": 2}));
    assert_eq!((&summary["ids"], &summary["ids_taken"], &summary["unverified"]), (&json!(4), &json!(2), &json!(2)));
    assert_eq!(summary["paths"]["/hook/ok/ana"], 4);

    client.delete(format!("{control}/received")).send().await.expect("answered").error_for_status().expect("deleted");
    assert_eq!(running.summary(), sandbox::Summary::default());
    running.shutdown().await;
}

#[tokio::test]
async fn the_file_has_a_request_before_the_sender_has_its_answer_and_outlives_the_process() {
    let dir = tempfile::tempdir().expect("dir");
    let client = client();
    for run in 0..2 {
        let running = start(Some(dir.path())).await;
        for i in 0..5 {
            let id = format!("{run}-{i}");
            post(&client, &running.hook("ok/x"), &id).await.expect("answered");
            let lines = std::fs::read_to_string(dir.path().join("received.jsonl")).expect("file");
            let last: Reception = serde_json::from_str(lines.lines().last().expect("line")).expect("a whole line");
            assert_eq!((last.id.as_deref(), lines.lines().count()), (Some(id.as_str()), run * 5 + i + 1));
        }
        running.shutdown().await;
    }
}

#[tokio::test]
async fn it_misbehaves_on_request_until_told_to_stop() {
    let (running, client) = (start(None).await, client());
    let url = format!("http://{}/behaviour", running.control);
    let put = async |body: Value| client.put(&url).body(body.to_string()).send().await.expect("answered").status();
    let status = async |path: &str| post(&client, &running.hook(path), "x").await.map(|r| r.status().as_u16()).ok();

    assert_eq!(
        put(json!({"channel": "webhook", "rule": {"status": 500, "path": "/hook/ok/ana"}})).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!((status("ok/ana").await, status("ok/bob").await), (Some(500), Some(200)));
    assert_eq!(
        put(json!({"channel": "webhook", "rule": {"drop": true, "delay": "10ms"}})).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(status("ok/bob").await, None);
    let shown = json_of(&client, url.clone()).await;
    assert_eq!(shown, json!({"webhook": {"drop": true, "delay": "10ms", "rate": 1.0, "path": ""}}));
    assert_eq!(put(json!({"channel": "webhook", "rule": {"goaway": true}})).await, StatusCode::BAD_REQUEST);
    client.delete(&url).send().await.expect("answered").error_for_status().expect("deleted");
    assert_eq!(status("ok/bob").await, Some(200));
}
