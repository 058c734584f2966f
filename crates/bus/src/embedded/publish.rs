//! Appending: one write job per call, whose commit it shares with the calls beside it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rusqlite::{Connection, Result as SqlResult, Transaction, params};

use super::{
    Inner, failed, row,
    schema::pragma,
    topics::{Part, Topic},
};
use crate::{LogError, Outgoing, Position};

/// The records of one call that can be written.
#[derive(Default)]
struct Append {
    rows: Vec<Row>,
    /// The partitions that get records, and how many.
    parts: Vec<(Arc<Part>, i64)>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    bytes: u64,
}

struct Row {
    /// In [`Append::parts`].
    part: usize,
    key: Option<Bytes>,
    headers: Vec<u8>,
    value: Option<Bytes>,
}

pub(super) async fn publish(log: &Inner, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
    let mut append = Append::default();
    let placed: Vec<Result<Arc<Part>, LogError>> = batch.into_iter().map(|r| append.add(log, r)).collect();
    if append.rows.is_empty() {
        return placed.into_iter().map(|part| part.and(Err(LogError::NotAssigned))).collect();
    }
    let written = append.write(log).await;
    let mut offsets = written.iter().flatten();
    let positions = placed.into_iter().map(|part| {
        let partition = part?.partition.clone();
        let failure = || written.as_ref().err().cloned();
        match offsets.next() {
            Some(offset) => Ok(Position { partition, offset: *offset }),
            None => Err(failure().unwrap_or(LogError::NotAssigned)),
        }
    });
    positions.collect()
}

impl Append {
    /// Takes a record up; says where it belongs, or why it cannot be written.
    fn add(&mut self, log: &Inner, record: Outgoing) -> Result<Arc<Part>, LogError> {
        let topic = match self.topics.get(&record.topic) {
            Some(topic) => Arc::clone(topic),
            None => log.topics.get(&record.topic)?,
        };
        let (size, most) = (row::size(&record), topic.rules().max_message_bytes);
        if i32::try_from(size).is_ok_and(|size| size <= most) {
            let part = Arc::clone(topic.place(record.key.as_deref()));
            let at = self.parts.iter().position(|(known, _)| known.id == part.id).unwrap_or_else(|| {
                self.parts.push((Arc::clone(&part), 0));
                self.parts.len() - 1
            });
            self.parts[at].1 += 1;
            self.bytes += u64::try_from(size).unwrap_or(u64::MAX);
            let Outgoing { key, headers, value, .. } = record;
            self.rows.push(Row { part: at, key, headers: row::encode(&headers), value });
            self.topics.entry(Arc::clone(&topic.name)).or_insert(topic);
            Ok(part)
        } else {
            Err(LogError::TooLarge(format!("{size} bytes, {} takes {most}", topic.name)))
        }
    }

    /// The offset of each row, when they are on disk.
    async fn write(self, log: &Inner) -> Result<Vec<i64>, LogError> {
        let Self { rows, parts, topics, bytes } = self;
        let max_bytes = log.max_bytes;
        let grown = parts.iter().map(|(part, _)| Arc::clone(part)).collect::<Vec<_>>();
        let job = move |tx: &Transaction<'_>| {
            if let Some(most) = max_bytes
                && used_bytes(tx)? + bytes > most
            {
                return Ok(Err(LogError::Full(format!(
                    "its {most} bytes are used; give it more, or let its readers catch up"
                ))));
            }
            insert(tx, &rows, &parts).map(Ok)
        };
        // also when the caller has gone: whoever reads must hear of what is on disk
        let tell = move |written: &Result<(Vec<i64>, Vec<i64>), LogError>| {
            if let Ok((_, heads)) = written {
                grown.iter().zip(heads).for_each(|(part, head)| part.grown_to(*head));
                topics.values().for_each(|topic| topic.wake());
            }
        };
        let (offsets, _) = log.writer.write_then(job, tell).await.map_err(failed)??;
        Ok(offsets)
    }
}

/// Pages in use, the free ones not counted.
fn used_bytes(db: &Connection) -> SqlResult<u64> {
    let pages = pragma(db, "PRAGMA page_count")?.saturating_sub(pragma(db, "PRAGMA freelist_count")?);
    Ok(pages * pragma(db, "PRAGMA page_size")?)
}

/// The offset of each row, and each partition's new head.
fn insert(tx: &Transaction<'_>, rows: &[Row], parts: &[(Arc<Part>, i64)]) -> SqlResult<(Vec<i64>, Vec<i64>)> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut claim = tx.prepare_cached("UPDATE partition SET next = next + ?2 WHERE id = ?1 RETURNING next")?;
    let mut heads = Vec::with_capacity(parts.len());
    for (part, count) in parts {
        heads.push(claim.query_row(params![part.id, count], |row| row.get::<_, i64>(0))?);
    }
    let mut next: Vec<i64> = heads.iter().zip(parts).map(|(head, (_, count))| head - count).collect();
    let mut insert = tx.prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut offsets = Vec::with_capacity(rows.len());
    for row in rows {
        let (part, offset) = (parts[row.part].0.id, next[row.part]);
        insert.execute(params![part, offset, now, row.key.as_deref(), row.headers, row.value.as_deref()])?;
        next[row.part] += 1;
        offsets.push(offset);
    }
    Ok((offsets, heads))
}
