//! Domain types from the generated messages. An empty string stands for none.

use std::str::FromStr;

use domain::{
    Address, Attempt, CategoryKey, Channel, Delivery, DeliveryId, DeliveryStatus, Environment, History, Locale,
    Message, Notification, NotificationId, NotificationStatus, Plan, Planned, Priority, Reason, Recipient, Selector,
    State, Status, Step, Strategy, Target, TemplateRef, TenantId, Timestamp, UserId,
};

use crate::{DecodeError, proto};

/// Parses a field by a domain parser.
fn field<T>(field: &'static str, parsed: Result<T, String>) -> Result<T, DecodeError> {
    parsed.map_err(|detail| DecodeError::Field { field, detail })
}

/// Parses a field where an empty string stands for none.
fn optional<T>(
    name: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, DecodeError> {
    if text.is_empty() { Ok(None) } else { field(name, parse(text)).map(Some) }
}

fn time(name: &'static str, us: i64) -> Result<Timestamp, DecodeError> {
    field(name, Timestamp::from_microsecond(us).map_err(|e| e.to_string()))
}

fn optional_time(name: &'static str, us: i64) -> Result<Option<Timestamp>, DecodeError> {
    if us == 0 { Ok(None) } else { time(name, us).map(Some) }
}

fn priority(value: u32) -> Result<Priority, DecodeError> {
    field("priority", Priority::parse(value.into()))
}

fn selectors(names: &[String]) -> Result<Vec<Selector>, DecodeError> {
    names.iter().map(|c| field("channels", Selector::parse(c))).collect()
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

const fn environment(development: bool) -> Environment {
    if development { Environment::Sandbox } else { Environment::Production }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
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

impl TryFrom<proto::Decision> for Plan {
    type Error = DecodeError;
    fn try_from(decision: proto::Decision) -> Result<Self, DecodeError> {
        if decision.lines.is_empty() {
            return field("lines", Err("empty".into()));
        }
        let lines = decision.lines.into_iter().map(planned).collect::<Result<_, _>>()?;
        Ok(Self {
            at: time("at_us", decision.at_us)?,
            accepted_at: time("accepted_at_us", decision.accepted_at_us)?,
            lines,
        })
    }
}

fn planned(line: proto::Line) -> Result<Planned, DecodeError> {
    let channel = field("channel", Channel::parse(&line.channel))?;
    if let Some(state) = optional("state", &line.state, State::parse)? {
        return Ok(Planned::End { channel, state, reason: field("reason", Reason::parse(&line.reason))? });
    }
    let target = Target {
        address: field("address", Address::parse(channel, &line.address))?,
        since: optional_time("address_since_us", line.address_since_us)?,
        app: some(line.app),
        environment: environment(line.development),
    };
    Ok(Planned::Send { channel, target, locale: optional("locale", &line.locale, Locale::parse)? })
}
