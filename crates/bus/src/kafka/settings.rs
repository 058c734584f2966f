//! What an operator may set, and what librdkafka is told.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use crate::LogError;

/// How to reach a cluster.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Where to begin: `host:port`, separated by commas.
    pub brokers: String,
    /// How the brokers name this process in their logs and quotas.
    pub client_id: String,
    /// A member that was not heard of for so long is dead, in milliseconds.
    pub session_timeout_ms: u32,
    /// How long a record may wait for others to share a request with, in milliseconds.
    pub linger_ms: u32,
    /// A record that is not durable by then has failed, in milliseconds.
    pub publish_timeout_ms: u32,
    /// How long a revocation waits for work in flight.
    pub drain_timeout: Duration,
    /// Settings of librdkafka by its own names, for every client. What the promises stand on cannot be changed.
    pub extra: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// The defaults for a cluster.
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: client_id.into(),
            session_timeout_ms: 10_000,
            linger_ms: 5,
            publish_timeout_ms: 10_000,
            drain_timeout: Duration::from_secs(5),
            extra: BTreeMap::new(),
        }
    }

    /// Asks librdkafka whether it takes these settings.
    pub(super) fn check(&self) -> Result<(), LogError> {
        for config in [self.producer(), self.consumer("check", Duration::ZERO)] {
            config.create_native_config().map_err(|e| refused(&e))?;
        }
        Ok(())
    }

    pub(super) fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.publish_timeout_ms.into())
    }

    /// For a client that neither writes nor reads.
    pub(super) fn plain(&self) -> ClientConfig {
        let mut config = self.tuned(&[]);
        self.overridden(&mut config);
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.tuned(&[
            ("compression.type", "lz4".to_owned()),
            ("linger.ms", self.linger_ms.to_string()),
            ("message.timeout.ms", self.publish_timeout_ms.to_string()),
            // a batch is refused as a whole, so it stays far below what a topic takes
            ("batch.size", (256 * 1024).to_string()),
            // what the largest of `topic::Topics::specs` takes (dead letters), less what surrounds a record on its way; the
            // broker holds a record against its own topic, and `batch.size` keeps a large one apart from the others
            ("message.max.bytes", (2 * 1024 * 1024 - 1024).to_string()),
            ("queue.buffering.max.messages", 100_000.to_string()),
            ("queue.buffering.max.kbytes", (64 * 1024).to_string()),
            // a topic that is missing is said so before the publish times out
            ("topic.metadata.propagation.max.ms", 2000.min(self.publish_timeout_ms / 2).to_string()),
        ]);
        self.overridden(&mut config);
        config.set("enable.idempotence", "true").set("acks", "all");
        // as Kafka's own Java clients do it, see `record::partition_of`
        config.set("partitioner", "murmur2_random");
        config
    }

    /// Of a group whose records the broker may keep back for so long, for more to come at once.
    pub(super) fn consumer(&self, group: &str, gather: Duration) -> ClientConfig {
        // a fetch for every few records is what costs the broker most
        let (wait, least) = if gather.is_zero() { (100, 1) } else { (gather.as_millis(), 512 * 1024) };
        let mut config = self.tuned(&[
            ("session.timeout.ms", self.session_timeout_ms.to_string()),
            // members hear of a rebalance with a heartbeat
            ("heartbeat.interval.ms", 500.min(self.session_timeout_ms / 6).to_string()),
            ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
            ("fetch.wait.max.ms", wait.to_string()),
            ("fetch.min.bytes", least.to_string()),
            // the default of a second is what a reader waits after every full queue
            ("fetch.queue.backoff.ms", 10.to_string()),
            ("queued.max.messages.kbytes", (16 * 1024).to_string()),
            ("socket.timeout.ms", 10_000.to_string()),
        ]);
        self.overridden(&mut config);
        config.set("group.id", group).set("auto.offset.reset", "earliest").set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "false").set("allow.auto.create.topics", "false");
        config
    }

    fn tuned(&self, settings: &[(&str, String)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.client_id);
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "2000");
        for (key, value) in settings {
            config.set(*key, value);
        }
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn overridden(&self, config: &mut ClientConfig) {
        for (key, value) in &self.extra {
            config.set(key, value);
        }
    }
}

/// Names the setting, never its value: it may be a password.
pub(super) fn refused(error: &KafkaError) -> LogError {
    LogError::Unavailable(match error {
        KafkaError::ClientConfig(_, _, key, _) => format!("librdkafka refuses the setting {key}"),
        other => other.to_string(),
    })
}
