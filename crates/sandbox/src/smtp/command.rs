//! Commands as RFC 5321 and its extensions spell them: a line in, its meaning or a refusal out.

use super::{message::MAX_SIZE, reply::Reply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ehlo(&'a str),
    Helo(&'a str),
    StartTls,
    Auth { mechanism: &'a str, initial: Option<&'a str> },
    Mail(Mail<'a>),
    Rcpt(&'a str),
    Data,
    Bdat { size: u64, last: bool },
    Rset,
    Noop,
    Quit,
    Vrfy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mail<'a> {
    /// Without the angle brackets; empty for the null sender.
    pub(super) from: &'a str,
    pub(super) size: Option<u64>,
    pub(super) eight_bit: bool,
    pub(super) utf8: bool,
    pub(super) envelope_id: Option<&'a str>,
}

/// The longest line of `AUTH` and of its answers (RFC 4954), with CRLF.
pub(super) const MAX_LINE: usize = 12_288;
/// The longest `MAIL` and `RCPT`: 512, and what SIZE, 8BITMIME, SMTPUTF8 and DSN add.
const MAX_PATH_LINE: usize = 2_048;
/// The longest other line (RFC 5321).
const MAX_SHORT_LINE: usize = 512;

pub(super) const SYNTAX: Reply = Reply::new(500, "5.5.2", "syntax error");
pub(super) const LONG_LINE: Reply = Reply::new(500, "5.5.2", "the line is too long");
const ARGUMENT: Reply = Reply::new(501, "5.5.4", "a bad argument");
const PARAMETER: Reply = Reply::new(501, "5.5.4", "a bad parameter");
const UNKNOWN_PARAMETER: Reply = Reply::new(555, "5.5.4", "an unknown parameter");

impl Command<'_> {
    /// Must be the last of a pipelined group (RFC 2920).
    pub(super) const fn ends_group(&self) -> bool {
        match self {
            Self::Ehlo(_)
            | Self::Helo(_)
            | Self::StartTls
            | Self::Auth { .. }
            | Self::Data
            | Self::Noop
            | Self::Vrfy
            | Self::Quit => true,
            Self::Mail(_) | Self::Rcpt(_) | Self::Bdat { .. } | Self::Rset => false,
        }
    }
}

/// `line` is without its CRLF.
pub(super) fn parse(line: &[u8]) -> Result<Command<'_>, Reply> {
    let line = std::str::from_utf8(line).map_err(|_| SYNTAX)?;
    if line.contains(|c: char| c.is_control()) {
        return Err(Reply::new(500, "5.5.2", "a control character"));
    }
    // trailing blanks are to be tolerated
    let trimmed = line.trim_end_matches(' ');
    let (verb, rest) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
    let verb = verb.to_ascii_uppercase();
    let limit = match verb.as_str() {
        "MAIL" | "RCPT" => MAX_PATH_LINE,
        "AUTH" => MAX_LINE,
        _ => MAX_SHORT_LINE,
    };
    if line.len() + 2 > limit {
        return Err(LONG_LINE);
    }
    if limit != MAX_PATH_LINE && !line.is_ascii() {
        return Err(SYNTAX);
    }
    let alone = |command| if rest.is_empty() { Ok(command) } else { Err(ARGUMENT) };
    match verb.as_str() {
        "EHLO" => host(rest).map(Command::Ehlo),
        "HELO" => host(rest).map(Command::Helo),
        "STARTTLS" => alone(Command::StartTls),
        "AUTH" => auth(rest),
        "MAIL" => mail(rest),
        "RCPT" => rcpt(rest),
        "DATA" => alone(Command::Data),
        "BDAT" => bdat(rest),
        "RSET" => alone(Command::Rset),
        "QUIT" => alone(Command::Quit),
        "NOOP" => Ok(Command::Noop),
        "VRFY" if rest.is_empty() => Err(ARGUMENT),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" | "HELP" | "TURN" => Err(Reply::new(502, "5.5.1", "not implemented")),
        _ => Err(Reply::new(500, "5.5.2", "an unknown command")),
    }
}

fn auth(rest: &str) -> Result<Command<'_>, Reply> {
    let (mechanism, initial) = rest.split_once(' ').map_or((rest, None), |(m, i)| (m, Some(i)));
    if mechanism.is_empty() { Err(ARGUMENT) } else { Ok(Command::Auth { mechanism, initial }) }
}

/// The client's name: a domain or an address literal.
fn host(text: &str) -> Result<&str, Reply> {
    if domain(text) { Ok(text) } else { Err(Reply::new(501, "5.5.4", "a domain or an address literal is needed")) }
}

fn bdat(rest: &str) -> Result<Command<'_>, Reply> {
    let (size, last) = match rest.split_once(' ') {
        Some((size, word)) if word.eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return Err(ARGUMENT),
        None => (rest, false),
    };
    Ok(Command::Bdat { size: number(size).ok_or(ARGUMENT)?, last })
}

/// At most 20 digits and nothing else: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What is in the angle brackets after `keyword`, and the parameters after them.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(&'a str, &'a str), Reply> {
    const PATH: Reply = Reply::new(501, "5.5.2", "the path is missing or not in angle brackets");
    let (head, tail) = rest.split_at_checked(keyword.len()).ok_or(PATH)?;
    let inner = tail.strip_prefix('<').filter(|_| head.eq_ignore_ascii_case(keyword)).ok_or(PATH)?;
    let (mut quoted, mut escaped) = (false, false);
    for (i, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                let parameters = &inner[i + 1..];
                let parameters =
                    if parameters.is_empty() { parameters } else { parameters.strip_prefix(' ').ok_or(PATH)? };
                return Ok((&inner[..i], parameters));
            }
            _ => {}
        }
    }
    Err(PATH)
}

/// `KEY` or `KEY=value`, each at most once.
fn parameters(text: &str) -> Result<Vec<(&str, Option<&str>)>, Reply> {
    let mut all: Vec<(&str, Option<&str>)> = Vec::new();
    for parameter in text.split(' ').filter(|_| !text.is_empty()) {
        let (key, value) = parameter.split_once('=').map_or((parameter, None), |(k, v)| (k, Some(v)));
        let well_formed = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !well_formed || value == Some("") || all.iter().any(|(k, _)| k.eq_ignore_ascii_case(key)) {
            return Err(PARAMETER);
        }
        all.push((key, value));
    }
    Ok(all)
}

fn mail(rest: &str) -> Result<Command<'_>, Reply> {
    let (from, rest) = path(rest, "FROM:")?;
    let mut mail = Mail { from, ..Mail::default() };
    for (key, value) in parameters(rest)? {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        let well_formed = match value {
            Some(value) if is("SIZE") => {
                mail.size = number(value);
                mail.size.is_some()
            }
            Some(value) if is("BODY") => {
                mail.eight_bit = value.eq_ignore_ascii_case("8BITMIME");
                mail.eight_bit || value.eq_ignore_ascii_case("7BIT")
            }
            None if is("SMTPUTF8") => {
                mail.utf8 = true;
                true
            }
            Some(value) if is("RET") => value.eq_ignore_ascii_case("FULL") || value.eq_ignore_ascii_case("HDRS"),
            Some(value) if is("ENVID") => {
                mail.envelope_id = Some(value);
                value.len() <= 100 && xtext(value)
            }
            Some(value) if is("AUTH") => xtext(value),
            _ if ["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"].iter().any(|name| is(name)) => false,
            _ => return Err(UNKNOWN_PARAMETER),
        };
        if !well_formed {
            return Err(PARAMETER);
        }
    }
    if mail.size.is_some_and(|size| size > MAX_SIZE as u64) {
        return Err(Reply::new(552, "5.3.4", "the message is too large"));
    }
    if !from.is_empty() {
        mailbox(from, mail.utf8, "5.1.7")?;
    }
    Ok(Command::Mail(mail))
}

/// The mailbox itself is checked where it is known whether SMTPUTF8 was asked for.
fn rcpt(rest: &str) -> Result<Command<'_>, Reply> {
    let (to, rest) = path(rest, "TO:")?;
    for (key, value) in parameters(rest)? {
        let value = value.unwrap_or_default();
        let well_formed = if key.eq_ignore_ascii_case("NOTIFY") {
            let known = |word: &str| ["SUCCESS", "FAILURE", "DELAY"].iter().any(|k| k.eq_ignore_ascii_case(word));
            value.eq_ignore_ascii_case("NEVER") || value.split(',').all(known)
        } else if key.eq_ignore_ascii_case("ORCPT") {
            value.len() <= 500 && value.split_once(';').is_some_and(|(kind, at)| !kind.is_empty() && xtext(at))
        } else {
            return Err(UNKNOWN_PARAMETER);
        };
        if !well_formed {
            return Err(PARAMETER);
        }
    }
    Ok(Command::Rcpt(to))
}

/// Printable, with `+` only before two upper-case hex digits (RFC 3461).
fn xtext(text: &str) -> bool {
    let hex = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().enumerate().all(|(i, b)| match b {
            b'+' => hex(bytes.get(i + 1)) && hex(bytes.get(i + 2)),
            b'=' => false,
            b => b.is_ascii_graphic(),
        })
}

/// A mailbox as RFC 5321 and, with `utf8`, RFC 6531 allow it; refused with this enhanced code.
pub(super) fn mailbox(text: &str, utf8: bool, enhanced: &'static str) -> Result<(), Reply> {
    if !utf8 && !text.is_ascii() {
        return Err(Reply::new(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8"));
    }
    let right = text.rsplit_once('@').is_some_and(|(local, host)| {
        local.len() <= 64
            && host.len() <= 255
            && text.len() <= 254
            && (dot_atom(local) || quoted(local))
            && domain(host)
    });
    if right { Ok(()) } else { Err(Reply::new(501, enhanced, "not a mailbox")) }
}

fn dot_atom(local: &str) -> bool {
    let atext = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext))
}

fn quoted(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else { return false };
    let mut escaped = false;
    let plain = inner.chars().all(|c| {
        let fine = escaped || c != '"';
        escaped = !escaped && c == '\\';
        fine
    });
    plain && !escaped
}

fn domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let address = literal.strip_prefix("IPv6:").unwrap_or(literal);
        return address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv6() == (address.len() < literal.len()));
    }
    let letter = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric();
    text.split('.').all(|label| {
        label.len() <= 63
            && label.starts_with(letter)
            && label.ends_with(letter)
            && label.chars().all(|c| letter(c) || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Result<(), u16> {
        parse(line.as_bytes()).map(drop).map_err(|r| r.code)
    }

    #[test]
    fn commands_are_read_strictly() {
        assert_eq!(parse(b"ehlo gw.example.com "), Ok(Command::Ehlo("gw.example.com")));
        assert_eq!(parse(b"BDAT 86 LAST"), Ok(Command::Bdat { size: 86, last: true }));
        let mail = parse(b"MAIL FROM:<b@example.com> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=ntf+3D1 AUTH=<>");
        let envelope_id = Some("ntf+3D1");
        let expected = Mail { from: "b@example.com", size: Some(1234), eight_bit: true, utf8: true, envelope_id };
        assert_eq!(mail, Ok(Command::Mail(expected)));
        for fine in [
            "HELO [127.0.0.1]",
            "EHLO [IPv6:::1]",
            "MAIL FROM:<>",
            "mail from:<\"a b>c\\\"\"@example.com>",
            "RCPT TO:<a@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb@example.com",
            "NOOP whatever",
            "VRFY ana",
            "AUTH PLAIN =",
        ] {
            assert_eq!(code(fine), Ok(()), "{fine}");
        }
        for (line, expected) in [
            ("", 500),
            ("HI", 500),
            ("NOOP \u{e9}", 500),
            ("NOOP a\tb", 500),
            ("EHLO", 501),
            ("EHLO a b", 501),
            ("EHLO -x", 501),
            ("EHLO [::1]", 501),
            ("DATA now", 501),
            ("STARTTLS now", 501),
            ("BDAT", 501),
            ("BDAT +1", 501),
            ("BDAT 1 FIRST", 501),
            ("VRFY", 501),
            ("AUTH", 501),
            ("HELP", 502),
            ("MAIL FROM: <a@example.com>", 501),
            ("MAIL FROM:a@example.com", 501),
            ("MAIL FROM:<a@example.com", 501),
            ("MAIL FROM:<a@example.com>SIZE=1", 501),
            ("MAIL FROM:<a@example.com>  SIZE=1", 501),
            ("MAIL FROM:<a@example.com> SIZE=1 size=2", 501),
            ("MAIL FROM:<a@example.com> SIZE=x", 501),
            ("MAIL FROM:<a@example.com> SIZE=99999999", 552),
            ("MAIL FROM:<a@example.com> BODY=BINARYMIME", 501),
            ("MAIL FROM:<a@example.com> SMTPUTF8=1", 501),
            ("MAIL FROM:<a@example.com> HOLDFOR=1", 555),
            ("MAIL FROM:<a> ", 501),
            ("MAIL FROM:<\u{e9}@example.com>", 553),
            ("RCPT FROM:<a@example.com>", 501),
            ("RCPT TO:<a@example.com> NOTIFY=SOON", 501),
            ("RCPT TO:<a@example.com> ORCPT=a@example.com", 501),
            ("RCPT TO:<a@example.com> SIZE=1", 555),
        ] {
            assert_eq!(code(line), Err(expected), "{line}");
        }
        assert_eq!(code(&format!("NOOP {}", "x".repeat(505))), Ok(()));
        assert_eq!(code(&format!("NOOP {}", "x".repeat(506))), Err(500));
    }

    #[test]
    fn mailboxes_are_checked() {
        for good in ["a@b", "a.b+c@example.com", "\"a b\"@example.com", "a@[127.0.0.1]", "a@[IPv6:::1]"] {
            assert_eq!(mailbox(good, false, "5.1.3"), Ok(()), "{good}");
        }
        assert_eq!(mailbox("\u{e9}@ex\u{e4}mple.com", true, "5.1.3"), Ok(()));
        for bad in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a..b@c",
            ".a@b",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a b@c",
            "a@b c",
            "a@b@c",
            "<a@b",
            "\"a\"b\"@c",
            "\"a\\\"@c",
            "a@[1.2.3]",
            "a@b_c",
        ] {
            assert_eq!(mailbox(bad, true, "5.1.3").map_err(|r| r.code), Err(501), "{bad}");
        }
        assert!(mailbox(&format!("{}@b", "a".repeat(65)), false, "5.1.3").is_err());
    }
}
