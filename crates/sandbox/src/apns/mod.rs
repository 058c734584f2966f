#![doc = include_str!("README.md")]

mod behaviour;
mod check;
mod exchange;
mod token;
mod wire;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use h2::{RecvStream, server::SendResponse};
use http::Request;
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    check::Proof,
    exchange::{Ended, exchange},
    token::Shown,
    wire::{Frames, Wire},
};
use crate::{Shared, behaviour::PATIENCE, listen};

/// How long the handshakes of TLS and HTTP/2 may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client has to leave after a GOAWAY, once nothing is open any more.
const FAREWELL: Duration = Duration::from_secs(1);
/// What all streams of a connection together may send ahead; more than 1,000 payloads of the usual size.
const WINDOW: u32 = 1024 * 1024;
const MAX_HEADERS: u32 = 16 * 1024;

type Connection = h2::server::Connection<Wire, Bytes>;

pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    listen::each(listener, stop, tasks, |stream, number| {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        async move {
            match timeout(HANDSHAKE, greet(stream, acceptor, shared, number)).await {
                Ok(Ok(conversation)) => Box::pin(conversation.run()).await,
                Ok(Err(error)) => tracing::debug!(%error, connection = number, "no HTTP/2 over TLS"),
                Err(_) => tracing::debug!(connection = number, "no handshake in time"),
            }
        }
    })
    .await;
}

async fn greet(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    number: u64,
) -> anyhow::Result<Conversation> {
    let tls = acceptor.accept(stream).await?;
    let session = tls.get_ref().1;
    anyhow::ensure!(session.alpn_protocol() == Some(b"h2"), "the client does not speak h2");
    let certificate = session.peer_certificates().is_some();
    let streams = if certificate { shared.apns_max_streams } else { 1 };
    let (wire, frames) = Wire::new(tls, streams);
    let connection = h2::server::Builder::new()
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS)
        // clients may give up as often as they like
        .max_concurrent_reset_streams(10_000)
        .max_pending_accept_reset_streams(10_000)
        .handshake(wire)
        .await?;
    let session = Session {
        shared,
        number,
        frames,
        streams: AtomicU32::new(streams),
        processed: AtomicU32::new(0),
        last: AtomicU32::new(u32::MAX),
    };
    Ok(Conversation {
        connection,
        session: Arc::new(session),
        certificate,
        shown: Shown::default(),
        welcome: certificate,
    })
}

/// What the streams of a connection share.
struct Session {
    shared: Arc<Shared>,
    number: u64,
    frames: Arc<Frames>,
    /// So many streams are allowed.
    streams: AtomicU32,
    /// The highest stream that has been taken up.
    processed: AtomicU32,
    /// The highest stream that will be, once there was a GOAWAY.
    last: AtomicU32,
}

impl Session {
    fn streams(&self) -> usize {
        usize::try_from(self.streams.load(Relaxed)).unwrap_or(usize::MAX)
    }

    fn is_after_last(&self, respond: &SendResponse<Bytes>) -> bool {
        respond.stream_id().as_u32() > self.last.load(Relaxed)
    }

    fn allow(&self, streams: u32) {
        if self.streams.swap(streams, Relaxed) != streams {
            self.frames.max_streams(streams);
        }
    }

    /// Says that streams after the last one taken up will not be.
    fn goaway(&self) {
        let last = self.processed.load(Relaxed).min(self.last.load(Relaxed));
        self.last.store(last, Relaxed);
        self.frames.goaway(last, "Shutdown");
    }

    fn leaving(&self) -> bool {
        self.last.load(Relaxed) != u32::MAX
    }
}

struct Conversation {
    connection: Connection,
    session: Arc<Session>,
    certificate: bool,
    shown: Shown,
    /// There was a valid token.
    welcome: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and a box would cost each request an allocation"
)]
enum Event {
    Request(Request<RecvStream>, SendResponse<Bytes>),
    Ended,
    Closed,
}

impl Conversation {
    async fn run(mut self) {
        let mut open = FuturesUnordered::new();
        let mut held = Vec::new();
        let mut ended = Vec::new();
        let mut farewell = None::<Pin<Box<Sleep>>>;
        loop {
            let event = poll_fn(|cx| {
                loop {
                    // everything that has arrived, then everything that can be answered, then one write for all answers
                    match self.connection.poll_accept(cx) {
                        Poll::Ready(Some(Ok((request, respond)))) => {
                            return Poll::Ready(Event::Request(request, respond));
                        }
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Event::Closed),
                        Poll::Pending => {}
                    }
                    while let Poll::Ready(Some(end)) = open.poll_next_unpin(cx) {
                        ended.push(end);
                    }
                    if !ended.is_empty() {
                        return Poll::Ready(Event::Ended);
                    }
                    if !self.session.frames.waiting() {
                        break;
                    }
                }
                farewell.as_mut().map_or(Poll::Pending, |f| f.as_mut().poll(cx).map(|()| Event::Closed))
            })
            .await;
            match event {
                Event::Request(request, respond) if self.session.is_after_last(&respond) => {
                    held.push((request.into_body(), respond));
                }
                Event::Request(request, mut respond) => {
                    if open.len() >= self.session.streams() {
                        // some may have ended since: reset by the client in what was just read
                        while let Some(Some(end)) = open.next().now_or_never() {
                            ended.push(end);
                        }
                    }
                    if open.len() >= self.session.streams() {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        open.push(self.begin(request, respond));
                    }
                }
                Event::Ended => {}
                Event::Closed => return,
            }
            for end in ended.drain(..) {
                match end {
                    Ended::Answered => {}
                    Ended::Held(body, respond) => held.push((body, respond)),
                    Ended::Reset => self.session.frames.tear(),
                    Ended::Closed => return,
                    Ended::Frozen => return sleep(PATIENCE).await,
                }
            }
            if self.session.leaving() && open.is_empty() && farewell.is_none() {
                farewell = Some(Box::pin(sleep(FAREWELL)));
            }
        }
    }

    fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> impl Future<Output = Ended> + use<> {
        let (head, body) = request.into_parts();
        let shared = &self.session.shared;
        let proof = if self.certificate {
            Ok(Proof::Certificate)
        } else {
            let checked = self.shown.check(&head.headers, &shared.tls.apns_keys, Timestamp::now());
            checked.map(|()| Proof::Token)
        };
        if proof.is_ok() && !std::mem::replace(&mut self.welcome, true) {
            self.session.allow(shared.apns_max_streams);
        }
        exchange(self.session.clone(), head, body, respond, proof)
    }
}
