//! Records between librdkafka's memory and ours.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rdkafka::{
    Message,
    consumer::{BaseConsumer, ConsumerContext},
    error::KafkaError,
    message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _, OwnedHeaders},
};

use crate::{Headers, LogError, Outgoing, Partition, Position, Record};

/// Records handed over at once, at most.
const BATCH_RECORDS: usize = 512;
/// Bytes handed over at once, about.
const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes of the headers of most records.
const HEADERS: usize = 96;
/// How long a poll waits; also how late a pause, a resumption or the end is noticed.
const POLL: Duration = Duration::from_millis(50);

/// What a poll brings.
pub(super) enum Polled {
    Record(Record),
    /// This partition has been read to its end.
    End(i32),
}

/// Reads what is there, up to a batch. Callbacks of the consumer run in here. Fails only when the consumer has ended.
pub(super) fn poll<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &mut TopicNames,
    mut take: impl FnMut(Polled),
) -> Result<(), LogError> {
    let (mut wait, mut count, mut bytes) = (POLL, 0, 0);
    while count < BATCH_RECORDS && bytes < BATCH_BYTES {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                bytes += message.payload_len();
                take(Polled::Record(record(&message, topics)));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => take(Polled::End(partition)),
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                return Err(LogError::Unavailable(format!("the consumer has ended: {code}")));
            }
            // the context has logged it, and librdkafka goes on by itself
            Some(Err(_)) => {}
        }
        count += 1;
        wait = Duration::ZERO;
    }
    Ok(())
}

/// One allocation per topic, not per record.
#[derive(Clone, Default)]
pub(super) struct TopicNames(Vec<Arc<str>>);

impl TopicNames {
    /// Has these from the beginning.
    pub(super) const fn known(names: Vec<Arc<str>>) -> Self {
        Self(names)
    }

    pub(super) fn of(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|t| t.as_ref() == name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.0.push(new.clone());
        new
    }
}

/// Copies a record out, since a borrowed one keeps the whole response of the broker in memory. All of it goes into one piece of
/// memory: it is allocated on this thread and freed on another, which costs more than the copy does.
fn record(message: &BorrowedMessage<'_>, topics: &mut TopicNames) -> Record {
    let partition = Partition { topic: topics.of(message.topic()), index: message.partition() };
    let mut memory = BytesMut::with_capacity(message.key_len() + message.payload_len() + HEADERS);
    let mut copy = |bytes: &[u8]| {
        memory.extend_from_slice(bytes);
        memory.split().freeze()
    };
    Record {
        at: Position { partition, offset: message.offset() },
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(&mut copy),
        headers: message.headers().map(|borrowed| headers(borrowed, &mut copy)).unwrap_or_default(),
        value: message.payload().map(&mut copy),
    }
}

fn headers(borrowed: &BorrowedHeaders, mut copy: impl FnMut(&[u8]) -> Bytes) -> Headers {
    let mut headers = Headers(Vec::with_capacity(borrowed.count()));
    for i in 0..borrowed.count() {
        // rdkafka panics on a name that is not UTF-8, and any program may write one
        match catch_unwind(AssertUnwindSafe(|| borrowed.get(i))) {
            Ok(header) => headers.push(header.key, header.value.map(&mut copy).unwrap_or_default()),
            Err(_panic) => tracing::warn!("a header is left out: its name is not UTF-8"),
        }
    }
    headers
}

/// The headers of a record to publish.
pub(super) fn owned_headers(record: &Outgoing) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.0.len());
    record
        .headers
        .0
        .iter()
        .fold(empty, |all, (name, value)| all.insert(Header { key: name, value: Some(value.as_ref()) }))
}
