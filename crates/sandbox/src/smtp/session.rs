//! One session as a state machine without a socket: bytes in, replies out, and what the connection has to do next.

use std::{io::Write as _, sync::Arc, time::Duration};

use bytes::BytesMut;
use domain::Channel;

use super::{
    command::{self, Command, LONG_LINE, MAX_LINE},
    memory::Memory,
    message::MAX_SIZE,
    reply::{Act, End, Phase, Reply},
    transaction::{Chunk, Transaction},
};
use crate::{Shared, rules::Rule};

/// So many commands that are refused for their form close the connection.
const MAX_MISTAKES: u32 = 20;

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<Memory>,
    pub(super) connection: u64,
    /// What the client has sent and is not yet looked at.
    pub(super) input: BytesMut,
    /// What it is still to get.
    pub(super) out: Vec<u8>,
    pub(super) tls: bool,
    pub(super) client: Client,
    pub(super) user: Option<String>,
    pub(super) mode: Mode,
    pub(super) mail: Option<Transaction>,
    /// Mails that were taken.
    pub(super) queued: u64,
    pub(super) failed_logins: u32,
    mistakes: u32,
    /// What STARTTLS will meet with, decided when it is offered or not.
    starttls: Option<Rule>,
    /// What is done once the wait is over.
    held: Option<Act>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Unknown,
    Helo,
    Ehlo,
}

/// What the next bytes are.
pub(super) enum Mode {
    Command,
    AuthPlain,
    AuthUser,
    AuthPassword { user: String },
    Data,
    Chunk(Chunk),
}

/// What became of the input.
pub(super) enum Next {
    /// More of it is needed.
    Read,
    /// Nothing is left to do about this piece.
    Go,
    Do(Act),
}

impl<T: Into<Act>> From<T> for Next {
    fn from(act: T) -> Self {
        Self::Do(act.into())
    }
}

/// What the connection has to do after it has sent `out`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Wait(Duration),
    /// Send this with a pause before each byte.
    Drip(Vec<u8>, Duration),
    /// The TLS handshake.
    Secure,
    Close,
    /// Close without a word.
    Cut,
    Hang,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, memory: Arc<Memory>, connection: u64) -> Self {
        Self {
            shared,
            memory,
            connection,
            input: BytesMut::new(),
            out: Vec::new(),
            tls: false,
            client: Client::Unknown,
            user: None,
            mode: Mode::Command,
            mail: None,
            queued: 0,
            failed_logins: 0,
            mistakes: 0,
            starttls: None,
            held: None,
        }
    }

    /// The first step greets; `early`: the client did not wait for that.
    pub(super) fn greet(&mut self, early: bool) {
        let greeting =
            Act::from(Reply::new(220, "", "sandbox ESMTP")).bent(self.rule(Phase::Greeting, ""), Phase::Greeting);
        self.held = Some(match greeting {
            _ if early => End::Close(Reply::new(554, "5.5.0", "the client speaks before the greeting")).into(),
            Act { delay, end: End::Reply(reply) } if reply.code >= 400 => Act { delay, end: End::Close(reply) },
            greeting => greeting,
        });
    }

    /// The connection is encrypted from now on: what was said before never was (RFC 3207).
    pub(super) fn secured(&mut self) {
        self.tls = true;
        self.client = Client::Unknown;
        self.user = None;
        self.mail = None;
        self.mode = Mode::Command;
    }

    /// The client has said nothing for too long.
    pub(super) fn idle(&mut self) {
        self.held = Some(End::Close(Reply::new(421, "4.4.2", "idle for too long")).into());
    }

    /// Works through the input as far as it goes.
    pub(super) fn step(&mut self) -> Step {
        if let Some(step) = self.held.take().and_then(|act| self.perform(act)) {
            return step;
        }
        loop {
            let next = match &self.mode {
                Mode::Data => self.data(),
                Mode::Chunk(_) => self.chunk(),
                Mode::Command | Mode::AuthPlain | Mode::AuthUser | Mode::AuthPassword { .. } => self.line(),
            };
            let step = match next {
                Next::Read => Some(Step::Read),
                Next::Go => None,
                Next::Do(act) => self.perform(act),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn perform(&mut self, Act { delay, end }: Act) -> Option<Step> {
        if !delay.is_zero() {
            self.held = Some(end.into());
            return Some(Step::Wait(delay));
        }
        let (reply, step) = match end {
            End::Reply(reply) if reply.code == 421 => (reply, Some(Step::Close)),
            End::Reply(reply) => (reply, None),
            End::Close(reply) => (reply, Some(Step::Close)),
            End::Secure(reply) => (reply, Some(Step::Secure)),
            End::Drip(reply, pause) => {
                let mut slow = Vec::new();
                reply.write(&mut slow);
                return Some(Step::Drip(slow, pause));
            }
            End::Cut => return Some(Step::Cut),
            End::Hang => return Some(Step::Hang),
        };
        reply.write(&mut self.out);
        step
    }

    /// What the rule wants done in this phase, if it strikes.
    pub(super) fn rule(&self, phase: Phase, path: &str) -> Option<Rule> {
        self.shared.rules().strike_in(Channel::Email, phase, path)
    }

    /// One line, ended by CRLF and nothing else.
    fn line(&mut self) -> Next {
        let Some(at) = self.input.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
            return if self.input.len() > MAX_LINE { End::Close(LONG_LINE).into() } else { Next::Read };
        };
        match self.input[at..] {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return Next::Read,
            // what is a command and what is not can no longer be told
            _ => return End::Close(Reply::new(500, "5.5.2", "a bare CR or LF; lines end with CRLF")).into(),
        }
        let line = self.input.split_to(at + 2);
        let line = &line[..at];
        match std::mem::replace(&mut self.mode, Mode::Command) {
            Mode::AuthPlain => self.plain(line),
            Mode::AuthUser => self.login_user(line),
            Mode::AuthPassword { user } => self.login_password(user, line),
            Mode::Command | Mode::Data | Mode::Chunk(_) => self.command(line),
        }
    }

    fn command(&mut self, line: &[u8]) -> Next {
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(reply) => return self.mistake(reply),
        };
        if command.ends_group() && !self.input.is_empty() {
            self.input.clear();
            return End::Close(Reply::new(503, "5.5.0", "nothing may be pipelined after this command")).into();
        }
        match command {
            Command::Ehlo(name) => self.ehlo(name),
            Command::Helo(name) => {
                self.client = Client::Helo;
                self.mail = None;
                Reply::owned(250, "", format!("sandbox greets {name}")).into()
            }
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(to) => self.rcpt(to),
            Command::Data => self.begin_data(),
            Command::Bdat { size, last } => self.bdat(size, last),
            Command::Rset => {
                self.mail = None;
                Reply::new(250, "2.0.0", "Ok").into()
            }
            Command::Noop => Reply::new(250, "2.0.0", "Ok").into(),
            Command::Vrfy => Reply::new(252, "2.5.0", "send something and see").into(),
            Command::Quit => End::Close(Reply::new(221, "2.0.0", "Bye")).into(),
        }
    }

    /// A command that makes no sense, or not now.
    pub(super) fn mistake(&mut self, reply: Reply) -> Next {
        self.mistakes += 1;
        if self.mistakes > MAX_MISTAKES {
            return Reply::new(421, "4.7.0", "too many errors").into();
        }
        reply.into()
    }

    fn ehlo(&mut self, name: &str) -> Next {
        self.client = Client::Ehlo;
        self.mail = None;
        if !self.tls {
            self.starttls = self.rule(Phase::Starttls, "");
        }
        let secure = match &self.starttls {
            _ if self.tls => "AUTH PLAIN LOGIN",
            // "not implemented": then it is not offered either
            Some(Rule { status: Some(502), .. }) => "DSN",
            _ => "STARTTLS",
        };
        // a Vec takes everything
        let _ = write!(
            self.out,
            "250-sandbox greets {name}\r\n250-PIPELINING\r\n250-SIZE {MAX_SIZE}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
             250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250-{secure}\r\n250 CHUNKING\r\n"
        );
        Next::Go
    }

    fn start_tls(&mut self) -> Next {
        if self.tls || self.client != Client::Ehlo {
            return self.mistake(Reply::new(503, "5.5.1", "STARTTLS comes once, after EHLO"));
        }
        Act::from(End::Secure(Reply::new(220, "2.0.0", "go ahead"))).bent(self.starttls.take(), Phase::Starttls).into()
    }
}
