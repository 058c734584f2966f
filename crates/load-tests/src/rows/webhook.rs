//! The webhook channel against hyper's HTTP/1.1 client: 64 connections, no TLS, each on one core.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{Address, Channel};
use gateway::{
    channels::webhook::{Options, Webhook},
    guard::{Guard, System, parse_network},
};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::Full;
use hyper::Request;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Outcomes, send};
use crate::{
    bare::http1::Connection,
    fixture,
    harness::{Bench, Effort, Meter, Sample, one_thread},
    machine::Pinned,
    peer::Peer,
    report::{Better, Figure},
};

const CONNECTIONS: usize = 64;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let pinned = Pinned::pin();
    let sink = Peer::start(&["http"], Some(&pinned))?;
    let port = sink.ready.port;
    let sides = bench.compare("webhook", &["webhook channel", "bare hyper"], |side| {
        one_thread()?.block_on(async {
            if side == 0 { ours(port, bench.effort).await } else { baseline(port, bench.effort).await }
        })
    })?;
    let figure = Figure::of("webhook", "POSTs/s", Better::More, 0.6, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![("webhook".to_owned(), sides)], ..Outcomes::default() })
}

async fn ours(port: u16, effort: Effort) -> anyhow::Result<Sample> {
    let opened = vec![parse_network("127.0.0.0/8").map_err(anyhow::Error::msg)?];
    let guard = Guard { opened, allow_http: false };
    let options = Options { timeout: Duration::from_secs(15), guard, idle_per_host: 128 };
    let to = |n| Address::parse(Channel::Webhook, &format!("http://127.0.0.1:{port}/{n}")).map_err(anyhow::Error::msg);
    let deliveries = fixture::deliveries(Channel::Webhook, 1000, to)?;
    let account = fixture::account(fixture::webhook_account())?;
    send(Arc::new(Webhook::with(options, Arc::new(System))), account, deliveries, CONNECTIONS, effort).await
}

/// The same bytes, but for what differs from request to request.
async fn baseline(port: u16, effort: Effort) -> anyhow::Result<Sample> {
    let data = json!({
        "notification_id": uuid::Uuid::nil(), "delivery_id": uuid::Uuid::nil(), "priority": 5, "title": fixture::TITLE,
        "body": fixture::BODY, "metadata": {},
    });
    let event = json!({"type": "notification", "timestamp": "2026-11-21T09:00:00.123456Z", "data": data});
    let body = Bytes::from(event.to_string());
    let request = move |n: u64| {
        Request::post(format!("/{}", n % 1000))
            .header(HOST, format!("127.0.0.1:{port}"))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "Carillon")
            .header("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=")
            .header("webhook-id", "00000000-0000-0000-0000-000000000000")
            .header("webhook-timestamp", "1795251600")
            .body(Full::new(body.clone()))
    };
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    for _ in 0..CONNECTIONS {
        let (meter, request, mut connection) = (meter.clone(), request.clone(), Connection::open(port).await?);
        tasks.spawn(async move {
            while let Some(n) = meter.next() {
                connection.send(request(n)?).await?;
                meter.done(1);
            }
            Ok(())
        });
    }
    meter.measure(effort, tasks).await
}
