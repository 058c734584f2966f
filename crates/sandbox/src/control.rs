//! The control port: what was received, and how to misbehave.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use domain::Channel;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Shared, accounts,
    records::{Filter, Since, Summary},
};

/// Most requests in one answer.
const MAX_LIMIT: usize = 10_000;

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/received", get(received).delete(forget))
        .route("/received/summary", get(summary))
        .route("/behaviour", get(shown).put(put).delete(clear))
        .route("/ca.pem", get(async |State(s): State<Arc<Shared>>| s.tls.ca_pem.clone()))
        .route("/accounts", get(accounts))
        .with_state(shared);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the sandbox's control port is closed");
    }
}

/// An answer that says what is wrong (RFC 9457).
struct Problem(StatusCode, String);

impl Problem {
    fn bad(detail: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, detail.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    channel: Option<String>,
    since: Option<String>,
    #[serde(default)]
    path: String,
    limit: Option<usize>,
}

async fn received(
    State(shared): State<Arc<Shared>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = asked.map_err(|e| Problem::bad(e.body_text()))?;
    let channel = asked.channel.as_deref().map(Channel::parse).transpose().map_err(Problem::bad)?;
    let since = asked.since.as_deref().map(parse_since).transpose()?;
    let limit = asked.limit.unwrap_or(1000).min(MAX_LIMIT);
    let listed = shared.records.list(&Filter { channel, path: &asked.path, since, limit });
    // the records are JSON texts already
    let mut body = String::new();
    let _ = write!(body, r#"{{"count":{},"dropped":{},"items":["#, listed.count, listed.dropped);
    body.push_str(&listed.items.join(","));
    body.push_str("]}");
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn parse_since(text: &str) -> Result<Since, Problem> {
    let number = text.parse().map(Since::Number).ok();
    number
        .or_else(|| text.parse::<Timestamp>().map(Since::Time).ok())
        .ok_or_else(|| Problem::bad("`since` is a time like 2026-11-21T09:00:00Z or the number of a request"))
}

async fn summary(State(shared): State<Arc<Shared>>) -> Json<Summary> {
    Json(shared.records.summary())
}

async fn forget(State(shared): State<Arc<Shared>>) -> Result<StatusCode, Problem> {
    let cleared = shared.records.clear();
    cleared.map_err(|e| Problem(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<StatusCode, Problem> {
    let rule = serde_json::from_slice(&body).map_err(|e| Problem::bad(e.to_string()))?;
    shared.rules().put(rule).map_err(Problem::bad)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn shown(State(shared): State<Arc<Shared>>) -> Response {
    let rules = shared.rules().shown();
    Json(rules).into_response()
}

async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.rules().clear();
    StatusCode::NO_CONTENT
}

async fn accounts(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "apns": accounts::apns(&shared, 0),
        "apns_second_team": accounts::apns(&shared, 1),
        "apns_certificate": accounts::apns_certificate(&shared),
        "email": accounts::email(&shared),
    }))
}
