//! From MAIL to the final dot: what is asked of each mail, and its record before it is answered.

use std::collections::BTreeMap;

use bytes::Buf as _;
use domain::Channel;
use serde_json::Value;

use super::{
    behaviour::{self, At, Behaviour},
    command::{self, mailbox},
    message::{self, Body, Headers, TOO_LARGE},
    reply::{Act, End, Phase, Reply},
    session::{Client, Mode, Next, Session},
};
use crate::records::Reception;

/// Most recipients of a mail.
const MAX_RECIPIENTS: usize = 100;
/// Most of a message that is recorded.
const MAX_RECORDED: usize = 1024 * 1024;

// no mistakes: whoever pipelines hears them after a MAIL or RCPT that was refused
const SEQUENCE: Reply = Reply::new(503, "5.5.1", "not now: the order is MAIL, RCPT, DATA");
const NOBODY: Reply = Reply::new(554, "5.5.1", "no recipient was accepted");
const UNRECORDED: Reply = Reply::new(451, "4.3.0", "the sandbox cannot record");

/// A mail in the making.
#[derive(Default)]
pub(super) struct Transaction {
    from: String,
    eight_bit: bool,
    utf8: bool,
    envelope_id: Option<String>,
    to: Vec<Recipient>,
    body: Body,
    /// BDAT has begun.
    chunked: bool,
}

struct Recipient {
    address: String,
    behaviour: Option<Behaviour>,
}

/// What is still to come of a BDAT.
pub(super) struct Chunk {
    size: u64,
    left: u64,
    last: bool,
    /// It is taken off the wire only to be thrown away.
    refusal: Option<Reply>,
}

impl Transaction {
    /// By what a recipient's first attempts are told from later ones: no header is known yet.
    fn envelope(&self, to: &str) -> String {
        format!("rcpt {} {to}", self.envelope_id.as_ref().unwrap_or(&self.from))
    }

    fn breaks_off(&self) -> bool {
        self.to.iter().any(|r| r.behaviour.as_ref().is_some_and(|b| b.at == At::Body))
    }
}

/// What is recorded of a mail besides its envelope.
struct Kept<'a> {
    command: &'static str,
    headers: &'a Headers,
    body: &'a [u8],
    problem: Option<&'a str>,
    answered: Option<u16>,
}

impl Kept<'_> {
    const NO_HEADERS: &'static Headers = &Headers::NONE;

    const fn envelope(command: &'static str, answered: Option<u16>) -> Self {
        Self { command, headers: Self::NO_HEADERS, body: b"", problem: None, answered }
    }
}

impl Session {
    pub(super) fn mail(&mut self, mail: command::Mail<'_>) -> Next {
        if self.client == Client::Unknown || self.mail.is_some() {
            return self.mistake(Reply::new(503, "5.5.1", "not now: EHLO first, and one mail after the other"));
        }
        if !self.tls {
            return self.mistake(Reply::new(530, "5.7.0", "must issue a STARTTLS command first"));
        }
        if self.user.is_none() {
            return self.mistake(Reply::new(530, "5.7.0", "authentication is required"));
        }
        let begun = Transaction {
            from: mail.from.to_owned(),
            eight_bit: mail.eight_bit,
            utf8: mail.utf8,
            envelope_id: mail.envelope_id.map(str::to_owned),
            ..Transaction::default()
        };
        let act = Act::from(Reply::new(250, "2.1.0", "Ok")).bent(self.rule(Phase::Mail, mail.from), Phase::Mail);
        if !act.is_positive() {
            let kept = Kept::envelope("MAIL", act.code());
            return self.recorded(&begun, "", None, &kept).map_or_else(Into::into, |()| act.into());
        }
        self.mail = Some(begun);
        act.into()
    }

    pub(super) fn rcpt(&mut self, to: &str) -> Next {
        let Some(mail) = self.mail.as_ref().filter(|m| !m.chunked) else { return SEQUENCE.into() };
        if mail.to.len() >= MAX_RECIPIENTS {
            return Reply::new(452, "4.5.3", "too many recipients").into();
        }
        let checked = mailbox(to, mail.utf8, "5.1.3");
        let behaviour = to.rsplit_once('@').and_then(|(local, _)| behaviour::of(local));
        let act = match (&checked, &behaviour) {
            (Err(reply), _) => reply.clone().into(),
            (Ok(()), Some(b)) if b.at == At::Rcpt && self.due(b, || mail.envelope(to)) => b.act.clone(),
            (Ok(()), _) => Reply::new(250, "2.1.5", "Ok").into(),
        };
        let act = if checked.is_ok() { act.bent(self.rule(Phase::Rcpt, to), Phase::Rcpt) } else { act };
        if !act.is_positive() {
            let problem = checked.as_ref().err().map(|r| &*r.text);
            let kept = Kept { problem, ..Kept::envelope("RCPT", act.code()) };
            return self.recorded(mail, to, None, &kept).map_or_else(Into::into, |()| act.into());
        }
        if let Some(mail) = &mut self.mail {
            mail.to.push(Recipient { address: to.to_owned(), behaviour });
        }
        act.into()
    }

    /// It is one of the times that a behaviour lasts.
    fn due(&self, behaviour: &Behaviour, key: impl FnOnce() -> String) -> bool {
        behaviour.times.is_none_or(|times| self.memory.count(key()) < times)
    }

    pub(super) fn begin_data(&mut self) -> Next {
        match &self.mail {
            Some(mail) if !mail.chunked && !mail.to.is_empty() => {
                self.mode = Mode::Data;
                Reply::new(354, "", "end with <CR><LF>.<CR><LF>").into()
            }
            Some(mail) if !mail.chunked => NOBODY.into(),
            _ => SEQUENCE.into(),
        }
    }

    pub(super) fn data(&mut self) -> Next {
        if self.input.is_empty() {
            return Next::Read;
        }
        let Some(mail) = self.mail.as_mut() else {
            self.mode = Mode::Command;
            return Next::Go;
        };
        if mail.breaks_off() {
            return self.break_off("DATA");
        }
        if !mail.body.take_lines(&mut self.input) {
            return Next::Read;
        }
        self.mode = Mode::Command;
        self.finish("DATA")
    }

    pub(super) fn bdat(&mut self, size: u64, last: bool) -> Next {
        let refusal = match &mut self.mail {
            Some(mail) if !mail.to.is_empty() => {
                mail.chunked = true;
                None
            }
            Some(_) => Some(NOBODY),
            None => Some(SEQUENCE),
        };
        self.mode = Mode::Chunk(Chunk { size, left: size, last, refusal });
        Next::Go
    }

    pub(super) fn chunk(&mut self) -> Next {
        let Mode::Chunk(chunk) = &mut self.mode else { return Next::Go };
        if self.input.is_empty() && chunk.left > 0 {
            return Next::Read;
        }
        match &mut self.mail {
            Some(mail) if mail.breaks_off() => return self.break_off("BDAT"),
            Some(mail) if chunk.refusal.is_none() => chunk.left = mail.body.take_chunk(&mut self.input, chunk.left),
            _ => {
                let count = self.input.len().min(usize::try_from(chunk.left).unwrap_or(usize::MAX));
                self.input.advance(count);
                chunk.left -= count as u64;
            }
        }
        if chunk.left > 0 {
            return Next::Read;
        }
        let (size, last, refusal) = (chunk.size, chunk.last, chunk.refusal.take());
        self.mode = Mode::Command;
        match refusal {
            Some(reply) => reply.into(),
            None if last || self.mail.as_ref().is_some_and(|m| m.body.too_large) => self.finish("BDAT"),
            None => Reply::owned(250, "2.0.0", format!("{size} octets received")).into(),
        }
    }

    fn break_off(&mut self, command: &'static str) -> Next {
        let mail = self.mail.take().unwrap_or_default();
        let kept = Kept { problem: Some("broken off before the end"), ..Kept::envelope(command, None) };
        self.all_recorded(&mail, &kept).map_or_else(Into::into, |()| End::Cut.into())
    }

    /// The message is complete.
    fn finish(&mut self, command: &'static str) -> Next {
        let mail = self.mail.take().unwrap_or_default();
        let (headers, checked) = if mail.body.too_large {
            (Headers::NONE, Err(TOO_LARGE))
        } else {
            message::check(&mail.body.bytes, mail.eight_bit, mail.utf8)
        };
        let act = match &checked {
            Ok(()) => self.verdict(&mail, headers.get("Message-ID").unwrap_or_default()),
            Err(reply) => reply.clone().into(),
        };
        let problem = checked.as_ref().err().map(|r| &*r.text);
        let kept = Kept { command, headers: &headers, body: &mail.body.bytes, problem, answered: act.code() };
        if let Err(reply) = self.all_recorded(&mail, &kept) {
            return reply.into();
        }
        if act.is_positive() {
            let moody = mail.to.iter().filter(|r| r.behaviour.is_some());
            moody.for_each(|r| self.memory.forget(&mail.envelope(&r.address)));
        }
        act.into()
    }

    /// The first recipient that wants something else than acceptance decides.
    fn verdict(&mut self, mail: &Transaction, id: &str) -> Act {
        let wanted = mail.to.iter().find_map(|r| {
            let behaviour = r.behaviour.as_ref().filter(|b| b.at == At::End)?;
            self.due(behaviour, || format!("data {id} {}", r.address)).then(|| behaviour.act.clone())
        });
        let act = wanted.unwrap_or_else(|| {
            self.queued += 1;
            Reply::owned(250, "2.0.0", format!("Ok: queued as {:X}-{:X}", self.connection, self.queued)).into()
        });
        let first = mail.to.first().map_or("", |r| &r.address);
        act.bent(self.rule(Phase::Data, first), Phase::Data)
    }

    fn all_recorded(&self, mail: &Transaction, kept: &Kept<'_>) -> Result<(), Reply> {
        let id = kept.headers.get("Message-ID");
        mail.to.iter().enumerate().try_for_each(|(i, to)| {
            // one id for two recipients would look like a mail that came twice
            let id = id.map(|id| if i == 0 { id.to_owned() } else { format!("{id} {}", to.address) });
            self.recorded(mail, &to.address, id, kept)
        })
    }

    /// Errors: it could not be recorded, so it must not be answered otherwise.
    fn recorded(&self, mail: &Transaction, to: &str, id: Option<String>, kept: &Kept<'_>) -> Result<(), Reply> {
        let extra = [
            ("command", Value::from(kept.command)),
            ("from", mail.from.as_str().into()),
            ("tls", self.tls.into()),
            ("user", self.user.as_deref().into()),
        ];
        let reception = Reception {
            address: to.to_owned(),
            path: to.to_owned(),
            id,
            verified: kept.problem.is_none(),
            problem: kept.problem.map(str::to_owned),
            headers: kept.headers.by_name(),
            body: String::from_utf8_lossy(&kept.body[..kept.body.len().min(MAX_RECORDED)]).into_owned(),
            extra: extra.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            ..Reception::new(Channel::Email, self.connection)
        };
        self.shared.records.keep(reception, |_| ((), kept.answered)).map_err(|error| {
            tracing::error!(%error, "cannot record a mail");
            UNRECORDED
        })
    }
}
