//! The one writer of a file: jobs queue on a bounded channel, a thread runs what has queued in one transaction.

use std::{path::Path, thread};

use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, open};

/// Jobs in one transaction at most.
const GROUP: usize = 2_000;

/// Hands write jobs to the file's thread. Cheap to clone; the thread ends when the last one is gone.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Opens or creates the file, runs `prepare` (schema steps) and starts the thread.
    pub fn open(path: &Path, prepare: impl FnOnce(&mut Connection) -> rusqlite::Result<()>) -> Result<Self, Error> {
        let mut db = open(path)?;
        prepare(&mut db)?;
        let (jobs, queue) = mpsc::channel(2 * GROUP);
        let name = path.file_name().map_or_else(|| "sqlite".into(), |n| n.to_string_lossy().into_owned());
        thread::Builder::new()
            .name(name)
            .spawn(move || run(db, queue))
            .map_err(|e| Error::from(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        Ok(Self { jobs })
    }

    /// Runs a write. Resolves after the commit is on disk. A job may run twice: when another job of the same commit
    /// fails, the transaction is rolled back and each job gets one of its own. It must therefore hold no state.
    pub async fn write<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let pending = Pending { job, result: None, done: Some(done) };
        self.jobs.send(Box::new(pending)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// A queued write, whatever it returns.
trait Job: Send {
    fn run(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

struct Pending<T, F> {
    job: F,
    result: Option<T>,
    done: Option<oneshot::Sender<Result<T, Error>>>,
}

impl<T: Send, F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send> Job for Pending<T, F> {
    fn run(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        self.result = Some((self.job)(tx)?);
        Ok(())
    }

    fn answer(mut self: Box<Self>, committed: Result<(), Error>) {
        let result = match (committed, self.result.take()) {
            (Ok(()), Some(result)) => Ok(result),
            (Ok(()), None) => Err(Error::Closed),
            (Err(e), _) => Err(e),
        };
        if let Some(done) = self.done.take() {
            // whoever asked may have gone; the write stands all the same
            let _gone = done.send(result);
        }
    }
}

fn run(mut db: Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let mut jobs = std::mem::take(&mut group);
        match commit(&mut db, &mut jobs) {
            Ok(()) => jobs.into_iter().for_each(|job| job.answer(Ok(()))),
            Err(e) if jobs.len() == 1 => jobs.into_iter().for_each(|job| job.answer(Err(e.clone()))),
            Err(_) => {
                for job in jobs {
                    let mut alone = vec![job];
                    let result = commit(&mut db, &mut alone);
                    alone.into_iter().for_each(|job| job.answer(result.clone()));
                }
            }
        }
    }
}

fn commit(db: &mut Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), Error> {
    let tx = db.transaction()?;
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
        let writer = Writer::open(&path, |db| db.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY)")).unwrap();
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
        let kept = Readers::new(&path).read(|db| db.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)));
        assert_eq!(kept.await.unwrap(), 450);
    }
}
