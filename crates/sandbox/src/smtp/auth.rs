//! AUTH PLAIN and LOGIN, over TLS only (RFC 4954).

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    command::SYNTAX,
    reply::{Act, Phase, Reply},
    session::{Client, Mode, Next, Session},
};
use crate::accounts::SMTP_USERNAME;

/// So many wrong passwords close the connection.
const MAX_FAILURES: u32 = 3;

const MALFORMED: Reply = Reply::new(501, "5.5.2", "not base64, or not what it should be");

impl Session {
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Next {
        if !self.tls {
            return self.mistake(Reply::new(538, "5.7.11", "encryption is required: STARTTLS first"));
        }
        if self.client != Client::Ehlo || self.user.is_some() || self.mail.is_some() {
            return self.mistake(Reply::new(503, "5.5.1", "AUTH comes once, after EHLO and before MAIL"));
        }
        if mechanism.eq_ignore_ascii_case("PLAIN") {
            return match initial {
                Some(initial) => self.plain(initial.as_bytes()),
                None => self.challenge(Mode::AuthPlain, ""),
            };
        }
        if mechanism.eq_ignore_ascii_case("LOGIN") {
            return match initial {
                Some(initial) => self.login_user(initial.as_bytes()),
                None => self.challenge(Mode::AuthUser, "VXNlcm5hbWU6"),
            };
        }
        self.mistake(Reply::new(504, "5.5.4", "an unknown mechanism"))
    }

    fn challenge(&mut self, mode: Mode, text: &'static str) -> Next {
        self.mode = mode;
        Reply::new(334, "", text).into()
    }

    /// `authorization NUL user NUL password`.
    pub(super) fn plain(&mut self, answer: &[u8]) -> Next {
        let text = match decoded(answer) {
            Ok(text) => text,
            Err(reply) => return self.mistake(reply),
        };
        let mut parts = text.split('\0');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(as_whom), Some(user), Some(password), None) if as_whom.is_empty() || as_whom == user => {
                self.log_in(user, password)
            }
            _ => self.mistake(MALFORMED),
        }
    }

    pub(super) fn login_user(&mut self, answer: &[u8]) -> Next {
        match decoded(answer) {
            Ok(user) => self.challenge(Mode::AuthPassword { user }, "UGFzc3dvcmQ6"),
            Err(reply) => self.mistake(reply),
        }
    }

    pub(super) fn login_password(&mut self, user: String, answer: &[u8]) -> Next {
        match decoded(answer) {
            Ok(password) => self.log_in(&user, &password),
            Err(reply) => self.mistake(reply),
        }
    }

    fn log_in(&mut self, user: &str, password: &str) -> Next {
        let right = user == SMTP_USERNAME && password == self.shared.smtp_password.expose();
        let reply = if right {
            Reply::new(235, "2.7.0", "authentication succeeded")
        } else {
            self.failed_logins += 1;
            Reply::new(535, "5.7.8", "the credentials are not right")
        };
        if self.failed_logins > MAX_FAILURES {
            return Reply::new(421, "4.7.0", "too many failed logins").into();
        }
        let act = Act::from(reply).bent(self.rule(Phase::Auth, ""), Phase::Auth);
        if act.is_positive() {
            self.user = Some(user.to_owned());
        }
        act.into()
    }
}

/// A lone `=` is an empty answer, a lone `*` gives up.
fn decoded(answer: &[u8]) -> Result<String, Reply> {
    match answer {
        b"*" => Err(Reply::new(501, "5.0.0", "authentication was cancelled")),
        b"=" => Ok(String::new()),
        _ if answer.is_empty() => Err(SYNTAX),
        _ => BASE64_STANDARD.decode(answer).ok().and_then(|b| String::from_utf8(b).ok()).ok_or(MALFORMED),
    }
}
