//! Topics: creates those that are missing, leaves the others as they are.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode,
};

use super::{
    blocking,
    client::{Plain, QUESTION},
    errors::{of_topic, unavailable},
    settings::{KafkaSettings, refused},
};
use crate::{Cleanup, LogError, TopicSpec, log::TopicReport};

/// How long the creation of topics may take, and until every one is seen.
const CREATION: Duration = Duration::from_secs(30);

pub(super) async fn ensure(settings: &KafkaSettings, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
    let admin = AdminClient::from_config_and_context(&settings.plain(), Plain).map_err(|e| refused(&e))?;
    let admin = Arc::new(admin);
    let before = topics(&admin).await?;
    let missing: Vec<_> = specs.iter().filter(|s| !before.contains_key(s.name.as_ref())).collect();
    let created = create(&admin, &missing).await?;
    let after = seen(&admin, specs).await?;
    let report = |spec: &TopicSpec| TopicReport {
        name: spec.name.to_string(),
        created: created.iter().any(|name| *name == spec.name.as_ref()),
        partitions: after.get(spec.name.as_ref()).copied().unwrap_or_default(),
        wanted: spec.partitions,
    };
    let reports = specs.iter().map(report).collect();
    // its end joins a thread
    blocking(move || {
        drop(admin);
        Ok(())
    })
    .await?;
    Ok(reports)
}

/// The names that were created; one that somebody else created in the meantime is not among them.
async fn create(admin: &AdminClient<Plain>, missing: &[&TopicSpec]) -> Result<Vec<String>, LogError> {
    let settings: Vec<_> = missing.iter().map(|s| topic_settings(s)).collect();
    let new: Vec<_> = missing.iter().zip(&settings).map(|(spec, settings)| new_topic(spec, settings)).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let options = AdminOptions::new().operation_timeout(Some(CREATION)).request_timeout(Some(CREATION));
    let mut created = Vec::new();
    for result in admin.create_topics(&new, &options).await.map_err(|e| unavailable(&e))? {
        match result {
            Ok(name) => created.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(of_topic(&name, code)),
        }
    }
    Ok(created)
}

/// Waits until the cluster shows every topic with partitions.
async fn seen(admin: &Arc<AdminClient<Plain>>, specs: &[TopicSpec]) -> Result<BTreeMap<String, i32>, LogError> {
    let deadline = Instant::now() + CREATION;
    loop {
        let topics = topics(admin).await?;
        match specs.iter().find(|s| !topics.contains_key(s.name.as_ref())) {
            None => return Ok(topics),
            Some(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
            Some(spec) => return Err(of_topic(&spec.name, RDKafkaErrorCode::UnknownTopicOrPartition)),
        }
    }
}

/// The topics that are there and have a leader for every partition, with how many there are.
async fn topics(admin: &Arc<AdminClient<Plain>>) -> Result<BTreeMap<String, i32>, LogError> {
    let admin = admin.clone();
    blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, QUESTION).map_err(|e| unavailable(&e))?;
        let topics = metadata.topics().iter().filter(|t| t.error().is_none() && !t.partitions().is_empty());
        Ok(topics.map(|t| (t.name().to_owned(), i32::try_from(t.partitions().len()).unwrap_or(i32::MAX))).collect())
    })
    .await
}

fn new_topic<'a>(spec: &'a TopicSpec, settings: &'a [(&'static str, String)]) -> NewTopic<'a> {
    let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication));
    settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
}

fn topic_settings(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("max.message.bytes", spec.max_message_bytes.to_string()),
        // one copy may be away without a record being refused or lost
        ("min.insync.replicas", (spec.replication - 1).max(1).to_string()),
    ];
    match spec.cleanup {
        Cleanup::Delete => {
            settings.push(("cleanup.policy", "delete".to_owned()));
            settings.push(("retention.ms", spec.retention_ms.to_string()));
        }
        Cleanup::Compact => {
            settings.push(("cleanup.policy", "compact".to_owned()));
            settings.push(("delete.retention.ms", spec.retention_ms.to_string()));
            // small and read whole at every start, so it is kept clean
            settings.push(("min.cleanable.dirty.ratio", "0.1".to_owned()));
            settings.push(("segment.ms", (3600 * 1000).to_string()));
        }
    }
    settings
}
