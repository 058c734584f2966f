//! Reading in sips. `h2` handles all that there is to read before it writes: with hundreds of requests in flight, those that
//! follow from the first answers had to wait until the last answer was read, and the other side had nothing to do meanwhile.

use std::{
    io::{IoSlice, Result},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read before others have their turn: some hundred answers.
const SIP: usize = 4096;

/// A stream of which a task reads so much at a time.
pub(super) struct Sips<S> {
    inner: S,
    /// The last one was taken just now.
    swallowing: bool,
}

impl<S> Sips<S> {
    pub(super) fn of(inner: S) -> Self {
        Self { inner, swallowing: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sips<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if std::mem::take(&mut self.swallowing) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = to.remaining().min(SIP);
        let mut sip = ReadBuf::new(to.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut sip))?;
        let read = sip.filled().len();
        to.advance(read);
        self.swallowing = read == SIP;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sips<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What is read until it says that there is no more for now.
    async fn turn(stream: &mut Sips<tokio::io::DuplexStream>) -> Vec<usize> {
        let mut buffer = vec![0; 4 * SIP];
        poll_fn(|cx| {
            let mut reads = Vec::new();
            let mut to = ReadBuf::new(&mut buffer);
            while Pin::new(&mut *stream).poll_read(cx, &mut to).is_ready() {
                reads.push(to.filled().len());
                to.clear();
            }
            Poll::Ready(reads)
        })
        .await
    }

    #[tokio::test]
    async fn others_have_their_turn_between_two_sips() {
        let (mut far, near) = duplex(4 * SIP);
        let mut near = Sips::of(near);
        far.write_all(&vec![b'x'; 2 * SIP + 1]).await.expect("there is room");
        assert_eq!(turn(&mut near).await, [SIP]);
        assert_eq!(turn(&mut near).await, [SIP]);
        assert_eq!(turn(&mut near).await, [1]);
    }

    #[tokio::test]
    async fn who_has_sipped_is_called_again() {
        let (mut far, near) = duplex(4 * SIP);
        let mut near = Sips::of(near);
        far.write_all(&vec![b'x'; 3 * SIP]).await.expect("there is room");
        // `read_exact` waits whenever it is told to, so nobody but the sip itself wakes it
        let mut all = vec![0; 3 * SIP];
        let read = tokio::time::timeout(std::time::Duration::from_secs(5), near.read_exact(&mut all));
        assert_eq!(read.await.expect("it is woken").expect("it reads"), 3 * SIP);
    }
}
