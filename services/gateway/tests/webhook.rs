//! The webhook channel end to end against the sandbox: every way in which a receiver can answer, or not.

use std::{
    net::SocketAddr,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    Address, Channel, Content, Delivery, Message, Notification, NotificationId, Outcome, Priority, Reason, Recipient,
    Secret, Selector, State, Strategy, Target, TenantId, Timestamp, channel, config::Account,
};
use gateway::{
    channels::{
        Answer, Provider as _,
        webhook::{Options, Webhook},
    },
    guard::{Guard, Network, System, parse_network},
};
use sandbox::{Running, Sandbox, SandboxSettings};
use serde_json::json;
use service_kit::settings::Settings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TIMEOUT: Duration = Duration::from_millis(300);
const AGAIN: Outcome = Outcome::Transient { retry_after: None };

async fn sandbox() -> Running {
    Sandbox::start(SandboxSettings::local(Secret::new(SECRET))).await.expect("started")
}

fn options(timeout: Duration) -> Options {
    let guard = Guard { opened: vec![parse_network("127.0.0.0/8").expect("a network")], allow_http: false };
    Options { timeout, guard, idle_per_host: 4 }
}

fn webhook(timeout: Duration) -> Webhook {
    Webhook::with(options(timeout), Arc::new(System))
}

fn patient() -> Webhook {
    webhook(Duration::from_secs(10))
}

fn account(secret: &str) -> Account {
    rotated(secret, None)
}

fn rotated(secret: &str, previous: Option<&str>) -> Account {
    Account::Webhook(channel::webhook::Account {
        secret: Secret::new(secret),
        previous_secret: previous.map(Secret::new),
    })
}

fn delivery(url: &str) -> Delivery {
    let now = Timestamp::now();
    let address = Address::parse(Channel::Webhook, url).expect(url);
    let content = json!({"default": {"title": "Shipped", "body": "Your order is on its way"}});
    let notification = Notification {
        id: NotificationId::new(now),
        tenant: TenantId::parse("acme").expect("valid"),
        recipient: Recipient::Address(Channel::Webhook, address.clone()),
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        strategy: Strategy::All,
        message: Message::Content(Content::parse(content.as_object().expect("object").clone(), "").expect("valid")),
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    };
    Delivery::begin(&notification, Channel::Webhook, Some(Target::raw(address)), now, State::Queued, None)
}

async fn send(webhook: &Webhook, url: &str) -> Answer {
    webhook.send(&delivery(url), Some(&account(SECRET))).await
}

/// Sends, and checks that it came back within two seconds.
async fn send_quickly(webhook: &Webhook, url: &str) -> Answer {
    let begun = Instant::now();
    let answer = send(webhook, url).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{url} took {:?}", begun.elapsed());
    answer
}

/// A receiver that answers every connection with these bytes and closes it.
async fn raw(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16 * 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
        }
    });
    address
}

/// Row 30 of the catalogue (reliability.md, section 7). The secret is changed here first, then at the receiver; no webhook is refused on the way.
#[tokio::test]
async fn a_receiver_with_the_old_secret_verifies_while_both_sign() {
    let (sandbox, webhook) = (sandbox().await, patient());
    let url = sandbox.hook("ok/ana");
    let new = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    for (secret, previous, outcome) in
        [(new, Some(SECRET), "sent"), (SECRET, Some(new), "sent"), (SECRET, None, "sent"), (new, None, "transient")]
    {
        let answer = webhook.send(&delivery(&url), Some(&rotated(secret, previous))).await;
        assert_eq!(answer.outcome.code(), outcome, "{previous:?}");
    }
    let signatures: Vec<_> = sandbox.received("/hook/ok").expect("a record").iter().map(|r| r.verified).collect();
    assert_eq!(signatures, [true, true, true, false]);
}

/// Rows 19 and 29: 429 with every kind of `Retry-After`, and 410.
#[tokio::test]
async fn answers_become_verdicts() {
    let (sandbox, webhook) = (sandbox().await, patient());
    let in_a_day = Outcome::Transient { retry_after: Some(Duration::from_secs(24 * 60 * 60)) };
    let in_7s = Outcome::Transient { retry_after: Some(Duration::from_secs(7)) };
    for (behaviour, outcome, detail) in [
        ("ok/ana", Outcome::Sent, "HTTP 200"),
        ("status/204", Outcome::Sent, "HTTP 204"),
        ("gone", Outcome::AddressGone { since: None }, "HTTP 410"),
        ("status/400", AGAIN, "HTTP 400"),
        ("status/409", AGAIN, "HTTP 409"),
        ("status/503", AGAIN, "HTTP 503"),
        ("retry-after/7", in_7s, "HTTP 429"),
        ("retry-after/-7", AGAIN, "HTTP 429"),
        ("retry-after/Wed,%2021%20Oct%202099%2007:28:00%20GMT", in_a_day, "HTTP 429"),
        ("slow/20", Outcome::Sent, "HTTP 200"),
        ("oh", AGAIN, "HTTP 404: no such behaviour; the sandbox's README lists them"),
    ] {
        let answer = send(&webhook, &sandbox.hook(behaviour)).await;
        assert_eq!((answer.outcome, answer.detail.as_str()), (outcome, detail), "{behaviour}");
    }
    let summary = sandbox.summary();
    assert_eq!((summary.count, summary.unverified), (11, 0), "the sandbox checks signatures with code of its own");
    assert!(sandbox.received("/").expect("records").iter().all(|r| r.connection == 1), "one connection was enough");
}

/// Row 31 for the id; that the timestamp is each attempt's own is in `payload.rs`.
#[tokio::test]
async fn attempts_share_their_id_and_body() {
    let (sandbox, webhook) = (sandbox().await, patient());
    let (delivery, account) = (delivery(&sandbox.hook("seq/503,500,200")), account(SECRET));
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(webhook.send(&delivery, Some(&account)).await.outcome);
    }
    assert_eq!(outcomes, [AGAIN, AGAIN, Outcome::Sent]);
    let received = sandbox.received("/hook/seq/").expect("records");
    assert_eq!(received.len(), 3);
    for r in &received {
        assert_eq!(r.id, Some(delivery.id.to_string()));
        assert!(r.verified && r.body == received[0].body, "{r:?}");
    }
    let body: serde_json::Value = serde_json::from_str(&received[0].body).expect("JSON");
    assert_eq!(body["data"]["body"], "Your order is on its way");
}

/// Row 27.
#[tokio::test]
async fn redirects_are_not_followed() {
    let (sandbox, internal, webhook) = (sandbox().await, sandbox().await, patient());
    for code in [301, 302, 303, 307, 308] {
        let url = sandbox.hook(&format!("redirect/{code}?to={}", internal.hook("ok")));
        assert_eq!(send(&webhook, &url).await.outcome, Outcome::Rejected(Reason::ProviderRejected), "{code}");
    }
    assert_eq!((sandbox.summary().count, internal.summary().count), (5, 0));
}

/// Row 39: a proxy would see what is sent, and connect where the guard cannot look.
#[tokio::test]
async fn a_proxy_in_the_environment_is_ignored() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    proxy.set_nonblocking(true).expect("an option");
    let url = format!("http://{}", proxy.local_addr().expect("bound"));
    let mut tests = Command::new(std::env::current_exe().expect("this program"));
    tests.args(["--exact", "answers_become_verdicts"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        tests.env(name, &url).env(name.to_lowercase(), &url);
    }
    let ran = tokio::task::spawn_blocking(move || tests.output()).await.expect("no panic").expect("it ran");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.accept().map_err(|e| e.kind()).err(), Some(std::io::ErrorKind::WouldBlock), "nobody came");
}

/// Rows 21 and 26: no answer, half of one, garbage, and a connection that is closed in the middle.
#[tokio::test]
async fn no_answer_is_unknown() {
    let (sandbox, webhook) = (sandbox().await, webhook(TIMEOUT));
    for behaviour in ["hang", "drop", "slow/60000"] {
        let answer = send_quickly(&webhook, &sandbox.hook(behaviour)).await;
        assert_eq!(answer.outcome, Outcome::Unknown, "{behaviour}: {}", answer.detail);
    }
    assert_eq!(sandbox.summary().count, 3, "all of them had arrived");
    let long_head = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'x'; 1 << 20]].concat();
    for garbage in
        [b"nonsense\r\n\r\n".to_vec(), b"HTTP/1.1 200".to_vec(), b"HTTP/1.1 999999 X\r\n\r\n".to_vec(), long_head]
    {
        let answer = send_quickly(&webhook, &format!("http://{}/", raw(garbage).await)).await;
        assert_eq!(answer.outcome, Outcome::Unknown, "{}", answer.detail);
    }
}

/// A network on which connections never come about.
struct Nowhere;

#[async_trait]
impl Network for Nowhere {
    async fn resolve(&self, _: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok(vec![([127, 0, 0, 1], port).into()])
    }

    async fn dial(&self, _: SocketAddr) -> std::io::Result<TcpStream> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn what_never_left_is_transient() {
    let (sandbox, quick) = (sandbox().await, webhook(TIMEOUT));
    // nobody listens there, and the system gives it to no other test meanwhile
    let closed = "127.0.0.1:1";
    // it listens and the kernel accepts, but nobody will ever say hello
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent_url = format!("https://{}/", silent.local_addr().expect("bound"));
    for (webhook, url, detail) in [
        (&quick, format!("http://{closed}/"), "the connection was refused"),
        (&quick, format!("https://{}/", sandbox.receiver), "no TLS connection"),
        (&quick, silent_url, "no connection in time"),
        (
            &Webhook::with(options(TIMEOUT), Arc::new(Nowhere)),
            "http://slow.example/".to_owned(),
            "no connection in time",
        ),
    ] {
        let answer = send_quickly(webhook, &url).await;
        assert_eq!((answer.outcome, answer.detail.as_str()), (AGAIN, detail), "{url}");
    }
    assert_eq!(sandbox.summary().count, 0);
}

/// Row 26: bodies that drip, do not end or break off.
#[tokio::test]
async fn endless_answers_are_cut_off() {
    let (sandbox, webhook) = (sandbox().await, patient());
    for behaviour in ["big", "drip"] {
        let answer = send_quickly(&webhook, &sandbox.hook(behaviour)).await;
        assert_eq!(answer.outcome, Outcome::Sent, "{behaviour}");
        assert!(answer.detail.chars().count() <= 210, "{}", answer.detail);
    }
    let broken_off = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthanks".to_vec()).await;
    let answer = send_quickly(&webhook, &format!("http://{broken_off}/")).await;
    assert_eq!((answer.outcome, answer.detail.as_str()), (Outcome::Sent, "HTTP 200: thanks"));
    let echo = raw(b"HTTP/1.0 500 X\r\n\r\ngot: Your order is on its way".to_vec()).await;
    let answer = send_quickly(&webhook, &format!("http://{echo}/")).await;
    assert_eq!((answer.outcome, answer.detail.contains("order")), (AGAIN, false), "{}", answer.detail);
}

/// Row 38; every form of an address is in the guard's own tests.
#[tokio::test]
async fn a_closed_network_is_never_contacted() {
    let sandbox = sandbox().await;
    let closed = Webhook::with(Options { guard: Guard::default(), ..options(TIMEOUT) }, Arc::new(System));
    let port = sandbox.receiver.port();
    for url in
        [sandbox.hook("ok"), format!("http://localhost:{port}/hook/ok"), format!("https://2130706433:{port}/hook/ok")]
    {
        let answer = send(&closed, &url).await;
        let refused = (Outcome::Rejected(Reason::AddressForbidden), "webhooks may not go to this address");
        assert_eq!((answer.outcome, answer.detail.as_str()), refused, "{url}");
    }
    assert_eq!(sandbox.summary().count, 0);
}

#[tokio::test]
async fn an_account_without_a_right_secret_is_misconfigured() {
    let (sandbox, webhook) = (sandbox().await, patient());
    let delivery = delivery(&sandbox.hook("ok"));
    let bad = account("whsec_AAAA");
    for account in [None, Some(&bad)] {
        assert_eq!(webhook.send(&delivery, account).await.outcome, Outcome::Misconfigured);
    }
    assert_eq!(sandbox.summary().count, 0);
    let other = account("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=");
    let answer = webhook.send(&delivery, Some(&other)).await;
    assert_eq!((answer.outcome, answer.detail.as_str()), (AGAIN, "HTTP 401: no right signature"));
}

#[tokio::test]
async fn settings_make_a_webhook_or_name_what_is_wrong() {
    let mut settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    assert!(Webhook::new(&settings).is_ok());
    settings.set("gateway.webhook.open_networks", vec!["127.0.0.0/8".to_owned(), "intranet".to_owned()]);
    settings.set("gateway.webhook.timeout", "0s");
    let problems = Webhook::new(&settings).err().expect("two problems").to_string();
    assert!(
        problems.contains("`intranet` is no network") && problems.contains("timeout: must be more than 0s"),
        "{problems}"
    );
}
