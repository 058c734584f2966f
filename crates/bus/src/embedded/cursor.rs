//! Reading forward in several partitions, each from its own position.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use rusqlite::{Connection, Result as SqlResult, params};
use sqlite::Readers;

use super::{failed, row, topics::Part};
use crate::{LogError, Partition, Position, Record};

/// Records of one partition in one read.
const RECORDS: i64 = 512;
/// Bytes of one partition in one read; a larger record comes alone.
const BYTES: usize = 1024 * 1024;
/// Partitions in one read; the others are first in the next one.
const PARTITIONS: usize = 8;

/// Positions in partitions.
pub(super) struct Cursors {
    list: Vec<Cursor>,
    /// Where the next read begins to look for work.
    turn: usize,
    /// Kept across cancelled calls, so that impatient callers get on too.
    reading: Option<BoxFuture<'static, Result<Vec<Chunk>, LogError>>>,
    readers: Readers,
}

struct Cursor {
    part: Arc<Part>,
    position: i64,
    paused: bool,
}

/// A stretch of one partition.
struct Chunk {
    part: Arc<Part>,
    from: i64,
    to: i64,
    records: Vec<Record>,
}

impl Chunk {
    /// Whether the newest records, which are in memory, are what is to be read.
    fn take_tail(&mut self) -> bool {
        let most = usize::try_from(RECORDS).unwrap_or(1);
        let Some(records) = self.part.tail.read(self.from, most, BYTES) else { return false };
        self.to = records.last().map_or(self.to, |last| last.at.offset + 1);
        self.records = records;
        true
    }
}

impl Cursors {
    pub(super) fn new(readers: Readers) -> Self {
        Self { list: Vec::new(), turn: 0, reading: None, readers }
    }

    pub(super) fn add(&mut self, part: Arc<Part>, position: i64) {
        self.list.push(Cursor { part, position, paused: false });
    }

    pub(super) fn remove(&mut self, partitions: &[Partition]) {
        self.list.retain(|cursor| !partitions.contains(&cursor.part.partition));
    }

    pub(super) fn pause(&mut self, partition: &Partition, paused: bool) {
        self.list.iter_mut().filter(|c| c.part.partition == *partition).for_each(|c| c.paused = paused);
    }

    /// Every partition has been read to its head or beyond the offset that `goal` names for it.
    pub(super) fn reached(&self, goal: &[i64]) -> bool {
        self.list.iter().zip(goal).all(|(cursor, goal)| cursor.position >= *goal)
    }

    /// The next records, or `None` when there are none; then wait for an append. Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<Record>>, LogError> {
        loop {
            let chunks = match &mut self.reading {
                Some(reading) => {
                    let chunks = reading.await;
                    self.reading = None;
                    chunks?
                }
                None => {
                    let mut chunks = self.due();
                    if chunks.is_empty() {
                        return Ok(None);
                    }
                    let kept = chunks.iter_mut().map(Chunk::take_tail).filter(|kept| *kept).count();
                    if kept < chunks.len() {
                        self.reading = Some(fetch(self.readers.clone(), chunks).boxed());
                        continue;
                    }
                    chunks
                }
            };
            let records: Vec<Record> = chunks.into_iter().flat_map(|chunk| self.accept(chunk)).collect();
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
    }

    /// The partitions to read next.
    fn due(&mut self) -> Vec<Chunk> {
        let count = self.list.len();
        let order = (self.turn..self.turn + count).map(|at| at % count);
        let due = order.filter(|at| {
            let cursor = &self.list[*at];
            !cursor.paused && cursor.part.head() > cursor.position
        });
        let due: Vec<usize> = due.take(PARTITIONS).collect();
        self.turn = due.last().map_or(0, |last| last + 1);
        let chunk = |at: usize| {
            let Cursor { part, position, .. } = &self.list[at];
            Chunk { part: Arc::clone(part), from: *position, to: part.head(), records: Vec::new() }
        };
        due.into_iter().map(chunk).collect()
    }

    /// A chunk counts only if its partition still stands where the read began: it may have been revoked or paused
    /// while a cancelled call left the read alone.
    fn accept(&mut self, chunk: Chunk) -> Vec<Record> {
        let mut list = self.list.iter_mut();
        let fits = |c: &&mut Cursor| c.part.id == chunk.part.id && c.position == chunk.from && !c.paused;
        match list.find(fits) {
            Some(cursor) => {
                cursor.position = chunk.to;
                chunk.records
            }
            None => Vec::new(),
        }
    }
}

async fn fetch(readers: Readers, mut chunks: Vec<Chunk>) -> Result<Vec<Chunk>, LogError> {
    let job = move |db: &Connection| {
        let mut missing = chunks.iter_mut().filter(|chunk| chunk.records.is_empty());
        missing.try_for_each(|chunk| fill(db, chunk, BYTES))?;
        Ok(chunks)
    };
    readers.read(job).await.map_err(failed)
}

/// Records of one partition from an offset on, up to its head: as many as fit, at least one if there is one.
pub(super) async fn read(
    readers: &Readers,
    part: Arc<Part>,
    from: i64,
    max_bytes: usize,
) -> Result<Vec<Record>, LogError> {
    if let Some(records) = part.tail.read(from, usize::try_from(RECORDS).unwrap_or(1), max_bytes.min(BYTES)) {
        return Ok(records);
    }
    let mut chunk = Chunk { from, to: part.head(), part, records: Vec::new() };
    let job = move |db: &Connection| {
        fill(db, &mut chunk, max_bytes.min(BYTES))?;
        Ok(chunk.records)
    };
    readers.read(job).await.map_err(failed)
}

fn fill(db: &Connection, chunk: &mut Chunk, max_bytes: usize) -> SqlResult<()> {
    let mut select = db.prepare_cached(
        "SELECT id, ts, key, headers, value FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
    )?;
    let part = chunk.part.id;
    let mut rows = select.query(params![row::id(part, chunk.from), row::id(part, chunk.to), RECORDS])?;
    let (mut bytes, mut count) = (0, 0);
    while let Some(row) = rows.next()? {
        let offset = row::offset(row.get(0)?);
        let key: Option<Vec<u8>> = row.get(2)?;
        let value: Option<Vec<u8>> = row.get(4)?;
        bytes += key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
        chunk.records.push(Record {
            at: Position { partition: chunk.part.partition.clone(), offset },
            timestamp_ms: row.get(1)?,
            key: key.map(Into::into),
            headers: row.get(3)?,
            value: value.map(Into::into),
        });
        count += 1;
        if bytes >= max_bytes || count == RECORDS {
            chunk.to = offset + 1;
            return Ok(());
        }
    }
    // the end: what is missing up to the head was deleted or compacted away
    Ok(())
}
