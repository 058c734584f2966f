//! The router on real Kafka, Redis and Cassandra, with templates rendered, per second of CPU time: against reading, one MGET, and
//! writing the same records.

use std::sync::{Arc, atomic::AtomicU64};

use bus::topic::{self, Stage};
use domain::{Channel, ChannelType, Lane, Message, Recipient, TemplateKey, TemplateRef};
use serde_json::json;
use service_kit::Kit;
use wire::Record as _;

use super::Outcomes;
use crate::{
    bare::{chain::Chain, kafka, store::Store},
    cluster::{self, Cluster, between, outgoing},
    counted::CountedLog,
    fixture,
    harness::{Bench, Sample, one_thread, one_worker, threads},
    peer::Peer,
    report::{Better, Figure},
};

/// A delivery, and the event that tells of it.
const RECORDS: usize = 2;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let sink = Peer::start(&["apns"], None)?;
    let cluster = threads()?.block_on(Cluster::make(bench, &sink.ready))?;
    let count = bench.effort.count(100_000, 2000);
    let topics = bus::Topics::new(&cluster.prefix);
    let notifications = topics.notifications(ChannelType::Push, Lane::Normal);
    let fill = || {
        let record = |n: u64| {
            let n = notification(n % cluster.people)?;
            Ok(outgoing(&notifications, topic::recipient_key(&n.tenant, &n.recipient), n.encode()))
        };
        threads()?.block_on(cluster.fill((0..count).map(record)))
    };
    fill()?;
    one_worker()?.block_on(ours(&cluster, count))?;
    let written = written(&cluster, count)?;
    let names = ["router", "consume, MGET, produce", "raw parts at the same time"];
    let sides = bench.compare("router", &names, |side| match side {
        0 => {
            fill()?;
            one_worker()?.block_on(ours(&cluster, count))
        }
        1 => parts(bench, &cluster, &notifications, &written, count),
        _ => one_worker()?.block_on(chain(&cluster, &notifications, &written, count)),
    })?;
    let figure = Figure::of("router", "notifications/CPU-s", Better::More, 0.4, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![("router".to_owned(), sides)], ..Outcomes::default() })
}

pub(super) fn notification(person: u64) -> anyhow::Result<domain::Notification> {
    let template = TemplateRef { key: TemplateKey::parse("shipped").map_err(anyhow::Error::msg)?, version: 1 };
    let data = json!({"order": format!("{person}"), "when": "tomorrow between 10 and 12"});
    let message = Message::Template { template, data: data.as_object().cloned().unwrap_or_default() };
    fixture::notification(Recipient::User(fixture::user(person)?), Channel::Apns, message)
}

async fn ours(cluster: &Cluster, count: u64) -> anyhow::Result<Sample> {
    let kit = cluster.kit().await?;
    let sample = routed(kit.clone(), count, RECORDS as u64).await;
    cluster::stop(kit).await?;
    sample
}

/// Lets the router take `count` notifications, of each of which come so many records.
pub(super) async fn routed(mut kit: Kit, count: u64, records: u64) -> anyhow::Result<Sample> {
    let published: Arc<AtomicU64> = Arc::default();
    kit.log = Arc::new(CountedLog { log: kit.log, published: published.clone() });
    ::router::run(&kit)?;
    let (cpu, _) = between(&published, records * (count / 5), records * count).await?;
    Ok(Sample::per_cpu_second(count - count / 5, cpu))
}

/// The CPU time of each part alone, added up; the records are those that the router writes.
fn parts(bench: &Bench, cluster: &Cluster, topic: &str, written: &[kafka::Made], count: u64) -> anyhow::Result<Sample> {
    let (effort, engines) = (bench.effort, &cluster.engines);
    let parts = [
        kafka::consume(&engines.kafka, topic, count, effort)?,
        one_thread()?
            .block_on(async { Store::open(&engines.redis, &cluster.redis_prefix()).await?.ask(false, effort).await })?,
        kafka::produce(&engines.kafka, written.to_vec(), RECORDS, effort)?,
    ];
    let each: Vec<_> = parts.iter().map(|part| format!("{:.1}", part.cpu_us)).collect();
    eprintln!("    consume, ask, produce: {} µs", each.join(" + "));
    let cpu_us: f64 = parts.iter().map(|part| part.cpu_us).sum();
    Ok(Sample { value: 1e6 / cpu_us, cpu_us })
}

/// The same parts in one process, while each waits for the others, and a key in Redis for each decision: how far down one
/// could come at all.
async fn chain(cluster: &Cluster, topic: &str, written: &[kafka::Made], count: u64) -> anyhow::Result<Sample> {
    let chain = Chain {
        from: (cluster.engines.kafka.clone(), topic.to_owned()),
        store: Store::open(&cluster.engines.redis, &cluster.redis_prefix()).await?,
        send: None,
        written: written.to_vec(),
        each: RECORDS,
    };
    chain.run(count).await
}

/// What the router has written when it took the first `count` notifications, for the baseline to write it again.
fn written(cluster: &Cluster, count: u64) -> anyhow::Result<Vec<kafka::Made>> {
    let topics = bus::Topics::new(&cluster.prefix);
    let (deliveries, status) = (topics.deliveries(Channel::Apns, Lane::Normal), topics.status());
    // written again where no row reads
    let again =
        [(&*deliveries, &topics.deliveries(Channel::Apns, Lane::Low)), (&*status, &topics.dead(Stage::Indexer))];
    kafka::Made::again(&cluster.engines.kafka, &again, usize::try_from(count)?)
}
