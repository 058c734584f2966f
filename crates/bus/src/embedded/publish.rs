//! Appending: one write job per call, whose commit it shares with the calls beside it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rusqlite::{Connection, Result as SqlResult, Transaction, params};

use super::{
    Inner, failed, row,
    schema::pragma,
    topics::{Part, Topic},
};
use crate::{Headers, LogError, Outgoing, Position, Record};

/// The records of one call that can be written.
#[derive(Default)]
struct Append {
    rows: Vec<Row>,
    /// The partitions that get records, and how many.
    parts: Vec<(Arc<Part>, i64)>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    bytes: u64,
}

/// A record to write.
pub(super) struct Row {
    /// Which of the partitions that get records.
    part: usize,
    key: Option<Bytes>,
    headers: Headers,
    value: Option<Bytes>,
}

/// What was written.
pub(super) struct Inserted {
    /// The rows as records, each with which of the partitions it is in.
    records: Vec<(usize, Record)>,
    /// Each partition's new head.
    pub(super) heads: Vec<i64>,
    /// When, in milliseconds since the epoch.
    pub(super) timestamp_ms: i64,
}

impl Row {
    /// A row of the given partition, and its size in bytes; or why the topic does not take it.
    pub(super) fn new(record: Outgoing, topic: &Topic, part: usize) -> Result<(Self, u64), LogError> {
        let (size, most) = (row::size(&record), topic.rules().max_message_bytes);
        if !i32::try_from(size).is_ok_and(|size| size <= most) {
            return Err(LogError::TooLarge(format!("{size} bytes, {} takes {most}", topic.name)));
        }
        let Outgoing { key, headers, value, .. } = record;
        Ok((Self { part, key, headers, value }, u64::try_from(size).unwrap_or(u64::MAX)))
    }
}

pub(super) async fn publish(log: &Inner, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
    let mut append = Append::default();
    let taken: Vec<Result<usize, LogError>> = batch.into_iter().map(|record| append.add(log, record)).collect();
    let written = append.write(log).await;
    let position = |row: usize| written.as_ref().map(|positions| positions[row].clone()).map_err(Clone::clone);
    taken.into_iter().map(|row| position(row?)).collect()
}

impl Append {
    /// Takes a record up; says which row it is, or why it cannot be written.
    fn add(&mut self, log: &Inner, record: Outgoing) -> Result<usize, LogError> {
        let topic = match self.topics.get(&record.topic) {
            Some(topic) => Arc::clone(topic),
            None => log.topics.get(&record.topic)?,
        };
        let part = topic.place(record.key.as_deref());
        let known = self.parts.iter().position(|(known, _)| known.id == part.id);
        let at = known.unwrap_or(self.parts.len());
        let (row, size) = Row::new(record, &topic, at)?;
        if known.is_none() {
            self.parts.push((Arc::clone(part), 0));
        }
        self.parts[at].1 += 1;
        self.bytes += size;
        self.rows.push(row);
        self.topics.entry(Arc::clone(&topic.name)).or_insert(topic);
        Ok(self.rows.len() - 1)
    }

    /// Where each row lies, when all are on disk.
    async fn write(self, log: &Inner) -> Result<Vec<Position>, LogError> {
        let Self { rows, parts, topics, bytes } = self;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let max_bytes = log.max_bytes;
        let grown: Vec<Arc<Part>> = parts.iter().map(|(part, _)| Arc::clone(part)).collect();
        let job = move |tx: &Transaction<'_>| {
            if let Some(full) = full(tx, max_bytes, bytes)? {
                return Ok(Err(full));
            }
            insert(tx, &rows, &parts).map(Ok)
        };
        let tell = move |written: Result<Inserted, LogError>| {
            let positions = written?.tell(&grown);
            topics.values().for_each(|topic| topic.wake());
            Ok(positions)
        };
        log.writer.write_then(job, tell).await.map_err(failed)?
    }
}

impl Inserted {
    /// Shows what is on disk to who reads, also when the caller has gone; where each row lies. Call it in the order of the
    /// commits.
    pub(super) fn tell(self, parts: &[Arc<Part>]) -> Vec<Position> {
        let mut positions = Vec::with_capacity(self.records.len());
        for (place, record) in self.records {
            positions.push(record.at.clone());
            parts[place].tail.push(record);
        }
        parts.iter().zip(self.heads).for_each(|(part, head)| part.grown_to(head));
        positions
    }
}

/// Why `bytes` more have no room, if they have none.
pub(super) fn full(db: &Connection, max_bytes: Option<u64>, bytes: u64) -> SqlResult<Option<LogError>> {
    let Some(most) = max_bytes else { return Ok(None) };
    let detail = || format!("its {most} bytes are used; give it more, or let its readers catch up");
    Ok((used_bytes(db)? + bytes > most).then(|| LogError::Full(detail())))
}

/// Pages in use, the free ones not counted.
fn used_bytes(db: &Connection) -> SqlResult<u64> {
    let pages = pragma(db, "PRAGMA page_count")?.saturating_sub(pragma(db, "PRAGMA freelist_count")?);
    Ok(pages * pragma(db, "PRAGMA page_size")?)
}

/// Writes the rows; `parts` are the partitions that get some, and how many each.
pub(super) fn insert(tx: &Transaction<'_>, rows: &[Row], parts: &[(Arc<Part>, i64)]) -> SqlResult<Inserted> {
    let timestamp_ms = jiff::Timestamp::now().as_millisecond();
    let mut claim = tx.prepare_cached("UPDATE partition SET next = next + ?2 WHERE id = ?1 RETURNING next")?;
    let mut heads = Vec::with_capacity(parts.len());
    for (part, count) in parts {
        heads.push(claim.query_row(params![part.id, count], |row| row.get::<_, i64>(0))?);
    }
    let mut next: Vec<i64> = heads.iter().zip(parts).map(|(head, (_, count))| head - count).collect();
    let mut insert = tx.prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut records = Vec::with_capacity(rows.len());
    for Row { part, key, headers, value } in rows {
        let (place, offset) = (*part, next[*part]);
        let part = &parts[place].0;
        let id = row::id(part.id, offset);
        insert.execute(params![id, timestamp_ms, key.as_deref(), row::encode(headers), value.as_deref()])?;
        next[place] += 1;
        let (at, headers) = (Position { partition: part.partition.clone(), offset }, headers.clone());
        records.push((place, Record { at, timestamp_ms, key: key.clone(), headers, value: value.clone() }));
    }
    Ok(Inserted { records, heads, timestamp_ms })
}
