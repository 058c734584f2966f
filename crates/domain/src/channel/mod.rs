//! Channels, the types that group them, and the lanes of priority. The one list of channel names.

use std::fmt;

use serde_json::{Map, Value};

use crate::{FieldErrors, content::escape};

/// Every channel name of the contract; those that are not in [`Channel::ALL`] are refused as "not yet".
const NAMES: [&str; 15] = [
    "apns", "fcm", "webpush", "sms", "voice", "email", "slack", "telegram", "lark", "discord", "teams", "dingtalk",
    "wecom", "webhook", "inbox",
];

/// Declares the channels: name, type, and the module that knows its account, its addresses and its content.
macro_rules! channels {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $type:ident, $module:ident;)*) => {
        $(pub mod $module;)*

        /// A gateway. Adding one starts here: the compiler then names what is missing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Channel { $($(#[$doc])* $variant,)* }

        impl Channel {
            /// Every channel that can be sent on.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in requests, topics and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The type that groups it.
            pub const fn channel_type(self) -> ChannelType {
                match self { $(Self::$variant => ChannelType::$type,)* }
            }

            /// The keys that the channel's own content may have; empty: any.
            pub const fn content_keys(self) -> &'static [&'static str] {
                match self { $(Self::$variant => $module::CONTENT,)* }
            }

            /// Checks the channel's own content, as it will be sent.
            pub fn check_content(self, content: &Map<String, Value>, at: &str, errors: &mut FieldErrors) {
                for key in content.keys().filter(|k| !self.content_keys().is_empty() && !self.content_keys().contains(&k.as_str())) {
                    let known = self.content_keys().join(", ");
                    errors.add(format!("{at}/{}", escape(key)), format!("{self} content has no such field; it has {known}"));
                }
                match self { $(Self::$variant => $module::check_content(content, at, errors),)* }
            }

            /// Whether people are reached there by devices that they register, instead of contacts.
            pub const fn has_devices(self) -> bool {
                match self { $(Self::$variant => $module::DEVICES,)* }
            }

            /// Checks an address and gives it the form in which it is kept.
            pub(crate) fn parse_address(self, text: &str) -> Result<String, String> {
                match self { $(Self::$variant => $module::address(text),)* }
            }

            /// What people may see of an address.
            pub(crate) fn mask(self, address: &str) -> String {
                match self { $(Self::$variant => $module::masked(address),)* }
            }
        }

        /// A provider account; its name is the channel's until a tenant can have several.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "channel", rename_all = "snake_case")]
        pub enum Account { $($(#[$doc])* $variant($module::Account),)* }

        impl Account {
            /// The channel that it serves.
            pub const fn channel(&self) -> Channel {
                match self { $(Self::$variant(_) => Channel::$variant,)* }
            }

            /// Checks it before it is put; the errors name its fields.
            pub fn check(&self) -> Result<(), FieldErrors> {
                match self { $(Self::$variant(account) => account.check(),)* }
            }
        }
    };
}

channels! {
    /// Apple's push service: a device token.
    Apns = "apns", Push, apns;
    /// Mail by SMTP: a mailbox.
    Email = "email", Email, email;
    /// HTTP POST to an endpoint of the recipient's, signed as in Standard Webhooks 1.0.
    Webhook = "webhook", Chat, webhook;
}

impl Channel {
    /// Parses a channel's name; a planned channel is refused as "not yet".
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text).ok_or_else(|| refuse(text))
    }
}

/// A group of channels. A closed list; a type whose channels are all still planned is refused as "not yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelType {
    /// `apns`, `fcm`, `webpush`.
    Push,
    /// Text messages.
    Sms,
    /// Calls.
    Voice,
    /// Mail.
    Email,
    /// Chat services and webhooks.
    Chat,
    /// The in-app inbox.
    Inbox,
}

impl ChannelType {
    /// Every type.
    pub const ALL: [Self; 6] = [Self::Push, Self::Sms, Self::Voice, Self::Email, Self::Chat, Self::Inbox];

    /// The name in requests and topics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Sms => "sms",
            Self::Voice => "voice",
            Self::Email => "email",
            Self::Chat => "chat",
            Self::Inbox => "inbox",
        }
    }

    /// The types that have at least one channel; each has topics of its own.
    pub fn built() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|t| t.channels().next().is_some())
    }

    /// Its channels.
    pub fn channels(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.iter().copied().filter(move |c| c.channel_type() == self)
    }
}

/// What a request's `channels` may hold: a channel, or a type that stands for all of its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// One channel.
    Channel(Channel),
    /// Every channel of a type.
    Type(ChannelType),
}

impl Selector {
    /// Parses the name of a channel or a type.
    pub fn parse(text: &str) -> Result<Self, String> {
        let of_type = ChannelType::built().find(|t| t.as_str() == text).map(Self::Type);
        of_type.map_or_else(|| Channel::parse(text).map(Self::Channel), Ok)
    }

    /// The name as in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Channel(c) => c.as_str(),
            Self::Type(t) => t.as_str(),
        }
    }

    /// The type whose topic carries a notification that this selector leads.
    pub const fn channel_type(self) -> ChannelType {
        match self {
            Self::Channel(c) => c.channel_type(),
            Self::Type(t) => t,
        }
    }

    /// The channels that it stands for.
    pub fn channels(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.iter().copied().filter(move |c| match self {
            Self::Channel(one) => *c == one,
            Self::Type(t) => c.channel_type() == t,
        })
    }
}

impl TryFrom<String> for Selector {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.as_str().to_owned()
    }
}

/// True for every channel and type name of the contract, planned ones included: what preferences may name.
pub fn is_name(text: &str) -> bool {
    ChannelType::ALL.iter().any(|t| t.as_str() == text) || NAMES.contains(&text)
}

fn refuse(text: &str) -> String {
    let built: Vec<_> =
        Channel::ALL.iter().map(|c| c.as_str()).chain(ChannelType::built().map(ChannelType::as_str)).collect();
    let built = built.join(", ");
    if is_name(text) {
        format!("`{text}` is not yet built in this version; use one of {built}")
    } else {
        let text: String = text.chars().take(40).collect();
        format!("`{}` is no channel or type; use one of {built}", text.escape_debug())
    }
}

/// How much a notification matters, 1 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// 1 to 10.
    pub fn parse(value: i64) -> Result<Self, String> {
        u8::try_from(value)
            .ok()
            .filter(|v| (1..=10).contains(v))
            .map(Self)
            .ok_or_else(|| format!("priority is 1 to 10, not {value}"))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// 8-10 high, 4-7 normal, 1-3 low.
    pub const fn lane(self) -> Lane {
        match self.0 {
            8.. => Lane::High,
            4..=7 => Lane::Normal,
            _ => Lane::Low,
        }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;
    fn try_from(value: u8) -> Result<Self, String> {
        Self::parse(value.into())
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// A priority class with topics of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Priority 8 to 10: drained first.
    High,
    /// Priority 4 to 7.
    Normal,
    /// Priority 1 to 3.
    Low,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name in topics and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// `Display` as the name.
macro_rules! display_name {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
display_name!(Channel, ChannelType, Selector, Lane);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_built_planned_or_wrong() {
        assert_eq!(Selector::parse("webhook"), Ok(Selector::Channel(Channel::Webhook)));
        assert_eq!(Selector::parse("chat"), Ok(Selector::Type(ChannelType::Chat)));
        assert_eq!(Selector::parse("push"), Ok(Selector::Type(ChannelType::Push)));
        assert!(Selector::parse("fcm").expect_err("planned").contains("not yet"));
        assert!(Selector::parse("sms").expect_err("planned").contains("not yet"));
        assert!(Selector::parse("pigeon").expect_err("unknown").contains("no channel or type"));
        assert!(Channel::ALL.iter().all(|c| NAMES.contains(&c.as_str())), "a channel is one of the contract");
    }

    #[test]
    fn lanes_follow_priority() {
        let lane = |p| Priority::parse(p).map(Priority::lane);
        assert_eq!(
            [lane(1), lane(3), lane(4), lane(7), lane(8), lane(10)].map(Result::unwrap),
            [Lane::Low, Lane::Low, Lane::Normal, Lane::Normal, Lane::High, Lane::High]
        );
        assert!(lane(0).is_err() && lane(11).is_err() && lane(-1).is_err() && lane(i64::MAX).is_err());
    }
}
