//! hyper's HTTP/2 client with TLS, sending what the APNs engine sends, made beforehand.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use domain::Delivery;
use http::{
    HeaderMap, HeaderName, Method, StatusCode, Uri, Version,
    header::{AUTHORIZATION, HeaderValue},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{fixture, peers::Ready};

/// One connection with TLS, `TCP_NODELAY`, many streams. Clones share it.
#[derive(Clone)]
pub struct Connection(SendRequest<Full<Bytes>>);

/// What is sent, in turns.
pub struct Requests {
    messages: Vec<(Uri, HeaderMap)>,
    body: Bytes,
}

impl Connection {
    /// To the sink.
    pub async fn open(to: &Ready) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(to.ca.as_bytes()).context("no certificate")?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", to.port)).await.context("nobody listens")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (mut requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(async move {
            // whoever waits for an answer hears of it
            let _ended = connection.await;
        });
        requests.ready().await?;
        Ok(Self(requests))
    }

    /// One request and its whole answer, which has to be 200.
    pub async fn send(&mut self, requests: &Requests, number: u64) -> anyhow::Result<()> {
        let response = self.0.send_request(requests.get(number)).await?;
        ensure!(response.status() == StatusCode::OK, "HTTP {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    }
}

impl Requests {
    /// What the engine makes of the deliveries.
    pub fn of(deliveries: &[Delivery], to: &Ready) -> anyhow::Result<Self> {
        let messages = deliveries.iter().map(|d| message(d, to)).collect::<anyhow::Result<_>>()?;
        Ok(Self { messages, body: Bytes::from(fixture::push_body().to_string()) })
    }

    fn get(&self, number: u64) -> Request<Full<Bytes>> {
        let (uri, headers) = &self.messages[(number % self.messages.len() as u64) as usize];
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        request
    }
}

/// The headers that the engine sends, with the same marks: what is another each time is not put into the compression table.
fn message(delivery: &Delivery, to: &Ready) -> anyhow::Result<(Uri, HeaderMap)> {
    let token = delivery.address().context("no address")?.expose().to_owned();
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: &str, differs: bool| {
        let mut value = HeaderValue::try_from(value)?;
        value.set_sensitive(differs);
        headers.insert(HeaderName::from_static(name), value);
        anyhow::Ok(())
    };
    let id = delivery.id.to_string();
    add("apns-topic", fixture::APP, false)?;
    add("apns-push-type", "alert", false)?;
    add("apns-priority", "10", false)?;
    add("apns-collapse-id", &id, true)?;
    add("apns-id", &id, true)?;
    add(AUTHORIZATION.as_str(), &format!("bearer {}", "x".repeat(170)), true).context("a token")?;
    Ok((format!("https://127.0.0.1:{}/3/device/{token}", to.port).parse()?, headers))
}
