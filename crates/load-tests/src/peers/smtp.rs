//! An SMTP server that takes every mail, with PIPELINING.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Tally, accept};

/// The end of a mail; the line before it has its own line end.
const DOT: &[u8] = b"\r\n.\r\n";

pub(super) async fn serve(listener: TcpListener, tally: Arc<Tally>) -> anyhow::Result<()> {
    loop {
        let Some(stream) = accept(&listener).await else { continue };
        let tally = tally.clone();
        tokio::spawn(async move {
            // a client that goes away says so to its own side
            let _gone = connection(stream, &tally).await;
        });
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
enum Expect {
    Command,
    Mail,
    Nothing,
}

async fn connection(mut stream: TcpStream, tally: &Tally) -> std::io::Result<()> {
    let (mut bytes, mut out) = (BytesMut::with_capacity(64 * 1024), b"220 sink ESMTP\r\n".to_vec());
    let mut expect = Expect::Command;
    loop {
        stream.write_all(&out).await?;
        out.clear();
        if expect == Expect::Nothing || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        step(&mut bytes, &mut expect, &mut out, tally);
    }
}

/// Takes what is whole.
fn step(bytes: &mut BytesMut, expect: &mut Expect, out: &mut Vec<u8>, tally: &Tally) {
    loop {
        match expect {
            Expect::Command => {
                let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return };
                let line = bytes.split_to(end + 1);
                let (answer, next) = command(&line);
                out.extend_from_slice(answer);
                *expect = next;
            }
            Expect::Mail => {
                let Some(end) = bytes.windows(DOT.len()).position(|w| w == DOT) else { return };
                bytes.advance(end + DOT.len());
                tally.add(end, None);
                out.extend_from_slice(b"250 2.0.0 taken\r\n");
                *expect = Expect::Command;
            }
            Expect::Nothing => return,
        }
    }
}

fn command(line: &[u8]) -> (&'static [u8], Expect) {
    let verb: Vec<u8> = line.iter().take(4).map(u8::to_ascii_uppercase).collect();
    match verb.as_slice() {
        b"EHLO" => (b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 50000000\r\n", Expect::Command),
        b"HELO" | b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" => (b"250 2.0.0 yes\r\n", Expect::Command),
        b"DATA" => (b"354 go on\r\n", Expect::Mail),
        b"QUIT" => (b"221 2.0.0 bye\r\n", Expect::Nothing),
        _ => (b"500 5.5.1 what?\r\n", Expect::Command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_are_taken_however_they_come() {
        let session =
            b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhi\r\n..\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n";
        for chunk in [1, 3, session.len()] {
            let (tally, mut bytes, mut out) = (Tally::default(), BytesMut::new(), Vec::new());
            let mut expect = Expect::Command;
            for part in session.chunks(chunk) {
                bytes.extend_from_slice(part);
                step(&mut bytes, &mut expect, &mut out, &tally);
            }
            let out = String::from_utf8(out).unwrap();
            assert_eq!((tally.take().count, expect), (1, Expect::Nothing), "{out}");
            assert_eq!(out.lines().filter(|l| l.starts_with("250 ")).count(), 6, "{out}");
        }
    }
}
