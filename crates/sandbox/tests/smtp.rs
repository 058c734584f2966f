//! The fake SMTP server over its port, as a client of any make would meet it.

use std::{sync::Arc, time::Duration};

use domain::Secret;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use sandbox::{Running, Sandbox, SandboxSettings};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

const EHLO: &str = "EHLO gw.example.com\r\n";
/// `\0carillon\0a password of the tests`.
const PLAIN: &str = "AUTH PLAIN AGNhcmlsbG9uAGEgcGFzc3dvcmQgb2YgdGhlIHRlc3Rz\r\n";
const DEADLINE: Duration = Duration::from_secs(20);

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

struct Client(Box<dyn Io>);

impl Client {
    async fn plain(running: &Running) -> Self {
        Self(Box::new(TcpStream::connect(running.smtp).await.expect("connected")))
    }

    /// TLS from the first byte on, greeted and logged in.
    async fn ready(running: &Running) -> Self {
        let mut client = Self::plain(running).await.secured(running).await;
        assert!(client.reply().await.starts_with("220 "));
        client.log_in().await;
        client
    }

    async fn secured(self, running: &Running) -> Self {
        let ca = CertificateDer::from_pem_slice(running.ca_pem().as_bytes()).expect("a CA");
        let mut roots = RootCertStore::empty();
        roots.add(ca).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::from(running.smtp.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.0).await.expect("TLS");
        Self(Box::new(stream))
    }

    async fn log_in(&mut self) {
        assert!(self.ask(EHLO).await.contains("250-AUTH PLAIN LOGIN"));
        assert!(self.ask(PLAIN).await.starts_with("235 "));
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("sent");
        self.0.flush().await.expect("sent");
    }

    /// One whole reply; what is there of it when the connection ends.
    async fn reply(&mut self) -> String {
        let read = async {
            let (mut text, mut start) = (Vec::new(), 0);
            while let Ok(byte) = self.0.read_u8().await {
                text.push(byte);
                if text.ends_with(b"\r\n") {
                    if text.get(start + 3) != Some(&b'-') {
                        break;
                    }
                    start = text.len();
                }
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        timeout(DEADLINE, read).await.expect("a reply or the end in time")
    }

    async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.reply().await
    }

    /// From MAIL to the final dot; the last reply, empty when the connection was closed without one.
    async fn mail(&mut self, to: &str, id: &str) -> String {
        self.send(&format!("MAIL FROM:<b@example.com> BODY=8BITMIME\r\nRCPT TO:<{to}>\r\nDATA\r\n")).await;
        for _ in 0..2 {
            let reply = self.reply().await;
            if !reply.starts_with("250 ") {
                return reply;
            }
        }
        let reply = self.reply().await;
        assert!(reply.starts_with("354 "), "{reply}");
        self.ask(&format!("{}.\r\n", message(id))).await
    }
}

fn message(id: &str) -> String {
    format!(
        "From: b@example.com\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{id}@example.com>\r\n\
         Subject: =?utf-8?q?a?=\r\n =?utf-8?q?b?=\r\n\r\nh\u{e9}llo\r\n..stuffed\r\n"
    )
}

async fn start() -> Running {
    let secret = Secret::new(format!("whsec_{}", "QUJD".repeat(10)));
    Sandbox::start(SandboxSettings::local(secret)).await.expect("started")
}

async fn put(running: &Running, rule: Value) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let body = json!({"channel": "email", "rule": rule}).to_string();
    let put = client.put(format!("http://{}/behaviour", running.control)).body(body).send();
    put.await.expect("answered").status().as_u16()
}

#[tokio::test]
async fn one_port_takes_mail_over_starttls_and_over_implicit_tls_and_records_it() {
    let running = start().await;
    let mut client = Client::plain(&running).await;
    assert_eq!(client.reply().await, "220 sandbox ESMTP\r\n");
    assert!(client.ask(EHLO).await.contains("250-STARTTLS\r\n"));
    assert!(client.ask("STARTTLS\r\n").await.starts_with("220 "));
    let mut client = client.secured(&running).await;
    client.log_in().await;
    assert_eq!(client.mail("ana@example.com", "1").await, "250 2.0.0 Ok: queued as 1-1\r\n");
    assert_eq!(client.mail("ana@example.com", "2").await, "250 2.0.0 Ok: queued as 1-2\r\n");
    assert_eq!(client.ask("QUIT\r\n").await, "221 2.0.0 Bye\r\n");
    assert_eq!(client.reply().await, "");
    let mut client = Client::ready(&running).await;
    assert!(client.mail("u550@example.com", "3").await.starts_with("550 5.1.1 "));

    let url = format!("http://{}/received?channel=email", running.control);
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let all: Value = client.get(url).send().await.expect("answered").json().await.expect("JSON");
    assert_eq!(all["count"], 3);
    let first = &all["items"][0];
    assert_eq!((&first["address"], &first["path"]), (&json!("ana@example.com"), &json!("ana@example.com")));
    assert_eq!((&first["id"], &first["answered"]), (&json!("<1@example.com>"), &json!(250)));
    assert_eq!(first["headers"]["subject"], "=?utf-8?q?a?= =?utf-8?q?b?=");
    assert_eq!(first["body"], message("1").replace("..", "."));
    assert_eq!(first["extra"], json!({"command": "DATA", "from": "b@example.com", "tls": true, "user": "carillon"}));
    let last = &all["items"][2];
    assert_eq!((&last["connection"], &last["answered"], &last["body"]), (&json!(2), &json!(550), &json!("")));
    let summary = running.summary();
    assert_eq!((summary.ids_taken, summary.ids_taken_again, summary.unverified), (2, 0, 0));
    running.shutdown().await;
}

#[tokio::test]
async fn what_is_injected_before_tls_is_never_heard() {
    let running = start().await;
    let mut client = Client::plain(&running).await;
    client.reply().await;
    client.ask(EHLO).await;
    let injected = format!("STARTTLS\r\n{EHLO}{PLAIN}MAIL FROM:<evil@example.com>\r\n");
    assert!(client.ask(&injected).await.starts_with("503 5.5.0 "));
    assert_eq!(client.reply().await, "", "closed");

    let mut client = Client::plain(&running).await;
    assert!(client.ask(EHLO).await.starts_with("554 5.5.0 "), "a client that does not wait for the greeting");
    assert_eq!(client.reply().await, "", "closed");
    assert_eq!(running.summary().count, 0);
}

#[tokio::test]
async fn connections_end_where_the_address_says() {
    let running = start().await;
    let mut client = Client::ready(&running).await;
    assert!(client.mail("defer421@example.com", "1").await.starts_with("421 4.7.0 "));
    assert_eq!(client.reply().await, "", "closed");
    for local in ["drop", "dropbefore"] {
        let mut client = Client::ready(&running).await;
        assert_eq!(client.mail(&format!("{local}@example.com"), local).await, "", "{local}");
    }
    let mut client = Client::ready(&running).await;
    assert_eq!(client.mail("drip2@example.com", "4").await, "250 2.0.0 Ok: queued\r\n");
    assert_eq!(client.mail("garbage@example.com", "5").await, "250 2.0.0 \u{fffd}\u{fffd} caf\u{fffd} \u{fffd}\r\n");
    assert_eq!(client.mail("flood@example.com", "6").await.lines().count(), 20_001);
    let start = std::time::Instant::now();
    assert!(client.mail("slow300@example.com", "7").await.starts_with("250 "));
    assert!(start.elapsed() >= Duration::from_millis(300));
    client.send("MAIL FROM:<b@example.com> BODY=8BITMIME\r\nRCPT TO:<hang@example.com>\r\nDATA\r\n").await;
    for _ in 0..3 {
        client.reply().await;
    }
    client.send(&format!("{}.\r\n", message("8"))).await;
    let arrived = async {
        while running.summary().count < 8 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, arrived).await.expect("recorded in time");
    let answers: Vec<_> = running.received("").expect("receptions").iter().map(|r| r.answered).collect();
    assert_eq!(answers, [Some(421), None, None, Some(250), Some(250), Some(250), Some(250), None]);
    assert!(timeout(Duration::from_millis(100), client.0.read_u8()).await.is_err(), "no reply to that");
    running.shutdown().await;
}

#[tokio::test]
async fn rules_strike_in_the_phase_that_they_name() {
    let running = start().await;
    for wrong in [json!({"phase": "lunch", "drop": true}), json!({"phase": "data"})] {
        assert_eq!(put(&running, wrong).await, 400);
    }
    let with = async |rule: Value| {
        assert_eq!(put(&running, rule).await, 204);
        let mut client = Client::plain(&running).await;
        (client.reply().await, client)
    };

    let (greeting, mut client) = with(json!({"phase": "greeting", "status": 421, "reason": "full"})).await;
    assert_eq!((greeting.as_str(), client.reply().await.as_str()), ("421 4.7.0 full\r\n", ""));
    let (greeting, _) = with(json!({"phase": "greeting", "drop": true})).await;
    assert_eq!(greeting, "");

    let (_, mut client) = with(json!({"phase": "starttls", "status": 454})).await;
    assert!(client.ask(EHLO).await.contains("STARTTLS"));
    assert!(client.ask("STARTTLS\r\n").await.starts_with("454 4.7.0 "));
    let (_, mut client) = with(json!({"phase": "starttls", "status": 502})).await;
    assert!(!client.ask(EHLO).await.contains("STARTTLS"));
    assert!(client.ask("STARTTLS\r\n").await.starts_with("502 "));

    put(&running, json!({"phase": "auth", "status": 535})).await;
    let mut client = Client::plain(&running).await.secured(&running).await;
    client.reply().await;
    client.ask(EHLO).await;
    assert!(client.ask(PLAIN).await.starts_with("535 5.7.8 "));

    for (rule, to, expected) in [
        (json!({"phase": "mail", "status": 451}), "ana", "451 4.3.0 "),
        (json!({"phase": "rcpt", "status": 550, "path": "bob"}), "bob", "550 5.1.1 "),
        (json!({"phase": "rcpt", "status": 550, "path": "bob"}), "ana", "250 2.0.0 Ok"),
        (json!({"phase": "data", "status": 554}), "ana", "554 5.7.1 "),
        (json!({"status": 552}), "ana", "552 5.3.4 "),
        (json!({"drop": true}), "ana", ""),
    ] {
        put(&running, rule.clone()).await;
        let reply = Client::ready(&running).await.mail(&format!("{to}@example.com"), "1").await;
        assert!(reply.starts_with(expected) && reply.is_empty() == expected.is_empty(), "{rule}: {reply}");
    }
    let answered: Vec<_> = running.received("").expect("receptions").iter().map(|r| r.answered).collect();
    assert_eq!(answered, [Some(451), Some(550), Some(250), Some(554), Some(552), None]);
    running.shutdown().await;
}

#[tokio::test]
async fn a_message_cannot_carry_another_one() {
    let running = start().await;
    let mut client = Client::ready(&running).await;
    for end in ["\n.\n", "\n.\r\n", "\r\n.\r", "\r.\r\n"] {
        client.send("MAIL FROM:<b@example.com> BODY=8BITMIME\r\nRCPT TO:<ana@example.com>\r\nDATA\r\n").await;
        for _ in 0..3 {
            client.reply().await;
        }
        let second = format!("MAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n{}", message("2"));
        let reply = client.ask(&format!("{}x{end}{second}\r\n.\r\n", message("1"))).await;
        assert!(reply.starts_with("554 5.5.2 "), "{end:?} {reply}");
    }
    assert!(client.mail("ana@example.com", "3").await.starts_with("250 "), "still in step");
    let paths: Vec<_> = running.received("").expect("receptions").into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["ana@example.com"; 5]);
}
