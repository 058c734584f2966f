//! The email channel against SMTP servers: scripted ones that do what no decent server does, and the sandbox.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use domain::{
    Address, Channel, Content, Delivery, Message, Notification, NotificationId, Outcome, Priority, Reason, Recipient,
    Selector, State, Strategy, Target, TenantId, Timestamp, config::Account,
};
use gateway::{
    channels::{
        Answer, Provider as _,
        email::{Email, Options},
    },
    guard::{System, parse_network},
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

const AGAIN: Outcome = Outcome::Transient { retry_after: None };
const REJECTED: Outcome = Outcome::Rejected(Reason::ProviderRejected);
const GONE: Outcome = Outcome::AddressGone { since: None };

fn options() -> Options {
    Options {
        timeout: Duration::from_secs(20),
        open_networks: vec![parse_network("127.0.0.0/8").expect("a network")],
        connections: 10,
        idle_timeout: Duration::from_secs(30),
        messages_per_connection: 1000,
    }
}

fn email() -> Email {
    Email::with(options(), Arc::new(System))
}

/// Half a second for everything.
fn impatient() -> Email {
    Email::with(Options { timeout: Duration::from_millis(500), ..options() }, Arc::new(System))
}

fn account(port: u16, extra: Value) -> Account {
    let mut account = json!({
        "channel": "email", "host": "127.0.0.1", "port": port, "tls": "none", "from": "Shop <no-reply@example.com>",
    });
    account.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
    serde_json::from_value(account).expect("an account")
}

fn delivery(to: &str) -> Delivery {
    let now = Timestamp::now();
    let address = Address::parse(Channel::Email, to).expect(to);
    let content = json!({"default": {"title": "Shipped", "body": "Your order is on its way"}});
    let notification = Notification {
        id: NotificationId::new(now),
        tenant: TenantId::parse("acme").expect("valid"),
        recipient: Recipient::Address(Channel::Email, address.clone()),
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Email)],
        strategy: Strategy::All,
        message: Message::Content(Content::parse(content.as_object().expect("object").clone(), "").expect("valid")),
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    };
    Delivery::begin(&notification, Channel::Email, Some(Target::raw(address)), now, State::Queued, None)
}

async fn send(email: &Email, account: &Account) -> Answer {
    email.send(&delivery("ana@example.net"), Some(account)).await
}

/// Sends, and checks that it came back within two seconds.
async fn send_quickly(email: &Email, account: &Account) -> Answer {
    let begun = Instant::now();
    let answer = send(email, account).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    answer
}

fn seen(answer: &Answer) -> (Outcome, &str) {
    (answer.outcome, answer.detail.as_str())
}

/// One turn of a script: what the server waits for, to the byte, and what it answers then. A client that waits for an answer
/// before it has said all of that waits in vain.
type Turn<'a> = (&'a str, &'a str);

/// Anything up to a dot on a line of its own.
const MESSAGE: &str = "(a message)";
const GREET: Turn<'_> = ("", "220 mx.example ESMTP\r\n");
const HELLO: Turn<'_> = ("EHLO example.com\r\n", "250-mx.example\r\n250 PIPELINING\r\n");
const OLD_HELLO: Turn<'_> = ("EHLO example.com\r\n", "250 mx.example\r\n");
const GROUP: &str = "MAIL FROM:<no-reply@example.com>\r\nRCPT TO:<ana@example.net>\r\nDATA\r\n";
const RESET: &str = "RSET\r\nMAIL FROM:<no-reply@example.com>\r\nRCPT TO:<ana@example.net>\r\nDATA\r\n";
const ENVELOPE: Turn<'_> = (GROUP, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n");
const TAKEN: Turn<'_> = (MESSAGE, "250 2.0.0 queued as 1\r\n");

/// Follows a script to its end.
async fn follow<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, turns: &[(String, String)]) {
    let mut heard = Vec::new();
    for (expected, said) in turns {
        let is_heard = |heard: &[u8]| match expected.as_str() {
            MESSAGE => heard.ends_with(b"\r\n.\r\n"),
            exact => heard.len() >= exact.len(),
        };
        while !is_heard(&heard) {
            let count = stream.read_buf(&mut heard).await.expect("read");
            assert!(count > 0, "the client left: {expected:?} after {:?}", String::from_utf8_lossy(&heard));
        }
        if expected != MESSAGE {
            assert_eq!(&String::from_utf8_lossy(&heard), expected);
        }
        heard.clear();
        stream.write_all(said.as_bytes()).await.expect("written");
    }
}

/// A server that follows one script per connection, in order, and closes each at its script's end.
async fn scripted(scripts: &[&[Turn<'_>]]) -> (u16, JoinHandle<()>) {
    let owned = |turns: &&[Turn<'_>]| turns.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let scripts: Vec<_> = scripts.iter().map(owned).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let server = tokio::spawn(async move {
        for turns in scripts {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            follow(&mut stream, &turns).await;
        }
    });
    (port, server)
}

/// One message through a server with this script.
async fn through(script: &[Turn<'_>], extra: Value) -> Answer {
    let (port, server) = scripted(&[script]).await;
    let answer = send(&email(), &account(port, extra)).await;
    server.await.expect("the script was followed");
    answer
}

/// Performance.md, section 3: two round trips where the server allows it.
#[tokio::test]
async fn an_envelope_is_one_write_and_a_connection_is_used_again() {
    let (port, server) = scripted(&[&[GREET, HELLO, ENVELOPE, TAKEN, ENVELOPE, TAKEN]]).await;
    let (email, account) = (email(), account(port, json!({})));
    for _ in 0..2 {
        assert_eq!(seen(&send(&email, &account).await), (Outcome::Sent, "message: 250 2.0.0 queued as 1"));
    }
    server.await.expect("the script was followed");
}

#[tokio::test]
async fn without_pipelining_every_command_waits() {
    let script = [
        GREET,
        OLD_HELLO,
        ("MAIL FROM:<no-reply@example.com>\r\n", "250 ok\r\n"),
        ("RCPT TO:<ana@example.net>\r\n", "251 will forward\r\n"),
        ("DATA\r\n", "354 go on\r\n"),
        TAKEN,
    ];
    assert_eq!(through(&script, json!({})).await.outcome, Outcome::Sent);
    let refused =
        [&script[..3], &[("RCPT TO:<ana@example.net>\r\n", "550 5.1.1 <ana@example.net> unknown\r\n")]].concat();
    assert_eq!(seen(&through(&refused, json!({})).await), (GONE, "RCPT: 550 5.1.1 … unknown"));
}

/// Rows 40 and 44 of the catalogue (reliability.md, section 7) are in `payload.rs`; this is what a refusal costs the next message.
#[tokio::test]
async fn a_refused_envelope_leaves_a_connection_that_works() {
    let (port, server) = scripted(&[&[
        GREET,
        HELLO,
        // it wants a message all the same, and gets an empty one for nobody
        (GROUP, "250 ok\r\n550 5.1.1 unknown\r\n354 go on\r\n"),
        (".\r\n", "554 5.5.1 no recipient\r\n"),
        (RESET, "250 ok\r\n250 ok\r\n552 5.2.2 full\r\n503 5.5.1 no recipient\r\n"),
        (RESET, "250 ok\r\n550 5.7.1 not your address\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n"),
        (RESET, "250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n"),
        TAKEN,
        ENVELOPE,
        (MESSAGE, "554 5.7.1 spam\r\n"),
    ]])
    .await;
    let (email, account) = (email(), account(port, json!({})));
    for expected in [GONE, AGAIN, Outcome::Misconfigured, Outcome::Sent, REJECTED] {
        let answer = send(&email, &account).await;
        assert_eq!(answer.outcome, expected, "{}", answer.detail);
    }
    server.await.expect("the script was followed");
}

#[tokio::test]
async fn a_message_for_nobody_is_never_sent_to_somebody() {
    // MAIL is refused and RCPT is not: an empty message would go out
    let script = [GREET, HELLO, (GROUP, "451 4.3.0 no\r\n250 ok\r\n354 go on\r\n")];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let account = account(listener.local_addr().expect("bound").port(), json!({}));
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        follow(&mut stream, &script.map(|(a, b)| (a.to_owned(), b.to_owned()))).await;
        let mut more = String::new();
        // closed with or without a reset
        let _ = stream.read_to_string(&mut more).await;
        more
    });
    assert_eq!(send(&email(), &account).await.outcome, AGAIN);
    assert_eq!(server.await.expect("no panic"), "");
}

/// Row 23: a connection that the server closed, and 421 wherever it may come.
#[tokio::test]
async fn connections_that_died_at_rest_cost_no_attempt() {
    let goodbye: Turn<'_> = (GROUP, "421 4.4.2 idle for too long\r\n");
    let (port, server) = scripted(&[
        // closed after a message, closed at MAIL, closed politely, and then one that is new and closed as well
        &[GREET, HELLO, ENVELOPE, TAKEN],
        &[GREET, HELLO, ENVELOPE, TAKEN, (GROUP, "")],
        &[GREET, HELLO, ENVELOPE, TAKEN, goodbye],
        &[GREET, HELLO, ENVELOPE, TAKEN],
        &[GREET, HELLO, goodbye],
    ])
    .await;
    let (email, account) = (email(), account(port, json!({})));
    for _ in 0..4 {
        let answer = send(&email, &account).await;
        assert_eq!(answer.outcome, Outcome::Sent, "{}", answer.detail);
    }
    let answer = send(&email, &account).await;
    assert_eq!(seen(&answer), (AGAIN, "MAIL: 421 4.4.2 idle for too long"));
    server.await.expect("the script was followed");
}

/// Row 23 for a protocol without stream numbers: half-open connections, here one that is open and silent for ever.
#[tokio::test]
async fn a_connection_that_froze_at_rest_costs_no_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let account = account(listener.local_addr().expect("bound").port(), json!({}));
    let server = tokio::spawn(async move {
        let mut frozen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            follow(&mut stream, &[GREET, HELLO, ENVELOPE, TAKEN].map(|(a, b)| (a.to_owned(), b.to_owned()))).await;
            frozen.push(stream);
        }
        frozen.len()
    });
    let email = Email::with(Options { timeout: Duration::from_secs(2), ..options() }, Arc::new(System));
    for _ in 0..2 {
        assert_eq!(send_quickly(&email, &account).await.outcome, Outcome::Sent);
    }
    assert_eq!(server.await.expect("no panic"), 2);
}

/// Row 26 and the closed-in-the-middle answers: what is unknown is only what can have been taken.
#[tokio::test]
async fn only_after_the_final_dot_an_outcome_is_unknown() {
    for script in [&[GREET][..], &[GREET, HELLO], &[GREET, HELLO, (GROUP, "250 ok\r\n")]] {
        let answer = through(script, json!({})).await;
        assert_eq!(seen(&answer), (AGAIN, "the connection ended"), "{} turns", script.len());
    }
    for said in ["", "25", "hello\r\n", "250-ok\r\n550 no\r\n", "354 go on\r\n"] {
        let answer = through(&[GREET, HELLO, ENVELOPE, (MESSAGE, said)], json!({})).await;
        assert_eq!(answer.outcome, Outcome::Unknown, "{said:?}: {}", answer.detail);
    }
    let said = (MESSAGE, "250-2.0.0 taken, and\r\n");
    assert_eq!(
        seen(&through(&[GREET, HELLO, ENVELOPE, said], json!({})).await),
        (Outcome::Sent, "message: 250 2.0.0 taken, and")
    );
}

/// A server that says this, and then goes on saying `endless` until the client leaves.
async fn droning(script: &'static [Turn<'static>], endless: &'static [u8], pause: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            follow(&mut stream, &script.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
                .await;
            while stream.write_all(endless).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        }
    });
    port
}

/// Row 26: silence, one byte at a time, and no end, at every step.
#[tokio::test]
async fn slow_silent_and_endless_servers_are_left() {
    const LONG: &[u8] = &[b'x'; 1 << 16];
    let (now, drip) = (Duration::ZERO, Duration::from_millis(20));
    for (script, endless, pause, expected) in [
        (&[][..], &b""[..], drip, AGAIN),
        (&[], b"2", drip, AGAIN),
        (&[], b"220-x\r\n", drip, AGAIN),
        (&[("", "220 ")], LONG, now, AGAIN),
        (&[], b"220-more\r\n220-and more\r\n", now, AGAIN),
        (&[GREET], b"", drip, AGAIN),
        (&[GREET, HELLO], b"", drip, AGAIN),
        (&[GREET, HELLO, ENVELOPE, (MESSAGE, "")], b"", drip, Outcome::Unknown),
        (&[GREET, HELLO, ENVELOPE, (MESSAGE, "2")], b"5", drip, Outcome::Unknown),
        (&[GREET, HELLO, ENVELOPE, (MESSAGE, "250 ")], LONG, now, Outcome::Unknown),
        (&[GREET, HELLO, ENVELOPE, TAKEN], b"250 and on\r\n", drip, Outcome::Sent),
    ] {
        let account = account(droning(script, endless, pause).await, json!({}));
        let answer = send_quickly(&impatient(), &account).await;
        assert_eq!(answer.outcome, expected, "{script:?}: {}", answer.detail);
    }
}

/// Row 21: what is no SMTP at all is no verdict on the message.
#[tokio::test]
async fn greetings_that_are_refusals() {
    for (said, expected) in [
        ("421 4.7.0 too many connections\r\n", AGAIN),
        ("554 5.7.1 you are blocked\r\n", Outcome::Misconfigured),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", AGAIN),
    ] {
        let answer = through(&[("", said)], json!({})).await;
        assert_eq!(answer.outcome, expected, "{}", answer.detail);
    }
}

/// STARTTLS taken off the list by somebody in between, and plaintext injected behind it (email.md, section 1.2).
#[tokio::test]
async fn nothing_is_said_without_the_tls_that_was_asked_for() {
    let login = json!({"tls": "starttls", "username": "shop", "password": "hunter2-hunter2"});
    for (extra, detail) in [
        (json!({"tls": "starttls_required"}), "the server offers no STARTTLS"),
        (login, "the server offers no STARTTLS, and a password is not sent without TLS"),
    ] {
        let hello = ("EHLO example.com\r\n", "250-mx.example\r\n250 AUTH PLAIN LOGIN\r\n");
        assert_eq!(seen(&through(&[GREET, hello], extra).await), (Outcome::Misconfigured, detail));
    }
    assert_eq!(through(&[GREET, HELLO, ENVELOPE, TAKEN], json!({"tls": "starttls"})).await.outcome, Outcome::Sent);
    let offers = ("EHLO example.com\r\n", "250-mx.example\r\n250 STARTTLS\r\n");
    for (said, detail) in [
        ("220 go on\r\n250 injected\r\n", "somebody speaks before TLS does"),
        ("220 go on\r\n250-half of an answer", "somebody speaks before TLS does"),
        ("454 4.7.0 not now\r\n", "STARTTLS: 454 4.7.0 not now"),
    ] {
        let answer = through(&[GREET, offers, ("STARTTLS\r\n", said)], json!({"tls": "starttls"})).await;
        assert_eq!(seen(&answer), (AGAIN, detail));
    }
}

#[tokio::test]
async fn logging_in_and_being_refused() {
    let login = json!({"username": "shop@example.com", "password": "hunter2-hunter2"});
    let plain = (
        "EHLO example.com\r\n",
        "250-mx.example\r\n250-PIPELINING\r\n250-AUTH=LOGIN PLAIN\r\n250 AUTH LOGIN PLAIN\r\n",
    );
    let only_login = ("EHLO example.com\r\n", "250-mx.example\r\n250-PIPELINING\r\n250 auth LOGIN\r\n");
    let initial = "AUTH PLAIN AHNob3BAZXhhbXBsZS5jb20AaHVudGVyMi1odW50ZXIy\r\n";
    let user = ("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n");
    let password = ("c2hvcEBleGFtcGxlLmNvbQ==\r\n", "334 UGFzc3dvcmQ6\r\n");
    let last = "aHVudGVyMi1odW50ZXIy\r\n";
    let welcome = "235 2.7.0 welcome\r\n";
    assert_eq!(
        through(&[GREET, plain, (initial, welcome), ENVELOPE, TAKEN], login.clone()).await.outcome,
        Outcome::Sent
    );
    let by_login = [GREET, only_login, user, password, (last, welcome), ENVELOPE, TAKEN];
    assert_eq!(through(&by_login, login.clone()).await.outcome, Outcome::Sent);
    let refused = through(&[GREET, plain, (initial, "535 5.7.8 shop@example.com is wrong\r\n")], login.clone()).await;
    assert_eq!(seen(&refused), (Outcome::Misconfigured, "AUTH: 535 5.7.8 … is wrong"));
    let echo = "500 what is \"AHNob3BAZXhhbXBsZS5jb20AaHVudGVyMi1odW50ZXIy\" or hunter2-hunter2?\r\n";
    let refused = through(&[GREET, plain, (initial, echo)], login.clone()).await;
    assert_eq!(seen(&refused), (Outcome::Misconfigured, "AUTH: 500 what is … or …"));
    let none = through(&[GREET, HELLO], login).await;
    assert_eq!(seen(&none), (Outcome::Misconfigured, "the server offers neither AUTH PLAIN nor AUTH LOGIN"));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_offered() {
    let hello = ("EHLO example.com\r\n", "250-mx.example\r\n250-PIPELINING\r\n250 SIZE 100\r\n");
    let answer = through(&[GREET, hello], json!({})).await;
    assert_eq!(seen(&answer), (REJECTED, "the message is larger than the server takes"));
}

/// Row 43: the server's SIZE is counted in bytes, and ours is the number that arrives.
#[tokio::test]
async fn the_servers_limit_is_exact() {
    let mut delivery = delivery("ana@example.net");
    let content = json!({"default": {"title": "Größe", "body": ".\n\u{1f469}\u{200d}\u{1f680} €\n.."}});
    delivery.content = Content::parse(content.as_object().expect("object").clone(), "").expect("valid");
    let through = async |limit: usize| {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let account = account(listener.local_addr().expect("bound").port(), json!({}));
        let server = tokio::spawn(announced_and_received(listener, limit));
        // with it goes the connection
        let email = email();
        let answer = email.send(&delivery, Some(&account)).await;
        drop(email);
        (answer.outcome, server.await.expect("no panic"))
    };
    let (outcome, sizes) = through(0).await;
    let size = sizes.expect("a message").0;
    assert_eq!((outcome, sizes), (Outcome::Sent, Some((size, size))), "no limit");
    assert_eq!(through(size + 1).await, (Outcome::Sent, Some((size, size))));
    assert_eq!(through(size).await, (Outcome::Sent, Some((size, size))));
    assert_eq!(through(size - 1).await, (REJECTED, None));
}

/// Offers a SIZE and takes one message: how long MAIL says that it is, and how long it is.
async fn announced_and_received(listener: TcpListener, limit: usize) -> Option<(usize, usize)> {
    let (mut stream, _) = listener.accept().await.expect("accepted");
    let hello = format!("250-mx.example\r\n250-PIPELINING\r\n250 SIZE {limit}\r\n");
    let turns = [(String::new(), GREET.1.to_owned()), (HELLO.0.to_owned(), hello)];
    follow(&mut stream, &turns).await;
    let (mut envelope, mut message) = (Vec::new(), Vec::new());
    for (heard, end, said) in [(&mut envelope, "DATA\r\n", ENVELOPE.1), (&mut message, "\r\n.\r\n", TAKEN.1)] {
        while !heard.ends_with(end.as_bytes()) {
            // the client leaves without a word to the message
            stream.read_buf(heard).await.ok().filter(|count| *count > 0)?;
        }
        stream.write_all(said.as_bytes()).await.expect("written");
    }
    let envelope = String::from_utf8(envelope).expect("ASCII");
    let announced = envelope.split_once(" SIZE=")?.1.split_once('\r')?.0.parse().ok()?;
    let message = String::from_utf8(message).expect("ASCII").replace("\r\n..", "\r\n.");
    Some((announced, message.len() - ".\r\n".len()))
}

#[tokio::test]
async fn what_was_offered_before_tls_is_forgotten() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private))
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let owned = |(a, b): Turn<'_>| (a.to_owned(), b.to_owned());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let hello = ("EHLO example.com\r\n", "250-mx\r\n250-PIPELINING\r\n250-SIZE 1\r\n250 STARTTLS\r\n");
        follow(&mut stream, &[GREET, hello, ("STARTTLS\r\n", "220 go on\r\n")].map(owned)).await;
        let mut stream = acceptor.accept(stream).await.expect("TLS");
        let mail = ("MAIL FROM:<no-reply@example.com>\r\n", "451 4.3.0 not now\r\n");
        follow(&mut stream, &[OLD_HELLO, mail].map(owned)).await;
    });
    let account = account(port, json!({"tls": "starttls_required", "ca": key.cert.pem()}));
    assert_eq!(seen(&send(&email(), &account).await), (AGAIN, "MAIL: 451 4.3.0 not now"));
    server.await.expect("the script was followed");
}

/// What a server saw.
#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// Reads after EHLO that brought something.
    reads: AtomicUsize,
    messages: AtomicUsize,
}

async fn counted(mut stream: TcpStream, counts: &Counts) {
    counts.connections.fetch_add(1, SeqCst);
    counts.most_open.fetch_max(counts.open.fetch_add(1, SeqCst) + 1, SeqCst);
    follow(&mut stream, &[GREET, HELLO].map(|(a, b)| (a.to_owned(), b.to_owned()))).await;
    let (mut heard, mut is_message) = (Vec::with_capacity(1 << 16), false);
    while stream.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {
        if heard == b"QUIT\r\n" {
            break;
        }
        counts.reads.fetch_add(1, SeqCst);
        let (end, said) = if is_message { ("\r\n.\r\n", "250 ok\r\n") } else { (GROUP, ENVELOPE.1) };
        if heard.ends_with(end.as_bytes()) {
            counts.messages.fetch_add(usize::from(is_message), SeqCst);
            is_message = !is_message;
            heard.clear();
            stream.write_all(said.as_bytes()).await.expect("written");
        }
    }
    counts.open.fetch_sub(1, SeqCst);
}

async fn counting() -> (u16, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let counts = Arc::new(Counts::default());
    let shared = counts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counts = shared.clone();
            tokio::spawn(async move { counted(stream, &counts).await });
        }
    });
    (port, counts)
}

/// Each message is two writes and two answers: nothing of ours ever waits for the acknowledgement of what went before.
#[tokio::test]
async fn a_hundred_messages_over_ten_connections() {
    let (port, counts) = counting().await;
    let (email, account) = (email(), account(port, json!({})));
    let all: Vec<_> = (0..100).map(|_| send(&email, &account)).collect();
    let answers = futures::future::join_all(all).await;
    assert!(answers.iter().all(|a| a.outcome == Outcome::Sent), "{answers:?}");
    assert_eq!((counts.messages.load(SeqCst), counts.reads.load(SeqCst)), (100, 200));
    assert_eq!((counts.connections.load(SeqCst), counts.most_open.load(SeqCst)), (10, 10));
}

#[tokio::test]
async fn connections_end_after_so_many_messages_and_so_much_rest() {
    let (port, counts) = counting().await;
    let limits =
        Options { connections: 2, messages_per_connection: 5, idle_timeout: Duration::from_millis(100), ..options() };
    let (email, account) = (Email::with(limits, Arc::new(System)), account(port, json!({})));
    let answers = futures::future::join_all((0..20).map(|_| send(&email, &account))).await;
    assert!(answers.iter().all(|a| a.outcome == Outcome::Sent), "{answers:?}");
    assert_eq!((counts.connections.load(SeqCst), counts.most_open.load(SeqCst)), (4, 2));
    assert_eq!(send(&email, &account).await.outcome, Outcome::Sent);
    let deadline = Instant::now() + Duration::from_secs(10);
    while counts.open.load(SeqCst) > 0 {
        assert!(Instant::now() < deadline, "a connection rests for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn accounts_share_no_connection() {
    let (port, counts) = counting().await;
    let email = email();
    for name in ["a", "b", "a"] {
        let account = account(port, json!({"from": format!("{name} <no-reply@example.com>")}));
        assert_eq!(send(&email, &account).await.outcome, Outcome::Sent);
    }
    assert_eq!(counts.connections.load(SeqCst), 2);
}

/// Row 38: an account's host is a customer's word too.
#[tokio::test]
async fn a_server_behind_the_firewall_is_never_contacted() {
    let (port, counts) = counting().await;
    let closed = Email::with(Options { open_networks: vec![], ..options() }, Arc::new(System));
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0x7f.1"] {
        let answer = send(&closed, &account(port, json!({"host": host}))).await;
        assert_eq!(answer.outcome, Outcome::Misconfigured, "{host}: {}", answer.detail);
    }
    assert_eq!(counts.connections.load(SeqCst), 0);
    let unused = account(1, json!({}));
    assert_eq!(seen(&send(&email(), &unused).await), (AGAIN, "the connection was refused"));
}

/// Row 40, from the account's side.
#[tokio::test]
async fn a_wrong_account_is_misconfigured() {
    let (port, counts) = counting().await;
    for wrong in [
        json!({"from": "nobody"}),
        json!({"reply_to": "x"}),
        json!({"list_unsubscribe": "http://example.com/"}),
        json!({"ca": "no certificate"}),
        json!({"helo": "a b"}),
        json!({"helo": "a\r\nb"}),
    ] {
        let answer = send(&email(), &account(port, wrong.clone())).await;
        assert_eq!(answer.outcome, Outcome::Misconfigured, "{wrong}: {}", answer.detail);
    }
    let answer = email().send(&delivery("ana@example.net"), None).await;
    assert_eq!(answer.outcome, Outcome::Misconfigured);
    assert_eq!(counts.messages.load(SeqCst), 0);
}

// with the sandbox

use sandbox::{Running, Sandbox, SandboxSettings};

async fn sandbox() -> Running {
    let secret = domain::Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    Sandbox::start(SandboxSettings::local(secret)).await.expect("started")
}

fn sandbox_account(sandbox: &Running, extra: Value) -> Account {
    let mut account = sandbox.email_account();
    account.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
    serde_json::from_value(account).expect("an account")
}

#[tokio::test]
async fn answers_become_verdicts() {
    let (sandbox, email) = (sandbox().await, email());
    let account = sandbox_account(&sandbox, json!({}));
    for (local, expected) in [
        ("ana", Outcome::Sent),
        ("u550", GONE),
        ("u551", GONE),
        ("u553", GONE),
        ("full", AGAIN),
        ("size", REJECTED),
        ("defer421", AGAIN),
        ("noenh550", REJECTED),
        ("multi550", GONE),
        ("garbage550", GONE),
        ("rcpt450", AGAIN),
        ("rcpt556", GONE),
        ("rcpt550-5.7.1", REJECTED),
        ("data451", AGAIN),
        ("data550-5.7.26", Outcome::Misconfigured),
        ("spam", REJECTED),
        ("big", REJECTED),
        ("noenh", Outcome::Sent),
        ("multi", Outcome::Sent),
        ("garbage", Outcome::Sent),
        ("flood", Outcome::Sent),
        ("twohundred", Outcome::Sent),
        ("slow50", Outcome::Sent),
        ("drop", Outcome::Unknown),
        ("nonsense", Outcome::Unknown),
        // it read too little of the message to have it, but all of it had left
        ("dropbefore", Outcome::Unknown),
    ] {
        let answer = email.send(&delivery(&format!("{local}@example.net")), Some(&account)).await;
        assert_eq!(answer.outcome, expected, "{local}: {}", answer.detail);
        assert!(!answer.detail.contains("example.net") && answer.detail.chars().count() < 240, "{}", answer.detail);
    }
    let mut refused = sandbox.received("").expect("records");
    refused.retain(|r| !r.verified && !r.path.starts_with("dropbefore"));
    assert!(refused.is_empty(), "the sandbox refuses what is no good mail: {refused:?}");
}

/// Row 1 for mail: a second attempt bears the same `Message-ID`, which is all that a server could tell it by.
#[tokio::test]
async fn attempts_are_the_same_mail() {
    let (sandbox, email) = (sandbox().await, email());
    let account = sandbox_account(&sandbox, json!({"list_unsubscribe": "https://u.example.com/?d={delivery}"}));
    let delivery = delivery("flaky2@example.net");
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(email.send(&delivery, Some(&account)).await.outcome);
    }
    assert_eq!(outcomes, [AGAIN, AGAIN, Outcome::Sent]);
    let received = sandbox.received("flaky2@").expect("records");
    let bodies: BTreeSet<_> = received.iter().map(|r| r.body.as_str()).collect();
    assert_eq!((received.len(), bodies.len()), (3, 1));
    assert_eq!(
        received[0].id.as_deref().map(|id| id.trim_matches(['<', '>'])),
        Some(format!("{}@example.com", delivery.id).as_str())
    );
    assert!(received.iter().all(|r| r.connection == received[0].connection && r.verified), "{received:?}");
    assert!(received[0].body.contains(&format!("List-Unsubscribe: <https://u.example.com/?d={}>\r\n", delivery.id)));
}

#[tokio::test]
async fn certificates_are_checked_however_tls_begins() {
    let (sandbox, email) = (sandbox().await, email());
    for tls in ["implicit", "starttls", "starttls_required"] {
        let trusted = sandbox_account(&sandbox, json!({"tls": tls}));
        assert_eq!(send(&email, &trusted).await.outcome, Outcome::Sent, "{tls}");
        let untrusted = sandbox_account(&sandbox, json!({"tls": tls, "ca": null}));
        let answer = send(&email, &untrusted).await;
        let detail = "the server's certificate is not trusted, or not for this host";
        assert_eq!(seen(&answer), (Outcome::Misconfigured, detail), "{tls}");
    }
    let wrong = sandbox_account(&sandbox, json!({"password": "wrong"}));
    let answer = send(&email, &wrong).await;
    assert_eq!(answer.outcome, Outcome::Misconfigured, "{}", answer.detail);
    assert_eq!(sandbox.summary().count, 3);
}

#[tokio::test]
async fn no_answer_in_time_is_unknown() {
    let sandbox = sandbox().await;
    let account = sandbox_account(&sandbox, json!({}));
    let email = Email::with(Options { timeout: Duration::from_secs(2), ..options() }, Arc::new(System));
    for local in ["hang", "slow30000", "drip5000"] {
        let answer = email.send(&delivery(&format!("{local}@example.net")), Some(&account)).await;
        assert_eq!(seen(&answer), (Outcome::Unknown, "no answer in time, after the message"), "{local}");
    }
    assert_eq!(sandbox.summary().count, 3, "all of them had arrived");
}
