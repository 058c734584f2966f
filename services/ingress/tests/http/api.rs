//! The API on the real embedded log and stores, called without a socket.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use bus::{
    Config, FollowEvent, Log, Record, Topics,
    embedded::{Embedded, EmbeddedSettings},
    topic::TopicSettings,
};
use domain::Secret;
use ingress::{Ingress, Options};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

/// The installation's operator.
pub(crate) const OPERATOR: &str = "the-operators-own-key-0123456789";
/// A key of tenant `acme` with every scope.
pub(crate) const ACME: &str = "acme-key-0123456789abcdef";
/// A key of tenant `globex` with every scope.
pub(crate) const GLOBEX: &str = "globex-key-0123456789abcdef";
/// A webhook account's secret: 24 bytes.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

pub(crate) const TOPICS: TopicSettings = TopicSettings { partitions: 3, replication: 1, retention_ms: 3_600_000 };

pub(crate) fn options() -> Options {
    Options {
        operator_key: Some(Secret::new(OPERATOR)),
        in_flight: 64,
        publishing_mib: 64,
        request_timeout: Duration::from_secs(20),
        devices_per_user: 5,
    }
}

/// A running installation with the tenants `acme` and `globex`, and acme's category `orders`.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) log: Embedded,
    pub(crate) topics: Topics,
    pub(crate) config: Config,
    pub(crate) stores: store::Stores,
    pub(crate) _stop: DropGuard,
    pub(crate) _dir: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Asserts that this is a whole problem document, and gives `errors` as (pointer, detail).
    pub(crate) fn problem(&self, status: u16) -> Vec<(String, String)> {
        let body = &self.body;
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["request_id"].as_str(), self.headers["x-request-id"].to_str().ok(), "{body}");
        for member in ["type", "title", "detail"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
        }
        let errors = body["errors"].as_array().expect("errors");
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        errors.iter().map(|e| (text(&e["pointer"]), text(&e["detail"]))).collect()
    }

    /// Asserts the status and that the detail says something.
    pub(crate) fn refused(&self, status: u16, says: &str) {
        self.problem(status);
        let detail = self.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "`{says}` is not in: {}", self.body);
    }

    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let log = Embedded::open(&dir.path().join("log"), EmbeddedSettings::default()).expect("log");
        let topics = Topics::new("t.");
        log.ensure_topics(&topics.specs(TOPICS)).await.expect("topics");
        let stores =
            store::embedded::open(&dir.path().join("store"), store::embedded::Options::default()).expect("stores");
        let shared: Arc<dyn Log> = Arc::new(log.clone());
        let config = Config::new(shared.clone(), &topics);
        let stop = CancellationToken::new();
        tokio::spawn(config.clone().run(stop.clone()));
        config.ready().await;
        let router = ingress::router(Ingress::new(shared, topics.clone(), config.clone(), &stores, &options));
        let api = Self { router, log, topics, config, stores, _stop: stop.drop_guard(), _dir: dir };
        api.furnish().await;
        api
    }

    async fn furnish(&self) {
        let all = ["notifications:write", "notifications:read", "users:write", "users:read", "operator"];
        for (tenant, key) in [("acme", ACME), ("globex", GLOBEX)] {
            self.put(&format!("/v1/config/tenants/{tenant}"), OPERATOR, &json!({"title": tenant})).await.ok(200);
            let at = format!("/v1/config/keys/main?tenant={tenant}");
            self.put(&at, OPERATOR, &json!({"key": key, "scopes": all})).await.ok(200);
        }
        self.put("/v1/config/categories/orders", ACME, &json!({"channels": ["webhook"]})).await.ok(200);
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("body");
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Answer { status, headers, body }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, key: &str, body: impl Into<Body>) -> Answer {
        self.send(request(method, path, key, body)).await
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.call("GET", path, key, Body::empty()).await
    }

    pub(crate) async fn put(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.call("PUT", path, key, body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, ACME, body.to_string()).await
    }

    /// Everything that a topic holds.
    pub(crate) async fn records(&self, topic: &str) -> Vec<Record> {
        let mut follow = self.log.follow(topic).await.expect("topic");
        let mut records = Vec::new();
        loop {
            match follow.next().await.expect("record") {
                FollowEvent::Records(more) => records.extend(more),
                FollowEvent::CaughtUp => return records,
            }
        }
    }

    /// How many records lie on the topics that a notification can reach.
    pub(crate) async fn published(&self) -> usize {
        let mut count = self.records(&self.topics.status()).await.len();
        for lane in domain::Lane::ALL {
            for topic in self.topics.notifications_of_lane(lane) {
                count += self.records(&topic).await.len();
            }
        }
        count
    }
}

pub(crate) fn request(method: &str, path: &str, key: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.header("authorization", format!("Bearer {key}")).body(body.into()).expect("request")
}

/// A valid notification for user `ana`.
pub(crate) fn notification() -> Value {
    json!({"to": [{"user": "ana"}], "category": "orders", "content": {"default": {"title": "T", "body": "B"}}})
}
