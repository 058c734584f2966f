//! The APNs engine against hyper's HTTP/2 client: TLS, each on one core.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{Channel, Delivery};
use gateway::{
    channels::apns::{Apns, Options},
    guard::{Guard, System, parse_network},
};
use tokio::task::JoinSet;

use super::{Outcomes, send};
use crate::{
    bare::http2::{Connection, Requests},
    fixture,
    harness::{Bench, Effort, Meter, Sample, one_thread},
    machine::Pinned,
    peer::Peer,
    peers::Ready,
    report::{Better, Figure, median},
};

/// Of the row with a long way.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 1000;
const WAY_MS: &str = "50";

pub(super) fn run(bench: &Bench, name: &'static str, in_flight: usize) -> anyhow::Result<Outcomes> {
    let pinned = Pinned::pin();
    let mut sink = Peer::start(&["apns"], Some(&pinned))?;
    let mut weights = [0, 0];
    let sides = bench.compare(name, &["APNs engine", "bare hyper"], |side| {
        let sample = one_thread()?.block_on(async {
            match side {
                0 => ours(&sink.ready, in_flight, bench.effort).await,
                _ => baseline(&sink.ready, in_flight, bench.effort).await,
            }
        })?;
        let received = sink.received()?;
        weights[side] = received.bytes / received.count.max(1);
        Ok(sample)
    })?;
    anyhow::ensure!(
        bench.ours_only || weights[0] == weights[1],
        "the two do not send the same: {weights:?} bytes a request"
    );
    let figure = Figure::of(name, "pushes/s", Better::More, 0.85, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![(name.to_owned(), sides)], ..Outcomes::default() })
}

/// The baseline is no program but what the connections could carry: connections x streams / round trip.
pub(super) fn run_rtt50(bench: &Bench) -> anyhow::Result<Outcomes> {
    const NAME: &str = "push_engine_rtt50";
    let pinned = Pinned::pin();
    let sink = Peer::start(&["apns", "--streams", &STREAMS.to_string(), "--delay-ms", WAY_MS], Some(&pinned))?;
    // some wait, so that a stream that is free is used at once; and what begins together has to come apart
    let in_flight = CONNECTIONS * STREAMS * 11 / 10;
    let effort = Effort { warm: bench.effort.warm + Duration::from_millis(1500), ..bench.effort };
    // the third side is not in the ratio: it shows what this machine and its sink carry at all
    let names = ["APNs engine", "connections x streams / RTT", "bare hyper on as many connections"];
    let sides = bench.compare(NAME, &names, |side| {
        one_thread()?.block_on(async {
            match side {
                0 => ours(&sink.ready, in_flight, effort).await,
                1 => possible(&sink.ready).await,
                _ => bare(&sink.ready, CONNECTIONS, CONNECTIONS * STREAMS, effort).await,
            }
        })
    })?;
    let figure = Figure::of(NAME, "pushes/s", Better::More, 0.9, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![(NAME.to_owned(), sides)], ..Outcomes::default() })
}

fn deliveries() -> anyhow::Result<Vec<Delivery>> {
    fixture::deliveries(Channel::Apns, 1000, fixture::token)
}

/// The channel with its default settings.
pub(super) fn engine() -> anyhow::Result<Apns> {
    let opened = vec![parse_network("127.0.0.0/8").map_err(anyhow::Error::msg)?];
    let options = Options {
        timeout: Duration::from_secs(10),
        guard: Guard { opened, allow_http: false },
        connections: CONNECTIONS,
        ping_every: Duration::from_secs(30),
        ping_timeout: Duration::from_secs(5),
        max_age: Duration::from_secs(6 * 3600),
    };
    Ok(Apns::with(options, Arc::new(System)))
}

async fn ours(to: &Ready, in_flight: usize, effort: Effort) -> anyhow::Result<Sample> {
    let account = fixture::account(fixture::apns_account(to)?)?;
    send(Arc::new(engine()?), account, deliveries()?, in_flight, effort).await
}

/// One connection, as many streams as are in flight.
pub(super) async fn baseline(to: &Ready, in_flight: usize, effort: Effort) -> anyhow::Result<Sample> {
    bare(to, 1, in_flight, effort).await
}

async fn bare(to: &Ready, connections: usize, in_flight: usize, effort: Effort) -> anyhow::Result<Sample> {
    let requests = Arc::new(Requests::of(&deliveries()?, to)?);
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(to).await?);
    }
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    for task in 0..in_flight {
        let (meter, requests, mut connection) = (meter.clone(), requests.clone(), open[task % connections].clone());
        tasks.spawn(async move {
            while let Some(n) = meter.next() {
                connection.send(&requests, n).await?;
                meter.done(1);
            }
            Ok(())
        });
    }
    meter.measure(effort, tasks).await
}

/// With the round trip that a request has when it is alone.
async fn possible(to: &Ready) -> anyhow::Result<Sample> {
    let requests = Requests::of(&deliveries()?, to)?;
    let mut connection = Connection::open(to).await?;
    let mut seconds = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        connection.send(&requests, n).await?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    let value = (CONNECTIONS * STREAMS) as f64 / median(seconds);
    Ok(Sample { value, cpu_us: f64::NAN })
}
