//! The product as a whole, from outside: one process against one process for each service; its CPU time for one notification; its
//! memory at rest; the time that one takes at half of the load that there can be.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Outcomes, push};
use crate::{
    bare::http1::Connection,
    cluster::{Cluster, KEY},
    deployment::{Deployment, received},
    harness::{Bench, Sample, Side, one_thread, threads},
    peer::Peer,
    peers::{now_us, post},
    report::{Better, Figure},
};

/// Bytes in the megabytes that were promised.
const MB: f64 = 1_000_000.0;
/// Clients whose requests come one by one.
const CONNECTIONS: usize = 64;
/// How much longer than a round a cluster is warmed up for by single requests.
const WARM_TIMES: u32 = 8;
/// Of the lane `high`.
const PRIORITY: u8 = 9;
/// Of each topic, as `deploy/compose.yaml` has it for a cluster on one machine. librdkafka asks a broker for one partition in each
/// request, so with the 12 that are the default a record of a moderate load mostly travels alone.
const PARTITIONS: u8 = 4;

pub(super) fn throughput(bench: &Bench) -> anyhow::Result<Outcomes> {
    let mut sink = Peer::start(&["apns"], None)?;
    let runtime = threads()?;
    let cluster = runtime.block_on(Cluster::make(bench, &sink.ready))?;
    let one = runtime.block_on(Deployment::standalone(bench, &sink.ready))?;
    let many = runtime.block_on(Deployment::cluster(bench, &cluster))?;
    let count = bench.effort.count(30_000, 500);
    for deployment in [&one, &many] {
        runtime.block_on(flooded(deployment, &mut sink, count / 5))?;
    }
    let names = ["standalone", "a process for each service"];
    let sides =
        bench.compare("standalone", &names, |side| runtime.block_on(flooded([&one, &many][side], &mut sink, count)))?;
    let figure = Figure::of("standalone", "notifications/s", Better::More, 1.5, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![("standalone".to_owned(), sides)], ..Outcomes::default() })
}

/// From the first request until all is done, which is after the last reception: what became of each can be looked up then, too.
async fn flooded(deployment: &Deployment, sink: &mut Peer, count: u64) -> anyhow::Result<Sample> {
    deployment.quiet().await?;
    sink.received()?;
    let (began, begun_us, cpu) = (Instant::now(), now_us(), deployment.cpu()?);
    deployment.flood(count).await?;
    let all = received(sink, count).await?;
    ensure!(all.count == count, "{} were received of {count}", all.count);
    let took = deployment.quiet().await?.duration_since(began);
    let sent = Duration::from_micros(all.last_us.saturating_sub(begun_us));
    eprintln!("    all were received after {sent:.1?}, all was done after {took:.1?}");
    Ok(Sample::rate(count, took, deployment.cpu()?.saturating_sub(cpu)))
}

pub(super) fn whole_path_cpu(bench: &Bench) -> anyhow::Result<Outcomes> {
    const NAME: &str = "whole_path_cpu";
    let mut sink = Peer::start(&["apns"], None)?;
    let runtime = threads()?;
    let deployment = runtime.block_on(Deployment::standalone(bench, &sink.ready))?;
    let count = bench.effort.count(30_000, 500);
    runtime.block_on(flooded(&deployment, &mut sink, count / 5))?;
    let sides = bench.compare(NAME, &["standalone", "5 x bare hyper"], |side| {
        if side == 1 {
            let bare = one_thread()?.block_on(push::baseline(&sink.ready, 100, bench.effort))?;
            return Ok(Sample { value: 5.0 * bare.cpu_us, cpu_us: bare.cpu_us });
        }
        runtime.block_on(async {
            deployment.quiet().await?;
            sink.received()?;
            let cpu = deployment.cpu()?;
            let last = deployment.flood(count).await?;
            received(&mut sink, count).await?;
            deployment.quiet().await?;
            let cpu = deployment.cpu()?.saturating_sub(cpu);
            // the questions are not part of the path
            searchable(&deployment, &last).await?;
            let sample = Sample::per_cpu_second(count, cpu);
            Ok(Sample { value: sample.cpu_us, ..sample })
        })
    })?;
    let figure = Figure::of(NAME, "µs of CPU time", Better::Less, 1.0, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![(NAME.to_owned(), sides)], ..Outcomes::default() })
}

async fn searchable(deployment: &Deployment, id: &str) -> anyhow::Result<()> {
    let path = format!("/v1/notifications/{id}");
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        // not there yet is a 404
        let found = deployment.call(Method::GET, &path, KEY, &Value::Null).await;
        if found.as_ref().is_ok_and(|n| n["state"] == "sent") {
            return Ok(());
        }
        ensure!(Instant::now() < until, "what was sent is not found: {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) fn rest(bench: &Bench) -> anyhow::Result<Outcomes> {
    const NAME: &str = "standalone_rest_mb";
    let sides = bench.compare(NAME, &["standalone --demo"], |_| {
        threads()?.block_on(async {
            let deployment = Deployment::demo(bench).await?;
            deployment.quiet().await?;
            Ok(Sample { value: deployment.resident()? as f64 / MB, cpu_us: f64::NAN })
        })
    })?;
    Ok(promised(NAME, "MB", 120.0, sides))
}

pub(super) fn end_to_end_p99(bench: &Bench) -> anyhow::Result<Outcomes> {
    const NAME: &str = "end_to_end_p99";
    let mut sink = Peer::start(&["apns"], None)?;
    let runtime = threads()?;
    let partitions = ("topics.partitions", PARTITIONS.to_string());
    let cluster = runtime.block_on(Cluster::with(bench, &sink.ready, &[partitions]))?;
    let deployment = runtime.block_on(Deployment::cluster(bench, &cluster))?;
    runtime.block_on(flooded(&deployment, &mut sink, bench.effort.count(5000, 500)))?;
    // until the engines' JITs have seen such a load for a while
    runtime.block_on(one_by_one(&deployment, None, bench.effort.time * WARM_TIMES))?;
    let most = runtime.block_on(async {
        deployment.quiet().await?;
        let began = Instant::now();
        let sent = one_by_one(&deployment, None, bench.effort.warm + bench.effort.time).await?;
        // what it keeps up with: also the index has it all
        let took = deployment.quiet().await?.duration_since(began);
        anyhow::Ok(Sample::rate(sent, took, Duration::ZERO).value)
    })?;
    eprintln!("  {NAME}: saturated at {most:.0} notifications/s");
    let sides = bench.compare(NAME, &["a process for each service"], |_| {
        runtime.block_on(async {
            deployment.quiet().await?;
            sink.received()?;
            let sent = one_by_one(&deployment, Some(most / 2.0), bench.effort.time * 3).await?;
            // its latencies begin anew with each question, so it is asked once, when all are there
            deployment.quiet().await?;
            let all = sink.received()?;
            ensure!(all.count == sent, "{} were received of {sent}", all.count);
            Ok(Sample { value: all.p99_us as f64 / 1000.0, cpu_us: f64::NAN })
        })
    })?;
    Ok(promised(NAME, "ms at half of the load", 100.0, sides))
}

/// Hands notifications over in requests of their own: at a rate, each with the time at which it was to be sent; or as fast as they
/// are taken. Says how many.
async fn one_by_one(deployment: &Deployment, rate: Option<f64>, time: Duration) -> anyhow::Result<u64> {
    let (port, people) = (deployment.port, deployment.people);
    let (due, waiting) = mpsc::channel::<u64>(100_000);
    let waiting = std::sync::Arc::new(tokio::sync::Mutex::new(waiting));
    let mut clients = JoinSet::new();
    for client in 0..CONNECTIONS {
        let (waiting, mut connection) = (waiting.clone(), Connection::open(port).await?);
        clients.spawn(async move {
            let mut sent = 0_u64;
            loop {
                let Some(at) = waiting.lock().await.recv().await else { return anyhow::Ok(sent) };
                let mut notification = post::notification((sent * CONNECTIONS as u64 + client as u64) % people)?;
                notification["priority"] = json!(PRIORITY);
                notification["collapse_key"] = json!(format!("at-{at}-{client}-{sent}"));
                let body = Bytes::from(notification.to_string());
                connection.send(post::request(port, "/v1/notifications", body)?).await?;
                sent += 1;
            }
        });
    }
    let began = Instant::now();
    let first = now_us();
    let mut count = 0_u64;
    while began.elapsed() < time {
        let until = match rate {
            Some(rate) => (began.elapsed().as_secs_f64() * rate) as u64,
            // always some that wait
            None => count + due.capacity().min(CONNECTIONS) as u64,
        };
        while count < until {
            let at = rate.map_or_else(now_us, |rate| first + (count as f64 / rate * 1e6) as u64);
            if rate.is_some() {
                due.try_send(at).context("it does not keep up with half of its load")?;
            } else if due.max_capacity() - due.capacity() < 2 * CONNECTIONS {
                due.send(at).await?;
            } else {
                break;
            }
            count += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(due);
    let mut sent = 0;
    while let Some(end) = clients.join_next().await {
        sent += end??;
    }
    ensure!(sent == count, "{sent} of {count} were taken");
    Ok(sent)
}

/// Less than a promised number.
fn promised(name: &'static str, unit: &'static str, most: f64, mut sides: Vec<Side>) -> Outcomes {
    let samples = vec![Sample { value: most, cpu_us: f64::NAN }; sides[0].samples.len()];
    sides.push(Side { name: "promised", samples });
    let figure = Figure::of(name, unit, Better::Less, 1.0, &sides[0], &sides[1]);
    Outcomes { figures: vec![figure], sides: vec![(name.to_owned(), sides)], ..Outcomes::default() }
}
