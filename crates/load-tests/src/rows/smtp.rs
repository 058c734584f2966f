//! The email channel against lettre as it comes: 10 connections, no TLS, the same mail, each on one core.

use std::{sync::Arc, time::Duration};

use domain::{Address, Channel};
use gateway::{
    channels::email::{Email, Options},
    guard::{System, parse_network},
};
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor, message::header::ContentType,
    transport::smtp::PoolConfig,
};
use tokio::task::JoinSet;

use super::{Outcomes, send};
use crate::{
    fixture,
    harness::{Bench, Effort, Meter, Sample, one_thread},
    machine::Pinned,
    peer::Peer,
    report::{Better, Figure},
};

const CONNECTIONS: usize = 10;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let pinned = Pinned::pin();
    let sink = Peer::start(&["smtp"], Some(&pinned))?;
    let port = sink.ready.port;
    let sides = bench.compare("smtp", &["email channel", "lettre"], |side| {
        one_thread()?.block_on(async {
            if side == 0 { ours(port, bench.effort).await } else { baseline(port, bench.effort).await }
        })
    })?;
    let figure = Figure::of("smtp", "mails/s", Better::More, 5.0, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![("smtp".to_owned(), sides)], ..Outcomes::default() })
}

fn to(n: u64) -> anyhow::Result<Address> {
    Address::parse(Channel::Email, &format!("ana+{n}@example.net")).map_err(anyhow::Error::msg)
}

async fn ours(port: u16, effort: Effort) -> anyhow::Result<Sample> {
    let options = Options {
        timeout: Duration::from_secs(60),
        open_networks: vec![parse_network("127.0.0.0/8").map_err(anyhow::Error::msg)?],
        connections: CONNECTIONS,
        idle_timeout: Duration::from_secs(10),
        messages_per_connection: 100,
    };
    let account = fixture::account(fixture::email_account(port))?;
    let deliveries = fixture::deliveries(Channel::Email, 1000, to)?;
    send(Arc::new(Email::with(options, Arc::new(System))), account, deliveries, CONNECTIONS, effort).await
}

/// Its own pool, messages made beforehand.
async fn baseline(port: u16, effort: Effort) -> anyhow::Result<Sample> {
    let pool = PoolConfig::new().max_size(u32::try_from(CONNECTIONS)?);
    let transport =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(port).pool_config(pool).build();
    let message = |n| {
        let from = "Shop <no-reply@example.com>".parse()?;
        let message = Message::builder().from(from).to(to(n)?.expose().parse()?).subject(fixture::TITLE);
        anyhow::Ok(message.header(ContentType::TEXT_PLAIN).body(fixture::BODY.to_owned())?)
    };
    let messages: Arc<[Message]> = (0..1000).map(message).collect::<anyhow::Result<_>>()?;
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    for _ in 0..CONNECTIONS {
        let (meter, transport, messages) = (meter.clone(), transport.clone(), messages.clone());
        tasks.spawn(async move {
            while let Some(n) = meter.next() {
                transport.send(messages[(n % 1000) as usize].clone()).await?;
                meter.done(1);
            }
            Ok(())
        });
    }
    let sample = meter.measure(effort, tasks).await;
    transport.shutdown().await;
    sample
}
