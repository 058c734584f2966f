//! Everything that is seen over a socket, seen over a socket.

mod health;
mod kit;
mod serve;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// Serves until the token is cancelled.
async fn served(router: Router) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = crate::serve::bind("127.0.0.1:0", "test").await.expect("a port");
    let (at, end) = (listener.local_addr().expect("an address"), CancellationToken::new());
    let serving = tokio::spawn(crate::serve::serve(listener, router, end.clone()));
    (at, end, serving)
}

/// Status and body.
async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

async fn get_json(at: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = get(at, path).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// Asks until the status is the expected one; the last answer.
async fn until(at: SocketAddr, path: &str, expected: u16) -> Value {
    let (mut last, deadline) = (Value::Null, Instant::now() + Duration::from_secs(20));
    while Instant::now() < deadline {
        let (status, body) = get_json(at, path).await;
        if status == expected {
            return body;
        }
        last = body;
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} does not say {expected}: {last}");
}
