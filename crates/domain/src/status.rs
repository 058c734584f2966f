//! What is published on `status` and kept in the index: the answer to "why did I (not) get it".

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    CategoryKey, Channel, DeliveryId, History, NotificationId, Priority, Reason, Selector, State, TenantId, UserId,
};

/// One event on `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// A request was accepted.
    Notification(NotificationStatus),
    /// A delivery reached a state; the event holds its whole trace.
    Delivery(DeliveryStatus),
}

/// An accepted request, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationStatus {
    /// The request.
    pub id: NotificationId,
    /// The owner.
    pub tenant: TenantId,
    /// How many recipients it has, each of which gets at least one delivery.
    pub recipients: u32,
    /// What the user can opt out of.
    pub category: Option<CategoryKey>,
    /// 1 to 10.
    pub priority: Priority,
    /// As asked, or as the category says.
    pub channels: Vec<Selector>,
    /// The version of the template that it uses: `key@3`.
    pub template: Option<String>,
    /// When it was taken over.
    pub accepted_at: Timestamp,
    /// Not delivered from then on.
    pub expires_at: Option<Timestamp>,
    /// The client's own.
    pub metadata: BTreeMap<String, String>,
}

/// A delivery, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// The delivery.
    pub id: DeliveryId,
    /// The request that it comes from.
    pub notification: NotificationId,
    /// The owner.
    pub tenant: TenantId,
    /// The user, unless it went to a raw address.
    pub user: Option<UserId>,
    /// The recipient in topic keys: for a raw address a hash.
    pub recipient_key: String,
    /// On which channel.
    pub channel: Channel,
    /// Masked.
    pub address: Option<String>,
    /// What the user can opt out of.
    pub category: Option<CategoryKey>,
    /// 1 to 10.
    pub priority: Priority,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The version of the template that it was rendered from: `key@3`.
    pub template: Option<String>,
    /// Who was asked to send it.
    pub provider: Option<String>,
    /// There is one such delivery for each recipient of a request.
    pub leads: bool,
    /// When the request was taken over.
    pub accepted_at: Timestamp,
    /// When this state was reached.
    pub updated_at: Timestamp,
    /// The client's own.
    pub metadata: BTreeMap<String, String>,
    /// The whole trace.
    pub history: History,
}

impl DeliveryStatus {
    /// Grows with every step: the external version of the index document.
    pub fn version(&self) -> u64 {
        self.history.version()
    }
}

impl Status {
    /// The owner.
    pub const fn tenant(&self) -> &TenantId {
        match self {
            Self::Notification(n) => &n.tenant,
            Self::Delivery(d) => &d.tenant,
        }
    }
}
