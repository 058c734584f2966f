//! Read-only connections, a few, shared by whoever asks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use crate::Error;

/// A small pool of read connections; reads run on Tokio's blocking threads.
#[derive(Clone)]
pub struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

/// Reads at a time; the others wait their turn. Without it, a burst would open a connection for each of Tokio's blocking
/// threads and could run out of file descriptors.
const CONNECTIONS: usize = 8;

/// Connections that are kept open when idle.
const KEPT: usize = 4;

impl Readers {
    /// For a file that a [`crate::Writer`] has opened before.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Arc::default(), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// Runs a read; it sees every commit that was answered before.
    pub async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let task = tokio::task::spawn_blocking(move || {
            let db = match this.pop() {
                Some(db) => db,
                None => this.connect()?,
            };
            let result = job(&db);
            this.put_back(db);
            // held until here also when the caller has gone
            drop(permit);
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
