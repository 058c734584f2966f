//! The tables of the log's file, and what they hold at the start.

use std::sync::Arc;

use rusqlite::{Connection, Result, Transaction};

use super::topics::{Part, Rules, Topic, Topics};
use crate::Cleanup;

const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE topic(
    name TEXT PRIMARY KEY,
    compact INTEGER NOT NULL,
    retention_ms INTEGER NOT NULL,
    max_message_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE partition(
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL REFERENCES topic,
    idx INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0,
    UNIQUE(topic, idx)
);
CREATE TABLE record(
    id INTEGER PRIMARY KEY,
    ts INTEGER NOT NULL,
    key BLOB,
    headers BLOB NOT NULL,
    value BLOB
);
CREATE TABLE committed(
    part INTEGER NOT NULL,
    grp TEXT NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY(part, grp)
) WITHOUT ROWID;
";

/// Since version 2: the last batches of each producer that numbers its records, see [`super::append`].
const PRODUCED: &str = "
CREATE TABLE produced(
    part INTEGER NOT NULL,
    producer INTEGER NOT NULL,
    base INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY(part, producer, base)
) WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// The file is of a version that this program does not know.
#[derive(Debug, thiserror::Error)]
#[error("the log was written by a newer version (format {0}, this one knows {VERSION}); start that version again")]
pub(super) struct Newer(pub(super) i64);

/// Creates the tables of a new file and reads the topics of an old one.
pub(super) fn prepare(db: &mut Connection) -> Result<std::result::Result<Topics, Newer>> {
    let tx = db.transaction()?;
    match tx.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        0 => {
            tx.execute_batch(TABLES)?;
            tx.execute_batch(PRODUCED)?;
        }
        1 => tx.execute_batch(PRODUCED)?,
        VERSION => {}
        newer => return Ok(Err(Newer(newer))),
    }
    let topics = Topics::default();
    for name in names(&tx)? {
        topics.adopt(Arc::new(load(&tx, &name)?));
    }
    tx.commit()?;
    Ok(Ok(topics))
}

fn names(tx: &Transaction<'_>) -> Result<Vec<String>> {
    tx.prepare("SELECT name FROM topic")?.query_map([], |row| row.get(0))?.collect()
}

/// The number that a pragma answers.
pub(super) fn pragma(db: &Connection, sql: &str) -> Result<u64> {
    db.prepare_cached(sql)?.query_row([], |row| row.get(0)).map(i64::cast_unsigned)
}

/// A topic as the file has it.
pub(super) fn load(tx: &Transaction<'_>, name: &str) -> Result<Topic> {
    let rules =
        tx.query_row("SELECT compact, retention_ms, max_message_bytes FROM topic WHERE name = ?1", [name], |row| {
            let cleanup = if row.get(0)? { Cleanup::Compact } else { Cleanup::Delete };
            Ok(Rules { cleanup, retention_ms: row.get(1)?, max_message_bytes: row.get(2)? })
        })?;
    let topic: Arc<str> = name.into();
    let mut select = tx.prepare_cached("SELECT id, idx, next FROM partition WHERE topic = ?1 ORDER BY idx")?;
    let parts = select
        .query_map([name], |row| Ok(Part::new(row.get(0)?, Arc::clone(&topic), row.get(1)?, row.get(2)?)))?
        .collect::<Result<_>>()?;
    Ok(Topic::new(topic, parts, rules))
}
