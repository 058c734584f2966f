#![doc = include_str!("../README.md")]

pub mod cluster;
pub(crate) mod codec;
mod cursor;
pub mod deliveries;
pub mod embedded;
pub mod ledger;
mod roster;
pub mod users;
mod words;

pub use deliveries::{Balance, Deliveries, DeliveryQuery, Document, IndexError, NotificationView, Page};
pub use ledger::{Claim, ClaimRequest, Decided, Decision, Ledger, Settled};
pub use users::{Change, HistoryEntry, UserKey, Users};

/// A store did not do what was asked. Whether a write happened is then open; every write here can be repeated.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or not in time; later it may.
    #[error("{store} is unavailable: {detail}")]
    Unavailable {
        /// `redis`, `cassandra`, `elasticsearch` or the file's name.
        store: &'static str,
        /// In its own words.
        detail: String,
    },
    /// What was read makes no sense; an operator has to look.
    #[error("{store} holds something unreadable: {detail}")]
    Corrupt {
        /// Which one.
        store: &'static str,
        /// What and where; no personal data.
        detail: String,
    },
}

impl StoreError {
    /// Shorthand for an answer that did not come.
    pub fn unavailable(store: &'static str, detail: impl ToString) -> Self {
        Self::Unavailable { store, detail: detail.to_string() }
    }

    /// Shorthand for a value that does not parse.
    pub fn corrupt(store: &'static str, detail: impl ToString) -> Self {
        Self::Corrupt { store, detail: detail.to_string() }
    }
}

/// The three stores of an installation.
#[derive(Clone)]
pub struct Stores {
    /// People.
    pub users: std::sync::Arc<dyn Users>,
    /// Decisions and claims.
    pub ledger: std::sync::Arc<dyn Ledger>,
    /// The search index.
    pub deliveries: std::sync::Arc<dyn Deliveries>,
}
