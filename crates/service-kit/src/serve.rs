//! Serving HTTP to clients that may be slow, silent or many.

use std::{fmt::Display, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Connections at the same time, below the usual limits of open files; further ones wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// A client that takes longer to send a request's head, or has no request for so long, is disconnected.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// An HTTP/2 client is asked after so long a silence whether it is still there.
const PING_AFTER: Duration = Duration::from_secs(30);
/// What requests that are running get to end in, after `shutdown`.
const GRACE: Duration = Duration::from_secs(10);
/// After a failed accept, which mostly means that no more files may be opened.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on an address; the error names it, and `setting` as the remedy.
pub async fn bind(address: impl ToSocketAddrs + Display, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(&address).await.map_err(|e| {
        let remedy = match e.kind() {
            io::ErrorKind::AddrInUse => "another program has this port: end it, or choose another port with",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose another port with",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose another one with",
            _ => "check",
        };
        anyhow::anyhow!("cannot listen on {address}: {e}; {remedy} the setting `{setting}`")
    })
}

/// Serves HTTP/1 and HTTP/2 until `shutdown`; then takes no more connections, and ends when the requests that are running
/// have been answered, or 10 s later. Handlers find the peer in `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let http = Arc::new(http());
    let graceful = GracefulShutdown::new();
    // those that are left at the end are aborted with it
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let (http, router, watcher) = (http.clone(), router.clone(), graceful.watcher());
                let shutdown = shutdown.clone();
                connections.spawn(async move {
                    if has_something(&stream, &shutdown).await {
                        connection(&http, stream, peer, router, watcher).await;
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                shutdown.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }
    drop(listener);
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("closed connections whose requests did not end in time");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // without it small answers wait 40 ms for the peer's delayed ACK
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    Ok((stream, peer, permit))
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(PING_AFTER);
    http
}

/// The first byte is here; the time limit of a head begins with it only.
async fn has_something(stream: &TcpStream, shutdown: &CancellationToken) -> bool {
    matches!(shutdown.run_until_cancelled(timeout(HEAD_WITHIN, stream.readable())).await, Some(Ok(Ok(()))))
}

async fn connection(
    http: &Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, "a connection broke");
    }
}
