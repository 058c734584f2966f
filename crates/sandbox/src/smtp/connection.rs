//! A session over its connection, in the clear or over TLS.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::session::{Session, Step};
use crate::behaviour::PATIENCE;

/// How long a client has for its first byte, which tells implicit TLS from a client that waits to be greeted.
const FIRST_BYTE: Duration = Duration::from_millis(200);
/// The first byte of a TLS handshake.
const CLIENT_HELLO: u8 = 0x16;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection that is closed is still listened to, so that the last reply is not lost in a reset.
const LINGER: Duration = Duration::from_secs(1);
/// What is read at a time.
const READ: usize = 16 * 1024;

pub(super) async fn converse(stream: TcpStream, acceptor: TlsAcceptor, session: Session) {
    let connection = session.connection;
    if let Err(error) = dialogue(stream, &acceptor, session).await {
        tracing::debug!(%error, connection, "a connection ended");
    }
}

async fn dialogue(mut stream: TcpStream, acceptor: &TlsAcceptor, mut session: Session) -> io::Result<()> {
    let mut first = [0];
    let early = match timeout(FIRST_BYTE, stream.peek(&mut first)).await {
        Ok(peeked) => {
            if peeked? == 0 {
                return Ok(());
            }
            true
        }
        Err(_) => false,
    };
    let implicit = early && first[0] == CLIENT_HELLO;
    if !implicit {
        session.greet(early);
        if !talk(&mut stream, &mut session).await? {
            return Ok(());
        }
    }
    let mut stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    session.secured();
    if implicit {
        session.greet(false);
    }
    talk(&mut stream, &mut session).await.map(drop)
}

/// Until the end, or, when true, until the TLS handshake is due.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, session: &mut Session) -> io::Result<bool> {
    loop {
        let step = session.step();
        if !session.out.is_empty() {
            send(stream, &session.out).await?;
            session.out.clear();
        }
        match step {
            Step::Read => {
                session.input.reserve(READ);
                match timeout(PATIENCE, stream.read_buf(&mut session.input)).await {
                    Ok(count) => {
                        if count? == 0 {
                            return Ok(false);
                        }
                    }
                    Err(_) => session.idle(),
                }
            }
            Step::Wait(delay) => sleep(delay).await,
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    sleep(pause).await;
                    send(stream, &[byte]).await?;
                }
            }
            Step::Secure => return Ok(true),
            Step::Close => return close(stream).await.map(|()| false),
            Step::Cut => return Ok(false),
            Step::Hang => {
                sleep(PATIENCE).await;
                return Ok(false);
            }
        }
    }
}

/// A client that takes no replies is given up.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    timeout(PATIENCE, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await?
}

async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let drained = timeout(LINGER, async {
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    });
    // a client that does not close is no matter
    drained.await.unwrap_or(Ok(()))
}
