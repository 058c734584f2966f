//! The topics in memory: how far each partition reaches, and who wants to know when it grows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use rusqlite::{Result as SqlResult, Transaction, params};
use tokio::sync::Notify;

use super::{Inner, failed, schema, tail::Tail};
use crate::{Cleanup, LogError, Partition, TopicSpec, log::TopicReport, record::partition_of};

/// All topics by name.
#[derive(Default)]
pub(super) struct Topics(RwLock<BTreeMap<Arc<str>, Arc<Topic>>>);

/// One topic.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) parts: Vec<Arc<Part>>,
    rules: RwLock<Rules>,
    /// The partition of the next record without a key.
    turn: AtomicUsize,
    readers: Mutex<Vec<Weak<Notify>>>,
}

/// What a later `ensure_topics` may change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) cleanup: Cleanup,
    pub(super) retention_ms: i64,
    pub(super) max_message_bytes: i32,
}

/// One partition.
pub(super) struct Part {
    /// In the file.
    pub(super) id: i64,
    pub(super) partition: Partition,
    head: AtomicI64,
    pub(super) tail: Tail,
}

impl Topics {
    pub(super) fn get(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(name).cloned().ok_or_else(|| LogError::Topic {
            topic: name.to_owned(),
            detail: "it does not exist; `carillon topics` creates what is missing".into(),
        })
    }

    /// A partition with its topic, which is to be woken when it grows.
    pub(super) fn find(&self, partition: &Partition) -> Result<(Arc<Topic>, Arc<Part>), LogError> {
        let topic = self.get(&partition.topic)?;
        let part = usize::try_from(partition.index).ok().and_then(|index| topic.parts.get(index)).cloned();
        let part = part.ok_or_else(|| LogError::Topic {
            topic: topic.name.to_string(),
            detail: format!("it has {} partitions, none with the number {}", topic.count(), partition.index),
        })?;
        Ok((topic, part))
    }

    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The partition in the file, if it is one of ours.
    pub(super) fn part(&self, partition: &Partition) -> Option<Arc<Part>> {
        self.find(partition).ok().map(|(_, part)| part)
    }

    /// Adds a topic, or takes over its rules.
    pub(super) fn adopt(&self, topic: Arc<Topic>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&topic.name) {
            *known.rules.write().unwrap_or_else(PoisonError::into_inner) = topic.rules();
        } else {
            all.insert(Arc::clone(&topic.name), topic);
        }
    }
}

impl Topic {
    pub(super) fn new(name: Arc<str>, parts: Vec<Arc<Part>>, rules: Rules) -> Self {
        Self { name, parts, rules: RwLock::new(rules), turn: AtomicUsize::new(0), readers: Mutex::default() }
    }

    pub(super) fn rules(&self) -> Rules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.parts.len()).unwrap_or(i32::MAX)
    }

    /// Where a record with this key belongs.
    pub(super) fn place(&self, key: Option<&[u8]>) -> &Arc<Part> {
        let index = match key {
            Some(key) => usize::try_from(partition_of(key, self.count())).unwrap_or(0),
            None => self.turn.fetch_add(1, Ordering::Relaxed) % self.parts.len(),
        };
        &self.parts[index]
    }

    /// Notifies `wake` after every append from now on, for as long as somebody else holds it.
    pub(super) fn watch(&self, wake: &Arc<Notify>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // without appends nobody else clears away those that have gone
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(wake));
    }

    pub(super) fn wake(&self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| {
            reader.upgrade().is_some_and(|wake| {
                wake.notify_one();
                true
            })
        });
    }
}

impl Part {
    pub(super) fn new(id: i64, topic: Arc<str>, index: i32, head: i64) -> Arc<Self> {
        Arc::new(Self { id, partition: Partition { topic, index }, head: AtomicI64::new(head), tail: Tail::default() })
    }

    /// The offset after the last record that is durable.
    pub(super) fn head(&self) -> i64 {
        self.head.load(Ordering::Acquire)
    }

    pub(super) fn grown_to(&self, head: i64) {
        self.head.fetch_max(head, Ordering::AcqRel);
    }
}

/// Creates what is missing; what exists keeps its partitions and takes over the other settings.
pub(super) async fn ensure(log: &Inner, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
    if let Some(spec) = specs.iter().find(|spec| spec.partitions < 1) {
        return Err(LogError::Topic { topic: spec.name.to_string(), detail: "it needs at least one partition".into() });
    }
    let (specs, topics) = (specs.to_vec(), Arc::clone(&log.topics));
    let job = move |tx: &Transaction<'_>| specs.iter().map(|spec| create(tx, spec)).collect::<SqlResult<Vec<_>>>();
    // in memory even when the caller has gone: what is in the file must be usable
    let adopt = move |(report, topic)| {
        topics.adopt(topic);
        report
    };
    let adopt_all = |created: Vec<_>| created.into_iter().map(adopt).collect();
    log.writer.write_then(job, adopt_all).await.map_err(failed)
}

fn create(tx: &Transaction<'_>, spec: &TopicSpec) -> SqlResult<(TopicReport, Arc<Topic>)> {
    let name = spec.name.as_ref();
    let known = tx.prepare_cached("SELECT 1 FROM topic WHERE name = ?1")?.exists([name])?;
    tx.execute(
        "INSERT OR REPLACE INTO topic(name, compact, retention_ms, max_message_bytes) VALUES (?1, ?2, ?3, ?4)",
        params![name, spec.cleanup == Cleanup::Compact, spec.retention_ms, spec.max_message_bytes],
    )?;
    if !known {
        let mut insert = tx.prepare_cached("INSERT INTO partition(topic, idx) VALUES (?1, ?2)")?;
        for index in 0..spec.partitions {
            insert.execute(params![name, index])?;
        }
    }
    let topic = schema::load(tx, name)?;
    let (partitions, wanted) = (topic.count(), spec.partitions);
    Ok((TopicReport { name: name.to_owned(), created: !known, partitions, wanted }, Arc::new(topic)))
}
