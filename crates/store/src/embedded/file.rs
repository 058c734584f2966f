//! One file: its writer, its readers, its schema, and how its errors read.

use std::{path::Path, time::Duration};

use domain::Timestamp;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, types::Type};
use sqlite::{Readers, Writer};

use crate::StoreError;

/// An open file.
pub(super) struct File {
    name: &'static str,
    writer: Writer,
    readers: Readers,
}

impl File {
    /// Opens or creates `name` in `dir`. `steps` are the schema's changes, the oldest first: a file that has seen the first n
    /// gets the others. A step that was released is never edited. `wal_pages`: see [`sqlite::SHORT_WAL`].
    pub(super) fn open(dir: &Path, name: &'static str, steps: &[&str], wal_pages: u32) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let mut newer = None;
        let writer = Writer::open(&path, wal_pages, |db| {
            newer = migrate(db, name, steps)?;
            Ok(())
        })
        .map_err(|e| error(name, &e))?;
        match newer {
            None => Ok(Self { name, writer, readers: Readers::new(&path) }),
            Some(found) => Err(StoreError::corrupt(
                name,
                format!(
                    "its schema is {found} and this version knows up to {}; start the newer version that wrote it, or put \
                     back a backup from before",
                    steps.len()
                ),
            )),
        }
    }

    /// See [`Writer::write`].
    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.write(job).await.map_err(|e| error(self.name, &e))
    }

    /// Runs a read on one snapshot.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let on_snapshot = |db: &Connection| {
            let tx = db.unchecked_transaction()?;
            let result = job(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        self.readers.read(on_snapshot).await.map_err(|e| error(self.name, &e))
    }

    /// Answers when the writer does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }
}

/// Applies the steps that the file has not seen, all or none; the version of a file that is too new, which stays as it is.
fn migrate(db: &mut Connection, name: &'static str, steps: &[&str]) -> rusqlite::Result<Option<i64>> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let Some(missing) = usize::try_from(found).ok().and_then(|seen| steps.get(seen..)) else { return Ok(Some(found)) };
    if found > 0 && !missing.is_empty() {
        tracing::info!(
            file = name,
            from = found,
            to = steps.len(),
            "brings a file up to date; a large one takes a while"
        );
    }
    for step in missing {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap_or(i64::MAX))?;
    tx.commit()?;
    Ok(None)
}

fn error(name: &'static str, e: &sqlite::Error) -> StoreError {
    let sqlite::Error::Sqlite(inner) = e else { return StoreError::unavailable(name, e) };
    match &**inner {
        rusqlite::Error::FromSqlConversionFailure(_, _, detail) => StoreError::corrupt(name, detail),
        rusqlite::Error::SqliteFailure(f, _)
            if matches!(f.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
        {
            StoreError::corrupt(name, inner)
        }
        _ => StoreError::unavailable(name, inner),
    }
}

/// A column's value after parsing; the error turns into [`StoreError::Corrupt`].
pub(super) fn parsed<T>(result: Result<T, String>) -> rusqlite::Result<T> {
    result.map_err(|detail| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, detail.into()))
}

/// A column in microseconds as a time.
pub(super) fn time(us: i64) -> rusqlite::Result<Timestamp> {
    parsed(Timestamp::from_microsecond(us).map_err(|e| e.to_string()))
}

/// The time before which everything has been kept for long enough, in microseconds.
pub(super) fn cutoff(kept_for: Duration) -> i64 {
    cutoff_at(Timestamp::now(), kept_for)
}

/// The same as of `now`.
pub(super) fn cutoff_at(now: Timestamp, kept_for: Duration) -> i64 {
    let us = i64::try_from(kept_for.as_micros()).unwrap_or(i64::MAX);
    now.as_microsecond().saturating_sub(us)
}

/// Rows to prune, or free pages to give back, along with a write of `written` rows: more than come in, so that it catches up,
/// and few enough to delay nobody.
pub(super) fn slice(written: usize) -> i64 {
    i64::try_from(2 * written + 10).unwrap_or(i64::MAX)
}

/// So many of the rows that came first tell whether there is something to drop. One that was changed long after it came is young
/// among them; only that many of those could keep the others.
const FIRST: i64 = 100;

/// Drops rows of a table that were `changed` too long ago, in the order in which they came, along with a write of `written`
/// rows; how many went. An index by age would be written with every change of a row.
pub(super) fn drop_old(
    tx: &Transaction<'_>,
    table: &str,
    changed: &str,
    before: i64,
    written: usize,
) -> rusqlite::Result<usize> {
    let old =
        format!("FROM {table} WHERE {changed} < ?1 AND rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT ?2)");
    let mut any = tx.prepare_cached(&format!("SELECT EXISTS (SELECT 1 {old})"))?;
    if !any.query_row([before, FIRST], |row| row.get(0))? {
        return Ok(0);
    }
    tx.prepare_cached(&format!("DELETE {old}"))?.execute([before, FIRST + slice(written)])
}

/// Free pages (of 4 KiB) that a file keeps for its next writes.
const SPARE_PAGES: i64 = 1_000;

/// Cuts a few free pages off the file when it has many, along with a write of `written` rows.
pub(super) fn give_space_back(tx: &Transaction<'_>, written: usize) -> rusqlite::Result<()> {
    let free: i64 = tx.prepare_cached("PRAGMA freelist_count")?.query_row([], |r| r.get(0))?;
    if free > SPARE_PAGES {
        let mut vacuum = tx.prepare(&format!("PRAGMA incremental_vacuum({})", slice(written)))?;
        // it frees a page per row
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlite::SHORT_WAL;

    use super::*;

    #[tokio::test]
    async fn a_commit_is_on_disk_and_its_space_can_be_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::open(dir.path(), "t.db", &["CREATE TABLE t (n)"], SHORT_WAL).unwrap();
        let pragma =
            |name: &'static str| file.write(move |tx| tx.pragma_query_value(None, name, |r| r.get::<_, i64>(0)));
        assert_eq!(pragma("synchronous").await.unwrap(), 2, "FULL: fsync at every commit");
        assert_eq!(pragma("auto_vacuum").await.unwrap(), 2, "INCREMENTAL");
        let mode = file.read(|db| db.pragma_query_value(None, "journal_mode", |r| r.get::<_, String>(0)));
        assert_eq!(mode.await.unwrap(), "wal");
    }

    #[tokio::test]
    async fn steps_are_applied_once_and_a_newer_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let one = "CREATE TABLE t (n); INSERT INTO t VALUES (1)";
        let two = "ALTER TABLE t ADD COLUMN m; UPDATE t SET m = n + 1";
        let open = |steps: &[&str]| File::open(dir.path(), "t.db", steps, SHORT_WAL);
        drop(open(&[one]).unwrap());
        let file = open(&[one, two]).unwrap();
        let row = file.read(|db| db.query_row("SELECT n, m FROM t", [], |r| Ok((r.get(0)?, r.get(1)?))));
        assert_eq!(row.await.unwrap(), (1, 2));
        let error = open(&[one]).err().expect("too new").to_string();
        assert!(error.contains("t.db") && error.contains("schema is 2") && error.contains("backup"), "{error}");
        assert!(open(&[one, two]).is_ok(), "it was left as it is");
        assert!(open(&[one, two, "nonsense"]).is_err());
        assert!(open(&[one, two]).is_ok(), "a failed step leaves no trace");
    }
}
