//! One HTTP/2 connection: dialled, proven, kept alive, and one exchange on it. Written on `h2` itself, because it alone tells
//! whether a request left: hyper's client reports neither streams that were never opened nor the server's limit as it changes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{Either, ready},
};
use h2::{
    Ping, PingPong, Reason, RecvStream,
    client::{self, ResponseFuture, SendRequest},
};
use hyper::{Request, StatusCode, Uri};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tower::Service as _;

use super::{super::verdict::Answer, DialError, Options, pool::Pool, sips::Sips};
use crate::guard::Connector;

/// Most requests that are in flight on one connection, whatever the server allows.
const MOST: usize = 1000;
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 4096;
/// How long the text of an answer is waited for, once its status is known.
const TEXT: Duration = Duration::from_secs(1);

/// Where to connect to.
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) name: ServerName<'static>,
}

/// What is known of a connection; its requests and its driver share it.
struct Health {
    /// The server's word.
    limit: AtomicUsize,
    /// Until a token was taken, only one request may be in flight, and that is what the server says as well.
    trusted: AtomicBool,
    /// A request got no answer: until the server answers a PING, there are better connections.
    suspect: AtomicBool,
    doubted: Notify,
}

/// The requests' side of a connection. When the last one lets go of it, it is closed.
pub(super) struct Connection {
    /// Unique in its pool.
    pub(super) id: u64,
    requests: SendRequest<Bytes>,
    health: Arc<Health>,
    /// Counted by the pool.
    pub(super) in_flight: AtomicUsize,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// It did not leave, or the server says that it did nothing with it. `retire`: nor will this connection do more.
    Unprocessed { what: &'static str, retire: bool },
    /// It did not leave, and there is no time left.
    Late,
    /// It may have been processed.
    Unknown(&'static str),
}

impl Connection {
    /// Whether one more request may be in flight.
    pub(super) fn has_room(&self) -> bool {
        let limit = if self.is_trusted() { self.health.limit.load(Relaxed).min(MOST) } else { 1 };
        !self.is_suspect() && self.in_flight.load(Relaxed) < limit
    }

    /// Whether a request on it has been answered by somebody who trusts us.
    pub(super) fn is_trusted(&self) -> bool {
        self.health.trusted.load(Relaxed)
    }

    /// Whether nobody knows if it still works.
    pub(super) fn is_suspect(&self) -> bool {
        self.health.suspect.load(Relaxed)
    }

    /// From now on the server's limit counts. True the first time.
    pub(super) fn trust(&self) -> bool {
        !self.is_trusted() && !self.health.trusted.swap(true, Relaxed)
    }

    /// Sends a request, and waits for its answer until `deadline`. What waits does not hold the request: thousands do.
    pub(super) fn exchange(
        &self,
        request: Request<()>,
        body: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<Answer, Lost>> {
        match self.send(request, body) {
            Ok((requests, response)) => Either::Left(self.answer(requests, response, deadline)),
            Err(lost) => Either::Right(ready(Err(lost))),
        }
    }

    fn send(&self, request: Request<()>, body: Bytes) -> Result<(SendRequest<Bytes>, ResponseFuture), Lost> {
        const GOING: Lost = Lost::Unprocessed { what: "the connection was closing", retire: true };
        let mut requests = self.requests.clone();
        let (response, mut stream) = requests.send_request(request, false).map_err(|_| GOING)?;
        // without its body a request is none
        stream.send_data(body, true).map_err(|_| GOING)?;
        Ok((requests, response))
    }

    #[expect(clippy::manual_async_fn, reason = "an async function has room for its arguments twice")]
    fn answer(
        &self,
        mut requests: SendRequest<Bytes>,
        response: ResponseFuture,
        deadline: Instant,
    ) -> impl Future<Output = Result<Answer, Lost>> {
        async move {
            let Ok(response) = timeout_at(deadline, response).await else {
                // a stream for which the server has no room waits unopened in our own queue
                let opened = poll_fn(|cx| requests.poll_ready(cx)).now_or_never().is_some();
                if !opened {
                    return Err(Lost::Late);
                }
                self.health.suspect.store(true, Relaxed);
                self.health.doubted.notify_one();
                return Err(Lost::Unknown("no answer in time"));
            };
            let (head, text) = response.map_err(|e| lost(&e))?.into_parts();
            // what is rare is kept apart: each of thousands in flight would have room for it
            let text = if head.status == StatusCode::OK { Vec::new() } else { Box::pin(read(text, deadline)).await };
            Ok(Answer::read(head.status, &text))
        }
    }
}

/// What the error of a request says about it.
fn lost(error: &h2::Error) -> Lost {
    if error.is_go_away() && error.is_remote() {
        // only those get this error whose stream is later than the last that the server processes
        Lost::Unprocessed { what: "the server was closing the connection", retire: true }
    } else if error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
        Lost::Unprocessed { what: "the server refused the stream", retire: false }
    } else if error.is_reset() {
        Lost::Unknown("the stream ended without an answer")
    } else {
        Lost::Unknown("the connection ended without an answer")
    }
}

/// The beginning of a body, as far as it comes in time: the status is known, so nothing here is an error.
async fn read(mut body: RecvStream, deadline: Instant) -> Vec<u8> {
    let mut text = Vec::new();
    let whole = async {
        while let Some(Ok(data)) = body.data().await {
            text.extend_from_slice(data.get(..MAX_ANSWER - text.len()).unwrap_or(&data));
            if text.len() >= MAX_ANSWER || body.flow_control().release_capacity(data.len()).is_err() {
                break;
            }
        }
    };
    // what has come by then is kept
    let _ = timeout_at(deadline.min(Instant::now() + TEXT), whole).await;
    text
}

/// The connection's own side: whoever has it has to run it.
pub(super) struct Driver {
    io: client::Connection<Sips<TlsStream<tokio::net::TcpStream>>, Bytes>,
    ping: PingPong,
    health: Arc<Health>,
    id: u64,
}

/// Connects, and waits for the answer to a PING. Then TLS stands on both sides (a server that refuses our certificate says so
/// only after its handshake), HTTP/2 is spoken, and the server's limit is known: whatever fails before lost no request.
pub(super) async fn dial(
    target: &Target,
    tls: &Arc<ClientConfig>,
    mut connector: Connector,
    id: u64,
    trusted: bool,
) -> Result<(Connection, Driver), DialError> {
    let tcp = connector.call(target.uri.clone()).await.map_err(DialError::Connect)?.into_inner();
    let tls = TlsConnector::from(tls.clone()).connect(target.name.clone(), tcp).await.map_err(|_| DialError::NoTls)?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(DialError::NoHttp2);
    }
    let (requests, mut io) = client::Builder::new()
        .initial_max_send_streams(1)
        .enable_push(false)
        .max_header_list_size(16 * 1024)
        .handshake(Sips::of(tls))
        .await
        .map_err(|_| DialError::NoHttp2)?;
    let mut ping = io.ping_pong().ok_or(DialError::NoHttp2)?;
    tokio::select! {
        biased;
        _ = &mut io => return Err(DialError::NoHttp2),
        pong = ping.ping(Ping::opaque()) => pong.map_err(|_| DialError::NoHttp2)?,
    };
    let health = Arc::new(Health {
        limit: AtomicUsize::new(io.max_concurrent_send_streams()),
        trusted: AtomicBool::new(trusted),
        suspect: AtomicBool::new(false),
        doubted: Notify::new(),
    });
    let connection = Connection { id, requests, health: health.clone(), in_flight: AtomicUsize::new(0) };
    Ok((connection, Driver { io, ping, health, id }))
}

impl Driver {
    /// Until the connection is closed, by either side, or is found to be dead.
    pub(super) async fn run(mut self, pool: Weak<Pool>, freed: &Notify, options: &Options) {
        let health = &self.health;
        let io = &mut self.io;
        let work = poll_fn(|cx| {
            let done = Pin::new(&mut *io).poll(cx);
            let limit = io.max_concurrent_send_streams();
            if health.limit.swap(limit, Relaxed) < limit {
                freed.notify_one();
            }
            done
        });
        // not all at once: what was opened together would be replaced together
        let until = Instant::now() + options.max_age.mul_f64(0.75 + 0.25 * fastrand::f64());
        tokio::select! {
            _ = work => {}
            () = keep_alive(&mut self.ping, health, freed, options, || {
                if Instant::now() >= until && let Some(pool) = pool.upgrade() {
                    pool.retire(self.id);
                }
            }) => {}
        }
        if let Some(pool) = pool.upgrade() {
            pool.ended(self.id);
        }
    }
}

/// Pings now and then, and when a request got no answer; ends when a PING gets none.
async fn keep_alive(ping: &mut PingPong, health: &Health, freed: &Notify, options: &Options, each: impl Fn()) {
    loop {
        tokio::select! {
            () = sleep(options.ping_every) => {}
            () = health.doubted.notified() => {}
        }
        match timeout(options.ping_timeout, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => health.suspect.store(false, Relaxed),
            _ => return,
        }
        freed.notify_one();
        each();
    }
}
