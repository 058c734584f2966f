//! The indexer, from Kafka into the real Elasticsearch, against the same bulk requests made beforehand.

use std::sync::{Arc, atomic::AtomicU64};

use bus::topic;
use domain::{Channel, Recipient, Status};
use wire::Record as _;

use super::Outcomes;
use crate::{
    bare::bulk::Bodies,
    cluster::{self, Cluster, between, outgoing},
    counted::CountedIndex,
    fixture,
    harness::{Bench, Sample, one_worker, threads},
    peer::Peer,
    report::{Better, Figure},
};

/// Documents in one bulk request, as `settings.default.toml` has it.
const BULK: usize = 2000;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let sink = Peer::start(&["apns"], None)?;
    let cluster = threads()?.block_on(Cluster::make(bench, &sink.ready))?;
    let count = bench.effort.count(60_000, 5000);
    let documents = (0..count).map(document).collect::<anyhow::Result<Vec<_>>>()?;
    let bodies = threads()?.block_on(Bodies::record(&cluster, &documents, BULK))?;
    let status = bus::Topics::new(&cluster.prefix).status();
    let sides = bench.compare("indexer", &["indexer", "prebuilt bulk requests"], |side| {
        if side == 1 {
            return threads()?.block_on(bodies.send());
        }
        let record = |n| {
            let document = document(n)?;
            let Status::Delivery(delivery) = &document else { anyhow::bail!("a delivery") };
            let key = topic::status_key(&delivery.tenant, &delivery.recipient_key);
            Ok(outgoing(&status, key, document.encode()))
        };
        one_worker()?.block_on(async {
            cluster.fill((0..count).map(record)).await?;
            ours(&cluster, count).await
        })
    })?;
    let figure = Figure::of("indexer", "documents/s", Better::More, 0.7, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![("indexer".to_owned(), sides)], ..Outcomes::default() })
}

fn document(n: u64) -> anyhow::Result<Status> {
    let person = n % 2000;
    let recipient = Recipient::User(fixture::user(person)?);
    let delivery = fixture::delivery(recipient, Channel::Apns, fixture::token(person)?)?;
    Ok(Status::Delivery(fixture::ended(delivery)))
}

async fn ours(cluster: &Cluster, count: u64) -> anyhow::Result<Sample> {
    let mut kit = cluster.kit().await?;
    let taken: Arc<AtomicU64> = Arc::default();
    kit.stores.deliveries = Arc::new(CountedIndex { index: kit.stores.deliveries, taken: taken.clone() });
    ::indexer::run(&kit)?;
    let measured = between(&taken, count / 5, count).await;
    cluster::stop(kit).await?;
    let (cpu, took) = measured?;
    Ok(Sample::rate(count - count / 5, took, cpu))
}
