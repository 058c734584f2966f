//! The raw parts of a gateway or of a router, in one process and at the same time: read, ask, send, write. It keeps no order,
//! remembers nothing, tries nothing twice and knows beforehand what it says, but unlike the parts alone it has to share the
//! caches of a core.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream::FuturesUnordered};
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _},
    producer::{DefaultProducerContext, Producer as _, ThreadedProducer},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    http2::{Connection, Requests},
    kafka::{BURST, Made, beginning, reader, writer},
    store::Store,
};
use crate::{cluster::between, harness::Sample};

/// Batches under way at a time: one is asked for while another is sent.
const BATCHES: usize = 2;
/// Records on their way to the brokers at a time, as many as where writing is alone.
const OPEN: i32 = 4 * BURST as i32;
const PATIENCE: Duration = Duration::from_secs(30);

/// All that it works with.
pub struct Chain {
    /// Brokers, and a topic that holds what is read.
    pub from: (String, String),
    /// What is asked, and remembers one thing for each record.
    pub store: Store,
    /// Where requests go, and which; nothing is sent without.
    pub send: Option<(Connection, Requests)>,
    /// What is written, on the same brokers.
    pub written: Vec<Made>,
    /// How many of those for each record.
    pub each: usize,
}

impl Chain {
    /// Takes so many records; an operation is one of them.
    pub async fn run(self, count: u64) -> anyhow::Result<Sample> {
        let (brokers, topic) = self.from.clone();
        let (read, mut batches) = mpsc::channel(BATCHES);
        let reader = tokio::task::spawn_blocking(move || consume(&brokers, &topic, count, &read));
        let producer: ThreadedProducer<DefaultProducerContext> = writer(&self.from.0).create()?;
        let (done, parts) = (Arc::<AtomicU64>::default(), Arc::new((self, producer.clone())));
        let counted = done.clone();
        let work = async move {
            let (mut open, mut number) = (JoinSet::new(), 0);
            while let Some(batch) = batches.recv().await {
                if open.len() >= BATCHES {
                    open.join_next().await.context("no batch")???;
                }
                let (parts, counted, first) = (parts.clone(), counted.clone(), number);
                number += batch.len();
                open.spawn(async move { parts.0.batch(&parts.1, first, &batch, &counted).await });
            }
            while let Some(ended) = open.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        let ((cpu, _), ()) = tokio::try_join!(between(&done, count / 5, count), work)?;
        reader.await??;
        producer.flush(PATIENCE)?;
        Ok(Sample::per_cpu_second(count - count / 5, cpu))
    }

    async fn batch(
        &self,
        producer: &ThreadedProducer<DefaultProducerContext>,
        first: usize,
        batch: &[Vec<u8>],
        done: &AtomicU64,
    ) -> anyhow::Result<()> {
        self.store.clone().burst(first, batch.len(), true).await?;
        // librdkafka does not say when there is room again
        while producer.in_flight_count() > OPEN {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let numbers = first..first + batch.len();
        let Some((connection, requests)) = &self.send else {
            return numbers.into_iter().try_for_each(|n| self.write(producer, n, done));
        };
        let send = |n| async move { connection.clone().send(requests, n as u64).await.map(|()| n) };
        let mut sends: FuturesUnordered<_> = numbers.map(send).collect();
        while let Some(sent) = sends.next().await {
            self.write(producer, sent?, done)?;
        }
        Ok(())
    }

    /// What comes of the record `n`.
    fn write(
        &self,
        producer: &ThreadedProducer<DefaultProducerContext>,
        n: usize,
        done: &AtomicU64,
    ) -> anyhow::Result<()> {
        for made in (n * self.each..(n + 1) * self.each).map(|i| &self.written[i % self.written.len()]) {
            producer.send(made.reported()).map_err(|(error, _)| error)?;
        }
        done.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Reads records from the beginning of a topic, as many at a time as there are.
fn consume(brokers: &str, topic: &str, count: u64, batches: &mpsc::Sender<Vec<Vec<u8>>>) -> anyhow::Result<()> {
    let consumer: BaseConsumer = reader(brokers, "load-tests.chain").create()?;
    consumer.assign(&beginning(&consumer, topic)?)?;
    let (mut read, mut batch) = (0, Vec::with_capacity(BURST));
    while read < count {
        let wait = if batch.is_empty() { PATIENCE } else { Duration::ZERO };
        if let Some(message) = consumer.poll(wait) {
            batch.push(message?.payload().context("no value")?.to_vec());
            read += 1;
            if batch.len() < BURST && read < count {
                continue;
            }
        }
        ensure!(!batch.is_empty(), "{topic} holds only {read} records");
        batches.blocking_send(std::mem::replace(&mut batch, Vec::with_capacity(BURST)))?;
    }
    Ok(())
}
