//! One SMTP connection: opened, greeted, encrypted and authenticated once, then one transaction after the other. Envelope in
//! one write, message in one write: two round trips for each.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    Secret,
    channel::email::{Account, Tls, mailbox},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    payload::Mail,
    reply::{Phase, Replies, Reply},
};
use crate::guard::ConnectError;

/// Why a message has not been taken.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server's word.
    Answered(Phase, Reply),
    /// No connection, or none any more; the server cannot have the message.
    Broken(&'static str),
    /// The same before anything was said.
    NotConnected(ConnectError),
    /// Not with this account.
    Misconfigured(&'static str),
    /// The server says that it takes no message of that size.
    TooLarge,
    /// The message left, the final dot included.
    NoAnswer(&'static str),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What was written and what comes back, in order.
struct Session {
    stream: Box<dyn Stream>,
    replies: Replies,
    /// When reading and writing end.
    deadline: Instant,
}

impl Session {
    fn new(stream: Box<dyn Stream>, deadline: Instant) -> Self {
        Self { stream, replies: Replies::default(), deadline }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        if !self.replies.is_empty() {
            // from here on each answer would be taken for another question's
            return Err(Failed::Broken("the server says more than it was asked"));
        }
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(self.deadline, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failed::Broken("the connection ended")),
            Err(_) => Err(Failed::Broken("the server stopped reading")),
        }
    }

    async fn reply(&mut self) -> Result<Reply, Failed> {
        loop {
            match self.replies.next() {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(_) => return Err(Failed::Broken("the server does not speak SMTP")),
            }
            match timeout_at(self.deadline, self.stream.read_buf(self.replies.buffer())).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(Failed::Broken("the connection ended")),
                Err(_) => return Err(Failed::Broken("no answer in time")),
            }
        }
    }

    /// One command, one reply.
    async fn ask(&mut self, phase: Phase, line: &str, expected: u16) -> Result<Reply, Failed> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.expect(phase, expected).await
    }

    async fn expect(&mut self, phase: Phase, expected: u16) -> Result<Reply, Failed> {
        let reply = self.reply().await?;
        if reply.code == expected { Ok(reply) } else { Err(Failed::Answered(phase, reply)) }
    }

    async fn hello(&mut self, name: &str) -> Result<Offers, Failed> {
        self.ask(Phase::Ehlo, &format!("EHLO {name}"), 250).await.map(|reply| Offers::read(&reply))
    }

    /// RFC 4954. Secrets never leave unencrypted unless the account says that it wants no TLS.
    async fn login(&mut self, offers: &Offers, account: &Account, encrypted: bool) -> Result<(), Failed> {
        let (Some(user), Some(password)) = (&account.username, &account.password) else { return Ok(()) };
        if !encrypted && account.tls != Tls::None {
            return Err(Failed::Misconfigured("the server offers no STARTTLS, and a password is not sent without TLS"));
        }
        if user.contains('\0') || password.expose().contains('\0') {
            return Err(Failed::Misconfigured("user name or password hold a NUL"));
        }
        let [initial, user, password] = credentials(user, password);
        if offers.plain {
            self.ask(Phase::Auth, &format!("AUTH PLAIN {initial}"), 235).await?;
        } else if offers.login {
            self.ask(Phase::Auth, "AUTH LOGIN", 334).await?;
            self.ask(Phase::Auth, &user, 334).await?;
            self.ask(Phase::Auth, &password, 235).await?;
        } else {
            return Err(Failed::Misconfigured("the server offers neither AUTH PLAIN nor AUTH LOGIN"));
        }
        Ok(())
    }
}

/// User and password as they go over the wire: both of them for PLAIN, then each for LOGIN.
pub(super) fn credentials(user: &str, password: &Secret) -> [String; 3] {
    let password = password.expose();
    [&format!("\0{user}\0{password}"), user, password].map(|text| BASE64_STANDARD.encode(text))
}

/// What the server can do, from its answer to EHLO.
#[derive(Debug, Default)]
struct Offers {
    starttls: bool,
    pipelining: bool,
    plain: bool,
    login: bool,
    /// SIZE, with its limit (0: none).
    size: Option<usize>,
}

impl Offers {
    fn read(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines.iter().skip(1) {
            // some servers write `AUTH=PLAIN` as well, for clients that are older than the standard
            let line = line.to_ascii_uppercase().replace('=', " ");
            let mut words = line.split_whitespace();
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("PIPELINING") => offers.pipelining = true,
                Some("SIZE") => offers.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                Some("AUTH") => words.for_each(|mechanism| match mechanism {
                    "PLAIN" => offers.plain = true,
                    "LOGIN" => offers.login = true,
                    _ => {}
                }),
                _ => {}
            }
        }
        offers
    }
}

/// A connection that takes messages.
pub(super) struct Connection {
    session: Session,
    offers: Offers,
    /// The server still has an envelope of a message that did not follow.
    begun: bool,
    /// It answered 421, or something that makes no sense where it came.
    over: bool,
    /// Transactions so far.
    pub(super) transactions: u32,
}

impl Connection {
    /// Greets, encrypts and authenticates.
    pub(super) async fn open(
        tcp: TcpStream,
        tls: &Arc<rustls::ClientConfig>,
        account: &Account,
        deadline: Instant,
    ) -> Result<Self, Failed> {
        let name = hello_name(account)?;
        let tcp: Box<dyn Stream> = Box::new(tcp);
        let mut session = match account.tls {
            Tls::Implicit => encrypted(tcp, tls, account, deadline).await?,
            Tls::Starttls | Tls::StarttlsRequired | Tls::None => Session::new(tcp, deadline),
        };
        session.expect(Phase::Greeting, 220).await?;
        let mut offers = session.hello(&name).await?;
        let mut is_encrypted = account.tls == Tls::Implicit;
        if matches!(account.tls, Tls::Starttls | Tls::StarttlsRequired) {
            if offers.starttls {
                session.ask(Phase::StartTls, "STARTTLS", 220).await?;
                if !session.replies.is_empty() {
                    return Err(Failed::Broken("somebody speaks before TLS does"));
                }
                session = encrypted(session.stream, tls, account, deadline).await?;
                // what was offered before may come from anybody
                offers = session.hello(&name).await?;
                is_encrypted = true;
            } else if account.tls == Tls::StarttlsRequired {
                return Err(Failed::Misconfigured("the server offers no STARTTLS"));
            }
        }
        session.login(&offers, account, is_encrypted).await?;
        Ok(Self { session, offers, begun: false, over: false, transactions: 0 })
    }

    /// Sets when reading and writing end.
    pub(super) fn until(mut self, deadline: Instant) -> Self {
        self.session.deadline = deadline;
        self
    }

    /// Whether another message may follow.
    pub(super) fn is_usable(&self) -> bool {
        !self.over && self.session.replies.is_empty()
    }

    /// MAIL, RCPT and DATA: afterwards the server waits for the message. Nothing of that has left yet.
    pub(super) async fn envelope(&mut self, mail: &Mail) -> Result<(), Failed> {
        let size = match self.offers.size {
            Some(limit) if limit > 0 && mail.size > limit => return Err(Failed::TooLarge),
            Some(_) => format!(" SIZE={}", mail.size),
            None => String::new(),
        };
        self.transactions += 1;
        // until it has followed to the end
        self.over = true;
        let mut commands = Vec::with_capacity(4);
        if std::mem::replace(&mut self.begun, true) {
            commands.push((Phase::Reset, "RSET\r\n".to_owned()));
        }
        commands.push((Phase::Mail, format!("MAIL FROM:<{}>{size}\r\n", mail.from)));
        commands.push((Phase::Rcpt, format!("RCPT TO:<{}>\r\n", mail.to)));
        commands.push((Phase::Data, "DATA\r\n".to_owned()));
        match self.converse(commands).await? {
            None => Ok(()),
            Some((phase, reply)) => Err(Failed::Answered(phase, reply)),
        }
    }

    /// Sends the commands, in one write if the server allows that, and finds the first refusal.
    async fn converse(&mut self, commands: Vec<(Phase, String)>) -> Result<Option<(Phase, Reply)>, Failed> {
        let together = self.offers.pipelining;
        if together {
            let group: String = commands.iter().map(|(_, line)| line.as_str()).collect();
            self.session.write(group.as_bytes()).await?;
        }
        let (mut refused, mut has_recipient) = (None, false);
        for (phase, line) in commands {
            if !together {
                self.session.write(line.as_bytes()).await?;
            }
            let reply = match self.session.reply().await {
                Ok(reply) => reply,
                // what the server said before it went is its answer
                Err(error) => return refused.map(Some).ok_or(error),
            };
            let agreed = if phase == Phase::Data { reply.code == 354 } else { matches!(reply.code, 250..=252) };
            match (agreed, phase) {
                (true, Phase::Rcpt) => has_recipient = true,
                (true, Phase::Data) if refused.is_some() => {
                    if !self.take_back(has_recipient).await {
                        return Ok(refused);
                    }
                }
                (true, _) => {}
                (false, _) => {
                    // goodbye, or a yes to something else: whoever is there does not follow
                    let is_over = reply.code == 421 || reply.code < 400;
                    let refusal = refused.get_or_insert((phase, reply));
                    if is_over {
                        return Ok(Some(refusal.clone()));
                    }
                    if !together {
                        break;
                    }
                }
            }
        }
        self.over = false;
        Ok(refused)
    }

    /// The server waits for a message although it has refused the envelope (RFC 2920, 3.1): it gets an empty one, for nobody.
    /// If there is a recipient all the same, somebody would get it: then the connection ends here.
    async fn take_back(&mut self, has_recipient: bool) -> bool {
        !has_recipient && self.session.write(b".\r\n").await.is_ok() && self.session.reply().await.is_ok()
    }

    /// The message. Until all of it is written the server has none; from then on only its answer tells.
    pub(super) async fn message(&mut self, mail: &Mail) -> Result<Reply, Failed> {
        self.over = true;
        if let Err(error) = self.session.write(&mail.data).await {
            // a server that refuses a message before its end may say why before it goes
            return Err(match self.session.reply().await {
                Ok(reply) if reply.code >= 400 => Failed::Answered(Phase::Message, reply),
                _ => error,
            });
        }
        let (reply, is_whole) = match self.session.reply().await {
            Ok(reply) => (reply, true),
            Err(error) => match (self.session.replies.unfinished(), error) {
                (Some(reply), _) => (reply, false),
                (None, Failed::Broken(what)) => return Err(Failed::NoAnswer(what)),
                (None, error) => return Err(error),
            },
        };
        self.begun = false;
        self.over = !is_whole || reply.code == 421 || (300..400).contains(&reply.code);
        if (200..300).contains(&reply.code) { Ok(reply) } else { Err(Failed::Answered(Phase::Message, reply)) }
    }

    /// Says goodbye, for what it is worth.
    pub(super) async fn quit(self, deadline: Instant) {
        // either way it is closed now
        let _ = self.until(deadline).session.ask(Phase::Reset, "QUIT", 221).await;
    }
}

async fn encrypted(
    stream: Box<dyn Stream>,
    tls: &Arc<rustls::ClientConfig>,
    account: &Account,
    deadline: Instant,
) -> Result<Session, Failed> {
    let name =
        ServerName::try_from(account.host.clone()).map_err(|_| Failed::Misconfigured("`host` is no host name"))?;
    let stream = match timeout_at(deadline, TlsConnector::from(tls.clone()).connect(name, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let why = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
            return Err(match why {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    Failed::Misconfigured("the server's certificate is not trusted, or not for this host")
                }
                _ => Failed::Broken("no TLS connection"),
            });
        }
        Err(_) => return Err(Failed::Broken("no TLS connection in time")),
    };
    Ok(Session::new(Box::new(stream), deadline))
}

/// The account's own name, or the domain that it sends from: an address would tell where we are.
fn hello_name(account: &Account) -> Result<String, Failed> {
    let from = || mailbox(&account.from).ok()?.1.rsplit_once('@').map(|(_, domain)| domain.to_owned());
    let name = account.helo.clone().or_else(from).ok_or(Failed::Misconfigured("`from` is no mailbox"))?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b)) {
        return Err(Failed::Misconfigured("`helo` is no host name"));
    }
    // RFC 5321 4.1.3
    Ok(match name.parse() {
        Ok(IpAddr::V4(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        Err(_) => name,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Poll},
        time::Duration,
    };

    use tokio::io::{DuplexStream, ReadBuf, duplex};

    use super::*;

    /// Counts writes.
    struct Counted(DuplexStream, Arc<AtomicUsize>);

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    fn connection(stream: Box<dyn Stream>) -> Connection {
        let session = Session::new(stream, Instant::now() + Duration::from_secs(10));
        let offers = Offers { pipelining: true, ..Offers::default() };
        Connection { session, offers, begun: false, over: false, transactions: 0 }
    }

    fn mail() -> Mail {
        let data = [b"x: y\r\n\r\n".as_slice(), &b"line\r\n".repeat(10_000), b".\r\n"].concat();
        Mail { from: "a@example.com".into(), to: "b@example.com".into(), size: data.len() - 3, data }
    }

    /// A second write before an answer would wait for the acknowledgement of the first: 40 ms (performance.md, section 0).
    #[tokio::test]
    async fn a_message_is_two_writes_and_two_round_trips() {
        let (ours, mut theirs) = duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::new(0));
        let (mut connection, mail) = (connection(Box::new(Counted(ours, writes.clone()))), mail());
        for number in 1..=3 {
            theirs.write_all(b"250 ok\r\n250 ok\r\n354 go on\r\n").await.expect("written");
            connection.envelope(&mail).await.expect("agreed");
            theirs.write_all(b"250 ok\r\n").await.expect("written");
            connection.message(&mail).await.expect("taken");
            assert_eq!((writes.load(Ordering::SeqCst), connection.is_usable()), (2 * number, true));
        }
    }

    /// The server goes before it has the message: what it said is its answer, and whatever it is, it has not taken it.
    #[tokio::test]
    async fn a_refusal_in_the_middle_of_a_message_is_heard() {
        for (said, expected) in [("552 5.3.4 too big\r\n", Some(552)), ("250 ok\r\n", None), ("", None)] {
            let (ours, mut theirs) = duplex(1 << 10);
            let (mut connection, mail) = (connection(Box::new(ours)), mail());
            theirs.write_all(b"250 ok\r\n250 ok\r\n354 go on\r\n").await.expect("written");
            connection.envelope(&mail).await.expect("agreed");
            let server = async move {
                theirs.read_buf(&mut Vec::new()).await.expect("the beginning");
                theirs.write_all(said.as_bytes()).await.expect("written");
            };
            let (answer, ()) = tokio::join!(connection.message(&mail), server);
            match (answer, expected) {
                (Err(Failed::Answered(Phase::Message, reply)), Some(code)) => assert_eq!(reply.code, code),
                (Err(Failed::Broken("the connection ended")), None) => {}
                (other, _) => panic!("{said:?}: {other:?}"),
            }
            assert!(!connection.is_usable());
        }
    }
}
