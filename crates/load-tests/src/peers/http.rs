//! A receiver of HTTP/1.1 as fast as it can be: requests are counted, not understood.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Tally, accept};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

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

async fn connection(mut stream: TcpStream, tally: &Tally) -> std::io::Result<()> {
    let (mut bytes, mut out) = (BytesMut::with_capacity(64 * 1024), Vec::new());
    while stream.read_buf(&mut bytes).await? > 0 {
        while let Some((whole, body)) = request(&bytes) {
            bytes.advance(whole);
            tally.add(body, None);
            out.extend_from_slice(ANSWER);
        }
        stream.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

/// The length of the first request and of its body, if it is whole.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let body = bytes[..head].split(|b| *b == b'\n').find_map(content_length).unwrap_or_default();
    (bytes.len() >= head + body).then_some((head + body, body))
}

fn content_length(line: &[u8]) -> Option<usize> {
    let (name, value) = line.split_at_checked(b"content-length:".len())?;
    let value = name.eq_ignore_ascii_case(b"content-length:").then_some(value)?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_where_they_say() {
        let two = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nhost: a\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        let (first, body) = request(two).unwrap();
        assert_eq!((&two[first..first + 3], body), (&b"GET"[..], 3));
        assert_eq!(request(&two[first..]), Some((18, 0)));
        assert_eq!((request(&two[..first - 1]), request(b"POST")), (None, None));
    }
}
