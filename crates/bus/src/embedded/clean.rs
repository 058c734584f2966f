//! Retention and compaction, in slices between the appends, and the space given back.

use std::{sync::Arc, time::Duration};

use rusqlite::{Connection, Result as SqlResult, Transaction, params};

use super::{
    Inner, append, failed, row,
    schema::pragma,
    topics::{Part, Rules},
};
use crate::{Cleanup, LogError};

/// Records that one write job deletes; between two jobs appends get their turn.
const SLICE: i64 = 5_000;
/// Pages that one step gives back.
const PAGES: u32 = 2_000;
/// Space is given back when more than this part of the file is free; less is soon used again.
const FREE_PART: u64 = 8;

/// Cleans for as long as the log is open.
pub(super) fn keep_clean(log: &Arc<Inner>, every: Duration) {
    let log = Arc::downgrade(log);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(log) = log.upgrade() else { return };
            if let Err(e) = clean(&log).await {
                tracing::warn!(error = %e, "old records could not be deleted, trying again later");
            }
        }
    });
}

pub(super) async fn clean(log: &Inner) -> Result<u64, LogError> {
    let mut deleted = 0;
    for topic in log.topics.all() {
        let rules = topic.rules();
        for part in &topic.parts {
            deleted += match rules.cleanup {
                // as with Kafka, a negative time is for ever
                Cleanup::Delete if rules.retention_ms < 0 => 0,
                Cleanup::Delete => expire(log, part, rules).await?,
                Cleanup::Compact => compact(log, part, rules).await?,
            };
            // afterwards, so that nothing is kept in memory of what has gone
            part.tail.clear();
        }
    }
    let now = jiff::Timestamp::now().as_millisecond();
    log.writer.write(move |tx| append::forget(tx, now)).await.map_err(failed)?;
    shrink(log).await?;
    Ok(deleted)
}

fn cutoff(rules: Rules) -> i64 {
    jiff::Timestamp::now().as_millisecond().saturating_sub(rules.retention_ms)
}

async fn expire(log: &Inner, part: &Part, rules: Rules) -> Result<u64, LogError> {
    let (id, mut deleted) = (part.id, 0);
    loop {
        let slice = log.writer.write(move |tx| expire_slice(tx, id, cutoff(rules))).await.map_err(failed)?;
        deleted += u64::try_from(slice).unwrap_or(0);
        if slice == 0 {
            return Ok(deleted);
        }
    }
}

/// Deletes from the oldest record on, up to the first that is too young or that a group has not committed.
fn expire_slice(tx: &Transaction<'_>, part: i64, cutoff: i64) -> SqlResult<usize> {
    let needed: Option<i64> =
        tx.prepare_cached("SELECT min(next) FROM committed WHERE part = ?1")?.query_row([part], |row| row.get(0))?;
    let mut select = tx.prepare_cached("SELECT id, ts FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3")?;
    let mut rows = select.query([row::id(part, 0), row::id(part + 1, 0), SLICE])?;
    let mut end = None;
    while let Some(row) = rows.next()? {
        let (id, ts): (i64, i64) = (row.get(0)?, row.get(1)?);
        if ts >= cutoff || needed.is_some_and(|needed| row::offset(id) >= needed) {
            break;
        }
        end = Some(id);
    }
    drop(rows);
    match end {
        Some(end) => {
            tx.prepare_cached("DELETE FROM record WHERE id >= ?1 AND id <= ?2")?.execute([row::id(part, 0), end])
        }
        None => Ok(0),
    }
}

/// Deletes what a later record of the same key replaces, and old tombstones. Never the head record: it shows how far
/// the partition reaches.
async fn compact(log: &Inner, part: &Part, rules: Rules) -> Result<u64, LogError> {
    let (id, head, cutoff) = (part.id, part.head(), cutoff(rules));
    let forever = rules.retention_ms < 0;
    let find = move |db: &Connection| obsolete(db, id, head, if forever { i64::MIN } else { cutoff });
    let obsolete = log.readers.read(find).await.map_err(failed)?;
    let mut deleted = 0;
    for slice in obsolete.chunks(usize::try_from(SLICE).unwrap_or(1)) {
        let slice = slice.to_vec();
        deleted += u64::try_from(slice.len()).unwrap_or(0);
        let delete = move |tx: &Transaction<'_>| {
            let mut delete = tx.prepare_cached("DELETE FROM record WHERE id = ?1")?;
            slice.iter().try_for_each(|id| delete.execute([*id]).map(drop))
        };
        log.writer.write(delete).await.map_err(failed)?;
    }
    Ok(deleted)
}

/// Row ids, in the order of the offsets: a tombstone goes after everything that it hides, whatever happens in between.
fn obsolete(db: &Connection, part: i64, head: i64, cutoff: i64) -> SqlResult<Vec<i64>> {
    let mut select = db.prepare_cached(
        "SELECT id FROM (
             SELECT id, ts, value IS NULL AS tombstone, lead(id) OVER (PARTITION BY key ORDER BY id) AS newer
             FROM record WHERE id >= ?1 AND id < ?2 AND key IS NOT NULL)
         WHERE id < ?2 - 1 AND (newer IS NOT NULL OR (tombstone AND ts < ?3))
         ORDER BY id",
    )?;
    select.query_map(params![row::id(part, 0), row::id(part, head), cutoff], |row| row.get(0))?.collect()
}

/// Gives free pages back to the disk, from the file and from its write-ahead log.
async fn shrink(log: &Inner) -> Result<(), LogError> {
    let counts = |db: &Connection| Ok((free_pages(db)?, pragma(db, "PRAGMA page_count")?));
    let (mut free, pages) = log.writer.between(counts).await.map_err(failed)?;
    if free * FREE_PART <= pages {
        return Ok(());
    }
    loop {
        let left = log.writer.between(give_back).await.map_err(failed)?;
        if left == 0 || left >= free {
            break;
        }
        free = left;
    }
    log.writer.between(truncate).await.map_err(failed)
}

/// Returns the free pages that are left.
fn give_back(db: &Connection) -> SqlResult<u64> {
    let mut step = db.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = step.query([])?;
    // it frees one page per row that is asked for
    while rows.next()?.is_some() {}
    drop(rows);
    free_pages(db)
}

fn truncate(db: &Connection) -> SqlResult<()> {
    // it waits for whoever reads, and appends wait for it: rather leave it to the next time
    db.busy_timeout(Duration::from_millis(100))?;
    let done = pragma(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    db.busy_timeout(Duration::from_secs(5))?;
    done.map(drop)
}

fn free_pages(db: &Connection) -> SqlResult<u64> {
    pragma(db, "PRAGMA freelist_count")
}
