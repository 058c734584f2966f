//! The search index: notifications and deliveries, by id and by what people ask for.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::{
    Channel, DeliveryStatus, NotificationId, NotificationStatus, Reason, State, Status, TenantId, Timestamp, UserId,
};

use crate::StoreError;

/// A document: the whole state of a notification or a delivery. It replaces an older one of the same id, never patches it.
pub type Document = Status;

/// Why one document was not indexed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Later it may be taken.
    #[error("not taken now: {0}")]
    Transient(String),
    /// It will never be taken.
    #[error("refused: {0}")]
    Rejected(String),
}

/// A notification with the deliveries that are known so far, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationView {
    /// The request.
    pub notification: NotificationStatus,
    /// At most 10,000.
    pub deliveries: Vec<DeliveryStatus>,
}

/// What to search for; all that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryQuery {
    /// For this user.
    pub user: Option<UserId>,
    /// Of this notification.
    pub notification: Option<NotificationId>,
    /// On this channel.
    pub channel: Option<Channel>,
    /// In this state.
    pub state: Option<State>,
    /// For this reason.
    pub reason: Option<Reason>,
    /// Of this category.
    pub category: Option<domain::CategoryKey>,
    /// Sent by this provider.
    pub provider: Option<String>,
    /// Made from this template: any version of `order-shipped`, or `order-shipped@3`.
    pub template: Option<String>,
    /// All of these words, in any order and case, each whole: in values of metadata, answers of providers that say more than
    /// `HTTP 200`, ids, user, template or category. A text without a letter or digit is found nowhere.
    pub q: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
}

/// One page, newest first (by acceptance, then id).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The deliveries.
    pub items: Vec<DeliveryStatus>,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<String>,
}

/// What became of all that a tenant asked for. In balance, every recipient is decided, and every delivery is in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub tenant: TenantId,
    /// Of all notifications together.
    pub recipients: u64,
    /// Of those, how many have a delivery: the number of deliveries that lead the plan of their recipient.
    pub decided: u64,
    /// The number of deliveries by channel and state; what is not named is 0.
    pub channels: BTreeMap<Channel, BTreeMap<State, u64>>,
}

impl Balance {
    /// Of somebody who has asked for nothing.
    pub(crate) const fn empty(tenant: TenantId) -> Self {
        Self { tenant, recipients: 0, decided: 0, channels: BTreeMap::new() }
    }
}

/// The index of what became of everything. It follows `status`, by a second or so.
#[async_trait]
pub trait Deliveries: Send + Sync + 'static {
    /// Writes documents in bulk; one result per document, in order. An older version of a document (fewer steps) never
    /// replaces a newer one and counts as done. `Err` when the whole call failed.
    async fn index(&self, documents: &[Document]) -> Result<Vec<Result<(), IndexError>>, StoreError>;

    /// A tenant's notification; `None` for one that is not there or is another tenant's.
    async fn notification(&self, tenant: &TenantId, id: NotificationId)
    -> Result<Option<NotificationView>, StoreError>;

    /// A page of a tenant's deliveries; `limit` is 1 to 1,000; `cursor` is from the page before. An unreadable cursor is
    /// `Ok(None)`.
    async fn search(
        &self,
        tenant: &TenantId,
        query: &DeliveryQuery,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError>;

    /// Counts, for one tenant or for each, what was accepted before `until` and is not older than the retention, exactly. By
    /// tenant; a tenant without anything is left out.
    async fn balance(&self, tenant: Option<&TenantId>, until: Timestamp) -> Result<Vec<Balance>, StoreError>;

    /// Drops what is older than the retention, as of `now`, and says what, one line for each thing. To be called now and then;
    /// several may do it at once.
    async fn prune(&self, now: Timestamp) -> Result<Vec<String>, StoreError>;

    /// Answers when the store can be reached.
    async fn ping(&self) -> Result<(), StoreError>;
}
