//! What an SMTP server says: replies of one or more lines, as they come in.

use bytes::{Buf as _, BytesMut};

/// Bytes of one reply that are read; a server that says more is not understood.
const MAX_REPLY: usize = 16 * 1024;

/// The step that a reply answers. It matters as much as the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Reset,
    Mail,
    Rcpt,
    Data,
    /// After the final dot.
    Message,
}

impl Phase {
    /// The name in details.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Reset => "RSET",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Message => "message",
        }
    }
}

/// `subject.detail` of an enhanced status code; its class says no more than the basic code.
pub(super) type Cause = (u16, u16);

/// One reply, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// 200 to 599.
    pub(super) code: u16,
    /// Of the enhanced status code, if there is one.
    pub(super) cause: Option<Cause>,
    /// Without codes; what is no UTF-8 is replaced.
    pub(super) lines: Vec<String>,
}

/// What came is no SMTP reply, or does not end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// Bytes on their way to replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: BytesMut,
    /// Of `bytes`, those without a line end.
    searched: usize,
    /// Lines of a reply that is not whole yet, and their length.
    begun: Option<Reply>,
    length: usize,
}

impl Replies {
    /// Where the next bytes go.
    pub(super) const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Whether nothing is there that was not asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.begun.is_none()
    }

    /// The first lines of a reply that does not end: its code is known all the same.
    pub(super) const fn unfinished(&mut self) -> Option<Reply> {
        self.begun.take()
    }

    /// The next reply, if it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, Garbage> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') {
            let line = self.bytes.split_to(self.searched + end);
            self.bytes.advance(1);
            self.searched = 0;
            self.length += line.len();
            if self.length > MAX_REPLY {
                return Err(Garbage);
            }
            match self.line(line.strip_suffix(b"\r").unwrap_or(&line)) {
                Ok(false) => {}
                Ok(true) => {
                    self.length = 0;
                    return Ok(self.begun.take());
                }
                Err(garbage) => {
                    self.begun = None;
                    return Err(garbage);
                }
            }
        }
        self.searched = self.bytes.len();
        if self.length + self.searched > MAX_REPLY { Err(Garbage) } else { Ok(None) }
    }

    /// Adds a line; true: it was the last one.
    fn line(&mut self, line: &[u8]) -> Result<bool, Garbage> {
        let digits = line.get(..3).filter(|d| d.iter().all(u8::is_ascii_digit)).ok_or(Garbage)?;
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let (last, text) = match line.get(3) {
            None => (true, &[][..]),
            Some(b' ') => (true, &line[4..]),
            Some(b'-') => (false, &line[4..]),
            Some(_) => return Err(Garbage),
        };
        let reply = self.begun.get_or_insert_with(|| Reply { code, cause: None, lines: Vec::new() });
        if reply.code != code || !(200..=599).contains(&code) {
            return Err(Garbage);
        }
        let (cause, text) = enhanced(text);
        reply.cause = reply.cause.or(cause);
        reply.lines.push(String::from_utf8_lossy(text).into_owned());
        Ok(last)
    }
}

/// Splits `5.1.1 no such user`.
fn enhanced(text: &[u8]) -> (Option<Cause>, &[u8]) {
    let end = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let parse = || {
        let mut parts = std::str::from_utf8(&text[..end]).ok()?.split('.');
        let mut number = || {
            let part = parts.next().filter(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))?;
            part.parse::<u16>().ok()
        };
        let class = number()?;
        let cause = (number()?, number()?);
        (matches!(class, 2 | 4 | 5) && parts.next().is_none()).then_some(cause)
    };
    match parse() {
        Some(cause) => (Some(cause), text[end..].strip_prefix(b" ").unwrap_or_default()),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], chunk: usize) -> Result<Vec<Reply>, Garbage> {
        let (mut replies, mut found) = (Replies::default(), Vec::new());
        for chunk in bytes.chunks(chunk) {
            replies.buffer().extend_from_slice(chunk);
            while let Some(reply) = replies.next()? {
                found.push(reply);
            }
        }
        assert!(replies.bytes.len() <= MAX_REPLY);
        Ok(found)
    }

    fn reply(code: u16, cause: Option<Cause>, lines: &[&str]) -> Reply {
        Reply { code, cause, lines: lines.iter().map(|l| (*l).to_owned()).collect() }
    }

    #[test]
    fn replies_are_whole_however_they_are_cut() {
        let bytes =
            b"250-mx.example greets\r\n250-SIZE 1000\r\n250 PIPELINING\r\n354\r\n421-4.7.28 slow\n421 4.7.28 down\n\
            550 5.1.1 <\xff\xe4>\r\n250 2.0.0\r\n250 127.0.0.1 is fine\r\n550 5.1.1x\r\n";
        let expected = [
            reply(250, None, &["mx.example greets", "SIZE 1000", "PIPELINING"]),
            reply(354, None, &[""]),
            reply(421, Some((7, 28)), &["slow", "down"]),
            reply(550, Some((1, 1)), &["<\u{fffd}\u{fffd}>"]),
            reply(250, Some((0, 0)), &[""]),
            reply(250, None, &["127.0.0.1 is fine"]),
            reply(550, None, &["5.1.1x"]),
        ];
        for chunk in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(all(bytes, chunk).as_deref(), Ok(&expected[..]), "{chunk}");
        }
        let unfinished = |bytes: &[u8]| {
            let mut replies = Replies::default();
            replies.buffer().extend_from_slice(bytes);
            (replies.next(), replies.unfinished().map(|r| r.code))
        };
        assert_eq!(unfinished(b"250-a\r\n250 b"), (Ok(None), Some(250)));
        assert_eq!(unfinished(b"250 a"), (Ok(None), None));
        assert_eq!(unfinished(&b"250-a\r\n".repeat(MAX_REPLY)), (Err(Garbage), Some(250)));
        assert_eq!(unfinished(b"250-a\r\n550 b\r\n"), (Err(Garbage), None), "it says yes and no");
    }

    #[test]
    fn garbage_and_endless_replies_are_refused() {
        let endless_line = [b"250 ".as_slice(), &vec![b'x'; MAX_REPLY]].concat();
        let endless_lines = b"250-x\r\n".repeat(MAX_REPLY);
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"\r\n",
            b"25\r\n",
            b"2500\r\n",
            b"250_x\r\n",
            b"199 x\r\n",
            b"600 x\r\n",
            b"250-a\r\n251 b\r\n",
            b"\xff\xff\xff\r\n",
            &endless_line,
            &endless_lines,
        ] {
            assert_eq!(all(bytes, 999), Err(Garbage), "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(30)]));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..40) {
            let _ = all(&bytes, chunk);
            let _ = all(&[b"250-".as_slice(), &bytes, b"\r\n250 x\r\n"].concat(), chunk);
        }
    }
}
