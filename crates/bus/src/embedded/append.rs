//! Appending to a partition that the writer chose, once per batch: producers that number their records may send a batch
//! again without knowing whether it arrived, also after a restart.

use std::sync::Arc;

use rusqlite::{Result as SqlResult, Transaction, params};

use super::{
    Embedded, failed,
    publish::{Inserted, Row, full, insert},
};
use crate::{LogError, Outgoing, Partition};

/// The last batches per producer and partition that are recognised, as with Kafka.
const RECOGNISED: i64 = 5;
/// How long a silent producer is remembered, in milliseconds.
const REMEMBERED_MS: i64 = 7 * 24 * 3600 * 1000;
/// Numbers go on with 0 after the largest `i32`.
const NUMBERS: i64 = 1 << 31;

/// How a producer numbers the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Whose numbers they are.
    pub producer: i64,
    /// A producer that begins anew counts it up, and the records from 0.
    pub epoch: i16,
    /// The number of the first record.
    pub first: i32,
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record; the others follow without a gap.
    pub offset: i64,
    /// When it was appended, in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// Why a batch was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The log's own reasons.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Records between the producer's last batch and this one are missing.
    #[error("the records before this batch are missing")]
    OutOfOrder,
    /// The producer has begun anew since.
    #[error("the producer has a newer epoch")]
    Fenced,
}

impl Embedded {
    /// Appends a batch to a partition, all or nothing; resolves when it is durable. A batch that was appended before, by its
    /// sequence, is not appended again: the answer is the first one's. The records are taken as the partition's, whatever
    /// topic they name.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was written then, unless the log is [`LogError::Unavailable`].
    pub async fn append(
        &self,
        partition: &Partition,
        records: Vec<Outgoing>,
        sequence: Option<Sequence>,
    ) -> Result<Appended, AppendError> {
        let (topic, part) = self.0.topics.find(partition)?;
        let (mut rows, mut bytes) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            let (row, size) = Row::new(record, &topic, 0)?;
            rows.push(row);
            bytes += size;
        }
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let batch = sequence.map(|sequence| Batch::new(part.id, sequence, count));
        let (parts, max_bytes) = ([(Arc::clone(&part), count)], self.0.max_bytes);
        // in the transaction, because the first try may still be on its way
        let job = move |tx: &Transaction<'_>| {
            match batch.as_ref().map(|batch| batch.seen(tx)).transpose()?.unwrap_or(Seen::Next) {
                Seen::Before(appended) => return Ok(Ok((appended, None))),
                Seen::Never(error) => return Ok(Err(error)),
                Seen::Next => {}
            }
            if let Some(full) = full(tx, max_bytes, bytes)? {
                return Ok(Err(full.into()));
            }
            let inserted = insert(tx, &rows, &parts)?;
            let appended = Appended { offset: inserted.heads[0] - count, timestamp_ms: inserted.timestamp_ms };
            if let Some(batch) = &batch {
                batch.remember(tx, appended)?;
            }
            Ok(Ok((appended, Some(inserted))))
        };
        let tell = move |written: Result<(Appended, Option<Inserted>), AppendError>| {
            let (appended, inserted) = written?;
            if let Some(inserted) = inserted {
                inserted.tell(&[part]);
                topic.wake();
            }
            Ok(appended)
        };
        self.0.writer.write_then(job, tell).await.map_err(failed).map_err(AppendError::Log)?
    }
}

/// A numbered batch of a partition.
struct Batch {
    part: i64,
    producer: i64,
    epoch: i64,
    first: i64,
    last: i64,
}

/// What is known of a batch.
enum Seen {
    Before(Appended),
    Next,
    Never(AppendError),
}

impl Batch {
    fn new(part: i64, Sequence { producer, epoch, first }: Sequence, count: i64) -> Self {
        let first = i64::from(first);
        Self { part, producer, epoch: epoch.into(), first, last: (first + count - 1) % NUMBERS }
    }

    /// As Kafka decides: a producer that is not known here may begin anywhere.
    fn seen(&self, tx: &Transaction<'_>) -> SqlResult<Seen> {
        let mut select = tx.prepare_cached(
            "SELECT epoch, first, last, base, ts FROM produced WHERE part = ?1 AND producer = ?2 ORDER BY base DESC",
        )?;
        let mut rows = select.query(params![self.part, self.producer])?;
        let mut newest = None;
        while let Some(row) = rows.next()? {
            let (epoch, first, last): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if (epoch, first, last) == (self.epoch, self.first, self.last) {
                return Ok(Seen::Before(Appended { offset: row.get(3)?, timestamp_ms: row.get(4)? }));
            }
            newest.get_or_insert((epoch, last));
        }
        let Some((epoch, last)) = newest else { return Ok(Seen::Next) };
        let due = if self.epoch == epoch { (last + 1) % NUMBERS } else { 0 };
        Ok(if self.epoch < epoch {
            Seen::Never(AppendError::Fenced)
        } else if self.first == due {
            Seen::Next
        } else {
            Seen::Never(AppendError::OutOfOrder)
        })
    }

    fn remember(&self, tx: &Transaction<'_>, Appended { offset, timestamp_ms }: Appended) -> SqlResult<()> {
        tx.prepare_cached(
            "INSERT INTO produced(part, producer, base, epoch, first, last, ts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            self.part,
            self.producer,
            offset,
            self.epoch,
            self.first,
            self.last,
            timestamp_ms
        ])?;
        tx.prepare_cached(
            "DELETE FROM produced WHERE part = ?1 AND producer = ?2 AND base <= (
                 SELECT base FROM produced WHERE part = ?1 AND producer = ?2 ORDER BY base DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![self.part, self.producer, RECOGNISED])?;
        Ok(())
    }
}

/// Forgets the producers that have been silent for long.
pub(super) fn forget(tx: &Transaction<'_>, now_ms: i64) -> SqlResult<usize> {
    tx.prepare_cached(
        "DELETE FROM produced WHERE (part, producer) IN (
             SELECT part, producer FROM produced GROUP BY part, producer HAVING max(ts) < ?1)",
    )?
    .execute([now_ms - REMEMBERED_MS])
}
