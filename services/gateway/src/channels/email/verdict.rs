//! What a server's reply means: the basic code decides whether to try again, the enhanced code names the cause, and both mean
//! different things in different phases.

use domain::{Outcome, Reason};

use super::reply::{Phase, Reply};

/// Characters of an answer that are kept.
const KEPT: usize = 200;

const AGAIN: Outcome = Outcome::Transient { retry_after: None };
const GONE: Outcome = Outcome::AddressGone { since: None };
const REJECTED: Outcome = Outcome::Rejected(Reason::ProviderRejected);

/// The verdict on a reply.
pub(super) fn verdict(phase: Phase, reply: &Reply) -> Outcome {
    match (reply.code, phase) {
        (200..=299, Phase::Message) => Outcome::Sent,
        // neither yes nor no
        (300..=399, Phase::Message) => Outcome::Unknown,
        // the password has to be changed first
        (432, Phase::Auth) => Outcome::Misconfigured,
        // RSET is about the connection, not about the message
        (..=499, _) | (_, Phase::Reset) => AGAIN,
        (_, Phase::Greeting | Phase::Ehlo | Phase::StartTls | Phase::Auth) => Outcome::Misconfigured,
        (530 | 534 | 535 | 538, _) => Outcome::Misconfigured,
        (_, Phase::Mail) => sender_refused(reply),
        (code, _) => reply.cause.and_then(by_cause).unwrap_or_else(|| by_code(code, phase)),
    }
}

/// A permanent answer to MAIL is about us, unless it is about the message's size or the command's form.
fn sender_refused(reply: &Reply) -> Outcome {
    match (reply.cause, reply.code) {
        (Some((1 | 7, _)), _) => Outcome::Misconfigured,
        (Some(cause), _) => by_cause(cause).unwrap_or(Outcome::Misconfigured),
        (None, 500..=504 | 552 | 555) => REJECTED,
        (None, _) => Outcome::Misconfigured,
    }
}

/// By `subject.detail` of the enhanced code, as far as it says something.
const fn by_cause(cause: (u16, u16)) -> Option<Outcome> {
    Some(match cause {
        // no such mailbox, no such domain, wrong syntax, moved, a domain without mail, disabled
        (1, 1 | 2 | 3 | 6 | 10) | (2, 1) => GONE,
        // our sender, credentials, DKIM, SPF, DMARC, address or reputation
        (1, 7 | 8) | (7, 8..=11 | 13 | 20..=27 | 606..=649) => Outcome::Misconfigured,
        // full, not accepting, no answer, no route, too many recipients (of one), too much
        (2, 2) | (3, 2) | (4, 1..=4) | (5, 3) | (7, 28) => AGAIN,
        (0, _) | (1, 0) => return None,
        _ => REJECTED,
    })
}

const fn by_code(code: u16, phase: Phase) -> Outcome {
    match (code, phase) {
        (521 | 551 | 553 | 556, Phase::Rcpt) => GONE,
        // a full mailbox; after the message it is the message that is too large
        (552, Phase::Rcpt) => AGAIN,
        // a bare 550 may as well be a policy: no reason to forget an address
        _ => REJECTED,
    }
}

/// Phase, codes and the beginning of the text. Words that hold an address or one of the `private` texts are cut out; if the
/// answer `repeats` content, its text is left out.
pub(super) fn detail(phase: Phase, reply: &Reply, private: &[String], repeats: impl FnOnce(&str) -> bool) -> String {
    let text = reply.lines.join(" ");
    let words: Vec<_> =
        text.split_whitespace().map(|word| if is_private(word, private) { "…" } else { word }).collect();
    let mut kept = words.join(" ");
    kept.retain(|c| !c.is_control());
    let kept: String = kept.chars().take(KEPT).collect();
    let class = reply.code / 100;
    let codes = match reply.cause {
        Some((subject, detail)) => format!("{}: {} {class}.{subject}.{detail}", phase.as_str(), reply.code),
        None => format!("{}: {}", phase.as_str(), reply.code),
    };
    match kept.as_str() {
        "" => codes,
        _ if repeats(&text) => format!("{codes} (the answer repeats what was sent)"),
        kept => format!("{codes} {kept}"),
    }
}

/// Any address, and whatever else is named: a short text if it is the word, a longer one also inside of it.
fn is_private(word: &str, private: &[String]) -> bool {
    let word = word.to_lowercase();
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    word.contains('@')
        || word.contains("%40")
        || private.iter().filter(|p| !p.is_empty()).any(|private| {
            let private = private.to_lowercase();
            bare == private || (private.len() >= 5 && word.contains(&private))
        })
}

#[cfg(test)]
mod tests {
    use Phase::*;

    use super::*;

    fn reply(text: &str) -> Reply {
        let mut replies = super::super::reply::Replies::default();
        replies.buffer().extend_from_slice(text.as_bytes());
        replies.buffer().extend_from_slice(b"\r\n");
        replies.next().expect("a reply").expect("a whole one")
    }

    const PHASES: [Phase; 9] = [Greeting, Ehlo, StartTls, Auth, Reset, Mail, Rcpt, Data, Message];

    const fn letter(outcome: Outcome) -> char {
        match outcome {
            Outcome::Sent => 'S',
            Outcome::Transient { .. } => 'A',
            Outcome::AddressGone { .. } => 'G',
            Outcome::Rejected(_) => 'R',
            Outcome::Misconfigured => 'M',
            Outcome::Unknown => 'U',
        }
    }

    /// Every code of RFC 5321, 4954 and 7504 in every phase, without an enhanced code: sent, again, gone, rejected, misconfigured
    /// or unknown.
    #[test]
    fn every_code_has_a_verdict_in_every_phase() {
        for (codes, expected) in [
            (&[200, 211, 214, 220, 221, 235, 250, 251, 252, 299][..], "AAAAAAAAS"),
            (&[334, 354, 399], "AAAAAAAAU"),
            (&[421, 450, 451, 452, 453, 454, 455, 471, 499], "AAAAAAAAA"),
            (&[432], "AAAMAAAAA"),
            (&[500, 501, 502, 503, 504, 555], "MMMMARRRR"),
            (&[530, 534, 535, 538], "MMMMAMMMM"),
            (&[521, 551, 553, 556], "MMMMAMGRR"),
            (&[550, 554, 523, 571, 599], "MMMMAMRRR"),
            (&[552], "MMMMARARR"),
        ] {
            for code in codes {
                let verdicts: String = PHASES.map(|p| letter(verdict(p, &reply(&code.to_string())))).iter().collect();
                assert_eq!(verdicts, expected, "{code}");
            }
        }
    }

    /// The registry of enhanced codes (RFC 5248) at RCPT; what is only for now stays so, whatever the cause.
    #[test]
    fn every_enhanced_code_has_a_verdict() {
        for (causes, expected) in [
            (&["1.1", "1.2", "1.3", "1.6", "1.10", "2.1"][..], 'G'),
            (&["1.7", "1.8", "7.8", "7.9", "7.10", "7.11", "7.13"], 'M'),
            (&["7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27", "7.606"], 'M'),
            (&["2.2", "3.2", "4.1", "4.2", "4.3", "4.4", "5.3", "7.28"], 'A'),
            (&["0.0", "1.0", "1.4", "1.5", "1.9", "2.0", "2.3", "2.4", "3.0", "3.3", "3.4", "4.7"], 'R'),
            (&["5.0", "5.1", "5.2", "5.4", "6.0", "6.7", "7.0", "7.1", "7.2", "9.99", "999.999"], 'R'),
        ] {
            for cause in causes {
                let of = |code: u16| letter(verdict(Rcpt, &reply(&format!("{code} {}.{cause} x", code / 100))));
                assert_eq!((of(550), of(450)), (expected, 'A'), "{cause}");
            }
        }
    }

    #[test]
    fn phase_and_code_make_the_verdict() {
        for (phase, text, expected) in [
            (Greeting, "421 too many connections", AGAIN),
            (Greeting, "521 no mail here", Outcome::Misconfigured),
            (Greeting, "554 you are blocked", Outcome::Misconfigured),
            (Ehlo, "502 what", Outcome::Misconfigured),
            (StartTls, "454 4.7.0 later", AGAIN),
            (StartTls, "501 no", Outcome::Misconfigured),
            (Auth, "454 4.7.0 later", AGAIN),
            (Auth, "432 4.7.12 a transition is needed", Outcome::Misconfigured),
            (Auth, "534 too weak", Outcome::Misconfigured),
            (Auth, "535 5.7.8 wrong", Outcome::Misconfigured),
            (Auth, "538 encrypt", Outcome::Misconfigured),
            (Mail, "530 5.7.0 authenticate first", Outcome::Misconfigured),
            (Mail, "550 5.7.1 not your sender", Outcome::Misconfigured),
            (Mail, "553 sender rejected", Outcome::Misconfigured),
            (Mail, "553 5.1.8 no such domain", Outcome::Misconfigured),
            (Mail, "554 blocked", Outcome::Misconfigured),
            (Mail, "552 5.3.4 too big", REJECTED),
            (Mail, "552 too big", REJECTED),
            (Mail, "555 what parameter", REJECTED),
            (Mail, "501 5.5.4 what", REJECTED),
            (Mail, "452 4.3.1 disk full", AGAIN),
            (Mail, "250 but it is no time for that", AGAIN),
            (Rcpt, "450 4.7.1 greylisted", AGAIN),
            (Rcpt, "451 4.1.1 cannot look that up", AGAIN),
            (Rcpt, "452 4.5.3 too many", AGAIN),
            (Rcpt, "452 4.2.2 full", AGAIN),
            (Rcpt, "550 5.1.1 nobody", GONE),
            (Rcpt, "550-5.1.1 nobody\r\n550 5.1.1 really", GONE),
            (Rcpt, "550 5.1.2 no such host", GONE),
            (Rcpt, "501 5.1.3 syntax", GONE),
            (Rcpt, "551 5.1.6 moved", GONE),
            (Rcpt, "556 5.1.10 null MX", GONE),
            (Rcpt, "550 5.2.1 disabled", GONE),
            (Rcpt, "551 not local", GONE),
            (Rcpt, "553 not allowed", GONE),
            (Rcpt, "521 no mail", GONE),
            (Rcpt, "556 no mail", GONE),
            (Rcpt, "550 unavailable", REJECTED),
            (Rcpt, "550 5.0.0 unavailable", REJECTED),
            (Rcpt, "550 5.7.1 relaying denied", REJECTED),
            (Rcpt, "550 5.7.606 banned", Outcome::Misconfigured),
            (Rcpt, "550 5.1.8 bad sender", Outcome::Misconfigured),
            (Rcpt, "552 full", AGAIN),
            (Rcpt, "552 5.2.2 full", AGAIN),
            (Rcpt, "550 5.4.4 no route", AGAIN),
            (Rcpt, "550 4.1.1 nobody, though it says 4", GONE),
            (Data, "503 first RCPT", REJECTED),
            (Data, "451 later", AGAIN),
            (Data, "250 not now", AGAIN),
            (Message, "250 2.0.0 queued", Outcome::Sent),
            (Message, "354 go on", Outcome::Unknown),
            (Message, "451 4.3.0 later", AGAIN),
            (Message, "552 5.3.4 too big", REJECTED),
            (Message, "552 too big", REJECTED),
            (Message, "550 spam", REJECTED),
            (Message, "554 5.7.1 policy", REJECTED),
            (Message, "550 5.6.0 content", REJECTED),
            (Message, "550 5.7.26 unauthenticated", Outcome::Misconfigured),
            (Message, "550 5.7.23 SPF", Outcome::Misconfigured),
            (Message, "550 5.1.1 nobody after all", GONE),
            (Message, "421 4.7.28 slow down", AGAIN),
            (Reset, "500 what", AGAIN),
        ] {
            assert_eq!(verdict(phase, &reply(text)), expected, "{phase:?} {text}");
        }
    }

    #[test]
    fn details_name_no_address_and_no_content() {
        let private = ["ana", "s3cret-login"].map(str::to_owned);
        let of = |text: &str| detail(Rcpt, &reply(text), &private, |t| t.contains("Your code"));
        for (text, expected) in [
            ("550 5.1.1 <ana@example.net>: no such user", "RCPT: 550 5.1.1 … no such user"),
            ("550-5.1.1 no such user\r\n550 5.1.1 (Ana).", "RCPT: 550 5.1.1 no such user …"),
            ("550 see /?q=ana%40example.net about banana", "RCPT: 550 see … about banana"),
            ("535 user=S3CRET-login; wrong", "RCPT: 535 … wrong"),
            ("554 5.7.1 spam: Your code is 1", "RCPT: 554 5.7.1 (the answer repeats what was sent)"),
            ("550 a\u{1b}[31m\u{0}  b", "RCPT: 550 a[31m b"),
            ("450", "RCPT: 450"),
        ] {
            assert_eq!(of(text), expected);
        }
        assert!(of(&format!("550 {}", "é ".repeat(5_000))).chars().count() < 220);
    }
}
