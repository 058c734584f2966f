//! The receiver of webhooks: hyper itself, since a framework would not let us hang up without an answer.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use bytes::Bytes;
use domain::Channel;
use futures::stream;
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Shared,
    behaviour::{self, Act, End, PATIENCE},
    listen,
    records::Reception,
    verify,
};

/// The longest body that is read.
const MAX_BODY: usize = 1024 * 1024;
/// How long a connection may be idle between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// The answer of `/hook/big`: so many pieces of 64 KiB, about 50 MB.
const BIG_PIECES: u32 = 800;

/// Closes the connection without an answer.
#[derive(Debug)]
struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up on purpose")
    }
}

impl std::error::Error for HangUp {}

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    listen::each(listener, stop, tasks, |stream, number| converse(stream, shared.clone(), number)).await;
}

async fn converse(stream: TcpStream, shared: Arc<Shared>, connection: u64) {
    let service = service_fn(|request| answer(&shared, connection, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, connection, "a connection ended");
    }
}

async fn answer(shared: &Shared, connection: u64, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
    let (head, body) = request.into_parts();
    // a request that breaks off has not been received
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(short(StatusCode::PAYLOAD_TOO_LARGE, "at most 1 MiB"));
        }
        Err(_) => return Err(HangUp),
    };
    let now = Timestamp::now();
    let checked = shared.verifier.check(&head.method, &head.headers, &body, now);
    let path = head.uri.path();
    let reception = Reception {
        time: now,
        method: head.method.to_string(),
        address: address(&head.headers, &head.uri),
        path: path.to_owned(),
        id: verify::text(&head.headers, "webhook-id").map(str::to_owned),
        verified: checked.is_ok(),
        problem: checked.as_ref().err().map(|r| r.problem.to_owned()),
        headers: texts(&head.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
        ..Reception::new(Channel::Webhook, connection)
    };
    let kept = shared.records.keep(reception, |seen| {
        let act = match &checked {
            Ok(()) => behaviour::of(path, head.uri.query(), seen).bent(shared.strike(Channel::Webhook, path)),
            Err(r) => Act::answer(StatusCode::from_u16(r.status).unwrap_or(StatusCode::BAD_REQUEST), r.problem),
        };
        let status = act.status();
        (act, status)
    });
    match kept {
        Ok(act) => carry_out(act).await,
        Err(error) => {
            tracing::error!(%error, "cannot record a request");
            Ok(short(StatusCode::INTERNAL_SERVER_ERROR, "the sandbox cannot record"))
        }
    }
}

async fn carry_out(act: Act) -> Result<Response<Body>, HangUp> {
    if !act.delay.is_zero() {
        tokio::time::sleep(act.delay).await;
    }
    match act.end {
        End::Answer { status, header, text } => {
            let mut response = short(status, text);
            response.headers_mut().extend(header);
            Ok(response)
        }
        End::Big => {
            let piece = Bytes::from(vec![b'x'; 64 * 1024]);
            Ok(Response::new(pieces(BIG_PIECES, Duration::ZERO, piece)))
        }
        End::Drip => Ok(Response::new(pieces(60, Duration::from_secs(1), Bytes::from_static(b".")))),
        End::Drop => Err(HangUp),
        End::Hang => {
            tokio::time::sleep(PATIENCE).await;
            Err(HangUp)
        }
    }
}

fn short(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

/// A body of `count` equal pieces with a pause before each.
fn pieces(count: u32, pause: Duration, piece: Bytes) -> Body {
    Body::from_stream(stream::unfold(count, move |left| {
        let piece = piece.clone();
        async move {
            let rest = left.checked_sub(1)?;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Some((Ok::<_, Infallible>(piece), rest))
        }
    }))
}

fn address(headers: &HeaderMap, uri: &hyper::Uri) -> String {
    format!("http://{}{uri}", verify::text(headers, header::HOST.as_str()).unwrap_or_default())
}

/// Every header; values of the same name are joined.
pub(crate) fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        texts
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    texts
}
