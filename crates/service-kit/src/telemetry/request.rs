//! The span of a request: it continues the client's own trace, and everything that is logged or published meanwhile belongs to
//! it.

use std::future::Future;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method},
    response::Response,
};
use bus::trace::{Open, TraceContext};
use tracing::Instrument as _;

/// Has a request answered within its span; handlers find it in the header `traceparent`, where the client's stood. For a
/// layer of axum's, which knows the route: one for all that is to be done around a request, as each of them clones all below
/// it for each request.
pub async fn observe<F>(mut request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let parent = request.headers().get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h.as_bytes()));
    let open = Open::begin(parent);
    if let Ok(context) = HeaderValue::from_bytes(&open.context.header()) {
        request.headers_mut().insert(TraceContext::HEADER, context);
    }
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    // at the highest level, so that no filter takes the trace from a line that is logged
    let span = tracing::error_span!("request", trace_id = format_args!("{:032x}", open.context.trace_id));
    let response = answer(request).instrument(span).await;
    open.answered(method, route.as_ref().map_or("unmatched", MatchedPath::as_str), response.status().as_u16());
    response
}

/// A client may invent methods.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
