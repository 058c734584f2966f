//! Dead letters: what a stage gives up, with the original bytes and headers, and why.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    Headers, Log, LogError, Outgoing, Record,
    consume::Ack,
    metrics,
    topic::{self, Stage, Topics},
};

/// Writes a stage's dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    stage: Stage,
}

impl DeadLetters {
    /// For one stage.
    pub fn new(log: Arc<dyn Log>, topics: &Topics, stage: Stage) -> Self {
        Self { topic: topics.dead(stage), log, stage }
    }

    /// Writes a record to the dead-letter topic; durable when it resolves. On an error the record must not be finished.
    /// `reason` is a code, `error` is for people; neither holds personal data.
    pub async fn bury(&self, record: &Record, reason: &'static str, error: &str) -> Result<(), LogError> {
        let letter = Outgoing {
            topic: self.topic.clone(),
            key: record.key.clone(),
            headers: letter_headers(record, reason, error),
            value: record.value.clone(),
        };
        let results = self.log.publish(vec![letter]).await;
        results.into_iter().next().unwrap_or_else(|| Err(LogError::Unavailable("no answer".into())))?;
        metrics::dead(self.stage.as_str(), reason);
        tracing::warn!(stage = self.stage.as_str(), at = %record.at.partition, offset = record.at.offset, reason, error, "gave a record up");
        Ok(())
    }
}

impl DeadLetters {
    /// Gives a record up and finishes it. If that cannot be written, the record waits: nothing is skipped.
    pub async fn bury_or_wait(&self, record: &Record, reason: &'static str, error: &str, ack: Ack) {
        match self.bury(record, reason, error).await {
            Ok(()) => ack.done(),
            Err(error) => {
                tracing::warn!(stage = self.stage.as_str(), %error, "cannot write a dead letter, the record waits");
                ack.retry(Duration::from_secs(1));
            }
        }
    }
}

/// The record's own headers, and those that say why and where from. A letter that dies again keeps only the last why.
fn letter_headers(record: &Record, reason: &str, error: &str) -> Headers {
    let own = record.headers.0.iter().filter(|(name, _)| !name.starts_with("dead-")).cloned().collect();
    let error: String = error.chars().filter(|c| !c.is_control()).take(500).collect();
    Headers(own)
        .with(topic::DEAD_REASON, reason.to_owned())
        .with(topic::DEAD_ERROR, error)
        .with(topic::DEAD_TOPIC, record.at.partition.topic.to_string())
        .with(topic::DEAD_PARTITION, record.at.partition.index.to_string())
        .with(topic::DEAD_OFFSET, record.at.offset.to_string())
        .with(topic::DEAD_AT, Timestamp::now().to_string())
}
