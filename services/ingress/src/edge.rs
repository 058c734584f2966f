//! What happens to every request before and after its handler: its id, its span, its metrics, its limits, the form of its
//! problems.

use std::{future::Future, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    Ingress, auth, metrics,
    problem::{Kind, OUTCOME_OPEN, Problem},
};

pub(crate) const REQUEST_ID: &str = "x-request-id";
const MAX_REQUEST_ID: usize = 128;

/// The id of one request, the client's own if that is sane.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let own = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok());
        let sane = |id: &&str| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        Self(own.filter(sane).map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Into::into))
    }
}

/// The layer of everything that needs a key.
pub(crate) async fn keyed(State(ingress): State<Ingress>, request: Request, next: Next) -> Response {
    let answer = async |request| admit(&ingress, request, next).await.into_response();
    service_kit::telemetry::observe(request, |request| observe(request, answer)).await
}

/// The layer of everything else.
pub(crate) async fn open(request: Request, next: Next) -> Response {
    service_kit::telemetry::observe(request, |request| observe(request, |request| next.run(request))).await
}

async fn observe<F>(mut request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched".into(), |p| Arc::from(p.as_str()));
    request.extensions_mut().insert(id.clone());
    let mut response = as_problem(answer(request).await, &id, &route).await;
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    metrics::request(&route, response.status().as_u16(), started.elapsed());
    response
}

/// Gives every refusal its document, also those that axum made.
async fn as_problem(mut response: Response, id: &RequestId, route: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => {
            let text = std::mem::replace(response.body_mut(), Body::empty());
            let text = axum::body::to_bytes(text, 1024).await.unwrap_or_default();
            Problem::of_status(status, &String::from_utf8_lossy(&text))
        }
    };
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        let cause = problem.cause.as_deref().unwrap_or(&problem.detail);
        tracing::warn!(request_id = %id.0, route, status = status.as_u16(), cause, "request failed");
    }
    let mut rendered = (problem.status(), Json(problem.document(&id.0))).into_response();
    for name in [header::ALLOW, header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::ACCEPT_ENCODING] {
        if let Some(value) = response.headers_mut().remove(&name) {
            rendered.headers_mut().insert(name, value);
        }
    }
    rendered.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    rendered
}

/// Lets a request through with its [`auth::Caller`], before anything of its body is read; bounds how many are at work, and for
/// how long. Only those who have a key can take a place.
pub(crate) async fn admit(ingress: &Ingress, mut request: Request, next: Next) -> Result<Response, Problem> {
    let caller = auth::authenticate(ingress, &request)?;
    request.extensions_mut().insert(caller);
    let Ok(_place) = ingress.admitted.try_acquire() else {
        return Err(Problem::new(Kind::Unavailable, "too many requests are at work; nothing was done, send it again"));
    };
    // the reading of the body has a bound of its own, with an answer of its own
    let limit = ingress.request_timeout * 2;
    tokio::time::timeout(limit, next.run(request)).await.map_err(|_| Problem::new(Kind::Unavailable, OUTCOME_OPEN))
}

/// For every path that is not in the contract.
pub(crate) async fn not_found() -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND, "")
}
