//! Replies as they go over the wire, the ill-formed ones that a test can ask for included.

use std::{borrow::Cow, io::Write as _, time::Duration};

use crate::rules::Rule;

/// Where in a session a rule or an address strikes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Greeting,
    Starttls,
    Auth,
    Mail,
    Rcpt,
    /// After the final dot.
    #[default]
    Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    enhanced: Cow<'static, str>,
    pub(super) text: Cow<'static, str>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Line,
    /// Three lines.
    Lines,
    /// A text that is no UTF-8.
    Garbage,
    /// No reply of this protocol at all.
    Nonsense,
    /// More lines than anybody wants to keep.
    Flood,
}

const FLOOD_LINES: usize = 20_000;

impl Reply {
    /// An empty `enhanced` leaves the enhanced code out.
    pub(super) const fn new(code: u16, enhanced: &'static str, text: &'static str) -> Self {
        Self { code, enhanced: Cow::Borrowed(enhanced), text: Cow::Borrowed(text), form: Form::Line }
    }

    pub(super) const fn owned(code: u16, enhanced: &'static str, text: String) -> Self {
        Self { code, enhanced: Cow::Borrowed(enhanced), text: Cow::Owned(text), form: Form::Line }
    }

    /// With `enhanced`, or the enhanced code that usually goes with `code`.
    pub(super) fn usual(code: u16, enhanced: Option<&str>, phase: Phase, text: impl Into<Cow<'static, str>>) -> Self {
        let enhanced = enhanced.map_or(Cow::Borrowed(usual(code, phase)), |e| Cow::Owned(e.to_owned()));
        Self { code, enhanced, text: text.into(), form: Form::Line }
    }

    pub(super) fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    pub(super) fn plain(self) -> Self {
        Self { enhanced: Cow::Borrowed(""), ..self }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Line => self.line(out, ' ', self.text.as_bytes()),
            Form::Lines => {
                self.line(out, '-', self.text.as_bytes());
                self.line(out, '-', b"the second of three lines");
                self.line(out, ' ', b"that is all");
            }
            Form::Garbage => self.line(out, ' ', b"\xff\xfe caf\xe9 \x80"),
            Form::Nonsense => out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n"),
            Form::Flood => {
                (0..FLOOD_LINES).for_each(|_| self.line(out, '-', b"there is no end to what we have to say"));
                self.line(out, ' ', self.text.as_bytes());
            }
        }
    }

    fn line(&self, out: &mut Vec<u8>, separator: char, text: &[u8]) {
        // a Vec takes everything
        let _ = write!(out, "{}{separator}", self.code);
        if !self.enhanced.is_empty() {
            out.extend_from_slice(self.enhanced.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
}

const fn usual(code: u16, phase: Phase) -> &'static str {
    match (code, phase) {
        (300..400, _) => "",
        (421 | 454, _) => "4.7.0",
        (432, _) => "4.7.12",
        (450, _) => "4.7.1",
        (451, _) => "4.3.0",
        (452, _) => "4.3.1",
        (455 | 555, _) => "5.5.4",
        (500..=504, _) => "5.5.2",
        (521 | 556, _) => "5.1.10",
        (530, _) => "5.7.0",
        (534, _) => "5.7.9",
        (535, _) => "5.7.8",
        (538, _) => "5.7.11",
        (550, Phase::Rcpt) => "5.1.1",
        (551, _) => "5.1.6",
        (552, Phase::Rcpt) => "5.2.2",
        (552, _) => "5.3.4",
        (553, Phase::Rcpt) => "5.1.3",
        (553, _) => "5.1.8",
        (550 | 554, _) => "5.7.1",
        (400..500, _) => "4.0.0",
        (500.., _) => "5.0.0",
        _ => "2.0.0",
    }
}

/// What is done: the end, after a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) delay: Duration,
    pub(super) end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Reply(Reply),
    /// The reply with a pause before each byte.
    Drip(Reply, Duration),
    /// The reply, then the connection is closed.
    Close(Reply),
    /// The reply, then the TLS handshake.
    Secure(Reply),
    /// The connection is closed without a reply.
    Cut,
    /// No reply, for as long as a minute.
    Hang,
}

impl From<Reply> for Act {
    fn from(reply: Reply) -> Self {
        End::Reply(reply).into()
    }
}

impl From<End> for Act {
    fn from(end: End) -> Self {
        Self { delay: Duration::ZERO, end }
    }
}

impl Act {
    /// The code that the client gets to see, if any.
    pub(super) const fn code(&self) -> Option<u16> {
        match &self.end {
            End::Reply(Reply { form: Form::Nonsense, .. }) | End::Cut | End::Hang => None,
            End::Reply(r) | End::Drip(r, _) | End::Close(r) | End::Secure(r) => Some(r.code),
        }
    }

    pub(super) fn is_positive(&self) -> bool {
        self.code().is_some_and(|code| (200..400).contains(&code))
    }

    /// As a rule wants it that strikes.
    pub(super) fn bent(self, rule: Option<Rule>, phase: Phase) -> Self {
        let Some(rule) = rule else { return self };
        let text = rule.reason.unwrap_or_else(|| "as the rule says".into());
        let end = match rule.status {
            _ if rule.drop => End::Cut,
            Some(code) => End::Reply(Reply::usual(code, None, phase, text)),
            None => self.end,
        };
        Self { delay: rule.delay.unwrap_or(self.delay), end }
    }
}
