//! The APNs channel end to end against the sandbox, which checks every request as Apple does, and against servers that are worse.

use std::{
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    Account, Address, Channel, Content, Delivery, Environment, Message, Notification, NotificationId, Outcome,
    Priority, Reason, Recipient, Secret, Selector, State, Strategy, Target, TenantId, Timestamp,
};
use futures::future::join_all;
use gateway::{
    channels::{
        Answer, Provider as _,
        apns::{Apns, Options},
    },
    guard::{Guard, Network, System, parse_network},
};
use sandbox::{Running, Sandbox, SandboxSettings};
use serde_json::{Value, json};
use service_kit::settings::Settings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer},
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);
const AGAIN: Outcome = Outcome::Transient { retry_after: None };

async fn sandbox() -> Running {
    sandbox_with(1000).await
}

async fn sandbox_with(max_streams: u32) -> Running {
    let secret = Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let settings = SandboxSettings { apns_max_streams: max_streams, ..SandboxSettings::local(secret) };
    Sandbox::start(settings).await.expect("started")
}

fn options(timeout: Duration) -> Options {
    let guard = Guard { opened: vec![parse_network("127.0.0.0/8").expect("a network")], allow_http: false };
    let (ping_every, ping_timeout, max_age) = (LONG, SHORT, Duration::from_secs(3600));
    Options { timeout, guard, connections: 3, ping_every, ping_timeout, max_age }
}

/// The channel, and how many connections it has asked for.
fn apns(options: Options) -> (Apns, Arc<Counting>) {
    let network = Arc::new(Counting::default());
    (Apns::with(options, network.clone()), network)
}

#[derive(Default)]
struct Counting(AtomicUsize);

impl Counting {
    fn dials(&self) -> usize {
        self.0.load(Relaxed)
    }
}

#[async_trait]
impl Network for Counting {
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        System.resolve(host, port).await
    }

    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.0.fetch_add(1, Relaxed);
        System.dial(to).await
    }
}

/// Keeps a second handle to every socket, to ask about its options.
#[derive(Default)]
struct Watched(Mutex<Vec<std::net::TcpStream>>);

#[async_trait]
impl Network for Watched {
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        System.resolve(host, port).await
    }

    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = System.dial(to).await?;
        self.0.lock().expect("no panic").push(stream.as_fd().try_clone_to_owned()?.into());
        Ok(stream)
    }
}

fn account(json: Value) -> Account {
    serde_json::from_value(json).expect("an account")
}

fn with(mut account: Value, key: &str, value: &str) -> Value {
    account[key] = value.into();
    account
}

fn delivery(token: &str) -> Delivery {
    let now = Timestamp::now();
    let address = Address::parse(Channel::Apns, token).expect(token);
    let content = json!({"default": {"title": "Shipped", "body": "Your order is on its way"}});
    let notification = Notification {
        id: NotificationId::new(now),
        tenant: TenantId::parse("acme").expect("valid"),
        recipient: Recipient::Address(Channel::Apns, address.clone()),
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Apns)],
        strategy: Strategy::All,
        message: Message::Content(Content::parse(content.as_object().expect("object").clone(), "").expect("valid")),
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    };
    let target = Target { address, since: None, app: None, environment: Environment::Production };
    Delivery::begin(&notification, Channel::Apns, Some(target), now, State::Queued, None)
}

async fn send(apns: &Apns, account: &Account, token: &str) -> Answer {
    apns.send(&delivery(token), Some(account)).await
}

/// Waits for what has to come to pass.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LONG, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Rows 19 to 21 of the catalogue (reliability.md, section 7): statuses, reasons that nobody knows, HTML and nothing as a body. Every
/// documented pair is in `verdict.rs`.
#[tokio::test]
async fn answers_become_verdicts() {
    let (sandbox, (apns, network)) = (sandbox().await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    let rejected = Outcome::Rejected(Reason::ProviderRejected);
    let gone = |since: Option<&str>| Outcome::AddressGone { since: since.map(|t| t.parse().expect("time")) };
    for (token, outcome, detail) in [
        ("00ff", Outcome::Sent, "HTTP 200"),
        ("0400", gone(None), "HTTP 400: BadDeviceToken"),
        ("0401", gone(None), "HTTP 400: DeviceTokenNotForTopic"),
        ("0402", Outcome::Misconfigured, "HTTP 400: TopicDisallowed"),
        ("0404", rejected, "HTTP 404: BadPath"),
        ("0405", rejected, "HTTP 405: MethodNotAllowed"),
        ("0406", Outcome::Misconfigured, "HTTP 403: InvalidProviderToken"),
        ("0407", Outcome::Misconfigured, "HTTP 403: BadEnvironmentKeyIdInToken"),
        ("0408", Outcome::Misconfigured, "HTTP 403: BadCertificateEnvironment"),
        ("0409", Outcome::Misconfigured, "HTTP 403: Forbidden"),
        ("0411", gone(Some("2020-09-13T12:26:40Z")), "HTTP 410: Unregistered"),
        ("0413", rejected, "HTTP 413: PayloadTooLarge"),
        ("0429", AGAIN, "HTTP 429: TooManyRequests"),
        ("0500", AGAIN, "HTTP 500: InternalServerError"),
        ("0503", AGAIN, "HTTP 503: ServiceUnavailable"),
        ("0650", rejected, "HTTP 400: AReasonThatIsNew"),
        ("0651", AGAIN, "HTTP 502"),
        ("0652", AGAIN, "HTTP 500"),
        ("0653", gone(None), "HTTP 410: Unregistered"),
        ("0654", AGAIN, "HTTP 500"),
    ] {
        let answer = send(&apns, &account, token).await;
        assert_eq!((answer.outcome, answer.detail.as_str()), (outcome, detail), "{token}");
    }
    for token in ["0410", "0412"] {
        let Outcome::AddressGone { since: Some(since) } = send(&apns, &account, token).await.outcome else {
            panic!("{token}")
        };
        assert!(since.duration_until(Timestamp::now()).abs().as_secs() < 60, "{since}");
    }
    let summary = sandbox.summary();
    assert_eq!((summary.count, summary.unverified), (22, 0), "the sandbox checks requests with code of its own");
    assert_eq!(network.dials(), 1);
    let received = &sandbox.received("/3/device/00ff").expect("records")[0];
    assert_eq!(received.headers["apns-topic"], "com.example.app");
    assert!(received.headers["authorization"].starts_with("bearer ey"));
    let body: Value = serde_json::from_str(&received.body).expect("JSON");
    assert_eq!(body, json!({"aps": {"alert": {"title": "Shipped", "body": "Your order is on its way"}}}));
}

/// Rows 22 and 23: GOAWAY, `REFUSED_STREAM`, a token that is too old and one that stays it (403 `ExpiredProviderToken`).
#[tokio::test]
async fn what_was_not_processed_is_sent_again_within_the_attempt() {
    let (sandbox, (apns, _)) = (sandbox().await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    for (token, outcome, times, connections) in [
        // GOAWAY, and REFUSED_STREAM: once
        ("0600", Outcome::Sent, 2, 2),
        ("0630", Outcome::Sent, 2, 2),
        // twice at most
        ("0631", AGAIN, 3, 2),
        // a token that is too old, and one that stays it
        ("0403", Outcome::Sent, 2, 1),
        ("040c", Outcome::Misconfigured, 1, 1),
        // a connection that is of no use any more
        ("040a", Outcome::Misconfigured, 2, 2),
        ("040b", AGAIN, 2, 2),
        ("0504", AGAIN, 1, 1),
        ("0602", Outcome::Sent, 1, 1),
        // the wait is the gateway's
        ("042e", AGAIN, 1, 1),
        ("042a", AGAIN, 1, 1),
    ] {
        let answer = send(&apns, &account, token).await;
        let received = sandbox.received(&format!("/3/device/{token}")).expect("records");
        assert_eq!((answer.outcome, received.len()), (outcome, times), "{token}: {}", answer.detail);
        assert!(received.iter().all(|r| r.id == received[0].id && r.body == received[0].body && r.verified));
        let mut on: Vec<_> = received.iter().map(|r| r.connection).collect();
        on.sort_unstable();
        on.dedup();
        assert_eq!(on.len(), connections, "{token} on {on:?}");
        assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent, "after {token}");
    }
    assert_eq!(sandbox.summary().ids_taken_again, 0);
}

/// Rows 23 and 26: resets, a stream and a connection that hang, a connection closed in the middle.
#[tokio::test]
async fn no_answer_is_unknown_and_the_next_push_does_not_suffer() {
    let sandbox = sandbox().await;
    let account = account(sandbox.apns_account());
    for (token, detail) in [
        ("0620", "no answer in time"),
        ("0621", "no answer in time"),
        ("0601", "the connection ended without an answer"),
        ("0611", "the connection ended without an answer"),
        ("0612", "the connection ended without an answer"),
        ("0632", "the stream ended without an answer"),
    ] {
        let (apns, network) = apns(options(Duration::from_secs(2)));
        assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent);
        let begun = Instant::now();
        let answer = send(&apns, &account, token).await;
        assert_eq!((answer.outcome, answer.detail.as_str()), (Outcome::Unknown, detail), "{token}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{token} took {:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent, "after {token}");
        assert!(begun.elapsed() < Duration::from_secs(1), "after {token} {:?}", begun.elapsed());
        // only a stream was lost, or the connection: a frozen one is given up as soon as it is suspect
        let dials = if ["0620", "0632"].contains(&token) { 1..=2 } else { 2..=2 };
        assert!(dials.contains(&network.dials()), "{token}: {}", network.dials());
    }
}

/// Row 26: the status is the answer; a text that drips and never ends holds no place.
#[tokio::test]
async fn an_answer_that_drips_is_cut_off() {
    let server = Server::start(&[b"h2"], Speaks::Drips).await;
    let (apns, network) = apns(options(LONG));
    let account = account(with(with(sandbox().await.apns_account(), "base_url", &server.url()), "ca", &server.ca));
    let begun = Instant::now();
    for _ in 0..2 {
        let answer = send(&apns, &account, "00ff").await;
        assert_eq!((answer.outcome, answer.detail.as_str()), (Outcome::AddressGone { since: None }, "HTTP 410"));
    }
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert_eq!(network.dials(), 1, "the connection is as good as before");
}

/// HEADERS and DATA are two writes: with Nagle's algorithm the second waits 40 ms for the first (performance.md, section 0).
#[tokio::test]
async fn nagle_is_off() {
    let (sandbox, network) = (sandbox().await, Arc::new(Watched::default()));
    let apns = Apns::with(options(LONG), network.clone());
    assert_eq!(send(&apns, &account(sandbox.apns_account()), "00ff").await.outcome, Outcome::Sent);
    let sockets = network.0.lock().expect("no panic");
    assert_eq!(sockets.iter().map(|s| s.nodelay().expect("an option")).collect::<Vec<_>>(), [true]);
}

/// Row 23: half-open TCP.
#[tokio::test]
async fn a_dead_connection_is_noticed_while_nothing_is_sent() {
    let sandbox = sandbox().await;
    let account = account(sandbox.apns_account());
    let ping_every = Duration::from_millis(50);
    let (apns, network) = apns(Options { ping_every, ..options(Duration::from_secs(2)) });
    let delivery = delivery("0621");
    // half-open from here on: the server neither reads nor closes. The PING finds it out before the push's own time is up
    let begun = Instant::now();
    let answer = apns.send(&delivery, Some(&account)).await;
    assert_eq!((answer.outcome, answer.detail.as_str()), (Outcome::Unknown, "the connection ended without an answer"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(apns.send(&delivery, Some(&account)).await.outcome, Outcome::Sent);
    assert_eq!(network.dials(), 2);
}

/// Row 23: `MAX_CONCURRENT_STREAMS` 1 until a token was taken.
#[tokio::test]
async fn a_thousand_at_once_share_a_connection_that_first_had_to_earn_it() {
    let (sandbox, (apns, network)) = (sandbox().await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    let deliveries: Vec<_> = (0..1000).map(|n| delivery(&format!("00ff{n:04}"))).collect();
    let answers = join_all(deliveries.iter().map(|d| apns.send(d, Some(&account)))).await;
    assert!(
        answers.iter().all(|a| a.outcome == Outcome::Sent),
        "{:?}",
        answers.iter().find(|a| a.outcome != Outcome::Sent)
    );
    let summary = sandbox.summary();
    assert_eq!((summary.count, summary.ids_taken, summary.unverified, network.dials()), (1000, 1000, 0, 1));
}

/// Row 23: `MAX_CONCURRENT_STREAMS` that sinks and rises.
#[tokio::test]
async fn more_connections_are_for_more_than_the_streams_of_one() {
    let (sandbox, (apns, network)) = (sandbox_with(20).await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    let slow: Vec<_> = (0..300).map(|n| delivery(&format!("070000020{n:05}"))).collect();
    let answers = join_all(slow.iter().map(|d| apns.send(d, Some(&account)))).await;
    assert!(answers.iter().all(|a| a.outcome == Outcome::Sent));
    assert_eq!((network.dials(), sandbox.summary().ids_taken), (3, 300), "as many as the settings allow");

    // the server takes back what it allowed, and gives it again
    assert_eq!(send(&apns, &account, "0640").await.outcome, Outcome::Sent);
    let answers = join_all(slow.iter().take(100).map(|d| apns.send(d, Some(&account)))).await;
    assert!(answers.iter().all(|a| a.outcome == Outcome::Sent));
    assert_eq!(send(&apns, &account, "0641").await.outcome, Outcome::Sent);
    assert_eq!(network.dials(), 3);
}

#[tokio::test]
async fn what_finds_no_room_in_time_has_not_left() {
    let (sandbox, (apns, _)) = (sandbox_with(1).await, apns(Options { connections: 1, ..options(SHORT) }));
    let account = account(sandbox.apns_account());
    let deliveries: Vec<_> = (0..10).map(|n| delivery(&format!("0620{n:04}"))).collect();
    assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent);
    let answers = join_all(deliveries.iter().map(|d| apns.send(d, Some(&account)))).await;
    let unknown = answers.iter().filter(|a| a.outcome == Outcome::Unknown).count();
    let waited = answers.iter().filter(|a| a.outcome == AGAIN && a.detail == "no room on a connection in time").count();
    assert_eq!((unknown, waited), (1, 9), "{answers:?}");
    assert_eq!(sandbox.summary().count, 2, "the one before, and the one that hangs");
}

/// Row 22: one refresh for a thousand, and no `TooManyProviderTokenUpdates`.
#[tokio::test]
async fn a_thousand_expired_tokens_are_renewed_once() {
    let (sandbox, (apns, _)) = (sandbox().await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent);
    let deliveries: Vec<_> = (0..1000).map(|n| delivery(&format!("0403{n:04}"))).collect();
    let answers = join_all(deliveries.iter().map(|d| apns.send(d, Some(&account)))).await;
    assert!(
        answers.iter().all(|a| a.outcome == Outcome::Sent),
        "{:?}",
        answers.iter().find(|a| a.outcome != Outcome::Sent)
    );
    // the sandbox takes two tokens per connection in 20 minutes; a third would have been TooManyProviderTokenUpdates
    let summary = sandbox.summary();
    assert_eq!((summary.count, summary.ids_taken, summary.ids_taken_again), (2001, 1001, 0));
    assert_eq!(summary.answered["403"], 1000);
}

/// Row 23: GOAWAY with four hundred in flight.
#[tokio::test]
async fn a_goaway_in_the_middle_loses_and_doubles_nothing() {
    let (sandbox, (apns, _)) = (sandbox().await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent);
    let deliveries: Vec<_> = (0..400)
        .map(|n| if n % 200 == 50 { delivery(&format!("0600{n:04}")) } else { delivery(&format!("070000050{n:05}")) })
        .collect();
    let answers = join_all(deliveries.iter().map(|d| apns.send(d, Some(&account)))).await;
    assert!(
        answers.iter().all(|a| a.outcome == Outcome::Sent),
        "{:?}",
        answers.iter().find(|a| a.outcome != Outcome::Sent)
    );
    let summary = sandbox.summary();
    assert_eq!((summary.ids_taken, summary.ids_taken_again), (401, 0));
}

#[tokio::test]
async fn a_certificate_needs_no_token() {
    let (sandbox, (apns, network)) = (sandbox().await, apns(options(LONG)));
    let by_certificate = account(sandbox.apns_certificate_account());
    let deliveries: Vec<_> = (0..100).map(|n| delivery(&format!("00ff{n:04}"))).collect();
    let answers = join_all(deliveries.iter().map(|d| apns.send(d, Some(&by_certificate)))).await;
    assert!(answers.iter().all(|a| a.outcome == Outcome::Sent), "{answers:?}");
    let received = sandbox.received("/").expect("records");
    assert!(received.len() == 100 && received.iter().all(|r| r.verified && !r.headers.contains_key("authorization")));
    // a certificate of nobody's making is refused in the handshake, after ours is done: nothing left all the same
    let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).expect("a certificate");
    let json = with(sandbox.apns_certificate_account(), "certificate", &stranger.cert.pem());
    let json = with(json, "certificate_key", &stranger.signing_key.serialize_pem());
    let answer = send(&apns, &account(json), "00ff").await;
    assert_eq!((answer.outcome, answer.detail.as_str()), (AGAIN, "no HTTP/2 on the connection"));
    assert_eq!((sandbox.summary().count, network.dials()), (100, 2));
}

#[tokio::test]
async fn a_changed_key_gets_connections_of_its_own_and_the_old_ones_close() {
    let server = Server::start(&[b"h2"], Speaks::Http2).await;
    let (apns, network) = apns(options(LONG));
    let (sandbox, server_account) =
        (sandbox().await, |json: Value| account(with(with(json, "base_url", &server.url()), "ca", &server.ca)));
    let (first, second) = (server_account(sandbox.apns_account()), server_account(sandbox.second_apns_account()));
    for account in [&first, &first, &second, &second] {
        assert_eq!(send(&apns, account, "00ff").await.outcome, Outcome::Sent);
    }
    assert_eq!(network.dials(), 2);
    until("the first key's connection is closed", async || server.open() == 1).await;

    // two tenants with one key share its connections, whatever their topics
    let mut other = delivery("00ff");
    other.tenant = TenantId::parse("other").expect("valid");
    let topic = account(with(
        with(with(sandbox.second_apns_account(), "base_url", &server.url()), "ca", &server.ca),
        "topic",
        "x.y",
    ));
    assert_eq!(apns.send(&other, Some(&topic)).await.outcome, Outcome::Sent);
    assert_eq!(network.dials(), 2);
}

#[tokio::test]
async fn an_old_connection_is_replaced() {
    let server = Server::start(&[b"h2"], Speaks::Http2).await;
    let ping_every = Duration::from_millis(20);
    let (apns, network) = apns(Options { max_age: Duration::ZERO, ping_every, ..options(LONG) });
    let account = account(with(with(sandbox().await.apns_account(), "base_url", &server.url()), "ca", &server.ca));
    until("a second connection", async || {
        assert_eq!(send(&apns, &account, "00ff").await.outcome, Outcome::Sent);
        network.dials() >= 2
    })
    .await;
    until("all are closed", async || server.open() == 0).await;
}

#[tokio::test]
async fn what_never_left_is_transient() {
    let (sandbox, other) = (sandbox().await, sandbox().await);
    let own = |key: &str, value: &str| account(with(sandbox.apns_account(), key, value));
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent = format!("https://{}", silent.local_addr().expect("bound"));
    let http1 = Server::start(&[b"http/1.1"], Speaks::Nothing).await;
    let any = Server::start(&[], Speaks::Nothing).await;
    let garbage = Server::start(&[b"h2"], Speaks::Garbage).await;
    let mute = Server::start(&[b"h2"], Speaks::Nothing).await;
    let at = |server: &Server| account(with(with(sandbox.apns_account(), "base_url", &server.url()), "ca", &server.ca));
    for (account, detail) in [
        (own("ca", other.ca_pem()), "no TLS connection"),
        (own("base_url", &format!("https://{}", sandbox.receiver)), "no TLS connection"),
        // nobody listens there, and the system gives it to no other test meanwhile
        (own("base_url", "https://127.0.0.1:1"), "the connection was refused"),
        (own("base_url", &silent), "no connection in time"),
        (at(&http1), "no TLS connection"),
        (at(&any), "no HTTP/2 on the connection"),
        (at(&garbage), "no HTTP/2 on the connection"),
        (at(&mute), "no connection in time"),
    ] {
        let (apns, _) = apns(options(SHORT));
        let begun = Instant::now();
        let answer = send(&apns, &account, "00ff").await;
        assert_eq!((answer.outcome, answer.detail.as_str()), (AGAIN, detail));
        assert!(begun.elapsed() < Duration::from_secs(2), "{detail} took {:?}", begun.elapsed());
    }
    assert_eq!(sandbox.summary().count + other.summary().count, 0);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let (sandbox, (apns, network)) = (sandbox().await, apns(options(LONG)));
    let wrong = account(with(sandbox.apns_account(), "base_url", "https://127.0.0.1:1"));
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(send(&apns, &wrong, "00ff").await.outcome, AGAIN);
    }
    assert_eq!(network.dials(), 3);
    assert!(begun.elapsed() > Duration::from_millis(150), "dials that fail are further and further apart");
    assert_eq!(send(&apns, &account(sandbox.apns_account()), "00ff").await.outcome, Outcome::Sent);
}

/// Row 38, the guard, for an account's `base_url`; and what else an account can have wrong.
#[tokio::test]
async fn an_account_that_cannot_work_is_named() {
    let (sandbox, (apns, network)) = (sandbox().await, apns(options(SHORT)));
    let good = sandbox.apns_account();
    let mut no_topic = good.clone();
    no_topic.as_object_mut().expect("an object").remove("topic");
    for (json, part) in [
        (no_topic, "no app"),
        (with(good.clone(), "private_key", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"), "private_key"),
        (with(good.clone(), "team_id", "short"), "team_id"),
        (with(good.clone(), "ca", "none"), "ca holds no certificate"),
        (with(good.clone(), "base_url", "http://127.0.0.1:1"), "base_url"),
        (with(good.clone(), "base_url", "https://127.0.0.1:1/x"), "base_url"),
        (with(good.clone(), "base_url", "https://127.0.0.1:1/?x"), "base_url"),
        (with(good.clone(), "base_url", "https://u:p@127.0.0.1:1"), "base_url"),
        (with(sandbox.apns_certificate_account(), "certificate", "none"), "certificate"),
        (json!({"channel": "apns", "topic": "x.y"}), "neither"),
    ] {
        let answer = send(&apns, &account(json), "00ff").await;
        assert_eq!(answer.outcome, Outcome::Misconfigured);
        assert!(answer.detail.contains(part), "{}", answer.detail);
    }
    assert_eq!(apns.send(&delivery("00ff"), None).await.outcome, Outcome::Misconfigured);
    let closed = Apns::with(Options { guard: Guard::default(), ..options(SHORT) }, network.clone());
    let answer = send(&closed, &account(good), "00ff").await;
    let says = "the account's base_url leads to a network that is not open";
    assert_eq!((answer.outcome, answer.detail.as_str()), (Outcome::Misconfigured, says));
    assert_eq!((sandbox.summary().count, network.dials()), (0, 0));
}

/// Row 43; each byte of it is in `payload.rs`.
#[tokio::test]
async fn what_is_too_large_is_rejected_here() {
    let (sandbox, (apns, _)) = (sandbox().await, apns(options(LONG)));
    let account = account(sandbox.apns_account());
    let sized = |letters: usize, push_type: &str| {
        let own = json!({"apns": {"body": "é".repeat(letters), "push_type": push_type}});
        let mut delivery = delivery("00ff");
        delivery.content = Content::parse(own.as_object().expect("object").clone(), "").expect("valid");
        delivery
    };
    let overhead = r#"{"aps":{"alert":""}}"#.len();
    for (push_type, limit) in [("alert", 4096), ("voip", 5120)] {
        let fits = sized((limit - overhead) / 2, push_type);
        assert_eq!(apns.send(&fits, Some(&account)).await.outcome, Outcome::Sent, "{push_type}");
        let answer = apns.send(&sized((limit - overhead) / 2 + 1, push_type), Some(&account)).await;
        let says = format!("the payload has {} bytes; {limit} at most for {push_type}", limit + 2);
        assert_eq!((answer.outcome, answer.detail), (Outcome::Rejected(Reason::ProviderRejected), says));
    }
    assert_eq!(sandbox.summary().count, 2);
}

#[tokio::test]
async fn settings_make_a_client_or_name_what_is_wrong() {
    let mut settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    assert!(Apns::new(&settings).is_ok());
    settings.set("gateway.apns.open_networks", vec!["127.0.0.0/8".to_owned(), "intranet".to_owned()]);
    settings.set("gateway.apns.timeout", "0s");
    settings.set("gateway.apns.connections", 0);
    let problems = Apns::new(&settings).err().expect("three problems").to_string();
    for part in ["`intranet` is no network", "gateway.apns.timeout", "gateway.apns.connections"] {
        assert!(problems.contains(part), "{problems}");
    }
}

/// A TLS server with a certificate of its own.
struct Server {
    address: SocketAddr,
    ca: String,
    open: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Speaks {
    /// Answers every request 200.
    Http2,
    Garbage,
    Nothing,
    /// Answers every request 410, with a byte of text now and then.
    Drips,
}

impl Server {
    async fn start(alpn: &[&[u8]], speaks: Speaks) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .expect("a configuration");
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let (address, open) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
        let counted = open.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, open) = (acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    open.fetch_add(1, Relaxed);
                    converse(tls, speaks).await;
                    open.fetch_sub(1, Relaxed);
                });
            }
        });
        Self { address, ca: certified.cert.pem(), open }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

async fn converse(mut tls: tokio_rustls::server::TlsStream<TcpStream>, speaks: Speaks) {
    let mut sink = vec![0; 16 * 1024];
    match speaks {
        Speaks::Nothing => while tls.read(&mut sink).await.is_ok_and(|n| n > 0) {},
        Speaks::Garbage => {
            let _ = tls.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            while tls.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        }
        Speaks::Http2 => {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let _ = respond.send_response(hyper::Response::new(()), true);
            }
        }
        Speaks::Drips => {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let gone = hyper::Response::builder().status(410).body(()).expect("a response");
                let mut text = respond.send_response(gone, false).expect("the stream is open");
                tokio::spawn(async move {
                    while text.send_data("{".into(), false).is_ok() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                });
            }
        }
    }
}
