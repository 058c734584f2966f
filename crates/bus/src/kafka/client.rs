//! What every client of librdkafka has: logs that go to `tracing`, and questions about topics.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    client::Client,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

use super::errors::unavailable;
use crate::LogError;

/// How long a question to the cluster may take.
pub(super) const QUESTION: Duration = Duration::from_secs(5);
/// How long a new topic may take to be known to every broker.
const SPREAD: Duration = Duration::from_secs(3);

/// A client that only logs.
pub(super) struct Plain;

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        error_of(&error, reason);
    }
}

impl ConsumerContext for Plain {}

/// A line of librdkafka's log. Failures of connections come as errors as well, and what librdkafka calls an error it
/// tries again by itself.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as Level;
    match level {
        Level::Emerg | Level::Alert | Level::Critical => tracing::error!(facility, "librdkafka: {message}"),
        Level::Error if matches!(facility, "FAIL" | "ERROR") => tracing::debug!(facility, "librdkafka: {message}"),
        Level::Error | Level::Warning => tracing::warn!(facility, "librdkafka: {message}"),
        Level::Notice | Level::Info | Level::Debug => tracing::debug!(facility, "librdkafka: {message}"),
    }
}

/// An error that librdkafka reports and goes on from.
pub(super) fn error_of(error: &KafkaError, reason: &str) {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, PartitionEOF, Resolve};
    match error.rdkafka_error_code() {
        // the end of a partition is news, not an error
        Some(PartitionEOF) => {}
        // many a second while brokers are away; that they are is said once, by the health check
        Some(AllBrokersDown | BrokerTransportFailure | Resolve) => tracing::debug!(%error, "kafka: {reason}"),
        _ => tracing::warn!(%error, "kafka: {reason}"),
    }
}

/// The partitions of a topic. One that was just created may not be known everywhere, so a missing one is asked for again
/// before it is an error.
pub(super) fn partitions<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Vec<i32>, LogError> {
    let deadline = Instant::now() + SPREAD;
    loop {
        let metadata = client.fetch_metadata(Some(topic), QUESTION).map_err(|e| unavailable(&e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let error = found.and_then(rdkafka::metadata::MetadataTopic::error);
        match found {
            Some(found) if error.is_none() && !found.partitions().is_empty() => {
                return Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect());
            }
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            _ => {
                let code = error.unwrap_or(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
                return Err(super::errors::of_topic(topic, code.into()));
            }
        }
    }
}

/// Whether all of these topics are there. Those that were just created may not be known everywhere, so what is missing is
/// asked for again before it is an error.
pub(super) fn check_topics<C: ClientContext>(client: &Client<C>, names: &[Arc<str>]) -> Result<(), LogError> {
    let deadline = Instant::now() + SPREAD;
    loop {
        let metadata = client.fetch_metadata(None, QUESTION).map_err(|e| unavailable(&e))?;
        let found: BTreeMap<_, _> = metadata.topics().iter().map(|t| (t.name(), t.error())).collect();
        // of what may not be seen, Kafka says nothing at all
        const MISSING: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        let wrong = |name: &Arc<str>| found.get(name.as_ref()).copied().unwrap_or(Some(MISSING));
        let wrong: Vec<_> = names.iter().filter_map(|name| Some((name.as_ref(), wrong(name)?))).collect();
        match wrong.first() {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Some((_, code)) => {
                let names: Vec<_> = wrong.iter().map(|(name, _)| *name).collect();
                return Err(super::errors::of_topic(&names.join(", "), (*code).into()));
            }
        }
    }
}
