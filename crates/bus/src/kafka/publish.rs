//! The producer: batches in, one delivery report per record out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    batch::Batch, client, errors::of_publish, records::owned_headers, settings::KafkaSettings, settings::refused,
};
use crate::{LogError, Outgoing, Partition, Position};

/// How long a ping waits for an answer.
const PING: Duration = Duration::from_secs(3);
/// How long to wait before the next look at a full queue.
const FULL: Duration = Duration::from_millis(5);
/// librdkafka reports a record at its time-out, a little late; after this nothing is to be expected.
const LATE: Duration = Duration::from_secs(5);

/// A producer with the thread that serves its delivery reports.
pub(super) struct Publisher {
    producer: Arc<BaseProducer<Reports>>,
    stop: Arc<AtomicBool>,
    brokers: String,
    timeout: Duration,
}

impl Publisher {
    pub(super) fn new(settings: &KafkaSettings, config: &ClientConfig) -> Result<Self, LogError> {
        let producer = BaseProducer::from_config_and_context(config, Reports);
        let producer = Arc::new(producer.map_err(|e| refused(&e))?);
        let stop = Arc::new(AtomicBool::new(false));
        let timeout = settings.publish_timeout();
        let (polled, stopped) = (producer.clone(), stop.clone());
        thread::Builder::new()
            .name("kafka-publish".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    polled.poll(Duration::from_millis(100));
                }
                // publishes that nobody waits for any more
                if let Err(error) = polled.flush(timeout) {
                    tracing::warn!(%error, "records were still in the producer's queue when it ended");
                }
            })
            .map_err(|e| LogError::Unavailable(e.to_string()))?;
        Ok(Self { producer, stop, brokers: settings.brokers.clone(), timeout })
    }

    /// Why this producer can do nothing any more.
    pub(super) fn ended(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(_, reason)| reason)
    }

    /// Asks any broker for the state of the cluster; blocks.
    pub(super) fn ping(&self) -> Result<(), LogError> {
        match self.producer.client().fetch_metadata(None, PING) {
            Ok(_) => Ok(()),
            Err(e) => Err(LogError::Unavailable(format!("no broker of {} answers: {e}", self.brokers))),
        }
    }

    /// See [`super::Kafka::check_topics`]; blocks.
    pub(super) fn check_topics(&self, names: &[Arc<str>]) -> Result<(), LogError> {
        client::check_topics(self.producer.client(), names)
    }

    pub(super) async fn publish(&self, records: &[Outgoing]) -> Vec<Result<Position, LogError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let batch = Arc::new(Batch::new(records.len()));
        let deadline = Instant::now() + self.timeout;
        for (index, record) in records.iter().enumerate() {
            if let Err(e) = self.enqueue(record, &batch, index, deadline).await {
                batch.settle(index, Err(of_publish(&record.topic, &e)));
            }
        }
        if timeout(self.timeout + LATE, batch.settled()).await.is_err() {
            tracing::warn!("the producer did not report on a batch in time");
        }
        batch.results()
    }

    /// Puts a record into librdkafka's queue, which copies it. A full queue is waited for.
    async fn enqueue(
        &self,
        record: &Outgoing,
        batch: &Arc<Batch>,
        index: usize,
        deadline: Instant,
    ) -> Result<(), KafkaError> {
        let ticket = Ticket { batch: batch.clone(), index, topic: record.topic.clone() };
        let mut next = BaseRecord::<[u8], [u8], _>::with_opaque_to(&record.topic, Box::new(ticket));
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        if !record.headers.0.is_empty() {
            next.headers = Some(owned_headers(record));
        }
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    next = back;
                    sleep(FULL).await;
                }
                Err((e, _)) => return Err(e),
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Goes through librdkafka with a record and comes back with its report.
struct Ticket {
    batch: Arc<Batch>,
    index: usize,
    topic: Arc<str>,
}

/// The context of the producer.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::error_of(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let Ticket { batch, index, topic } = *ticket;
        let result = match report {
            Ok(written) => confirmed(Partition { topic, index: written.partition() }, written.offset()),
            Err((e, _)) => Err(of_publish(&topic, e)),
        };
        batch.settle(index, result);
    }
}

/// Where a record lies that a broker has confirmed.
///
/// librdkafka also reports one as written of which it never had an answer, as soon as a later one of its partition is
/// confirmed ("implicit ack", `rd_kafka_dr_implicit_ack`): then without an offset. That is a guess, and a wrong one where
/// the broker has nothing of this producer in the partition yet: it takes whatever record comes as the first. So nobody
/// knows, as after a time-out, and whoever publishes does it again.
fn confirmed(partition: Partition, offset: i64) -> Result<Position, LogError> {
    if offset < 0 {
        return Err(LogError::Unavailable(format!("{partition}: nobody has confirmed the record, it may be written")));
    }
    Ok(Position { partition, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by `make chaos`, cluster seed 11112: a dead letter that was never written.
    #[test]
    fn a_record_without_an_offset_is_not_taken_for_written() {
        let partition = Partition { topic: "t".into(), index: 3 };
        let guessed = confirmed(partition.clone(), -1001).expect_err("nobody has confirmed it");
        assert!(matches!(guessed, LogError::Unavailable(ref detail) if detail.starts_with("t/3: ")), "{guessed}");
        assert_eq!(confirmed(partition.clone(), 0).expect("confirmed"), Position { partition, offset: 0 });
    }
}
