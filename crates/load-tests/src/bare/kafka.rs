//! librdkafka alone, with the settings that the product gives it.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedHeaders, DeliveryResult, Header, Message as _, OwnedHeaders},
    producer::{BaseRecord, FutureProducer, FutureRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::task::JoinSet;

use crate::harness::{Effort, Meter, Sample, threads};

/// As many records or keys as go through the product's hands at once.
pub const BURST: usize = 512;
const PATIENCE: Duration = Duration::from_secs(30);
/// Connecting, metadata, a producer's id.
const START: Duration = Duration::from_secs(1);

/// Settings of a reader.
pub fn reader(brokers: &str, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", group).set("auto.offset.reset", "earliest");
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false");
    config
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "16384");
    config
}

/// Settings of a writer: what the product asks for.
pub fn writer(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("acks", "all").set("enable.idempotence", "true");
    config.set("compression.type", "lz4").set("linger.ms", "5").set("batch.size", "262144");
    config.set("partitioner", "murmur2_random");
    config
}

/// A writer whose records are awaited one by one.
pub fn future_producer(brokers: &str) -> anyhow::Result<FutureProducer> {
    Ok(writer(brokers).create()?)
}

/// So many records are made beforehand, each with ids of its own as the product's have them: what repeats itself would be
/// compressed to nothing, in this process and for the broker.
pub const DIFFERENT: usize = 2048;

/// A record made beforehand.
#[derive(Clone)]
pub struct Made {
    /// Where it goes.
    pub topic: Arc<str>,
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
    pub(super) headers: OwnedHeaders,
}

impl Made {
    /// On a topic, of a person.
    pub fn new(topic: &Arc<str>, person: usize, value: Bytes) -> Self {
        let headers = headers(&wire::TraceContext::start().to_string());
        Self { topic: topic.clone(), key: format!("bench/user:user-{person:07}").into_bytes(), value, headers }
    }

    /// Records just as the product wrote them to some topics, each now for another one, and in the order in which it did: as
    /// many as go round, out of the middle of the `count` that each of the topics holds.
    pub fn again(brokers: &str, topics: &[(&str, &Arc<str>)], count: usize) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::with_capacity(topics.len() * count);
        for (from, to) in topics {
            let consumer: BaseConsumer = reader(brokers, "load-tests.again").create()?;
            consumer.assign(&beginning(&consumer, from)?)?;
            for _ in 0..count {
                let message = consumer.poll(PATIENCE).with_context(|| format!("{from} has no {count} records"))??;
                let made = Self {
                    topic: Arc::clone(to),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
                    headers: message.headers().map(BorrowedHeaders::detach).unwrap_or_default(),
                };
                all.push((message.timestamp().to_millis(), made));
            }
        }
        all.sort_by_key(|(at, _)| *at);
        let middle = all.len().saturating_sub(DIFFERENT) / 2;
        Ok(all.into_iter().skip(middle).take(DIFFERENT).map(|(_, made)| made).collect())
    }

    /// For a producer whose sending is awaited.
    pub fn awaited(&self) -> FutureRecord<'_, [u8], [u8]> {
        FutureRecord::to(&self.topic)
            .key(self.key.as_slice())
            .payload(self.value.as_ref())
            .headers(self.headers.clone())
    }

    /// For a producer that reports.
    pub fn reported(&self) -> BaseRecord<'_, [u8], [u8]> {
        BaseRecord::to(&self.topic).key(self.key.as_slice()).payload(self.value.as_ref()).headers(self.headers.clone())
    }
}

/// The headers of a record.
pub fn headers(trace: &str) -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "traceparent", value: Some(trace) })
        .insert(Header { key: "content-type", value: Some("application/protobuf") })
}

/// All of a topic.
pub(super) fn beginning(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<TopicPartitionList> {
    let found = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut start = TopicPartitionList::new();
    for partition in found.topics().first().context("no such topic")?.partitions() {
        start.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    Ok(start)
}

/// Reads a topic that holds at least `count` records, over and over.
pub fn consume(brokers: &str, topic: &str, count: u64, effort: Effort) -> anyhow::Result<Sample> {
    let consumer: BaseConsumer = reader(brokers, "load-tests.reader").create()?;
    let start = beginning(&consumer, topic)?;
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    let counted = meter.clone();
    threads()?.block_on(async move {
        tasks.spawn_blocking(move || {
            let mut read = count;
            while counted.next().is_some() {
                if read >= count {
                    consumer.assign(&start)?;
                    read = 0;
                }
                if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                    std::hint::black_box(message?);
                    read += 1;
                    counted.done(1);
                }
            }
            Ok(())
        });
        meter.measure(effort.warmed_for(START), tasks).await.context("consume")
    })
}

/// Tells of each record whether it is durable.
struct Reports(mpsc::SyncSender<bool>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        // whoever counts may have gone
        let _gone = self.0.send(report.is_ok());
    }
}

/// Writes bursts of records in turn; a few bursts are on their way at a time. An operation is `each` of them.
pub fn produce(brokers: &str, records: Vec<Made>, each: usize, effort: Effort) -> anyhow::Result<Sample> {
    let (told, reports) = mpsc::sync_channel(1_000_000);
    let producer: ThreadedProducer<Reports> = writer(brokers).create_with_context(Reports(told))?;
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    let counted = meter.clone();
    threads()?.block_on(async move {
        tasks.spawn_blocking(move || {
            let mut open = 0;
            while let Some(n) = counted.next() {
                for i in 0..BURST {
                    let made = &records[(n as usize * BURST + i) % records.len()];
                    producer.send(made.reported()).map_err(|(error, _)| error)?;
                }
                open += BURST;
                while open > 4 * BURST {
                    ensure!(reports.recv_timeout(PATIENCE)?, "a record was not taken");
                    open -= 1;
                }
                counted.done((BURST / each) as u64);
            }
            Ok(producer.flush(PATIENCE)?)
        });
        meter.measure(effort.warmed_for(START), tasks).await.context("produce")
    })
}

/// Deletes topics.
pub fn delete(brokers: &str, topics: &[Arc<str>]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    threads()?.block_on(admin.delete_topics(&names, &options))?;
    Ok(())
}
