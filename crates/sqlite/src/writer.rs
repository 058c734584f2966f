//! The one writer of a file: jobs queue on a bounded channel, a thread runs what has queued in one transaction.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use rusqlite::{Connection, Transaction, TransactionBehavior, hooks::Wal};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, open};

/// So many pages (of 4 KiB) are written ahead before they are put into the file, which takes a while: little, where somebody
/// waits for each commit (SQLite's own default).
pub const SHORT_WAL: u32 = 1_000;

/// Where nobody does: a page that is written again and again is put into the file once.
pub const LONG_WAL: u32 = 8_000;

/// Jobs in one transaction at most.
const GROUP: usize = 2_000;

/// Hands write jobs to the file's thread. Cheap to clone; the thread ends when the last one is gone.
#[derive(Clone)]
pub struct Writer {
    work: mpsc::Sender<Work>,
}

enum Work {
    Write(Box<dyn Job>),
    Between(Box<dyn FnOnce(&Connection) + Send>),
}

impl Writer {
    /// Opens or creates the file, runs `prepare` (schema steps) and starts the thread. What `prepare` returns, such as a
    /// lock, is dropped when the thread has closed the file. `wal_pages`: see [`SHORT_WAL`].
    pub fn open<G: Send + 'static>(
        path: &Path,
        wal_pages: u32,
        prepare: impl FnOnce(&mut Connection) -> rusqlite::Result<G>,
    ) -> Result<Self, Error> {
        let mut db = open(path)?;
        let guard = prepare(&mut db)?;
        let ahead = Ahead::of(&mut db, wal_pages)?;
        let (work, queue) = mpsc::channel(2 * GROUP);
        let name = path.file_name().map_or_else(|| "sqlite".into(), |n| n.to_string_lossy().into_owned());
        thread::Builder::new()
            .name(name)
            .spawn(move || {
                run(db, queue, &ahead);
                drop(guard);
            })
            .map_err(|e| Error::from(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        Ok(Self { work })
    }

    /// Runs a write. Resolves after the commit is on disk. A job may run twice: when another job of the same commit
    /// fails, the transaction is rolled back and each job gets one of its own. It must therefore hold no state.
    pub async fn write<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_then(job, |written| written).await
    }

    /// [`Self::write`], and `committed` makes the answer of what was written, on the writer's thread right after the commit,
    /// in the order of the writes, also when the caller has gone meanwhile.
    pub async fn write_then<T, R, F, C>(&self, job: F, committed: C) -> Result<R, Error>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        C: FnOnce(T) -> R + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let pending = Pending { job, result: None, then: Some((committed, done)) };
        self.work.send(Work::Write(Box::new(pending))).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs a job outside of any transaction, such as a checkpoint; the writes that queued before it are done by then.
    pub async fn between<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let job = Box::new(move |db: &Connection| {
            // whoever asked may have gone
            let _gone = done.send(job(db));
        });
        self.work.send(Work::Between(job)).await.map_err(|_| Error::Closed)?;
        Ok(answer.await.map_err(|_| Error::Closed)??)
    }
}

/// A queued write, whatever it returns.
trait Job: Send {
    fn run(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

struct Pending<T, R, F, C> {
    job: F,
    result: Option<T>,
    then: Option<(C, oneshot::Sender<Result<R, Error>>)>,
}

impl<T, R, F, C> Job for Pending<T, R, F, C>
where
    T: Send,
    R: Send,
    F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send,
    C: FnOnce(T) -> R + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        self.result = Some((self.job)(tx)?);
        Ok(())
    }

    fn answer(mut self: Box<Self>, committed: Result<(), Error>) {
        let Some((then, done)) = self.then.take() else { return };
        let result = committed.and_then(|()| self.result.take().ok_or(Error::Closed)).map(then);
        // whoever asked may have gone; the write stands all the same
        let _gone = done.send(result);
    }
}

/// How much is written ahead. SQLite by itself would put it into the file as a part of the commit that is one too many, and
/// whoever waits for that one would wait for this as well.
struct Ahead {
    pages: Arc<AtomicU32>,
    most: u32,
}

impl Ahead {
    fn of(db: &mut Connection, most: u32) -> rusqlite::Result<Self> {
        let pages = Arc::<AtomicU32>::default();
        let told = Arc::clone(&pages);
        // in the place of the hook that is SQLite's own checkpoint
        db.wal_hook(Some(move |_: &mut Wal, pages| {
            told.store(u32::try_from(pages).unwrap_or_default(), Relaxed);
            Ok(())
        }))?;
        Ok(Self { pages, most })
    }

    /// Puts it into the file if it is enough; what a reader still needs stays until the next time.
    fn put_in_place(&self, db: &Connection) {
        if self.pages.load(Relaxed) < self.most {
            return;
        }
        if let Err(error) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the write-ahead log could not be put into its file and goes on growing");
        }
    }
}

fn run(mut db: Connection, mut queue: mpsc::Receiver<Work>, ahead: &Ahead) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let mut jobs = Vec::with_capacity(group.len());
        for work in group.drain(..) {
            match work {
                Work::Write(job) => jobs.push(job),
                Work::Between(job) => {
                    write(&mut db, std::mem::take(&mut jobs));
                    job(&db);
                }
            }
        }
        write(&mut db, jobs);
        ahead.put_in_place(&db);
    }
}

fn write(db: &mut Connection, mut jobs: Vec<Box<dyn Job>>) {
    if jobs.is_empty() {
        return;
    }
    match commit(db, &mut jobs) {
        Ok(()) => jobs.into_iter().for_each(|job| job.answer(Ok(()))),
        Err(e) if jobs.len() == 1 => jobs.into_iter().for_each(|job| job.answer(Err(e.clone()))),
        Err(_) => {
            for job in jobs {
                let mut alone = vec![job];
                let result = commit(db, &mut alone);
                alone.into_iter().for_each(|job| job.answer(result.clone()));
            }
        }
    }
}

fn commit(db: &mut Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), Error> {
    // immediate: a transaction that begins with a read could find its snapshot outdated by another process and fail
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in jobs {
        job.run(&tx)?;
    }
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Readers;

    #[tokio::test]
    async fn writes_are_grouped_and_a_bad_one_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let writer = Writer::open(&path, SHORT_WAL, |db| db.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY)"));
        let writer = writer.unwrap();
        let writes = (0..500).map(|i| {
            let writer = writer.clone();
            // every tenth repeats its neighbour's key and must fail alone
            let n = if i % 10 == 9 { i - 1 } else { i };
            tokio::spawn(async move { writer.write(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n])).await })
        });
        let mut failed = 0;
        for write in writes.collect::<Vec<_>>() {
            failed += usize::from(write.await.unwrap().is_err());
        }
        assert_eq!(failed, 50);
        let readers = Readers::new(&path);
        let kept = readers.read(|db| db.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)));
        assert_eq!(kept.await.unwrap(), 450);
    }

    #[tokio::test]
    async fn what_is_written_ahead_is_put_into_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let writer = Writer::open(&path, 50, |db| db.execute_batch("CREATE TABLE t(text TEXT)")).unwrap();
        for _ in 0..500 {
            writer.write(|tx| tx.execute("INSERT INTO t VALUES (hex(randomblob(2000)))", [])).await.unwrap();
        }
        // the last write was answered before its checkpoint, and this comes after that
        writer.between(|_| Ok(())).await.unwrap();
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("t.db") > 400 * 4096, "in the file are {} bytes", size("t.db"));
        assert!(size("t.db-wal") < 100 * 4096, "written ahead are {} bytes", size("t.db-wal"));
    }
}
