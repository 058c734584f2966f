//! A reader of a whole topic: a consumer without a group.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
};
use tokio::sync::mpsc;

use super::{
    blocking,
    client::{Plain, QUESTION, partitions},
    errors::unavailable,
    records::{Polled, TopicNames, poll},
    settings::{KafkaSettings, refused},
};
use crate::{Follow, FollowEvent, LogError, Record};

/// Reads on a thread of its own, which ends when this is dropped.
pub(super) struct Follower {
    said: mpsc::Receiver<Result<FollowEvent, LogError>>,
    stop: Arc<AtomicBool>,
}

impl Follower {
    pub(super) async fn start(settings: Arc<KafkaSettings>, topic: Arc<str>) -> Result<Self, LogError> {
        let (sender, said) = mpsc::channel(4);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        blocking(move || {
            // librdkafka wants a group; this one is never joined and nothing is committed to it
            let mut config = settings.consumer(&format!("{}.follow", settings.client_id), Duration::ZERO);
            config.set("enable.partition.eof", "true");
            let consumer = BaseConsumer::from_config_and_context(&config, Plain).map_err(|e| refused(&e))?;
            let behind = assign(&consumer, &topic)?;
            thread::Builder::new()
                .name(format!("kafka-follow-{topic}"))
                .spawn(move || run(&consumer, behind, &sender, &stopped))
                .map_err(|e| LogError::Unavailable(e.to_string()))?;
            Ok(())
        })
        .await?;
        Ok(Self { said, stop })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<FollowEvent, LogError> {
        let ended = || Err(LogError::Unavailable("the follower has ended".to_owned()));
        self.said.recv().await.unwrap_or_else(ended)
    }
}

/// Starts at the beginning of every partition; returns the ends of those that hold something, by partition.
fn assign(consumer: &BaseConsumer<Plain>, topic: &str) -> Result<BTreeMap<i32, i64>, LogError> {
    let mut ends = BTreeMap::new();
    let mut all = TopicPartitionList::new();
    for partition in partitions(consumer.client(), topic)? {
        let (begin, end) = consumer.fetch_watermarks(topic, partition, QUESTION).map_err(|e| unavailable(&e))?;
        if begin < end {
            ends.insert(partition, end);
        }
        all.add_partition_offset(topic, partition, Offset::Beginning).map_err(|e| unavailable(&e))?;
    }
    consumer.assign(&all).map_err(|e| unavailable(&e))?;
    Ok(ends)
}

fn run(
    consumer: &BaseConsumer<Plain>,
    mut behind: BTreeMap<i32, i64>,
    said: &mpsc::Sender<Result<FollowEvent, LogError>>,
    stop: &AtomicBool,
) {
    let mut topics = TopicNames::default();
    let mut caught_up = false;
    while !stop.load(Ordering::Relaxed) {
        if !caught_up && behind.is_empty() {
            caught_up = true;
            if said.blocking_send(Ok(FollowEvent::CaughtUp)).is_err() {
                return;
            }
        }
        let mut batch: Vec<Record> = Vec::new();
        let polled = poll(consumer, &mut topics, |polled| match polled {
            Polled::Record(record) => {
                let (partition, next) = (record.at.partition.index, record.at.offset + 1);
                if behind.get(&partition).is_some_and(|end| *end <= next) {
                    behind.remove(&partition);
                }
                batch.push(record);
            }
            // the last offsets may have no record: compacted away, or the mark of a transaction
            Polled::End(partition) => drop(behind.remove(&partition)),
        });
        if !batch.is_empty() && said.blocking_send(Ok(FollowEvent::Records(batch))).is_err() {
            return;
        }
        if let Err(e) = polled {
            // a dropped follower needs no reason
            let _dropped = said.blocking_send(Err(e));
            return;
        }
    }
}
