//! The message itself: collected from DATA or BDAT without ever taking anything but CRLF for the end of a line, then checked.

use std::collections::BTreeMap;

use bytes::{Buf as _, BytesMut};

use super::reply::Reply;

/// The largest message, as `SIZE` says.
pub(super) const MAX_SIZE: usize = 10_240_000;
/// The longest line without its CRLF (RFC 5322).
const MAX_TEXT_LINE: usize = 998;
/// A line that is longer is taken in pieces.
const PIECE: usize = 16 * 1024;

pub(super) const TOO_LARGE: Reply = Reply::new(552, "5.3.4", "the message is too large");

#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// No longer collected.
    pub(super) too_large: bool,
    /// What comes next does not follow a CRLF.
    mid_line: bool,
}

impl Body {
    /// Takes whole lines of DATA without their stuffed dots. True: the final dot was there and is taken too.
    pub(super) fn take_lines(&mut self, input: &mut BytesMut) -> bool {
        let (mut taken, mut ended) = (0, false);
        while let Some(length) = input[taken..].iter().position(|b| *b == b'\n') {
            let line = &input[taken..=taken + length];
            taken += line.len();
            if !self.mid_line && line == b".\r\n" {
                ended = true;
                break;
            }
            self.push_line(line);
            self.mid_line = !line.ends_with(b"\r\n");
        }
        if !ended && input.len() - taken > PIECE {
            // a CR at the end may yet turn out to be the first half of CRLF
            let piece = &input[taken..input.len() - 1];
            taken += piece.len();
            self.push_line(piece);
            self.mid_line = true;
        }
        input.advance(taken);
        ended
    }

    fn push_line(&mut self, line: &[u8]) {
        match line {
            [b'.', rest @ ..] if !self.mid_line => self.push(rest),
            line => self.push(line),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.too_large |= self.bytes.len() + bytes.len() > MAX_SIZE;
        if self.too_large {
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Takes at most `left` bytes as they are.
    pub(super) fn take_chunk(&mut self, input: &mut BytesMut, left: u64) -> u64 {
        let count = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.push(&input[..count]);
        input.advance(count);
        left - count as u64
    }
}

/// Headers in order of arrival, unfolded; RFC 2047 is left as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(super) const NONE: Self = Self(Vec::new());

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    /// By lower-case name; several of one name are joined by `, `.
    pub(super) fn by_name(&self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::<String, String>::new();
        for (name, value) in &self.0 {
            let all = texts.entry(name.to_ascii_lowercase()).or_default();
            if !all.is_empty() {
                all.push_str(", ");
            }
            all.push_str(value);
        }
        texts
    }
}

/// Reads the headers of a message and looks for whatever a good provider refuses it for.
pub(super) fn check(message: &[u8], eight_bit: bool, utf8: bool) -> (Headers, Result<(), Reply>) {
    let (head, body) = split(message);
    let (headers, well_formed) = headers(head);
    let checked = lines(message)
        .and(well_formed)
        .and_then(|()| characters(head, body, eight_bit, utf8))
        .and_then(|()| fields(&headers));
    (headers, checked)
}

/// The headers with their last CRLF, and the body after the empty line.
fn split(message: &[u8]) -> (&[u8], &[u8]) {
    if let Some(body) = message.strip_prefix(b"\r\n") {
        return (b"", body);
    }
    message
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or((message, b""), |at| (&message[..at + 2], &message[at + 4..]))
}

fn lines(message: &[u8]) -> Result<(), Reply> {
    for line in message.split_inclusive(|b| *b == b'\n') {
        let text = match line {
            [text @ .., b'\r', b'\n'] => text,
            [.., b'\n'] => return Err(Reply::new(554, "5.5.2", "a bare LF in the message; lines end with CRLF")),
            text => text,
        };
        if text.contains(&b'\r') {
            return Err(Reply::new(554, "5.5.2", "a bare CR in the message; lines end with CRLF"));
        }
        if text.contains(&0) {
            return Err(Reply::new(554, "5.6.0", "a NUL in the message"));
        }
        if text.len() > MAX_TEXT_LINE {
            return Err(Reply::new(554, "5.6.0", "a line of more than 998 octets"));
        }
    }
    Ok(())
}

fn headers(head: &[u8]) -> (Headers, Result<(), Reply>) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut well_formed = Ok(());
    for line in head.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        match (text.strip_prefix([' ', '\t']), headers.last_mut(), text.split_once(':')) {
            // unfolding takes away the CRLF and nothing else
            (Some(_), Some((_, value)), _) => value.push_str(&text),
            (None, _, Some((name, value))) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) => {
                headers.push((name.to_owned(), value.trim_start().to_owned()));
            }
            _ => well_formed = Err(Reply::new(554, "5.6.0", "a line of the headers that is none")),
        }
    }
    (Headers(headers), well_formed)
}

fn characters(head: &[u8], body: &[u8], eight_bit: bool, utf8: bool) -> Result<(), Reply> {
    let readable = head.is_ascii() || utf8 && std::str::from_utf8(head).is_ok();
    if !readable {
        return Err(Reply::new(554, "5.6.9", "a header that is not ASCII needs SMTPUTF8 and is UTF-8"));
    }
    if !body.is_ascii() && !eight_bit {
        return Err(Reply::new(554, "5.6.3", "eight-bit text needs BODY=8BITMIME"));
    }
    Ok(())
}

fn fields(headers: &Headers) -> Result<(), Reply> {
    const AT_MOST_ONCE: [&str; 13] = [
        "Sender",
        "Reply-To",
        "To",
        "Cc",
        "Bcc",
        "Subject",
        "In-Reply-To",
        "References",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
    ];
    if headers.count("From") != 1 || headers.get("From").is_none_or(|from| !from.contains('@')) {
        return Err(Reply::new(550, "5.7.1", "the From header is missing, there twice, or has no address"));
    }
    if let Some(name) = ["Date", "Message-ID"].iter().find(|name| headers.count(name) != 1) {
        return Err(Reply::owned(554, "5.6.0", format!("the {name} header is missing or there twice")));
    }
    if let Some(name) = AT_MOST_ONCE.iter().find(|name| headers.count(name) > 1) {
        return Err(Reply::owned(554, "5.6.0", format!("the {name} header is there twice")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "From: a@example.com\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n";

    /// All ways of cutting the input in two give the same body and rest.
    fn collected(text: &str) -> (String, Option<String>) {
        let run = |cut: usize| {
            let (mut body, mut input, mut ended) = (Body::default(), BytesMut::new(), false);
            for part in [&text[..cut], &text[cut..]] {
                input.extend_from_slice(part.as_bytes());
                ended = ended || body.take_lines(&mut input);
            }
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            (text(&body.bytes), ended.then(|| text(&input)))
        };
        let whole = run(0);
        (1..text.len()).for_each(|cut| assert_eq!(run(cut), whole, "cut at {cut}"));
        whole
    }

    #[test]
    fn only_a_dot_between_two_crlf_ends_the_data() {
        let ended = |text: &str, body: &str, rest: &str| {
            assert_eq!(collected(text), (body.to_owned(), Some(rest.to_owned())), "{text:?}");
        };
        ended(".\r\nQUIT\r\n", "", "QUIT\r\n");
        ended("a\r\n..b\r\n...\r\n.c\r\n.\r\n", "a\r\n.b\r\n..\r\nc\r\n", "");
        for smuggled in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n\n.\r\n"] {
            let text = format!("a{smuggled}MAIL FROM:<x@example.com>\r\n.\r\n");
            let (body, rest) = collected(&text);
            assert_eq!(rest.as_deref(), Some(""), "{smuggled:?}");
            assert!(body.contains("MAIL FROM"), "{smuggled:?}");
            let whole = format!("{HEAD}\r\n{body}");
            assert_eq!(check(whole.as_bytes(), false, false).1.map_err(|r| r.code), Err(554), "{smuggled:?}");
        }
    }

    #[test]
    fn lines_without_end_are_taken_in_pieces_and_messages_not_beyond_the_size() {
        let (mut body, mut input) = (Body::default(), BytesMut::new());
        for _ in 0..40 {
            input.extend_from_slice(&[b'x'; 10_000]);
            assert!(!body.take_lines(&mut input));
            assert!(input.len() <= PIECE);
        }
        input.extend_from_slice(b"\r\n.\r\n");
        assert!(body.take_lines(&mut input));
        assert_eq!(body.bytes.len(), 400_002);
        assert_eq!(check(&body.bytes, false, false).1.map_err(|r| r.code), Err(554));

        let mut body = Body::default();
        for _ in 0..=MAX_SIZE / 10_000 {
            let mut input = BytesMut::from(&[b'x'; 10_000][..]);
            assert_eq!(body.take_chunk(&mut input, 10_000), 0);
        }
        assert!(body.too_large && body.bytes.is_empty());
    }

    #[test]
    fn headers_are_unfolded_and_left_encoded() {
        let text =
            format!("{HEAD}Subject: =?utf-8?q?a?=\r\n =?utf-8?q?b?=\r\nReceived: x\r\nReceived: y\r\n\r\nbody: no\r\n");
        let (headers, checked) = check(text.as_bytes(), false, false);
        assert_eq!(checked, Ok(()));
        assert_eq!(headers.get("subject"), Some("=?utf-8?q?a?= =?utf-8?q?b?="));
        assert_eq!(headers.by_name()["received"], "x, y");
        assert_eq!(headers.get("body"), None);
    }

    #[test]
    fn what_a_good_provider_refuses_is_refused() {
        let code = |text: &str, eight_bit, utf8| check(text.as_bytes(), eight_bit, utf8).1.map_err(|r| r.code);
        assert_eq!(code(HEAD, false, false), Ok(()));
        assert_eq!(code(&format!("{HEAD}\r\n{}\r\n", "x".repeat(998)), false, false), Ok(()));
        assert_eq!(code(&format!("{HEAD}\r\n\u{e9}"), true, false), Ok(()));
        assert_eq!(code(&format!("{HEAD}Subject: \u{e9}\r\n\r\n"), false, true), Ok(()));
        for (text, expected) in [
            (String::new(), 550),
            ("\r\nbody\r\n".into(), 550),
            (HEAD.replace("From", "X-From"), 550),
            (HEAD.replace("a@example.com", "ana"), 550),
            (format!("{HEAD}From: b@example.com\r\n"), 550),
            (HEAD.replace("Date", "X-Date"), 554),
            (HEAD.replace("Message-ID", "X-Id"), 554),
            (format!("{HEAD}To: b@example.com\r\nTo: c@example.com\r\n"), 554),
            (format!("{HEAD}no header\r\n\r\n"), 554),
            (format!("{HEAD}Bad Name: x\r\n\r\n"), 554),
            (format!(" folded\r\n{HEAD}"), 554),
            (format!("{HEAD}Subject: \u{e9}\r\n\r\n"), 554),
            (format!("{HEAD}\r\n\u{e9}"), 554),
            (format!("{HEAD}\r\na\0b"), 554),
            (format!("{HEAD}\r\n{}\r\n", "x".repeat(999)), 554),
            (format!("{HEAD}\r\na\r"), 554),
        ] {
            assert_eq!(code(&text, false, false), Err(expected), "{text:?}");
        }
    }
}
