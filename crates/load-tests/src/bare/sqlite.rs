//! SQLite alone: the tables and settings of the embedded log, one transaction for each batch, a reader that is woken.

use std::{path::Path, sync::mpsc::Receiver};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

/// As in `bus::embedded`.
const TABLES: &str = "
CREATE TABLE partition(id INTEGER PRIMARY KEY, next INTEGER NOT NULL DEFAULT 0);
CREATE TABLE record(id INTEGER PRIMARY KEY, ts INTEGER NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB);
";
const SETTINGS: &str = "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
    PRAGMA busy_timeout=5000; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16000;";
const PARTITIONS: i64 = 4;
const OFFSET_BITS: u32 = 40;
/// Rows that the reader takes at once.
const READ: u32 = 1000;

/// A record to append.
#[derive(Debug, Clone)]
pub struct Row {
    /// Decides the partition.
    pub key: Bytes,
    /// What is kept.
    pub value: Bytes,
}

/// The writing side.
#[derive(Debug)]
pub struct Log(Connection);

impl Log {
    /// A new file in a directory.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let db = Connection::open(dir.join("log.db"))?;
        db.execute_batch(SETTINGS)?;
        db.execute_batch(TABLES)?;
        for part in 1..=PARTITIONS {
            db.execute("INSERT INTO partition(id) VALUES (?1)", [part])?;
        }
        Ok(Self(db))
    }

    /// One transaction; durable when it returns.
    pub fn append(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        let ts = jiff::Timestamp::now().as_millisecond();
        let tx = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut counts = [0_i64; 4];
        for row in rows {
            counts[partition(&row.key)] += 1;
        }
        let mut next = [0_i64; 4];
        let mut claim = tx.prepare_cached("UPDATE partition SET next = next + ?2 WHERE id = ?1 RETURNING next")?;
        for (part, id) in (1..=PARTITIONS).enumerate() {
            if counts[part] > 0 {
                next[part] = claim.query_row(params![id, counts[part]], |row| row.get::<_, i64>(0))? - counts[part];
            }
        }
        drop(claim);
        let mut insert = tx.prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (row, part) in rows.iter().map(|row| (row, partition(&row.key))) {
            let part_id = i64::try_from(part)? + 1;
            let id = (part_id << OFFSET_BITS) | next[part];
            insert.execute(params![id, ts, row.key.as_ref(), b"", row.value.as_ref()])?;
            next[part] += 1;
        }
        drop(insert);
        Ok(tx.commit()?)
    }
}

fn partition(key: &[u8]) -> usize {
    usize::try_from(bus::record::partition_of(key, 4)).unwrap_or_default()
}

/// Reads what is appended until nobody wakes it any more; says how many records it was.
pub fn follow(dir: &Path, woken: &Receiver<()>) -> anyhow::Result<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(dir.join("log.db"), flags)?;
    db.execute_batch("PRAGMA busy_timeout=5000; PRAGMA cache_size=-4000;")?;
    let mut select =
        db.prepare("SELECT id, ts, key, headers, value FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3")?;
    let mut at = [0_i64; 4];
    let mut read = 0;
    while woken.recv().is_ok() {
        for (part, id) in (1..=PARTITIONS).enumerate() {
            loop {
                let from = (id << OFFSET_BITS) | at[part];
                let rows = select.query_map(params![from, (id + 1) << OFFSET_BITS, READ], |row| {
                    let bytes = |n| Ok::<_, rusqlite::Error>(Bytes::copy_from_slice(row.get_ref(n)?.as_blob()?));
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, bytes(2)?, bytes(3)?, bytes(4)?))
                })?;
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                let count = u32::try_from(rows.len())?;
                std::hint::black_box(rows);
                at[part] += i64::from(count);
                read += u64::from(count);
                if count < READ {
                    break;
                }
            }
        }
    }
    Ok(read)
}
