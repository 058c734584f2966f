//! hyper's HTTP/1.1 client on a connection of one's own.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One connection, `TCP_NODELAY`.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// To 127.0.0.1.
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("nobody listens")?;
        stream.set_nodelay(true)?;
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // whoever waits for an answer hears of it
            let _ended = connection.await;
        });
        Ok(Self(requests))
    }

    /// One request and its whole answer, which has to be a success.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
        let (status, body) = self.exchange(request).await?;
        ensure!(status.is_success(), "HTTP {status}");
        Ok(body)
    }

    /// One request and its whole answer, whatever that is.
    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
