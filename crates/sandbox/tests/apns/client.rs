//! A plain client of APNs: `h2` over TLS, so that every frame's effect can be seen.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use jiff::Timestamp;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const PAYLOAD: &str = r#"{"aps":{"alert":"hello"}}"#;

pub(crate) type Driver = JoinHandle<Result<(), h2::Error>>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn reason(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["reason"].as_str().expect("a reason").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("text"))
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) driver: Driver,
    pub(crate) token: Option<String>,
}

/// TLS with these protocols, and with the account's certificate if it has one.
pub(crate) async fn tls(account: &Value, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let text = |name: &str| account[name].as_str().unwrap_or_default().to_owned();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(text("ca").as_bytes()).expect("a CA")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots);
    let mut config = if account["certificate"].is_string() {
        let chain = CertificateDer::from_pem_slice(text("certificate").as_bytes()).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from_pem_slice(text("certificate_key").as_bytes()).expect("a key");
        config.with_client_auth_cert(vec![chain], PrivateKeyDer::from(key)).expect("they match")
    } else {
        config.with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let at = text("base_url");
    let address: std::net::SocketAddr = at.strip_prefix("https://").expect("https").parse().expect("an address");
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await
}

/// A provider token of the account, issued so many seconds ago.
pub(crate) fn provider_token(account: &Value, age: i64) -> String {
    let text = |name: &str| account[name].as_str().expect("a text");
    let key = PrivatePkcs8KeyDer::from_pem_slice(text("private_key").as_bytes()).expect("a key");
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der(), &random).expect("a P-256 key");
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, text("key_id"));
    let issued = Timestamp::now().as_second() - age;
    let claims = format!(r#"{{"iss":"{}","iat":{issued}}}"#, text("team_id"));
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = key.sign(&random, signed.as_bytes()).expect("signed");
    format!("bearer {signed}.{}", encode(signature.as_ref()))
}

impl Client {
    /// Connects; the account's token goes with every request. The server's SETTINGS have been seen.
    pub(crate) async fn connect(account: &Value) -> Self {
        let stream = tls(account, &["h2"]).await.expect("TLS");
        // more than any limit of the server: the first SETTINGS are seen when it is gone
        let mut builder = h2::client::Builder::new();
        let (send, connection) = builder.initial_max_send_streams(77_777).handshake(stream).await.expect("HTTP/2");
        let token = account["private_key"].is_string().then(|| provider_token(account, 0));
        let client = Self { send, driver: tokio::spawn(connection), token };
        client.streams(|n| n != 77_777).await;
        client
    }

    /// Waits until the server allows a number of streams that is right.
    pub(crate) async fn streams(&self, right: impl Fn(usize) -> bool) {
        let waiting = async {
            while !right(self.send.current_max_send_streams()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, waiting).await.expect("SETTINGS in time");
    }

    /// A good request.
    pub(crate) fn request(&self, device: &str) -> http::request::Builder {
        let request =
            Request::post(format!("https://apns.example/3/device/{device}")).header("apns-topic", "com.example.app");
        match &self.token {
            Some(token) => request.header("authorization", token),
            None => request,
        }
    }

    /// Sends it; the answer comes later.
    pub(crate) async fn start(
        &mut self,
        request: http::request::Builder,
        body: &str,
    ) -> Result<ResponseFuture, h2::Error> {
        // `ready` of a clone tells nothing about the handle that sends
        self.send = self.send.clone().ready().await?;
        let (answer, mut stream) = self.send.send_request(request.body(()).expect("a request"), body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        }
        Ok(answer)
    }

    pub(crate) async fn ask(&mut self, request: http::request::Builder, body: &str) -> Result<Answer, h2::Error> {
        let started = self.start(request, body).await?;
        finish(started).await
    }

    /// The usual payload to a device.
    pub(crate) async fn push(&mut self, device: &str) -> Result<Answer, h2::Error> {
        self.ask(self.request(device), PAYLOAD).await
    }

    /// The same with an `apns-id`.
    pub(crate) async fn push_as(&mut self, id: &str, device: &str) -> Result<Answer, h2::Error> {
        self.ask(self.request(device).header("apns-id", id), PAYLOAD).await
    }

    /// What ended the connection.
    pub(crate) async fn end(self) -> Result<(), h2::Error> {
        timeout(DEADLINE, self.driver).await.expect("closed in time").expect("no panic")
    }
}

/// Waits for the whole answer.
pub(crate) async fn finish(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let read = async {
        let (head, mut stream) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        let body = String::from_utf8(body).expect("UTF-8");
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    timeout(DEADLINE, read).await.expect("an answer in time")
}
