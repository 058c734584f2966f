//! A load on the HTTP API: so many connections, each with one request after the other.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Tally;
use crate::{bare::http1::Connection, cluster::KEY, fixture};

/// Users in turns.
const PEOPLE: u64 = 100;

pub(super) async fn run(port: u16, connections: usize, tally: Arc<Tally>) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for client in 0..connections as u64 {
        let (tally, mut connection) = (tally.clone(), Connection::open(port).await?);
        clients.spawn(async move {
            for n in client.. {
                let body = Bytes::from(notification(n % PEOPLE)?.to_string());
                let size = body.len();
                connection.send(request(port, "/v1/notifications", body)?).await?;
                tally.add(size, None);
            }
            anyhow::Ok(())
        });
    }
    while let Some(end) = clients.join_next().await {
        end??;
    }
    Ok(())
}

/// One user, one channel, a short text.
pub(crate) fn notification(person: u64) -> anyhow::Result<Value> {
    let content = json!({"default": {"title": fixture::TITLE, "body": fixture::BODY}});
    Ok(json!({"to": [{"user": fixture::user(person)?}], "channels": ["apns"], "content": content}))
}

/// A request with the tenant's key.
pub(crate) fn request(port: u16, path: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::post(path)
        .header(HOST, format!("127.0.0.1:{port}"))
        .header(AUTHORIZATION, format!("Bearer {KEY}"))
        .header(CONTENT_TYPE, "application/json");
    Ok(request.body(Full::new(body))?)
}
