//! The log of one machine: records in an SQLite file, group commit with fsync, readers woken by an append.

mod append;
mod clean;
mod cursor;
mod follow;
mod offsets;
mod publish;
mod row;
mod schema;
mod subscription;
mod tail;
mod topics;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlite::{Readers, SHORT_WAL, Writer};

use crate::{Follow, Log, LogError, Outgoing, Position, Subscription, TopicSpec, group::Groups, log::TopicReport};
use topics::Topics;

pub use append::{AppendError, Appended, Sequence};

/// How the embedded log behaves.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The room for records on disk, in bytes; a publish beyond it fails with [`LogError::Full`]. `None`: the disk's own.
    pub max_bytes: Option<u64>,
    /// The pause between two runs of retention and compaction.
    pub clean_every: Duration,
    /// How long a revoked partition waits for its old owner.
    pub release_within: Duration,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { max_bytes: None, clean_every: Duration::from_secs(60), release_within: Duration::from_secs(10) }
    }
}

/// The embedded log. Cheap to clone; the file closes with the last clone and the last reader.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    writer: Writer,
    readers: Readers,
    max_bytes: Option<u64>,
}

impl Embedded {
    /// Opens or creates the log in a directory, which one process may have open. Call it within a Tokio runtime, where
    /// retention and compaction run from then on.
    ///
    /// # Errors
    /// Another process has it open, a newer version wrote it, or the disk refuses.
    pub fn open(dir: &Path, settings: EmbeddedSettings) -> Result<Self, LogError> {
        create_dir(dir).map_err(|e| LogError::Unavailable(format!("cannot use {}: {e}", dir.display())))?;
        let lock = lock(dir)?;
        let path = dir.join("log.db");
        let mut found = Err(schema::Newer(0));
        let writer = Writer::open(&path, SHORT_WAL, |db| {
            found = schema::prepare(db)?;
            // held until the file is closed, not only until the last handle is gone
            Ok(lock)
        })
        .map_err(failed)?;
        let topics = found.map_err(|newer| LogError::Unavailable(newer.to_string()))?;
        let inner = Arc::new(Inner {
            topics: Arc::new(topics),
            groups: Groups::new(settings.release_within),
            writer,
            readers: Readers::new(&path),
            max_bytes: settings.max_bytes,
        });
        clean::keep_clean(&inner, settings.clean_every);
        Ok(Self(inner))
    }

    /// Applies retention and compaction now and gives the space back. Says how many records it deleted.
    ///
    /// # Errors
    /// The disk refuses; what was deleted before stays deleted.
    pub async fn clean(&self) -> Result<u64, LogError> {
        clean::clean(&self.0).await
    }
}

#[async_trait]
impl Log for Embedded {
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        publish::publish(&self.0, batch).await
    }

    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        _gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError> {
        Ok(Box::new(subscription::subscribe(&self.0, group, topics).await?))
    }

    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError> {
        Ok(Box::new(follow::follow(&self.0, topic)?))
    }

    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
        topics::ensure(&self.0, specs).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        self.0.writer.write(|_| Ok(())).await.map_err(failed)
    }
}

fn create_dir(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        fs::create_dir_all(dir)?;
        // SQLite syncs what it creates in the directory, nobody else the directory itself
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let refused = |detail: String| LogError::Unavailable(format!("cannot lock {}: {detail}", dir.display()));
    let file = File::create(dir.join("LOCK")).map_err(|e| refused(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(refused(
            "another process has this log open; stop it, or give each process a data directory of its own".into(),
        )),
        Err(fs::TryLockError::Error(e)) => Err(refused(e.to_string())),
    }
}

/// A full disk leaves nothing written; after any other fault the outcome is open.
fn failed(e: sqlite::Error) -> LogError {
    match &e {
        sqlite::Error::Sqlite(sql) if sql.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            LogError::Full(e.to_string())
        }
        sqlite::Error::Sqlite(_) | sqlite::Error::Closed => LogError::Unavailable(e.to_string()),
    }
}
