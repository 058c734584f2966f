//! What is known from outside: the record of the sandbox, the topics, the index, and what was confirmed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{
    FollowEvent, Log as _, LogError, Record, Topics,
    dead::Letter,
    kafka::{Kafka, KafkaSettings},
    topic::{Stage, TopicSettings},
};
use domain::{Channel, DeliveryStatus, Reason, State, Status, Timestamp};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    flow::Told,
    installation::{Api, Installation},
    perform::Performed,
};

/// A request that the sandbox has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reception {
    /// Which delivery, as the request says itself.
    pub delivery: String,
    /// Where.
    pub channel: Channel,
    /// At which address.
    pub path: String,
    /// When it was complete.
    pub at: Timestamp,
    /// The sandbox would take it.
    pub verified: bool,
    /// The status of the answer, if there was one.
    pub answered: Option<u16>,
}

impl Reception {
    /// The provider took it, and said so.
    pub fn is_taken(&self) -> bool {
        self.answered.is_some_and(|status| (200..300).contains(&status))
    }
}

/// A delivery, from the index or from an event on `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    /// The request.
    pub notification: String,
    /// For whom.
    pub user: String,
    /// On which channel.
    pub channel: Channel,
    /// What of.
    pub category: Option<String>,
    /// Not to be sent from then on: the client's own note.
    pub expires_at: Option<Timestamp>,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// When it was taken over.
    pub accepted_at: Timestamp,
    /// Every step.
    pub trace: Vec<Step>,
}

/// A step of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The state from then on.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The code of an attempt's outcome.
    pub outcome: Option<String>,
}

impl Delivery {
    /// Attempts whose outcome is not known.
    pub fn unknowns(&self) -> usize {
        self.trace.iter().filter(|s| s.outcome.as_deref() == Some("unknown")).count()
    }

    /// How often an operator has sent it on its way again.
    pub fn redriven(&self) -> usize {
        self.trace.iter().filter(|s| s.reason == Some(Reason::Redriven)).count()
    }

    /// When it reached its present state.
    pub fn reached_at(&self) -> Timestamp {
        self.trace.last().map_or(self.accepted_at, |s| s.at)
    }

    fn from_json(d: &Value) -> Option<Self> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let step = |s: &Value| {
            Some(Step {
                at: s["at"].as_str()?.parse().ok()?,
                state: State::parse(s["state"].as_str()?).ok()?,
                reason: s["reason"].as_str().and_then(|r| Reason::parse(r).ok()),
                outcome: text(&s["attempt"]["outcome"]),
            })
        };
        Some(Self {
            id: text(&d["id"])?,
            notification: text(&d["notification"])?,
            user: text(&d["user"]).unwrap_or_default(),
            channel: Channel::parse(d["channel"].as_str()?).ok()?,
            category: text(&d["category"]),
            expires_at: d["metadata"]["expires_at"].as_str().and_then(|t| t.parse().ok()),
            state: State::parse(d["state"].as_str()?).ok()?,
            reason: d["reason"].as_str().and_then(|r| Reason::parse(r).ok()),
            accepted_at: d["accepted_at"].as_str()?.parse().ok()?,
            trace: d["trace"].as_array()?.iter().map(step).collect::<Option<_>>()?,
        })
    }
}

impl From<&DeliveryStatus> for Delivery {
    fn from(d: &DeliveryStatus) -> Self {
        let step = |s: &domain::Step| Step {
            at: s.at,
            state: s.state,
            reason: s.reason,
            outcome: s.attempt.as_ref().map(|a| a.outcome.clone()),
        };
        Self {
            id: d.id.to_string(),
            notification: d.notification.to_string(),
            user: d.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            channel: d.channel,
            category: d.category.as_ref().map(ToString::to_string),
            expires_at: d.metadata.get("expires_at").and_then(|t| t.parse().ok()),
            state: d.state,
            reason: d.history.last().and_then(|s| s.reason),
            accepted_at: d.accepted_at,
            trace: d.history.0.iter().map(step).collect(),
        }
    }
}

/// A record on a `notifications` or `deliveries` topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Topic and partition: within it the order is that of this list.
    pub partition: String,
    /// The recipient.
    pub key: String,
    /// The notification.
    pub notification: String,
    /// The delivery, if it was decided.
    pub delivery: Option<String>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// As operators name it.
    pub id: String,
    /// Who gave it up.
    pub stage: &'static str,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The delivery, if it is about one; the id of an event, if it was one.
    pub subject: String,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What was confirmed.
    pub told: Told,
    /// When somebody who could send was stopped.
    pub pauses: Vec<(Timestamp, Timestamp)>,
    /// When somebody who could send was killed.
    pub deaths: Vec<Timestamp>,
    /// In the order of their arrival.
    pub receptions: Vec<Reception>,
    /// `status`, in an order that holds for each delivery.
    pub events: Vec<Delivery>,
    /// Notifications that are announced on `status`: id and number of recipients.
    pub announced: BTreeMap<String, u32>,
    /// The index.
    pub index: Vec<Delivery>,
    /// `notifications.*`.
    pub notifications: Vec<Queued>,
    /// `deliveries.*`.
    pub deliveries: Vec<Queued>,
    /// `dead.*`.
    pub dead: Vec<Dead>,
}

const SPECS: TopicSettings = TopicSettings { partitions: 1, replication: 1, retention_ms: 1 };

/// Every topic but the configuration, which is nobody's to read.
pub(crate) fn topics_to_read(topics: &Topics) -> Vec<String> {
    let all = topics.specs(SPECS).into_iter().map(|spec| spec.name.to_string());
    all.filter(|name| *name != *topics.config() && *name != *topics.events()).collect()
}

/// All deliveries that the index knows.
///
/// # Errors
/// The API does not answer.
pub async fn indexed(api: &Api) -> anyhow::Result<Vec<Delivery>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get_patiently(&format!("/v1/deliveries?limit=1000{cursor}")).await?;
        for item in page["items"].as_array().into_iter().flatten() {
            all.push(Delivery::from_json(item).with_context(|| format!("not a delivery: {item}"))?);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

/// What the sandbox has received.
///
/// # Errors
/// Its record does not read back.
pub fn received(sandbox: &sandbox::Running) -> anyhow::Result<Vec<Reception>> {
    // a recipient that was refused before the message came has no id, and got nothing
    let all = sandbox.received("")?.into_iter().filter(|r| r.id.is_some());
    all.map(|r| {
        let id = r.id.unwrap_or_default();
        // of a mail the Message-ID: <delivery@domain>, and for further recipients something behind it
        let id = id.trim_start_matches('<').split(['@', '>', ' ']).next().unwrap_or_default().to_owned();
        let channel = Channel::parse(&r.channel).map_err(anyhow::Error::msg)?;
        Ok(Reception { delivery: id, channel, path: r.path, at: r.time, verified: r.verified, answered: r.answered })
    })
    .collect()
}

impl Evidence {
    /// Gathers all of it.
    ///
    /// # Errors
    /// Something cannot be read.
    pub async fn gather(
        installation: &Installation,
        sandbox: &sandbox::Running,
        told: Told,
        performed: &Performed,
    ) -> anyhow::Result<Self> {
        let (pauses, deaths) = (performed.pauses.clone(), performed.deaths.clone());
        let mut evidence = Self { told, pauses, deaths, receptions: received(sandbox)?, ..Self::default() };
        evidence.index = indexed(&installation.api).await?;
        evidence.read_topics(&installation.kafka, &installation.topics).await?;
        Ok(evidence)
    }

    async fn read_topics(&mut self, brokers: &str, topics: &Topics) -> anyhow::Result<()> {
        let log = Kafka::new(KafkaSettings::new(brokers, "the checker"))?;
        let log = Arc::new(log);
        let names = topics_to_read(topics);
        let reads = names.iter().map(|name| read(log.clone(), name));
        let contents = futures::future::try_join_all(reads).await?;
        for (name, records) in names.iter().zip(contents) {
            let stage = Stage::ALL.into_iter().find(|stage| *topics.dead(*stage) == **name);
            self.take(stage, **name == *topics.status(), records)?;
        }
        Ok(())
    }

    /// The records of one topic: the dead letters of a stage, `status`, or a queue.
    pub(crate) fn take(&mut self, stage: Option<Stage>, is_status: bool, records: Vec<Record>) -> anyhow::Result<()> {
        for record in records {
            match stage {
                Some(stage) => self.dead.push(dead(stage, record)),
                None if is_status => self.event(&record)?,
                None => self.queued(&record)?,
            }
        }
        Ok(())
    }

    fn event(&mut self, record: &Record) -> anyhow::Result<()> {
        match wire::decode(record.value.as_ref())? {
            Status::Delivery(d) => self.events.push((&d).into()),
            Status::Notification(n) => drop(self.announced.insert(n.id.to_string(), n.recipients)),
        }
        Ok(())
    }

    fn queued(&mut self, record: &Record) -> anyhow::Result<()> {
        let partition = record.at.partition.to_string();
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        if let Ok(d) = wire::decode::<domain::Delivery>(record.value.as_ref())
            && record.at.partition.topic.contains("deliveries.")
        {
            let (notification, delivery) = (d.notification.to_string(), Some(d.id.to_string()));
            self.deliveries.push(Queued { partition, key, notification, delivery });
        } else {
            let n: domain::Notification = wire::decode(record.value.as_ref())?;
            let notification = n.id.to_string();
            self.notifications.push(Queued { partition, key, notification, delivery: None });
        }
        Ok(())
    }
}

fn dead(stage: Stage, record: Record) -> Dead {
    let letter = Letter::read(stage, record);
    let event = letter.headers.get("ce_id").map(|id| String::from_utf8_lossy(id).into_owned());
    let subject = wire::decode::<domain::Delivery>(letter.value.as_ref()).ok().map(|d| d.id.to_string());
    Dead {
        id: letter.id.to_string(),
        stage: stage.as_str(),
        reason: letter.reason,
        at: letter.at,
        subject: event.or(subject).unwrap_or_default(),
    }
}

/// All that a topic holds now, in order within each partition. Brokers that have just come back may still sort their leaders out.
async fn read(log: Arc<Kafka>, topic: &str) -> anyhow::Result<Vec<Record>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match timeout_at(deadline, read_once(&log, topic)).await {
            Ok(Err(_)) if Instant::now() < deadline => sleep(Duration::from_millis(500)).await,
            Ok(read) => return read.with_context(|| format!("cannot read {topic}")),
            Err(_) => anyhow::bail!("{topic} is not read in time"),
        }
    }
}

async fn read_once(log: &Kafka, topic: &str) -> Result<Vec<Record>, LogError> {
    let mut follow = log.follow(topic).await?;
    let mut records = Vec::new();
    loop {
        match follow.next().await? {
            FollowEvent::Records(some) => records.extend(some),
            FollowEvent::CaughtUp => return Ok(records),
        }
    }
}
