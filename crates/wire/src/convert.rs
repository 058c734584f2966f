//! Domain types to and from the generated messages. An empty string stands for none.

use std::str::FromStr;

use domain::{
    Address, Attempt, CategoryKey, Channel, Content, Delivery, DeliveryId, DeliveryStatus, Environment, History,
    Locale, Message, Notification, NotificationId, NotificationStatus, Priority, Reason, Recipient, Selector, State,
    Status, Step, Strategy, Target, TemplateRef, TenantId, Timestamp, UserId,
};
use uuid::Uuid;

use crate::{DecodeError, proto};

/// Parses a field by a domain parser.
pub(crate) fn field<T>(field: &'static str, parsed: Result<T, String>) -> Result<T, DecodeError> {
    parsed.map_err(|detail| DecodeError::Field { field, detail })
}

/// Parses a field where an empty string stands for none.
pub(crate) fn optional<T>(
    name: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, DecodeError> {
    if text.is_empty() { Ok(None) } else { field(name, parse(text)).map(Some) }
}

pub(crate) fn time(name: &'static str, us: i64) -> Result<Timestamp, DecodeError> {
    field(name, Timestamp::from_microsecond(us).map_err(|e| e.to_string()))
}

pub(crate) fn optional_time(name: &'static str, us: i64) -> Result<Option<Timestamp>, DecodeError> {
    if us == 0 { Ok(None) } else { time(name, us).map(Some) }
}

fn priority(value: u32) -> Result<Priority, DecodeError> {
    field("priority", Priority::parse(value.into()))
}

fn selectors(names: &[String]) -> Result<Vec<Selector>, DecodeError> {
    names.iter().map(|c| field("channels", Selector::parse(c))).collect()
}

pub(crate) fn us(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_microsecond)
}

pub(crate) fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

/// An id's text. Several are written for every record, and formatting takes longer.
fn id(id: Uuid) -> String {
    id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

fn content_json(content: &Content) -> String {
    // a map with string keys always serialises
    serde_json::to_string(content).unwrap_or_default()
}

fn json<T: serde::de::DeserializeOwned>(name: &'static str, text: &str) -> Result<T, DecodeError> {
    field(name, serde_json::from_str(text).map_err(|e| e.to_string()))
}

fn message(n: &proto::Notification) -> Result<Message, DecodeError> {
    Ok(match optional("template", &n.template, TemplateRef::parse)? {
        None => Message::Content(json("content_json", &n.content_json)?),
        Some(template) => Message::Template { template, data: json("data_json", &n.data_json)? },
    })
}

impl From<&Notification> for proto::Notification {
    fn from(n: &Notification) -> Self {
        let (content_json, template, data_json) = match &n.message {
            Message::Content(content) => (content_json(content), String::new(), String::new()),
            Message::Template { template, data } => {
                (String::new(), template.to_string(), serde_json::to_string(data).unwrap_or_default())
            }
        };
        Self {
            id: id(n.id.0),
            tenant: n.tenant.as_str().to_owned(),
            recipient: Some((&n.recipient).into()),
            category: text(n.category.as_ref().map(CategoryKey::as_str)),
            priority: u8::from(n.priority).into(),
            channels: n.channels.iter().map(|c| c.as_str().to_owned()).collect(),
            strategy: match n.strategy {
                Strategy::All => proto::Strategy::All,
                Strategy::BestOf => proto::Strategy::BestOf,
            }
            .into(),
            content_json,
            template,
            data_json,
            locale: text(n.locale.as_ref().map(Locale::as_str)),
            expires_at_us: us(n.expires_at),
            collapse_key: n.collapse_key.clone().unwrap_or_default(),
            metadata: n.metadata.clone(),
            accepted_at_us: n.accepted_at.as_microsecond(),
        }
    }
}

impl TryFrom<proto::Notification> for Notification {
    type Error = DecodeError;
    fn try_from(n: proto::Notification) -> Result<Self, DecodeError> {
        let strategy = match n.strategy() {
            proto::Strategy::All => Strategy::All,
            proto::Strategy::BestOf => Strategy::BestOf,
            proto::Strategy::Unspecified => return field("strategy", Err("unknown".into())),
        };
        let message = message(&n)?;
        let channels = selectors(&n.channels)?;
        if channels.is_empty() {
            return field("channels", Err("empty".into()));
        }
        Ok(Self {
            id: field("id", NotificationId::from_str(&n.id))?,
            tenant: field("tenant", TenantId::parse(&n.tenant))?,
            recipient: recipient(n.recipient)?,
            category: optional("category", &n.category, CategoryKey::parse)?,
            priority: priority(n.priority)?,
            channels,
            strategy,
            message,
            locale: optional("locale", &n.locale, Locale::parse)?,
            expires_at: optional_time("expires_at_us", n.expires_at_us)?,
            collapse_key: some(n.collapse_key),
            metadata: n.metadata,
            accepted_at: time("accepted_at_us", n.accepted_at_us)?,
        })
    }
}

impl From<&Recipient> for proto::Recipient {
    fn from(recipient: &Recipient) -> Self {
        let to = match recipient {
            Recipient::User(user) => proto::recipient::To::User(user.as_str().to_owned()),
            Recipient::Address(channel, address) => proto::recipient::To::Address(proto::RawAddress {
                channel: channel.as_str().to_owned(),
                address: address.expose().to_owned(),
            }),
        };
        Self { to: Some(to) }
    }
}

fn recipient(message: Option<proto::Recipient>) -> Result<Recipient, DecodeError> {
    match message.and_then(|r| r.to) {
        Some(proto::recipient::To::User(user)) => Ok(Recipient::User(field("recipient.user", UserId::parse(&user))?)),
        Some(proto::recipient::To::Address(raw)) => {
            let channel = field("recipient.channel", Channel::parse(&raw.channel))?;
            Ok(Recipient::Address(channel, field("recipient.address", Address::parse(channel, &raw.address))?))
        }
        None => field("recipient", Err("missing".into())),
    }
}

impl From<&Delivery> for proto::Delivery {
    fn from(d: &Delivery) -> Self {
        let target = d.target.as_ref();
        Self {
            id: id(d.id.0),
            notification_id: id(d.notification.0),
            tenant: d.tenant.as_str().to_owned(),
            recipient: Some((&d.recipient).into()),
            channel: d.channel.as_str().to_owned(),
            address: d.address().map(|a| a.expose().to_owned()).unwrap_or_default(),
            address_since_us: us(target.and_then(|t| t.since)),
            app: text(target.and_then(|t| t.app.as_deref())),
            development: target.is_some_and(|t| t.environment == Environment::Sandbox),
            template: d.template.as_ref().map(ToString::to_string).unwrap_or_default(),
            locale: text(d.locale.as_ref().map(Locale::as_str)),
            provider: text(d.provider.as_deref()),
            leads: d.leads,
            category: text(d.category.as_ref().map(CategoryKey::as_str)),
            priority: u8::from(d.priority).into(),
            content_json: content_json(&d.content),
            expires_at_us: us(d.expires_at),
            collapse_key: d.collapse_key.clone().unwrap_or_default(),
            metadata: d.metadata.clone(),
            accepted_at_us: d.accepted_at.as_microsecond(),
            history: steps(&d.history),
        }
    }
}

impl TryFrom<proto::Delivery> for Delivery {
    type Error = DecodeError;
    fn try_from(d: proto::Delivery) -> Result<Self, DecodeError> {
        let channel = field("channel", Channel::parse(&d.channel))?;
        let target = target(channel, &d)?;
        Ok(Self {
            id: field("id", DeliveryId::from_str(&d.id))?,
            notification: field("notification_id", NotificationId::from_str(&d.notification_id))?,
            tenant: field("tenant", TenantId::parse(&d.tenant))?,
            recipient: recipient(d.recipient)?,
            channel,
            target,
            leads: d.leads,
            category: optional("category", &d.category, CategoryKey::parse)?,
            priority: priority(d.priority)?,
            content: json("content_json", &d.content_json)?,
            template: optional("template", &d.template, TemplateRef::parse)?,
            locale: optional("locale", &d.locale, Locale::parse)?,
            provider: some(d.provider),
            expires_at: optional_time("expires_at_us", d.expires_at_us)?,
            collapse_key: some(d.collapse_key),
            metadata: d.metadata,
            accepted_at: time("accepted_at_us", d.accepted_at_us)?,
            history: history(d.history)?,
        })
    }
}

fn target(channel: Channel, d: &proto::Delivery) -> Result<Option<Target>, DecodeError> {
    let Some(address) = optional("address", &d.address, |a| Address::parse(channel, a))? else { return Ok(None) };
    let since = optional_time("address_since_us", d.address_since_us)?;
    Ok(Some(Target { address, since, app: some(d.app.clone()), environment: environment(d.development) }))
}

pub(crate) const fn environment(development: bool) -> Environment {
    if development { Environment::Sandbox } else { Environment::Production }
}

pub(crate) fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

fn steps(history: &History) -> Vec<proto::Step> {
    let attempt = |a: &Attempt| proto::Attempt {
        number: a.number,
        outcome: a.outcome.clone(),
        answer: a.answer.clone(),
        took_ms: a.took_ms,
    };
    let step = |s: &Step| proto::Step {
        at_us: s.at.as_microsecond(),
        state: s.state.as_str().to_owned(),
        reason: text(s.reason.map(Reason::as_str)),
        attempt: s.attempt.as_ref().map(attempt),
    };
    history.0.iter().map(step).collect()
}

fn history(steps: Vec<proto::Step>) -> Result<History, DecodeError> {
    let attempt =
        |a: proto::Attempt| Attempt { number: a.number, outcome: a.outcome, answer: a.answer, took_ms: a.took_ms };
    let step = |s: proto::Step| {
        Ok(Step {
            at: time("history.at_us", s.at_us)?,
            state: field("history.state", State::parse(&s.state))?,
            reason: optional("history.reason", &s.reason, Reason::parse)?,
            attempt: s.attempt.map(attempt),
        })
    };
    steps.into_iter().map(step).collect::<Result<_, _>>().map(History)
}

impl From<&Status> for proto::StatusEvent {
    fn from(status: &Status) -> Self {
        let of = match status {
            Status::Notification(n) => proto::status_event::Of::Notification(n.into()),
            Status::Delivery(d) => proto::status_event::Of::Delivery(d.into()),
        };
        Self { of: Some(of) }
    }
}

impl TryFrom<proto::StatusEvent> for Status {
    type Error = DecodeError;
    fn try_from(event: proto::StatusEvent) -> Result<Self, DecodeError> {
        match event.of {
            Some(proto::status_event::Of::Notification(n)) => n.try_into().map(Self::Notification),
            Some(proto::status_event::Of::Delivery(d)) => d.try_into().map(Self::Delivery),
            None => field("of", Err("neither a notification nor a delivery".into())),
        }
    }
}

impl From<&NotificationStatus> for proto::NotificationStatus {
    fn from(n: &NotificationStatus) -> Self {
        Self {
            id: id(n.id.0),
            tenant: n.tenant.as_str().to_owned(),
            recipients: n.recipients,
            category: text(n.category.as_ref().map(CategoryKey::as_str)),
            priority: u8::from(n.priority).into(),
            channels: n.channels.iter().map(|c| c.as_str().to_owned()).collect(),
            accepted_at_us: n.accepted_at.as_microsecond(),
            expires_at_us: us(n.expires_at),
            metadata: n.metadata.clone(),
            template: text(n.template.as_deref()),
        }
    }
}

impl TryFrom<proto::NotificationStatus> for NotificationStatus {
    type Error = DecodeError;
    fn try_from(n: proto::NotificationStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            id: field("id", NotificationId::from_str(&n.id))?,
            tenant: field("tenant", TenantId::parse(&n.tenant))?,
            recipients: n.recipients,
            category: optional("category", &n.category, CategoryKey::parse)?,
            priority: priority(n.priority)?,
            channels: selectors(&n.channels)?,
            accepted_at: time("accepted_at_us", n.accepted_at_us)?,
            expires_at: optional_time("expires_at_us", n.expires_at_us)?,
            metadata: n.metadata,
            template: some(n.template),
        })
    }
}

impl From<&DeliveryStatus> for proto::DeliveryStatus {
    fn from(d: &DeliveryStatus) -> Self {
        Self {
            id: id(d.id.0),
            notification_id: id(d.notification.0),
            tenant: d.tenant.as_str().to_owned(),
            user: text(d.user.as_ref().map(UserId::as_str)),
            recipient_key: d.recipient_key.clone(),
            channel: d.channel.as_str().to_owned(),
            masked_address: d.address.clone().unwrap_or_default(),
            category: text(d.category.as_ref().map(CategoryKey::as_str)),
            priority: u8::from(d.priority).into(),
            state: d.state.as_str().to_owned(),
            reason: text(d.reason.map(Reason::as_str)),
            accepted_at_us: d.accepted_at.as_microsecond(),
            updated_at_us: d.updated_at.as_microsecond(),
            metadata: d.metadata.clone(),
            template: text(d.template.as_deref()),
            provider: text(d.provider.as_deref()),
            leads: d.leads,
            history: steps(&d.history),
        }
    }
}

impl TryFrom<proto::DeliveryStatus> for DeliveryStatus {
    type Error = DecodeError;
    fn try_from(d: proto::DeliveryStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            id: field("id", DeliveryId::from_str(&d.id))?,
            notification: field("notification_id", NotificationId::from_str(&d.notification_id))?,
            tenant: field("tenant", TenantId::parse(&d.tenant))?,
            user: optional("user", &d.user, UserId::parse)?,
            recipient_key: d.recipient_key,
            channel: field("channel", Channel::parse(&d.channel))?,
            address: some(d.masked_address),
            category: optional("category", &d.category, CategoryKey::parse)?,
            priority: priority(d.priority)?,
            state: field("state", State::parse(&d.state))?,
            reason: optional("reason", &d.reason, Reason::parse)?,
            accepted_at: time("accepted_at_us", d.accepted_at_us)?,
            updated_at: time("updated_at_us", d.updated_at_us)?,
            metadata: d.metadata,
            template: some(d.template),
            provider: some(d.provider),
            leads: d.leads,
            history: history(d.history)?,
        })
    }
}
