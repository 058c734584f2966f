//! What happens to every call before and after its handler: its id, its metrics, the form of its refusals.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::HeaderValue,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tonic::{Code, Status};

use super::refusal;
use crate::{
    Ingress,
    edge::{REQUEST_ID, RequestId, admit},
    metrics,
    problem::{Kind, Problem},
};

/// The layer of our own service.
pub(super) async fn keyed(State(ingress): State<Ingress>, request: Request, next: Next) -> Response {
    service_kit::telemetry::observe(request, |request| observe(ingress, request, next)).await
}

/// A call is counted where the same request over HTTP is, with the status that it would have there.
async fn observe(ingress: Ingress, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched".into(), |p| Arc::from(p.as_str()));
    request.extensions_mut().insert(id.clone());
    let mut response = as_status(admit(&ingress, request, next).await.into_response(), &id, &route);
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    metrics::request(&route, refusal::as_http(code), started.elapsed());
    response
}

/// Gives every refusal the form of gRPC, also those of the layers that HTTP has too.
fn as_status(mut response: Response, id: &RequestId, route: &str) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => match Status::from_header_map(response.headers()).as_ref().and_then(unread) {
            Some(problem) => problem,
            None => return response,
        },
    };
    refusal::status(&problem, id, route).into_http()
}

/// What tonic could not read it calls its own fault; all that we say ourselves has details.
pub(super) fn unread(status: &Status) -> Option<Problem> {
    match status.code() {
        _ if !status.details().is_empty() => None,
        Code::Internal => Some(Problem::field("", format!("the message cannot be read: {}", status.message()))),
        Code::OutOfRange => {
            Some(Problem::new(Kind::TooLarge, "a message has at most 1 MiB (1,048,576 bytes); split the request"))
        }
        _ => None,
    }
}
