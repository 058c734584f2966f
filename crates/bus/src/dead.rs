//! Dead letters: what a stage gives up, with the original bytes and headers, and why; and the way back.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{Channel, Lane};
use jiff::Timestamp;

use crate::{
    Headers, Log, LogError, Outgoing, Partition, Position, Record,
    consume::Work,
    metrics,
    topic::{self, Stage, Topics},
};

/// How long a record waits whose dead letter could not be written.
const WAIT: Duration = Duration::from_secs(1);

/// Most characters of an error in words.
const MAX_ERROR: usize = 500;

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
        let trace_id = record.headers.trace().map(|t| format!("{:032x}", t.trace_id));
        tracing::warn!(stage, %at, offset, trace_id, reason, error, "gave a record up");
    }
}

/// The headers that a dead letter has besides the record's own.
const OURS: [&str; 6] = [
    topic::DEAD_REASON,
    topic::DEAD_ERROR,
    topic::DEAD_TOPIC,
    topic::DEAD_PARTITION,
    topic::DEAD_OFFSET,
    topic::DEAD_AT,
];

/// The record's own headers, and those that say why and where from. A letter that dies again keeps only the last why.
fn letter_headers(record: &Record, reason: &str, error: &str) -> Headers {
    let error: String = error.chars().filter(|c| !c.is_control()).take(MAX_ERROR).collect();
    own_headers(&record.headers)
        .with(topic::DEAD_REASON, reason.to_owned())
        .with(topic::DEAD_ERROR, error)
        .with(topic::DEAD_TOPIC, record.at.partition.topic.to_string())
        .with(topic::DEAD_PARTITION, record.at.partition.index.to_string())
        .with(topic::DEAD_OFFSET, record.at.offset.to_string())
        .with(topic::DEAD_AT, Timestamp::now().to_string())
}

fn own_headers(headers: &Headers) -> Headers {
    Headers(headers.0.iter().filter(|(name, _)| !OURS.contains(&&**name)).cloned().collect())
}

/// Where a dead letter lies; as text `<stage>-<partition>-<offset>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterId {
    /// Whose dead-letter topic.
    pub stage: Stage,
    /// Its partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl LetterId {
    /// Of a record on a stage's dead-letter topic.
    pub const fn of(stage: Stage, at: &Position) -> Self {
        Self { stage, partition: at.partition.index, offset: at.offset }
    }

    /// Parses what `Display` writes, and nothing else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let mut parts = text.splitn(3, '-');
            let stage = parse_stage(parts.next()?).ok()?;
            let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { stage, partition, offset }).filter(|id| id.to_string() == text)
        };
        read().ok_or_else(|| "the id of a dead letter is like gateway-3-42: stage, partition, offset".to_owned())
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.stage.as_str(), self.partition, self.offset)
    }
}

/// Parses a stage's name.
pub fn parse_stage(text: &str) -> Result<Stage, String> {
    Stage::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
        let all = Stage::ALL.map(Stage::as_str).join(", ");
        format!("a stage is one of {all}")
    })
}

/// A dead letter, taken apart again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it lies.
    pub id: LetterId,
    /// Why it was given up: a code. Empty if whoever wrote it did not say.
    pub reason: String,
    /// The same in words.
    pub error: String,
    /// When it was given up.
    pub at: Timestamp,
    /// Where the record lay; `None` if the letter does not say.
    pub origin: Option<Position>,
    /// The record's own key.
    pub key: Option<Bytes>,
    /// The record's own headers.
    pub headers: Headers,
    /// The record's own bytes.
    pub value: Option<Bytes>,
}

impl Letter {
    /// Takes a record of a stage's dead-letter topic apart. Whatever it holds, this is a letter: a person decides.
    pub fn read(stage: Stage, record: Record) -> Self {
        let text = |name| record.headers.get(name).map(|v| String::from_utf8_lossy(v).into_owned());
        let number = |name| text(name)?.parse::<i64>().ok();
        let origin = || {
            let partition = Partition {
                topic: text(topic::DEAD_TOPIC)?.into(),
                index: i32::try_from(number(topic::DEAD_PARTITION)?).ok()?,
            };
            Some(Position { partition, offset: number(topic::DEAD_OFFSET)? })
        };
        let said: String = text(topic::DEAD_ERROR).unwrap_or_default();
        let given_up = text(topic::DEAD_AT).and_then(|at| at.parse().ok());
        Self {
            id: LetterId::of(stage, &record.at),
            reason: text(topic::DEAD_REASON).unwrap_or_default().chars().take(MAX_ERROR).collect(),
            error: said.chars().take(MAX_ERROR).collect(),
            at: given_up.unwrap_or_else(|| Timestamp::from_millisecond(record.timestamp_ms).unwrap_or_default()),
            origin: origin(),
            headers: own_headers(&record.headers),
            key: record.key,
            value: record.value,
        }
    }

    /// The record as it was, for the topic that it lay on, with the time `at` of the operator's request: all that were asked
    /// for at once bear the same. The error says why there is no way back.
    pub fn redrive(&self, topics: &Topics, at: Timestamp) -> Result<Outgoing, String> {
        let origin = self.origin.as_ref().ok_or("the letter does not say which topic it comes from")?;
        // the headers are no proof: nothing but what the stage reads is written to
        let topic =
            read_by(topics, self.id.stage).into_iter().find(|topic| *topic == origin.partition.topic).ok_or_else(
                || format!("it comes from a topic that the stage `{}` does not read", self.id.stage.as_str()),
            )?;
        let mut headers = self.headers.clone();
        headers.0.retain(|(name, _)| name != topic::REDRIVEN_AT);
        let headers = headers.with(topic::REDRIVEN_AT, at.to_string());
        Ok(Outgoing { topic, key: self.key.clone(), headers, value: self.value.clone() })
    }
}

/// The topics that a stage reads.
fn read_by(topics: &Topics, stage: Stage) -> Vec<Arc<str>> {
    match stage {
        Stage::Ingress => vec![topics.events()],
        Stage::Router => Lane::ALL.into_iter().flat_map(|lane| topics.notifications_of_lane(lane)).collect(),
        Stage::Gateway => {
            let lanes = |channel: &Channel| Lane::ALL.map(|lane| topics.deliveries(*channel, lane));
            Channel::ALL.iter().flat_map(lanes).collect()
        }
        Stage::Indexer => vec![topics.status()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(topic: &str, headers: Headers) -> Record {
        let partition = Partition { topic: topic.into(), index: 2 };
        let (key, value) = (Bytes::from_static(b"acme/user:ana"), Bytes::from_static(b"\x00\xff not UTF-8 \x80"));
        Record { at: Position { partition, offset: 17 }, timestamp_ms: 5, key: Some(key), headers, value: Some(value) }
    }

    /// The record as it lies on the dead-letter topic.
    fn buried(of: &Record, reason: &str) -> Record {
        let partition = Partition { topic: "t.dead.gateway".into(), index: 1 };
        let at = Position { partition, offset: 99 };
        Record { at, headers: letter_headers(of, reason, "why\r\n not"), ..of.clone() }
    }

    #[test]
    fn what_is_given_up_comes_back_byte_by_byte() {
        let topics = Topics::new("t.");
        let binary = Bytes::from_static(b"\xff\x00");
        let own =
            Headers::default().with("traceparent", "00-x").with("x", binary).with("x", "2").with("dead-line", "z");
        let origin = record("t.deliveries.webhook.high", own.clone());
        let letter = Letter::read(Stage::Gateway, buried(&origin, "misconfigured"));
        assert_eq!(letter.id.to_string(), "gateway-1-99");
        assert_eq!((letter.reason.as_str(), letter.error.as_str()), ("misconfigured", "why not"));
        assert_eq!(letter.origin.as_ref(), Some(&origin.at));
        assert!(letter.at > Timestamp::from_second(1_700_000_000).expect("time"));

        let at: Timestamp = "2026-11-21T09:00:00.000001Z".parse().expect("time");
        let back = letter.redrive(&topics, at).expect("a way back");
        assert_eq!((&back.topic, &back.key, &back.value), (&origin.at.partition.topic, &origin.key, &origin.value));
        assert_eq!(back.headers, own.clone().with("redriven-at", "2026-11-21T09:00:00.000001Z"));

        // it dies again, and is driven again: one time, the new one
        let again = Record { headers: back.headers, ..origin };
        let letter = Letter::read(Stage::Gateway, buried(&again, "retries_exhausted"));
        let later: Timestamp = "2026-11-21T10:00:00Z".parse().expect("time");
        let back = letter.redrive(&topics, later).expect("a way back");
        assert_eq!(back.headers, own.with("redriven-at", "2026-11-21T10:00:00Z"));
    }

    #[test]
    fn a_letter_leads_back_only_to_what_its_stage_reads() {
        let topics = Topics::new("t.");
        for (topic, stage) in [
            ("t.config", Stage::Gateway),
            ("t.deliveries.webhook.high", Stage::Router),
            ("other.status", Stage::Indexer),
            ("t.dead.gateway", Stage::Gateway),
        ] {
            let letter = Letter::read(stage, buried(&record(topic, Headers::default()), "r"));
            let error = letter.redrive(&topics, Timestamp::UNIX_EPOCH).expect_err(topic);
            assert!(error.contains("does not read"), "{error}");
        }
        for (topic, stage) in [
            ("t.events", Stage::Ingress),
            ("t.notifications.push.low", Stage::Router),
            ("t.deliveries.apns.normal", Stage::Gateway),
            ("t.status", Stage::Indexer),
        ] {
            let letter = Letter::read(stage, buried(&record(topic, Headers::default()), "r"));
            assert_eq!(letter.redrive(&topics, Timestamp::UNIX_EPOCH).expect(topic).topic.as_ref(), topic);
        }
        let foreign = Letter::read(Stage::Router, record("t.dead.router", Headers::default()));
        assert_eq!((foreign.reason.as_str(), foreign.at.as_millisecond()), ("", 5));
        assert!(foreign.redrive(&topics, Timestamp::UNIX_EPOCH).expect_err("no origin").contains("does not say"));
    }

    #[test]
    fn an_id_is_written_one_way() {
        let id = LetterId { stage: Stage::Indexer, partition: 11, offset: 1 << 40 };
        assert_eq!(LetterId::parse(&id.to_string()), Ok(id));
        for bad in
            ["", "gateway", "gateway-1", "gateway-1-", "gateway-+1-2", "gateway-01-2", "gate-1-2", "gateway-1-2-3"]
        {
            assert!(LetterId::parse(bad).expect_err(bad).contains("gateway-3-42"));
        }
    }
}
