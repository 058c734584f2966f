//! One notification for one recipient, on one channel, to one address.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    Address, CategoryKey, Channel, Content, DeliveryId, DeliveryStatus, History, Locale, Message, Notification,
    NotificationId, Priority, Reason, Recipient, State, Target, TemplateRef, TenantId,
};

/// The record on `deliveries.*`: what the gateway needs, and all that happened so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Derived from the four things that make it.
    pub id: DeliveryId,
    /// The request that it comes from.
    pub notification: NotificationId,
    /// The owner.
    pub tenant: TenantId,
    /// For whom.
    pub recipient: Recipient,
    /// On which channel.
    pub channel: Channel,
    /// Where it goes; `None` only for a delivery that ended before that was found.
    pub target: Option<Target>,
    /// The first line of its recipient's plan; there is one of these for each recipient of a request, whatever comes of it.
    pub leads: bool,
    /// What the user can opt out of.
    pub category: Option<CategoryKey>,
    /// 1 to 10.
    pub priority: Priority,
    /// What to say, rendered.
    pub content: Content,
    /// What it was rendered from.
    pub template: Option<TemplateRef>,
    /// The language that it was rendered in.
    pub locale: Option<Locale>,
    /// Who was asked to send it.
    pub provider: Option<String>,
    /// Not delivered from then on.
    pub expires_at: Option<Timestamp>,
    /// A later one with the same key may replace this one.
    pub collapse_key: Option<String>,
    /// The client's own.
    pub metadata: BTreeMap<String, String>,
    /// When the request was taken over.
    pub accepted_at: Timestamp,
    /// All that happened so far.
    pub history: History,
}

impl Delivery {
    /// Begins a delivery as decided at `now`: its history holds the acceptance and the decision. What a template has to say
    /// is put into it by whoever renders it.
    pub fn begin(
        n: &Notification,
        channel: Channel,
        target: Option<Target>,
        now: Timestamp,
        state: State,
        reason: Option<Reason>,
    ) -> Self {
        let mut history = History::default();
        history.reached(n.accepted_at, State::Accepted, None);
        history.reached(now, state, reason);
        Self {
            id: DeliveryId::derive(n.id, &n.recipient, channel, target.as_ref().map(|t| &t.address)),
            notification: n.id,
            tenant: n.tenant.clone(),
            recipient: n.recipient.clone(),
            channel,
            target,
            leads: false,
            category: n.category.clone(),
            priority: n.priority,
            content: match &n.message {
                Message::Content(content) => content.clone(),
                Message::Template { .. } => Content::default(),
            },
            template: n.message.template().cloned(),
            locale: None,
            provider: None,
            expires_at: n.expires_at,
            collapse_key: n.collapse_key.clone(),
            metadata: n.metadata.clone(),
            accepted_at: n.accepted_at,
            history,
        }
    }

    /// To which address.
    pub fn address(&self) -> Option<&Address> {
        self.target.as_ref().map(|t| &t.address)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.history.last().map_or(State::Accepted, |s| s.state)
    }

    /// What the world may know of it now: no content, no address.
    pub fn into_status(self) -> DeliveryStatus {
        let last = self.history.last();
        DeliveryStatus {
            id: self.id,
            notification: self.notification,
            user: self.recipient.user().cloned(),
            recipient_key: self.recipient.key(),
            channel: self.channel,
            address: self.address().map(|a| a.masked(self.channel)),
            priority: self.priority,
            state: self.state(),
            reason: last.and_then(|s| s.reason),
            template: self.template.as_ref().map(ToString::to_string),
            leads: self.leads,
            accepted_at: self.accepted_at,
            updated_at: last.map_or(self.accepted_at, |s| s.at),
            tenant: self.tenant,
            category: self.category,
            provider: self.provider,
            metadata: self.metadata,
            history: self.history,
        }
    }
}
