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
        let (size, most) = (row::size(&record), topic.rules().max_message_bytes);
        if !i32::try_from(size).is_ok_and(|size| size <= most) {
            return Err(LogError::TooLarge(format!("{size} bytes, {} takes {most}", topic.name)));
        }
        let Outgoing { key, headers, value, .. } = record;
        let part = topic.place(key.as_deref());
        let at = self.parts.iter().position(|(known, _)| known.id == part.id).unwrap_or_else(|| {
            self.parts.push((Arc::clone(part), 0));
            self.parts.len() - 1
        });
        self.parts[at].1 += 1;
        self.bytes += u64::try_from(size).unwrap_or(u64::MAX);
        self.rows.push(Row { part: at, key, headers: row::encode(&headers), value });
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
            if let Some(most) = max_bytes
                && used_bytes(tx)? + bytes > most
            {
                let detail = format!("its {most} bytes are used; give it more, or let its readers catch up");
                return Ok(Err(LogError::Full(detail)));
            }
            insert(tx, &rows, &parts).map(Ok)
        };
        // also when the caller has gone: whoever reads must hear of what is on disk
        let tell = move |written: &Result<(Vec<Position>, Vec<i64>), LogError>| {
            if let Ok((_, heads)) = written {
                grown.iter().zip(heads).for_each(|(part, head)| part.grown_to(*head));
                topics.values().for_each(|topic| topic.wake());
            }
        };
        let (positions, _heads) = log.writer.write_then(job, tell).await.map_err(failed)??;
        Ok(positions)
    }
}

/// Pages in use, the free ones not counted.
fn used_bytes(db: &Connection) -> SqlResult<u64> {
    let pages = pragma(db, "PRAGMA page_count")?.saturating_sub(pragma(db, "PRAGMA freelist_count")?);
    Ok(pages * pragma(db, "PRAGMA page_size")?)
}

/// Where each row lies, and each partition's new head.
fn insert(tx: &Transaction<'_>, rows: &[Row], parts: &[(Arc<Part>, i64)]) -> SqlResult<(Vec<Position>, Vec<i64>)> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut claim = tx.prepare_cached("UPDATE partition SET next = next + ?2 WHERE id = ?1 RETURNING next")?;
    let mut heads = Vec::with_capacity(parts.len());
    for (part, count) in parts {
        heads.push(claim.query_row(params![part.id, count], |row| row.get::<_, i64>(0))?);
    }
    let mut next: Vec<i64> = heads.iter().zip(parts).map(|(head, (_, count))| head - count).collect();
    let mut insert = tx.prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut positions = Vec::with_capacity(rows.len());
    for Row { part, key, headers, value } in rows {
        let (at, offset) = (*part, next[*part]);
        let part = &parts[at].0;
        insert.execute(params![row::id(part.id, offset), now, key.as_deref(), headers, value.as_deref()])?;
        next[at] += 1;
        positions.push(Position { partition: part.partition.clone(), offset });
    }
    Ok((positions, heads))
}
