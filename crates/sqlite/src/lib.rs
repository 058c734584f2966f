#![doc = include_str!("../README.md")]

mod reader;
mod writer;

pub use reader::Readers;
pub use writer::{LONG_WAL, SHORT_WAL, Writer};

use std::path::Path;

use rusqlite::Connection;

/// Why a read or a write did not happen. It is cheap to copy, because every write of a failed commit gets one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// SQLite's own words, for instance about a full disk.
    #[error("sqlite: {0}")]
    Sqlite(std::sync::Arc<rusqlite::Error>),
    /// The writer thread has ended; the file is closed.
    #[error("the file is closed")]
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(e.into())
    }
}

/// Opens a file for writing: WAL, fsync at every commit, space given back step by step.
fn open(path: &Path) -> Result<Connection, Error> {
    let db = Connection::open(path)?;
    // auto_vacuum only takes effect when it is set before the file is switched to WAL
    db.execute_batch(
        "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000; \
         PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16000;",
    )?;
    Ok(db)
}
