//! The one parser of a notification: from JSON to what will be published, or to everything that is wrong with it.

use std::collections::{BTreeMap, HashSet};

use bus::config::Snapshot;
use domain::{
    Address, CategoryKey, Channel, Content, FieldErrors, Locale, Message, Notification, NotificationId, Priority,
    Recipient, Selector, Strategy, TenantId, Timestamp, UserId, content::escape, notification::MAX_RECIPIENTS,
};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::message::{self, Around, Said};
use crate::body;

const KNOWN: [&str; 12] = [
    "to",
    "category",
    "priority",
    "channels",
    "strategy",
    "template",
    "data",
    "content",
    "locale",
    "expires_at",
    "collapse_key",
    "metadata",
];
const PLANNED: [&str; 4] = ["send_at", "digest", "fallback", "escalation"];
const MAX_METADATA: usize = 50;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;
const MAX_COLLAPSE_KEY: usize = 64;

/// A notification as asked for.
#[derive(serde::Deserialize, ToSchema)]
#[schema(as = NotificationRequest)]
pub struct Request {
    /// Who gets it: 1 to 1,000; one that is named twice is reached once.
    #[serde(default)]
    #[schema(required, min_items = 1, max_items = 1000)]
    to: Vec<To>,
    /// What the user can opt out of; one that the configuration declares.
    category: Option<String>,
    /// 8 to 10 goes through the high lane, 1 to 3 through the low one.
    #[schema(minimum = 1, maximum = 10, default = 5)]
    priority: Option<i64>,
    /// Channels or types, in order; left out, the category's list applies.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    channels: Option<Vec<String>>,
    /// `all` (every channel) or `best_of` (the first that has an address and may be used).
    #[schema(default = "all")]
    strategy: Option<String>,
    /// The key of a template: its version that is published now. Either this or `content`.
    template: Option<String>,
    /// Values of the template's variables: at most 64 KiB as JSON.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
    /// `default` with `title` and `body`, and by channel what it says instead; at most 64 KiB as JSON.
    #[schema(value_type = Option<Object>, example = json!({"default": {"title": "Shipped", "body": "It is on its way."}}))]
    content: Option<Map<String, Value>>,
    /// The language to say it in, for instance `de-CH`, instead of each recipient's own.
    locale: Option<String>,
    /// Not delivered from then on.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// A later notification with the same key may replace this one: 1 to 64 visible characters.
    collapse_key: Option<String>,
    /// The client's own, given back with every answer: at most 50 entries, keys of 64 and values of 512 characters.
    metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

/// One recipient: `user`, or `channel` and `address`.
#[derive(serde::Deserialize, ToSchema)]
#[schema(as = RecipientRequest)]
pub struct To {
    /// A user's id.
    user: Option<String>,
    /// The channel of a raw address.
    channel: Option<String>,
    /// A raw address: nobody's preferences apply.
    address: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

/// A checked request: what will be published, for all of its recipients.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Each once, never empty.
    pub recipients: Vec<Recipient>,
    /// What the user can opt out of.
    pub category: Option<CategoryKey>,
    /// 1 to 10.
    pub priority: Priority,
    /// As asked, or as the category says; never empty.
    pub channels: Vec<Selector>,
    /// How many of the channels are used.
    pub strategy: Strategy,
    /// What to say.
    pub message: Message,
    /// The language to say it in, instead of the recipient's own.
    pub locale: Option<Locale>,
    /// Not delivered from then on.
    pub expires_at: Option<Timestamp>,
    /// A later one may replace this one.
    pub collapse_key: Option<String>,
    /// The client's own.
    pub metadata: BTreeMap<String, String>,
}

impl Draft {
    /// The notification for one of the recipients.
    pub fn notification(
        self,
        id: NotificationId,
        tenant: TenantId,
        now: Timestamp,
        recipient: Recipient,
    ) -> Notification {
        Notification {
            id,
            tenant,
            recipient,
            category: self.category,
            priority: self.priority,
            channels: self.channels,
            strategy: self.strategy,
            message: self.message,
            locale: self.locale,
            expires_at: self.expires_at,
            collapse_key: self.collapse_key,
            metadata: self.metadata,
            accepted_at: now,
        }
    }
}

/// Parses and checks a request; `at` is its own pointer, and it has to expire after `now`. The error holds all that is wrong, not
/// only the first.
pub fn parse(
    json: &[u8],
    at: &str,
    tenant: &TenantId,
    config: &Snapshot,
    now: Timestamp,
) -> Result<Draft, FieldErrors> {
    let request: Request = body::parse(json, at)?;
    let mut errors = FieldErrors::default();
    body::check_names(&request.extra, &KNOWN, &PLANNED, at, &mut errors);
    let recipients = recipients(&request.to, at, &mut errors);
    let category = request.category.map(|c| category(&c, at, tenant, config, &mut errors));
    let channels = channels(request.channels.unwrap_or_default(), category.as_ref(), &request.to, at, &mut errors);
    let category = category.flatten();
    let priority = match request.priority {
        Some(p) => errors.take(&format!("{at}/priority"), Priority::parse(p)),
        None => Some(Priority::default()),
    };
    let strategy = request.strategy.map_or(Some(Strategy::All), |s| strategy(&s, at, &mut errors));
    let locale = request.locale.and_then(|l| errors.take(&format!("{at}/locale"), Locale::parse(&l)));
    let said = Said { template: request.template, data: request.data, content: request.content };
    let around = Around { at, tenant, config, channels: &channels, locale: locale.as_ref() };
    let message = message::parse(said, &around, &mut errors);
    let expires_at = request.expires_at.and_then(|e| expires_at(&e, at, now, &mut errors));
    check_own_channels(&recipients, &channels, at, &mut errors);
    check_collapse_key(request.collapse_key.as_deref(), at, &mut errors);
    let metadata = request.metadata.unwrap_or_default();
    check_metadata(&metadata, at, &mut errors);
    errors.into_result()?;
    // all are there when nothing is wrong
    let (priority, strategy) = (priority.unwrap_or_default(), strategy.unwrap_or_default());
    let message = message.unwrap_or_else(|| Message::Content(Content::default()));
    let mut seen = HashSet::new();
    let recipients = recipients.into_iter().map(|(_, r)| r).filter(|r| seen.insert(r.clone())).collect();
    Ok(Draft {
        recipients,
        category: category.map(|(key, _)| key),
        priority,
        channels,
        strategy,
        message,
        locale,
        expires_at,
        collapse_key: request.collapse_key,
        metadata,
    })
}

/// The valid ones, each with its place in the request.
fn recipients(to: &[To], at: &str, errors: &mut FieldErrors) -> Vec<(usize, Recipient)> {
    if to.is_empty() || to.len() > MAX_RECIPIENTS {
        errors.add(format!("{at}/to"), format!("give 1 to 1,000 recipients, not {}; split a larger request", to.len()));
        return Vec::new();
    }
    to.iter().enumerate().filter_map(|(i, to)| Some((i, recipient(to, &format!("{at}/to/{i}"), errors)?))).collect()
}

fn recipient(to: &To, at: &str, errors: &mut FieldErrors) -> Option<Recipient> {
    body::check_names(&to.extra, &["user", "channel", "address"], &["topic"], at, errors);
    match (&to.user, &to.channel, &to.address) {
        (Some(user), None, None) => errors.take(&format!("{at}/user"), UserId::parse(user)).map(Recipient::User),
        (None, Some(channel), Some(address)) => {
            let channel = errors.take(&format!("{at}/channel"), Channel::parse(channel))?;
            let address = errors.take(&format!("{at}/address"), Address::parse(channel, address))?;
            Some(Recipient::Address(channel, address))
        }
        (None, None, None) if !to.extra.is_empty() => None,
        _ => {
            errors.add(at, "a recipient is either `user`, or `channel` and `address`");
            None
        }
    }
}

/// The category and the channels that the configuration gives it.
fn category(
    text: &str,
    at: &str,
    tenant: &TenantId,
    config: &Snapshot,
    errors: &mut FieldErrors,
) -> Option<(CategoryKey, Vec<Selector>)> {
    let pointer = format!("{at}/category");
    let key = errors.take(&pointer, CategoryKey::parse(text))?;
    if let Some(category) = config.category(tenant, &key) {
        return Some((key, category.channels.clone()));
    }
    let mut known: Vec<&str> = config.categories(tenant).map(CategoryKey::as_str).collect();
    known.sort_unstable();
    let shown = known.len().min(20);
    let known = if known.is_empty() {
        "none is declared yet".into()
    } else {
        format!("there are {}", known[..shown].join(", "))
    };
    errors
        .add(pointer, format!("there is no category `{key}`: {known}; an operator declares one in config/categories"));
    None
}

/// Those asked for; else the category's; else, if all recipients are raw addresses, the channels of these.
fn channels(
    asked: Vec<String>,
    category: Option<&Option<(CategoryKey, Vec<Selector>)>>,
    to: &[To],
    at: &str,
    errors: &mut FieldErrors,
) -> Vec<Selector> {
    let pointer = format!("{at}/channels");
    let mut channels = Vec::new();
    let mut add = |selector| {
        if !channels.contains(&selector) {
            channels.push(selector)
        }
    };
    if !asked.is_empty() {
        for (i, name) in asked.iter().enumerate().take(100) {
            errors.take(&format!("{pointer}/{i}"), Selector::parse(name)).map(&mut add);
        }
    } else if let Some(category) = category {
        // one that is unknown is refused on its own
        let Some((key, own)) = category else { return channels };
        own.iter().copied().for_each(&mut add);
        if own.is_empty() {
            errors.add(pointer, format!("give `channels`: the category `{key}` has none of its own"));
        }
    } else if !to.is_empty() && to.iter().all(|to| to.channel.is_some()) {
        to.iter()
            .filter_map(|to| Channel::parse(to.channel.as_deref()?).ok())
            .map(Selector::Channel)
            .for_each(&mut add);
    } else {
        errors.add(pointer, "give `channels`, or a `category` that has channels");
    }
    channels
}

/// A raw address whose channel is not used would be accepted and never reached.
fn check_own_channels(recipients: &[(usize, Recipient)], channels: &[Selector], at: &str, errors: &mut FieldErrors) {
    for (i, recipient) in recipients {
        if let Recipient::Address(own, _) = recipient
            && !channels.is_empty()
            && !channels.iter().any(|s| s.channels().any(|c| c == *own))
        {
            errors.add(format!("{at}/to/{i}/channel"), format!("`{own}` is not among the channels that are used"));
        }
    }
}

fn strategy(text: &str, at: &str, errors: &mut FieldErrors) -> Option<Strategy> {
    let parsed = match text {
        "all" => Ok(Strategy::All),
        "best_of" => Ok(Strategy::BestOf),
        "fallback" => Err("the strategy `fallback` is not yet built in this version; use all or best_of".to_owned()),
        other => Err(body::unknown(other, &["all", "best_of"])),
    };
    errors.take(&format!("{at}/strategy"), parsed)
}

fn expires_at(text: &str, at: &str, now: Timestamp, errors: &mut FieldErrors) -> Option<Timestamp> {
    let parsed = match text.parse::<Timestamp>() {
        Err(_) => Err("not a time; write it as RFC 3339 has it, like 2026-12-01T09:00:00Z".to_owned()),
        Ok(time) if time <= now => Err(format!("this has passed already; it is {now:.0} here")),
        Ok(time) => Ok(time),
    };
    errors.take(&format!("{at}/expires_at"), parsed)
}

fn check_collapse_key(key: Option<&str>, at: &str, errors: &mut FieldErrors) {
    let ok = |k: &str| (1..=MAX_COLLAPSE_KEY).contains(&k.len()) && k.bytes().all(|b| b.is_ascii_graphic());
    if !key.is_none_or(ok) {
        errors.add(format!("{at}/collapse_key"), "a collapse key has 1 to 64 visible ASCII characters");
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>, at: &str, errors: &mut FieldErrors) {
    let pointer = format!("{at}/metadata");
    if metadata.len() > MAX_METADATA {
        errors.add(&pointer, format!("at most {MAX_METADATA} entries, not {}", metadata.len()));
        return;
    }
    for (key, value) in metadata {
        let pointer = format!("{pointer}/{}", escape(key));
        if !(1..=MAX_METADATA_KEY).contains(&key.chars().count()) {
            errors.add(&pointer, format!("a metadata key has 1 to {MAX_METADATA_KEY} characters"));
        }
        if value.chars().count() > MAX_METADATA_VALUE {
            errors.add(&pointer, format!("a metadata value has at most {MAX_METADATA_VALUE} characters"));
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
