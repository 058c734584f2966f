//! The gateway as a whole on the real engines, per second of CPU time: against the sum of its raw parts, and against the consumer
//! that one would write first.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context as _;
use bus::topic::{self, Stage};
use domain::{Channel, Delivery, Lane, Recipient, Status, content::Text};
use rdkafka::{
    Message as _,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    producer::FutureRecord,
};
use tokio::task::JoinSet;
use wire::Record as _;

use super::{Outcomes, push};
use crate::{
    bare::{
        chain::Chain,
        http2::{Connection, Requests},
        kafka,
        store::Store,
    },
    cluster::{self, Cluster, between, outgoing},
    counted::CountedLog,
    fixture,
    harness::{Bench, Meter, Sample, one_thread, one_worker, threads},
    peer::Peer,
    peers::Ready,
    report::{Better, Figure},
};

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let sink = Peer::start(&["apns"], None)?;
    let cluster = threads()?.block_on(Cluster::make(bench, &sink.ready))?;
    let count = bench.effort.count(60_000, 2000);
    let deliveries = bus::Topics::new(&cluster.prefix).deliveries(Channel::Apns, Lane::Normal);
    // also for those who read before the gateway does
    fill(&cluster, count, fixture::BODY)?;
    one_worker()?.block_on(ours(&cluster, count, 1))?;
    let events = events(&cluster, count)?;
    let names = ["gateway", "raw parts", "the obvious consumer", "raw parts at the same time"];
    let sides = bench.compare("gateway", &names, |side| match side {
        0 => {
            fill(&cluster, count, fixture::BODY)?;
            one_worker()?.block_on(ours(&cluster, count, 1))
        }
        1 => parts(bench, &cluster, &sink.ready, (&deliveries, count), &events),
        3 => one_worker()?.block_on(chain(&cluster, &sink.ready, (&deliveries, count), &events)),
        _ => threads()?.block_on(obvious(bench, &cluster, &sink.ready, &deliveries)),
    })?;
    let unit = "notifications/CPU-s";
    let figures = vec![
        Figure::of("gateway", unit, Better::More, 0.6, &sides[0], &sides[1]),
        Figure::of("gateway_vs_obvious", unit, Better::More, 10.0, &sides[0], &sides[2]),
    ];
    Ok(Outcomes { figures, sides: vec![("gateway".to_owned(), sides)], ..Outcomes::default() })
}

fn delivery(person: u64) -> anyhow::Result<Delivery> {
    fixture::delivery(Recipient::User(fixture::user(person)?), Channel::Apns, fixture::token(person)?)
}

/// Puts so many deliveries on the gateway's topic, which say `body`.
pub(super) fn fill(cluster: &Cluster, count: u64, body: &str) -> anyhow::Result<()> {
    let topic = bus::Topics::new(&cluster.prefix).deliveries(Channel::Apns, Lane::Normal);
    let record = |n| {
        let mut delivery = delivery(n % cluster.people)?;
        delivery.content.default = Some(Text { title: fixture::TITLE.to_owned(), body: body.to_owned() });
        let key = topic::recipient_key(&delivery.tenant, &delivery.recipient);
        Ok(outgoing(&topic, key, delivery.encode()))
    };
    threads()?.block_on(cluster.fill((0..count).map(record)))
}

/// Takes what lies on the topic, by so many members of the group, and commits it.
pub(super) async fn ours(cluster: &Cluster, count: u64, members: usize) -> anyhow::Result<Sample> {
    let published: Arc<AtomicU64> = Arc::default();
    let mut kits = Vec::new();
    for _ in 0..members {
        let mut kit = cluster.kit().await?;
        kit.log = Arc::new(CountedLog { log: kit.log, published: published.clone() });
        ::gateway::run(&kit, Channel::Apns)?;
        kits.push(kit);
    }
    let measured = between(&published, count / 5, count).await;
    for kit in kits {
        cluster::stop(kit).await?;
    }
    Ok(Sample::per_cpu_second(count - count / 5, measured?.0))
}

/// The CPU time of each part alone, added up.
fn parts(
    bench: &Bench,
    cluster: &Cluster,
    sink: &Ready,
    (topic, count): (&str, u64),
    events: &[kafka::Made],
) -> anyhow::Result<Sample> {
    let (effort, engines) = (bench.effort, &cluster.engines);
    let parts = [
        kafka::consume(&engines.kafka, topic, count, effort)?,
        one_thread()?
            .block_on(async { Store::open(&engines.redis, &cluster.redis_prefix()).await?.ask(true, effort).await })?,
        one_thread()?.block_on(push::baseline(sink, 100, effort))?,
        kafka::produce(&engines.kafka, events.to_vec(), 1, effort)?,
    ];
    let each: Vec<_> = parts.iter().map(|part| format!("{:.1}", part.cpu_us)).collect();
    eprintln!("    consume, ask, send, produce: {} µs", each.join(" + "));
    let cpu_us: f64 = parts.iter().map(|part| part.cpu_us).sum();
    Ok(Sample { value: 1e6 / cpu_us, cpu_us })
}

/// The same parts in one process, while each waits for the others: how far down one could come at all.
async fn chain(
    cluster: &Cluster,
    sink: &Ready,
    (topic, count): (&str, u64),
    events: &[kafka::Made],
) -> anyhow::Result<Sample> {
    let deliveries = (0..kafka::DIFFERENT as u64).map(delivery).collect::<anyhow::Result<Vec<_>>>()?;
    let chain = Chain {
        from: (cluster.engines.kafka.clone(), topic.to_owned()),
        store: Store::open(&cluster.engines.redis, &cluster.redis_prefix()).await?,
        send: Some((Connection::open(sink).await?, Requests::of(&deliveries, sink)?)),
        written: events.to_vec(),
        each: 1,
    };
    chain.run(count).await
}

/// What the gateway has told when it took the first `count` deliveries, for the baseline to write it again.
fn events(cluster: &Cluster, count: u64) -> anyhow::Result<Vec<kafka::Made>> {
    let topics = bus::Topics::new(&cluster.prefix);
    kafka::Made::again(
        &cluster.engines.kafka,
        &[(&topics.status(), &topics.dead(Stage::Indexer))],
        usize::try_from(count)?,
    )
}

/// One message after the other, each step awaited.
async fn obvious(bench: &Bench, cluster: &Cluster, sink: &Ready, topic: &str) -> anyhow::Result<Sample> {
    let group = format!("{}obvious.{:08x}", cluster.prefix, fastrand::u32(..));
    let consumer: StreamConsumer = kafka::reader(&cluster.engines.kafka, &group).create()?;
    consumer.subscribe(&[topic])?;
    let producer = kafka::future_producer(&cluster.engines.kafka)?;
    let mut users = Store::open(&cluster.engines.redis, &cluster.redis_prefix()).await?;
    let mut apns = Connection::open(sink).await?;
    let requests = Requests::of(&[delivery(0)?], sink)?;
    let status = bus::Topics::new(&cluster.prefix).status();
    // joining the group is not measured
    tokio::time::timeout(Duration::from_secs(30), consumer.recv()).await.context("nothing to read")??;
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    let counted = meter.clone();
    tasks.spawn(async move {
        while let Some(n) = counted.next() {
            let message = consumer.recv().await?;
            let delivery = Delivery::decode(message.payload().context("no value")?)?;
            std::hint::black_box(users.user(usize::try_from(n)?).await?);
            apns.send(&requests, n).await?;
            let ended = Status::Delivery(fixture::ended(delivery)).encode();
            let record = FutureRecord::to(&status).key(message.key().unwrap_or_default()).payload(ended.as_ref());
            let record = record.headers(kafka::headers(&wire::TraceContext::start().to_string()));
            producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
            consumer.commit_message(&message, CommitMode::Sync)?;
            counted.done(1);
        }
        Ok(())
    });
    let sample = meter.measure(bench.effort, tasks).await?;
    Ok(Sample { value: 1e6 / sample.cpu_us, ..sample })
}
