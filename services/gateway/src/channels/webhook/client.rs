//! The HTTP client of webhooks: no redirects, no proxies (nothing here reads the environment), no compression, no cookies.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode, Uri, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::capture_connection},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tower::Service;

use super::Options;
use crate::guard::{CONNECT, ConnectError, Connector, Network};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 20_000;
/// How long the text of an answer is waited for, once its status is known.
const TEXT: Duration = Duration::from_secs(1);
/// Shorter than the shortest usual keep-alive of servers (5 s): a connection that the server closes while we write to it
/// would make an outcome unknown.
const IDLE: Duration = Duration::from_secs(4);

/// What came of a request.
pub(super) enum Reply {
    /// The receiver answered.
    Answered { status: StatusCode, headers: HeaderMap, text: String },
    /// Nothing left: there was no connection.
    NotSent(ConnectError),
    /// Nothing left: there was a connection but no TLS on it.
    NoTls,
    /// The request left, or may have.
    NoAnswer(&'static str),
}

pub(super) struct Client {
    http: legacy::Client<InTime, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(options: Options, network: Arc<dyn Network>) -> Self {
        let vetted = Connector::new(options.guard, network);
        let https =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(vetted);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.idle_per_host)
            .http1_max_buf_size(64 * 1024)
            .build(InTime(https));
        Self { http, timeout: options.timeout }
    }

    pub(super) async fn post(&self, mut request: Request<Full<Bytes>>) -> Reply {
        let deadline = Instant::now() + self.timeout;
        // set when the request gets a connection: before that, nothing can have left
        let connection = capture_connection(&mut request);
        let response = match timeout_at(deadline, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return not_connected(&error),
            failed => {
                return match (failed.is_err(), connection.connection_metadata().is_some()) {
                    (true, false) => Reply::NotSent(ConnectError::TimedOut),
                    (true, true) => Reply::NoAnswer("no answer in time"),
                    (false, false) => Reply::NotSent(ConnectError::Failed),
                    (false, true) => Reply::NoAnswer("the connection ended without a whole answer"),
                };
            }
        };
        let (head, body) = response.into_parts();
        // the status decides; a text that drips or never ends must not hold the place of the next webhook
        let text = read(body, deadline.min(Instant::now() + TEXT)).await;
        Reply::Answered { status: head.status, headers: head.headers, text }
    }
}

/// Which step of connecting failed: whatever is not the guard's comes from TLS.
fn not_connected(error: &legacy::Error) -> Reply {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return Reply::NotSent(*error);
        }
        cause = error.source();
    }
    Reply::NoTls
}

/// The beginning of a body, as far as it comes in time. Read to its end, the connection can be used again; else it is closed.
async fn read(mut body: Incoming, until: Instant) -> String {
    let mut bytes = Vec::new();
    let whole = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            bytes.extend_from_slice(data.get(..MAX_ANSWER - bytes.len()).unwrap_or(&data));
            if bytes.len() >= MAX_ANSWER {
                break;
            }
        }
    };
    // what has come by then is kept
    let _ = timeout_at(until, whole).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bounds connecting, TLS included, also where hyper goes on with it after the request has found another connection.
#[derive(Clone)]
struct InTime(HttpsConnector<Connector>);

impl Service<Uri> for InTime {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(
            async move { timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(ConnectError::TimedOut.into())) },
        )
    }
}
