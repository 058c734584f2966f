//! What a recipient's local part makes the server do: the table of the README, as a pure function.

use std::time::Duration;

use super::reply::{Act, End, Form, Phase, Reply};
use crate::behaviour::PATIENCE;

/// Something else than being accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Behaviour {
    pub(super) at: At,
    pub(super) act: Act,
    /// How many times, before the mail is accepted; `None` for always.
    pub(super) times: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Rcpt,
    /// Before the body is complete.
    Body,
    /// After the final dot.
    End,
}

/// `None`: the mail is accepted. What follows a `+` only tells recipients apart.
pub(super) fn of(local: &str) -> Option<Behaviour> {
    let word = local.split_once('+').map_or(local, |(word, _)| word);
    word_at_rcpt(word).or_else(|| word_at_end(word)).or_else(|| word_with_number(word))
}

fn always(at: At, act: impl Into<Act>) -> Behaviour {
    Behaviour { at, act: act.into(), times: None }
}

fn word_at_rcpt(word: &str) -> Option<Behaviour> {
    const NO_USER: Reply = Reply::new(550, "5.1.1", "there is no such user");
    let reply = match word {
        "u550" => NO_USER,
        "u551" => Reply::new(551, "5.1.6", "the user is not local"),
        "u553" => Reply::new(553, "5.1.3", "the name of the mailbox is not allowed"),
        "full" => Reply::new(552, "5.2.2", "the mailbox is full"),
        "size" => Reply::new(552, "5.2.3", "too large for this mailbox"),
        "defer421" => Reply::new(421, "4.7.0", "too many connections, try again later"),
        "noenh550" => NO_USER.plain(),
        "multi550" => NO_USER.form(Form::Lines),
        "garbage550" => NO_USER.form(Form::Garbage),
        "grey" => {
            let act = Reply::new(450, "4.7.1", "greylisted, try again later").into();
            return Some(Behaviour { at: At::Rcpt, act, times: Some(1) });
        }
        _ => return None,
    };
    Some(always(At::Rcpt, reply))
}

fn word_at_end(word: &str) -> Option<Behaviour> {
    const OK: Reply = Reply::new(250, "2.0.0", "Ok: queued");
    let behaviour = match word {
        "spam" => always(At::End, Reply::new(554, "5.7.1", "the message looks like spam")),
        "big" => always(At::End, Reply::new(552, "5.3.4", "the message is too large")),
        "hang" => always(At::End, End::Hang),
        "drop" => always(At::End, End::Cut),
        "dropbefore" => always(At::Body, End::Cut),
        "noenh" => always(At::End, OK.plain()),
        "multi" => always(At::End, OK.form(Form::Lines)),
        "garbage" => always(At::End, OK.form(Form::Garbage)),
        "nonsense" => always(At::End, OK.form(Form::Nonsense)),
        "flood" => always(At::End, OK.form(Form::Flood)),
        "twohundred" => always(At::End, Reply::new(200, "", "Ok")),
        _ => return None,
    };
    Some(behaviour)
}

fn word_with_number(word: &str) -> Option<Behaviour> {
    if let Some(times) = word.strip_prefix("flaky").and_then(|n| n.parse().ok()) {
        let act = Reply::new(451, "4.3.0", "a local error, try again later").into();
        return Some(Behaviour { at: At::End, act, times: Some(times) });
    }
    let ok = Reply::new(250, "2.0.0", "Ok: queued");
    if let Some(ms) = word.strip_prefix("slow").and_then(|n| n.parse().ok()) {
        let delay = Duration::from_millis(ms).min(PATIENCE);
        return Some(always(At::End, Act { delay, end: End::Reply(ok) }));
    }
    if let Some(ms) = word.strip_prefix("drip").and_then(|n| n.parse().ok()) {
        return Some(always(At::End, End::Drip(ok, Duration::from_millis(ms).min(PATIENCE))));
    }
    let (at, phase, code) = match (word.strip_prefix("rcpt"), word.strip_prefix("data")) {
        (Some(code), _) => (At::Rcpt, Phase::Rcpt, code),
        (_, Some(code)) => (At::End, Phase::Data, code),
        _ => return None,
    };
    let (code, enhanced) = code.split_once('-').map_or((code, None), |(code, enhanced)| (code, Some(enhanced)));
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    Some(always(at, Reply::usual(code, enhanced, phase, "as the address says")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_what_the_readme_says() {
        let line = |local: &str| {
            let behaviour = of(local)?;
            let mut out = Vec::new();
            match &behaviour.act.end {
                End::Reply(reply) | End::Drip(reply, _) => reply.write(&mut out),
                other => out = format!("{other:?}").into_bytes(),
            }
            let text = String::from_utf8_lossy(&out).into_owned();
            let start: Vec<_> = text.splitn(3, ' ').take(2).collect();
            Some((behaviour.at, start.join(" "), behaviour.times))
        };
        for (local, at, start, times) in [
            ("u550", At::Rcpt, "550 5.1.1", None),
            ("u551", At::Rcpt, "551 5.1.6", None),
            ("u553+x", At::Rcpt, "553 5.1.3", None),
            ("full", At::Rcpt, "552 5.2.2", None),
            ("size", At::Rcpt, "552 5.2.3", None),
            ("grey+run.7", At::Rcpt, "450 4.7.1", Some(1)),
            ("defer421", At::Rcpt, "421 4.7.0", None),
            ("noenh550", At::Rcpt, "550 there", None),
            ("rcpt452-4.5.3", At::Rcpt, "452 4.5.3", None),
            ("rcpt550", At::Rcpt, "550 5.1.1", None),
            ("data550", At::End, "550 5.7.1", None),
            ("data250", At::End, "250 2.0.0", None),
            ("flaky3", At::End, "451 4.3.0", Some(3)),
            ("spam", At::End, "554 5.7.1", None),
            ("big", At::End, "552 5.3.4", None),
            ("hang", At::End, "Hang", None),
            ("drop", At::End, "Cut", None),
            ("dropbefore", At::Body, "Cut", None),
            ("twohundred", At::End, "200 Ok\r\n", None),
        ] {
            assert_eq!(line(local), Some((at, start.to_owned(), times)), "{local}");
        }
        assert_eq!(of("slow250").expect("known").act.delay, Duration::from_millis(250));
        assert_eq!(of("slow99999999").expect("known").act.delay, PATIENCE);
        for accepted in ["ana", "flaky", "flakyx", "slow", "rcpt", "rcpt99", "data700", "u550x", "grey-2"] {
            assert_eq!(of(accepted), None, "{accepted}");
        }
    }
}
