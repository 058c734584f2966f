//! Reading by offset, without a group: what other programs do over the Kafka protocol.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Result as SqlResult};
use tokio::sync::Notify;

use super::{Embedded, cursor, failed, row};
use crate::{Cleanup, LogError, Partition, Record};

impl Embedded {
    /// Every topic by its full name, with the number of its partitions.
    pub fn topics(&self) -> Vec<(Arc<str>, i32)> {
        self.0.topics.all().iter().map(|topic| (Arc::clone(&topic.name), topic.count())).collect()
    }

    /// The first offset that can be read; records below it have been deleted.
    ///
    /// # Errors
    /// There is no such partition, or the disk refuses.
    pub async fn earliest(&self, partition: &Partition) -> Result<i64, LogError> {
        let (topic, part) = self.0.topics.find(partition)?;
        // compaction leaves gaps, which count as read: it must throw no reader back
        if topic.rules().cleanup == Cleanup::Compact {
            return Ok(0);
        }
        let (id, head) = (part.id, part.head());
        let first = move |db: &Connection| at_or_after(db, id, 0, head);
        Ok(self.0.readers.read(first).await.map_err(failed)?.map_or(head, |(offset, _)| offset))
    }

    /// The offset after the last record that is durable.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn latest(&self, partition: &Partition) -> Result<i64, LogError> {
        Ok(self.0.topics.find(partition)?.1.head())
    }

    /// Offset and time of the first record that was appended at a time or later, in milliseconds since the epoch. Where the
    /// clock was set back, one of those that qualify.
    ///
    /// # Errors
    /// There is no such partition, or the disk refuses.
    pub async fn since(&self, partition: &Partition, timestamp_ms: i64) -> Result<Option<(i64, i64)>, LogError> {
        let (_, part) = self.0.topics.find(partition)?;
        let (id, head) = (part.id, part.head());
        self.0.readers.read(move |db| since(db, id, head, timestamp_ms)).await.map_err(failed)
    }

    /// The records from an offset on: as many as come to `max_bytes` (1 MiB at most), the last one may exceed it; at least
    /// one if there is one.
    ///
    /// # Errors
    /// There is no such partition, or the disk refuses.
    pub async fn fetch(&self, partition: &Partition, offset: i64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let (_, part) = self.0.topics.find(partition)?;
        cursor::read(&self.0.readers, part, offset.max(0), max_bytes).await
    }

    /// Is notified after every append to one of these topics, for as long as it is held. Ask for it first, then for the
    /// offsets, so that no append is missed.
    pub fn changed<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        topics.into_iter().filter_map(|name| self.0.topics.get(name).ok()).for_each(|topic| topic.watch(&wake));
        wake
    }
}

/// Offset and time of the first record from an offset on.
fn at_or_after(db: &Connection, part: i64, offset: i64, head: i64) -> SqlResult<Option<(i64, i64)>> {
    let mut select = db.prepare_cached("SELECT id, ts FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1")?;
    let bounds = [row::id(part, offset), row::id(part, head)];
    select.query_row(bounds, |found| Ok((row::offset(found.get(0)?), found.get(1)?))).optional()
}

/// Halves the range: times rise with the offsets, and a partition may be long.
fn since(db: &Connection, part: i64, head: i64, timestamp_ms: i64) -> SqlResult<Option<(i64, i64)>> {
    let (mut low, mut high) = (0, head);
    while low < high {
        let middle = low + (high - low) / 2;
        match at_or_after(db, part, middle, head)? {
            Some((offset, time)) if time < timestamp_ms => low = offset + 1,
            _ => high = middle,
        }
    }
    at_or_after(db, part, low, head)
}
