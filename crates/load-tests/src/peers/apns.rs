//! APNs as fast as it can be: HTTP/2 on `h2` itself, 200 with the request's id, after a delay that stands for the way.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, Request, Response};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_rustls::TlsAcceptor;

use super::{Tally, accept};

const ID: HeaderName = HeaderName::from_static("apns-id");
/// Of a load that says so, when each was to be sent: microseconds since the epoch.
const COLLAPSE: HeaderName = HeaderName::from_static("apns-collapse-id");

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) streams: u32,
    pub(super) delay: Duration,
}

/// A certificate of its own.
pub(super) struct Identity {
    /// In PEM.
    pub(super) ca: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .context("the sink's own certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { ca: certificate.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

pub(super) async fn serve(
    listener: TcpListener,
    identity: Identity,
    settings: Settings,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    loop {
        let Some(stream) = accept(&listener).await else { continue };
        let (acceptor, tally) = (identity.acceptor.clone(), tally.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, acceptor, settings, tally).await {
                // a client that goes away says so to its own side
                eprintln!("a connection to the sink ended: {error}");
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    settings: Settings,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    let tls = acceptor.accept(stream).await?;
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(settings.streams)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 30)
        .handshake::<_, Bytes>(tls)
        .await?;
    // in the order in which they came, so one task waits for all of a connection
    let (later, waiting) = mpsc::channel(2 * settings.streams as usize);
    if !settings.delay.is_zero() {
        tokio::spawn(answer_later(waiting, tally.clone()));
    }
    while let Some(accepted) = connection.accept().await {
        // the client has gone
        let Ok((request, respond)) = accepted else { return Ok(()) };
        if settings.delay.is_zero() {
            tokio::spawn(answer(request, respond, tally.clone()));
        } else {
            later.send((Instant::now() + settings.delay, request, respond)).await?;
        }
    }
    Ok(())
}

type Waiting = (Instant, Request<RecvStream>, SendResponse<Bytes>);

async fn answer_later(mut waiting: mpsc::Receiver<Waiting>, tally: Arc<Tally>) {
    while let Some((due, request, respond)) = waiting.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        answer(request, respond, tally.clone()).await;
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, tally: Arc<Tally>) {
    let (head, mut body) = request.into_parts();
    let mut bytes = 0;
    while let Some(Ok(data)) = body.data().await {
        bytes += data.len();
        if body.flow_control().release_capacity(data.len()).is_err() {
            return;
        }
    }
    tally.add(bytes, intended(&head.headers));
    let mut response = Response::new(());
    if let Some(id) = head.headers.get(ID) {
        response.headers_mut().insert(ID, id.clone());
    }
    // the client may have gone meanwhile
    let _gone = respond.send_response(response, true);
}

/// When it was to be sent, if it says so.
fn intended(headers: &HeaderMap) -> Option<u64> {
    let key = headers.get(COLLAPSE)?.to_str().ok()?;
    key.strip_prefix("at-")?.split('-').next()?.parse().ok()
}
