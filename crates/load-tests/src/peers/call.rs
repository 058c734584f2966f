//! A load on the gRPC API: so many calls at a time on a few connections.

use std::sync::Arc;

use anyhow::Context as _;
use grpc::v1::SendRequest;
use tokio::task::JoinSet;

use super::{Tally, post};
use crate::cluster::KEY;

const CONNECTIONS: usize = 4;
/// Users in turns.
const PEOPLE: u64 = 100;

pub(super) async fn run(port: u16, streams: usize, tally: Arc<Tally>) -> anyhow::Result<()> {
    let mut requests = Vec::new();
    for person in 0..PEOPLE {
        requests.push(SendRequest::from_json(post::notification(person)?.to_string().as_bytes())?);
    }
    let requests: Arc<[SendRequest]> = requests.into();
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = grpc::connect(&format!("http://127.0.0.1:{port}"), KEY).await?;
        for first in 0..streams / CONNECTIONS {
            let (tally, requests, mut client) = (tally.clone(), requests.clone(), client.clone());
            calls.spawn(async move {
                for request in requests.iter().cycle().skip(first) {
                    client.send(request.clone()).await.context("a call failed")?;
                    tally.add(0, None);
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(end) = calls.join_next().await {
        end??;
    }
    Ok(())
}
