//! Dead letters: what a stage gives up, with the original bytes and headers, and why.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    Headers, Log, LogError, Outgoing, Record,
    consume::Work,
    metrics,
    topic::{self, Stage, Topics},
};

/// How long a record waits whose dead letter could not be written.
const WAIT: Duration = Duration::from_secs(1);

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
        let results = self.log.publish(vec![self.letter(record, reason, error)]).await;
        results.into_iter().next().unwrap_or_else(|| Err(LogError::Unavailable("no answer".into())))?;
        self.buried(record, reason, error);
        Ok(())
    }

    /// Gives records up and finishes them, in one publish. If that cannot be written they wait: nothing is skipped.
    pub async fn bury_or_wait(&self, works: Vec<(Work, String)>, reason: &'static str) {
        if works.is_empty() {
            return;
        }
        let letters = works.iter().map(|(work, error)| self.letter(&work.record, reason, error)).collect();
        let results = self.log.publish(letters).await;
        for ((Work { record, ack }, error), result) in works.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    self.buried(&record, reason, &error);
                    ack.done();
                }
                Err(error) => {
                    tracing::warn!(stage = self.stage.as_str(), %error, "cannot write a dead letter, the record waits");
                    ack.retry(WAIT);
                }
            }
        }
    }

    /// Decodes a batch; what does not decode is given up.
    pub async fn decode<T: wire::Record>(&self, batch: Vec<Work>) -> Vec<(T, Work)> {
        let mut decoded = Vec::with_capacity(batch.len());
        let mut bad = Vec::new();
        for work in batch {
            match wire::decode(work.record.value.as_ref()) {
                Ok(value) => decoded.push((value, work)),
                Err(error) => bad.push((work, error.to_string())),
            }
        }
        self.bury_or_wait(bad, "undecodable").await;
        decoded
    }

    fn letter(&self, record: &Record, reason: &str, error: &str) -> Outgoing {
        Outgoing {
            topic: self.topic.clone(),
            key: record.key.clone(),
            headers: letter_headers(record, reason, error),
            value: record.value.clone(),
        }
    }

    fn buried(&self, record: &Record, reason: &'static str, error: &str) {
        metrics::dead(self.stage.as_str(), reason);
        let (stage, at, offset) = (self.stage.as_str(), &record.at.partition, record.at.offset);
        tracing::warn!(stage, %at, offset, reason, error, "gave a record up");
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
