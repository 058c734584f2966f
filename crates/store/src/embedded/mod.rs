//! SQLite files: the stores of an installation on one machine.

mod deliveries;
mod file;
mod ledger;
mod users;

use std::{path::Path, sync::Arc, time::Duration};

use crate::{StoreError, Stores};

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A claim and its end, from when they were last written.
    pub claim_window: Duration,
    /// A document of the index, from its last step.
    pub index_retention: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for Options {
    /// 72 hours for claims, 90 days for documents.
    fn default() -> Self {
        Self { claim_window: 72 * HOUR, index_retention: 90 * 24 * HOUR }
    }
}

/// Opens or creates `users.db`, `ledger.db` and `index.db` in `dir` and brings older ones up to date. A file that a newer
/// version wrote is left as it is: [`StoreError::Corrupt`] says so.
pub fn open(dir: &Path, options: Options) -> Result<Stores, StoreError> {
    std::fs::create_dir_all(dir).map_err(|e| StoreError::unavailable("the store's directory", e))?;
    Ok(Stores {
        users: Arc::new(users::EmbeddedUsers::open(dir)?),
        ledger: Arc::new(ledger::EmbeddedLedger::open(dir, options.claim_window)?),
        deliveries: Arc::new(deliveries::EmbeddedDeliveries::open(dir, options.index_retention)?),
    })
}
