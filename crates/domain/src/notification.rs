//! One notification for one recipient: what was asked, not what was looked up.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Address, CategoryKey, Channel, ChannelType, Content, Locale, NotificationId, Priority, Selector, TemplateRef,
    TenantId, UserId,
};

/// Most recipients of one request.
pub const MAX_RECIPIENTS: usize = 1000;

/// The record on `notifications.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Shared by all recipients of one request.
    pub id: NotificationId,
    /// The owner, from the credential.
    pub tenant: TenantId,
    /// The one recipient.
    pub recipient: Recipient,
    /// What the user can opt out of.
    pub category: Option<CategoryKey>,
    /// 1 to 10.
    pub priority: Priority,
    /// In the order asked; never empty.
    pub channels: Vec<Selector>,
    /// How many of the channels are used.
    pub strategy: Strategy,
    /// What to say.
    pub message: Message,
    /// The language to say it in, instead of the recipient's own.
    pub locale: Option<Locale>,
    /// Not delivered from then on.
    pub expires_at: Option<Timestamp>,
    /// A later one with the same key may replace this one.
    pub collapse_key: Option<String>,
    /// The client's own, given back with every answer.
    pub metadata: BTreeMap<String, String>,
    /// When it was taken over.
    pub accepted_at: Timestamp,
}

impl Notification {
    /// The type whose topic carries it: that of its first channel.
    pub fn leading_type(&self) -> ChannelType {
        self.channels.first().map_or(ChannelType::Chat, |s| s.channel_type())
    }

    /// Whether it may no longer be delivered.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// This.
    Content(Content),
    /// What a template makes of the data.
    Template {
        /// The version that was published when the request was accepted.
        template: TemplateRef,
        /// Values of its variables, checked against what it declares.
        data: Map<String, Value>,
    },
}

impl Message {
    /// The template, if there is one.
    pub const fn template(&self) -> Option<&TemplateRef> {
        match self {
            Self::Content(_) => None,
            Self::Template { template, .. } => Some(template),
        }
    }
}

/// Who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// A user that Carillon knows: contacts and preferences apply.
    User(UserId),
    /// An address as it stands: nobody's preferences apply.
    Address(Channel, Address),
}

const ADDRESS_NAMESPACE: Uuid = Uuid::from_u128(0x6361_7269_6c6c_6f6e_8000_6164_6472_6573);

impl Recipient {
    /// The recipient within its tenant, for topic keys and derived ids. An address shows only as a hash.
    pub fn key(&self) -> String {
        match self {
            Self::User(user) => ["user:", user.as_str()].concat(),
            Self::Address(channel, address) => {
                format!("{channel}:{}", Uuid::new_v5(&ADDRESS_NAMESPACE, address.expose().as_bytes()).simple())
            }
        }
    }

    /// The user, if it is one.
    pub const fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Address(..) => None,
        }
    }
}

/// How many of the channels are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Every channel.
    #[default]
    All,
    /// The first that has an address and may be used.
    BestOf,
}
