//! How cost grows: with the members of a group, the partitions of a topic, what is said, the devices of a person, the people there
//! are. It has no baseline and misses nothing; what it draws belongs into docs/performance.md.

use std::time::{Duration, Instant};

use bus::topic;
use domain::{ChannelType, Lane};
use futures::{StreamExt as _, TryStreamExt as _};
use service_kit::Kit;
use tempfile::TempDir;
use wire::Record as _;

use super::{
    Outcomes,
    gateway::{fill, ours},
    router::{notification, routed},
};
use crate::{
    cluster::{self, Cluster, configure, outgoing, put_person},
    fixture,
    harness::{Bench, threads},
    peer::Peer,
    peers::Ready,
    plot::Curve,
    report::median,
};

const CPU: &str = "CPU µs of the gateway for a push";
const ROUTED: &str = "CPU µs of the router for a notification (embedded)";
/// People that are put at a time: their commits are shared.
const AT_ONCE: usize = 1000;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let sink = Peer::start(&["apns"], None)?;
    let curves = vec![
        members(bench, &sink.ready)?,
        partitions(bench, &sink.ready)?,
        payload(bench, &sink.ready)?,
        devices(bench, &sink.ready)?,
        people(bench, &sink.ready)?,
    ];
    Ok(Outcomes { curves, ..Outcomes::default() })
}

/// The median of three.
fn cost(name: &str, of: f64, mut measure: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<(f64, f64)> {
    let cost = median((0..3).map(|_| measure()).collect::<anyhow::Result<_>>()?);
    eprintln!("  {name} {of}: {cost:.1}");
    Ok((of, cost))
}

fn pushed(cluster: &Cluster, count: u64, members: usize, body: &str) -> anyhow::Result<f64> {
    fill(cluster, count, body)?;
    Ok(threads()?.block_on(ours(cluster, count, members))?.cpu_us)
}

fn members(bench: &Bench, sink: &Ready) -> anyhow::Result<Curve> {
    let (name, count) = ("scale-members", bench.effort.count(30_000, 1000));
    let cluster = threads()?.block_on(Cluster::make(bench, sink))?;
    pushed(&cluster, count, 1, fixture::BODY)?;
    let points = [1_u8, 2, 4]
        .map(|members| cost(name, members.into(), || pushed(&cluster, count, members.into(), fixture::BODY)))
        .into_iter()
        .collect::<anyhow::Result<_>>()?;
    Ok(Curve { name, of: "gateways in the group", cost: CPU, points })
}

fn partitions(bench: &Bench, sink: &Ready) -> anyhow::Result<Curve> {
    let (name, count) = ("scale-partitions", bench.effort.count(30_000, 1000));
    let mut points = Vec::new();
    for partitions in [1_u8, 4, 16, 64] {
        let own = [("topics.partitions", partitions.to_string())];
        let cluster = threads()?.block_on(Cluster::with(bench, sink, &own))?;
        pushed(&cluster, count, 1, fixture::BODY)?;
        points.push(cost(name, partitions.into(), || pushed(&cluster, count, 1, fixture::BODY))?);
    }
    Ok(Curve { name, of: "partitions", cost: CPU, points })
}

fn payload(bench: &Bench, sink: &Ready) -> anyhow::Result<Curve> {
    let (name, count) = ("scale-payload", bench.effort.count(30_000, 1000));
    let cluster = threads()?.block_on(Cluster::make(bench, sink))?;
    let around = fixture::push_body().to_string().len() - fixture::BODY.len();
    pushed(&cluster, count, 1, fixture::BODY)?;
    let mut points = Vec::new();
    // APNs takes 4,096 at most
    for bytes in [200_u16, 500, 1000, 2000, 4000] {
        let body = "x".repeat(usize::from(bytes) - around);
        points.push(cost(name, bytes.into(), || pushed(&cluster, count, 1, &body))?);
    }
    Ok(Curve { name, of: "bytes of a push", cost: CPU, points })
}

fn devices(bench: &Bench, sink: &Ready) -> anyhow::Result<Curve> {
    let name = "scale-devices";
    let points = [1_u8, 2, 3, 4, 5].map(|devices| embedded(bench, sink, name, devices.into(), 1000, devices.into()));
    Ok(Curve { name, of: "devices of a user", cost: ROUTED, points: points.into_iter().collect::<Result<_, _>>()? })
}

fn people(bench: &Bench, sink: &Ready) -> anyhow::Result<Curve> {
    let name = "scale-users";
    let most = bench.effort.count(1_000_000, 1000);
    let mut points = Vec::new();
    for people in [1_u32, 100, 10_000, 1_000_000].into_iter().filter(|people| u64::from(*people) <= most) {
        points.push(embedded(bench, sink, name, people.into(), people.into(), 0)?);
    }
    Ok(Curve { name, of: "users", cost: ROUTED, points })
}

/// A router of one machine, with so many people who have so many devices; people without one are decided over as well.
fn embedded(bench: &Bench, sink: &Ready, name: &str, of: f64, people: u64, devices: u64) -> anyhow::Result<(f64, f64)> {
    let (dir, count) = (TempDir::new_in(&bench.dir)?, bench.effort.count(30_000, 1000));
    let runtime = threads()?;
    runtime.block_on(async {
        let kit = open(&dir, sink).await?;
        let put = |number| put_person(&kit, number, devices);
        futures::stream::iter((0..people).map(put)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        cluster::stop(kit).await
    })?;
    drop(runtime);
    // a delivery and its event for each device, or the event of a decision against it
    let records = if devices == 0 { 1 } else { 2 * devices };
    cost(name, of, || {
        threads()?.block_on(async {
            let kit = open(&dir, sink).await?;
            hand_over(&kit, count, people).await?;
            let sample = routed(kit.clone(), count, records).await;
            cluster::stop(kit).await?;
            Ok(sample?.cpu_us)
        })
    })
}

async fn open(dir: &TempDir, sink: &Ready) -> anyhow::Result<Kit> {
    let settings = cluster::load([cluster::variable("admin.listen", "")])?;
    let until = Instant::now() + Duration::from_secs(10);
    let kit = loop {
        match Kit::embedded(settings.clone(), dir.path()).await {
            Ok(kit) => break kit,
            // the thread of the one before closes its file
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error),
        }
    };
    kit.spawn_config();
    kit.config.ready().await;
    configure(&kit, sink).await?;
    Ok(kit)
}

/// Notifications to people all over, not one after the other.
async fn hand_over(kit: &Kit, count: u64, people: u64) -> anyhow::Result<()> {
    let topic = kit.topics.notifications(ChannelType::Push, Lane::Normal);
    let record = |n: u64| {
        let n = notification(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % people)?;
        Ok(outgoing(&topic, topic::recipient_key(&n.tenant, &n.recipient), n.encode()))
    };
    let records = (0..count).map(record).collect::<anyhow::Result<Vec<_>>>()?;
    for result in kit.log.publish(records).await {
        result?;
    }
    Ok(())
}
