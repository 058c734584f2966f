//! The server's end, and its errors.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::served;

/// Says that it was called, then waits.
async fn slow(State(steps): State<Arc<(Notify, Notify)>>) -> &'static str {
    steps.0.notify_one();
    steps.1.notified().await;
    "done"
}

#[tokio::test]
async fn running_requests_are_answered_and_silent_clients_not_waited_for() {
    let steps = Arc::new((Notify::new(), Notify::new()));
    let (at, end, serving) = served(Router::new().route("/", get(slow)).with_state(steps.clone())).await;
    let _silent = TcpStream::connect(at).await.expect("connected");
    let mut running = TcpStream::connect(at).await.expect("connected");
    running.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sent");
    steps.0.notified().await;
    end.cancel();
    steps.1.notify_one();
    let mut answer = String::new();
    running.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    serving.await.expect("it ends");
    assert!(TcpStream::connect(at).await.is_err(), "it listens no more");
}

#[tokio::test]
async fn a_port_in_use_names_the_remedy() {
    let held = crate::serve::bind("127.0.0.1:0", "admin.listen").await.expect("free");
    let at = held.local_addr().expect("an address");
    let error = crate::serve::bind(at, "admin.listen").await.expect_err("taken").to_string();
    assert!(error.contains(&at.to_string()) && error.contains("the setting `admin.listen`"), "{error}");
}
