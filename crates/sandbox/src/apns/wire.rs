//! The bytes between TLS and `h2`, where frames of our own go out that `h2` cannot send: SETTINGS with another
//! `MAX_CONCURRENT_STREAMS`, GOAWAY with a stream of our choice and debug data. They go out between two flushes, when `h2` has
//! written whole frames only; the acknowledgements of such SETTINGS are kept from `h2`, which would take them for an error.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// What a client sends before its first frame.
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// So much is read at a time, and so much waits to be written before `h2` has to wait.
const BUFFER: usize = 64 * 1024;

/// The connection's end on which frames are put.
#[derive(Default)]
pub(super) struct Frames {
    queued: Mutex<BytesMut>,
    waiting: AtomicBool,
    torn: AtomicBool,
}

impl Frames {
    /// The peer may have so many streams from now on.
    pub(super) fn max_streams(&self, max: u32) {
        self.queue(6, SETTINGS, |frame| {
            frame.put_u16(MAX_CONCURRENT_STREAMS);
            frame.put_u32(max);
        });
    }

    /// Streams above `last` are not processed, for this reason.
    pub(super) fn goaway(&self, last: u32, reason: &str) {
        let debug = serde_json::json!({ "reason": reason }).to_string();
        self.queue(8 + debug.len(), GOAWAY, |frame| {
            frame.put_u32(last);
            frame.put_u32(h2::Reason::NO_ERROR.into());
            frame.put_slice(debug.as_bytes());
        });
    }

    /// The TCP connection is reset as soon as it is next used.
    pub(super) fn tear(&self) {
        self.torn.store(true, Ordering::Relaxed);
    }

    /// A frame waits: the connection has to be polled.
    pub(super) fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    fn queue(&self, length: usize, kind: u8, write: impl FnOnce(&mut BytesMut)) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.put_uint(length as u64, 3);
        queued.put_u8(kind);
        queued.put_u8(0);
        queued.put_u32(0);
        write(&mut queued);
        self.waiting.store(true, Ordering::Relaxed);
    }

    fn take(&self, out: &mut BytesMut) {
        if self.waiting.swap(false, Ordering::Relaxed) {
            let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            out.extend_from_slice(&queued.split());
        }
    }
}

/// A connection in front of `h2`.
pub(super) struct Wire {
    tls: TlsStream<TcpStream>,
    frames: Arc<Frames>,
    first: Option<u32>,
    out: BytesMut,
    seen: Seen,
}

impl Wire {
    /// The first SETTINGS will allow `streams`.
    pub(super) fn new(tls: TlsStream<TcpStream>, streams: u32) -> (Self, Arc<Frames>) {
        let frames = Arc::new(Frames::default());
        let (out, seen) = (BytesMut::with_capacity(BUFFER), Seen::default());
        (Self { tls, frames: frames.clone(), first: Some(streams), out, seen }, frames)
    }

    fn check_torn(&self) -> io::Result<()> {
        if self.frames.torn.load(Ordering::Relaxed) {
            // closing then sends RST
            self.tls.get_ref().0.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.tls).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_torn()?;
        if this.out.len() > BUFFER {
            ready!(this.poll_drain(cx))?;
        }
        this.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_torn()?;
        if !this.out.is_empty()
            && let Some(streams) = this.first.take()
        {
            this.out = limited(&this.out, streams);
        }
        if this.first.is_none() {
            this.frames.take(&mut this.out);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tls).poll_shutdown(cx)
    }
}

/// `h2`'s first frame, which is SETTINGS, with the number of streams in it.
fn limited(first: &BytesMut, streams: u32) -> BytesMut {
    let length = usize::from(first[0]) << 16 | usize::from(first[1]) << 8 | usize::from(first[2]);
    let (head, rest) = first.split_at(FRAME_HEADER + length);
    let mut out = BytesMut::with_capacity(BUFFER);
    out.put_uint(length as u64 + 6, 3);
    out.put_slice(&head[3..]);
    out.put_u16(MAX_CONCURRENT_STREAMS);
    out.put_u32(streams);
    out.put_slice(rest);
    out
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_torn()?;
        while this.seen.clear == 0 {
            this.seen.bytes.reserve(BUFFER / 4);
            let before = this.seen.bytes.len();
            ready!(tokio_util::io::poll_read_buf(Pin::new(&mut this.tls), cx, &mut this.seen.bytes))?;
            if this.seen.bytes.len() == before {
                return Poll::Ready(Ok(()));
            }
            this.seen.scan();
        }
        let count = this.seen.clear.min(buf.remaining());
        buf.put_slice(&this.seen.bytes[..count]);
        this.seen.bytes.advance(count);
        this.seen.clear -= count;
        Poll::Ready(Ok(()))
    }
}

/// What has come in.
struct Seen {
    bytes: BytesMut,
    /// So many bytes at the front may go on to `h2`.
    clear: usize,
    /// Then so many belong to a frame that has begun.
    inside: usize,
    acknowledged: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), clear: 0, inside: PREFACE, acknowledged: false }
    }
}

impl Seen {
    /// Clears what is whole, without acknowledgements after the first.
    fn scan(&mut self) {
        loop {
            let taken = self.inside.min(self.bytes.len() - self.clear);
            self.clear += taken;
            self.inside -= taken;
            let Some(header) = self.bytes[self.clear..].first_chunk::<FRAME_HEADER>() else { return };
            let [a, b, c, kind, flags, ..] = *header;
            if kind == SETTINGS && flags & ACK != 0 && std::mem::replace(&mut self.acknowledged, true) {
                let end = self.bytes.len() - FRAME_HEADER;
                self.bytes.copy_within(self.clear + FRAME_HEADER.., self.clear);
                self.bytes.truncate(end);
            } else {
                self.inside = FRAME_HEADER + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn only_the_first_acknowledgement_goes_on_wherever_the_bytes_are_cut() {
        let (ack, data) = (frame(SETTINGS, ACK, b""), frame(0, 1, b"0123456789"));
        let preface = [b'P'; PREFACE];
        let all = [&preface[..], &frame(SETTINGS, 0, &[0; 6]), &ack, &data, &ack, &ack, &data, &ack].concat();
        let expected = [&preface[..], &frame(SETTINGS, 0, &[0; 6]), &ack, &data, &data].concat();
        for cut in 1..all.len() {
            let (mut seen, mut passed) = (Seen::default(), Vec::new());
            for piece in all.chunks(cut) {
                seen.bytes.extend_from_slice(piece);
                seen.scan();
                passed.extend_from_slice(&seen.bytes.split_to(std::mem::take(&mut seen.clear)));
            }
            assert_eq!(passed, expected, "cut after {cut}");
        }
    }

    #[test]
    fn the_first_settings_get_the_number_of_streams() {
        let first = [frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0]), frame(8, 0, &[0, 0, 0, 9])].concat();
        let expected = [frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1]), frame(8, 0, &[0, 0, 0, 9])].concat();
        assert_eq!(limited(&BytesMut::from(&first[..]), 1), expected);
    }
}
