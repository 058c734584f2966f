//! Read-only connections, a few, shared by whoever asks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags};

use crate::Error;

/// A small pool of read connections; reads run on Tokio's blocking threads.
#[derive(Clone)]
pub struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Connections that are kept open when idle.
const KEPT: usize = 4;

impl Readers {
    /// For a file that a [`crate::Writer`] has opened before.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Arc::default() }
    }

    /// Runs a read; it sees every commit that was answered before.
    pub async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let db = match this.pop() {
                Some(db) => db,
                None => this.connect()?,
            };
            let result = job(&db);
            this.put_back(db);
            Ok(result?)
        });
        task.await.map_err(|_| Error::Closed)?
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, db: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(db);
        }
    }

    fn connect(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.execute_batch("PRAGMA busy_timeout=5000; PRAGMA cache_size=-4000;")?;
        Ok(db)
    }
}
