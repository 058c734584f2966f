//! One client's connection: frames in, one request at a time, frames out.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::SemaphorePermit,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{Broker, api};

/// What a request that has begun, its answer, or the first request of a connection gets to pass in.
const PASS_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of a request for which a connection needs no part of the room that all share: small requests never wait for it.
const OWN: usize = 64 * 1024;

/// What handlers know of a connection.
pub(crate) struct Connection<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) shutdown: &'a CancellationToken,
    /// The address at which the client arrived.
    pub(crate) local: SocketAddr,
    /// Whether it has been logged that this client asks for what is not here.
    pub(crate) told: bool,
}

impl Connection<'_> {
    /// Host and port that the client is told to connect to.
    pub(crate) fn advertised(&self) -> (String, u16) {
        let arrived = || (self.local.ip().to_string(), self.local.port());
        self.broker.options.advertised.clone().unwrap_or_else(arrived)
    }
}

/// Answers requests until the client leaves or `shutdown`.
///
/// # Errors
/// Why the connection is to be closed before that: what came is no request, or came too slowly, or the socket broke.
pub(crate) async fn serve(broker: &Broker, mut stream: TcpStream, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut connection = Connection { broker, shutdown, local: stream.local_addr()?, told: false };
    let idle = broker.options.idle_timeout;
    let pass = PASS_WITHIN.min(idle);
    let mut patience = pass;
    loop {
        // a look at the first byte: `readable` would still be true of the last request's
        match shutdown.run_until_cancelled(timeout(patience, stream.peek(&mut [0]))).await {
            None => return Ok(()),
            Some(waited) => waited.context("silent for too long")??,
        };
        let length = timeout(pass, length(&mut stream, broker.options.max_frame)).await.context("half a length")?;
        let Some(length) = length? else { return Ok(()) };
        let room =
            timeout(PASS_WITHIN, room(broker, length)).await.context("no room for a large request in time")??;
        let frame = timeout(pass, frame(&mut stream, length)).await.context("an incomplete request")??;
        let answer = api::answer(&mut connection, frame).await?;
        drop(room);
        if let Some(answer) = answer {
            timeout(pass, stream.write_all(&answer)).await.context("the answer is not taken")??;
        }
        patience = idle;
    }
}

/// How long the next frame is, or `None` when the client has left.
async fn length(stream: &mut TcpStream, most: usize) -> anyhow::Result<Option<usize>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = usize::try_from(i32::from_be_bytes(length)).context("a negative frame length")?;
    ensure!(length <= most, "a frame of {length} bytes; kafka_listener.max_frame is {most}");
    Ok(Some(length))
}

/// Room for all of a large frame, before any of it is read: parts would let those that have some wait for each other.
async fn room(broker: &Broker, length: usize) -> anyhow::Result<Option<SemaphorePermit<'_>>> {
    if length <= OWN {
        return Ok(None);
    }
    Ok(Some(broker.room.acquire_many(u32::try_from(length)?).await?))
}

/// The frame itself. Memory grows with what arrives, not with what is announced.
async fn frame(stream: &mut TcpStream, length: usize) -> anyhow::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(length.min(OWN));
    let mut rest = stream.take(length as u64);
    while frame.len() < length {
        ensure!(rest.read_buf(&mut frame).await? > 0, "the connection ended within a frame");
    }
    Ok(frame.freeze())
}
