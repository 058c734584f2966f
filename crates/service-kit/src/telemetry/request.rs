//! The span of a request: it continues the client's own trace, and everything that is logged or published meanwhile belongs to
//! it.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use bus::trace::{Open, TraceContext};
use tracing::Instrument as _;

use crate::health;

/// Handlers find the span in the header `traceparent`, where the client's stood.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if health::PATHS.contains(&path) || path.starts_with("/grpc.") {
        return next.run(request).await;
    }
    let parent = request.headers().get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h.as_bytes()));
    let open = Open::begin(parent);
    if let Ok(context) = HeaderValue::from_bytes(&open.context.header()) {
        request.headers_mut().insert(TraceContext::HEADER, context);
    }
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    // at the highest level, so that no filter takes the trace from a line that is logged
    let span = tracing::error_span!("request", trace_id = format_args!("{:032x}", open.context.trace_id));
    let response = next.run(request).instrument(span).await;
    open.answered(method, route.as_ref().map_or("unmatched", MatchedPath::as_str), response.status().as_u16());
    response
}

/// A client may invent methods.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
