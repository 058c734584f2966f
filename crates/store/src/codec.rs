//! How users and index documents are written down: JSON, the same in every store; and how addresses are named in keys.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use data_encoding::HEXLOWER;
use domain::{
    Address, CategoryKey, Channel, Contact, Contacts, DeliveryId, DeliveryStatus, History, Locale, NotificationId,
    NotificationStatus, Preferences, Priority, Reason, Selector, State, Status, TenantId, Timestamp, User, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Document, words};

/// What a user is apart from their name, devices and preferences. Addresses are exposed: this goes into a store, never into a log.
#[derive(Serialize, Deserialize)]
struct ProfileRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<Locale>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    #[serde(default)]
    contacts: BTreeMap<String, Vec<ContactRow>>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ContactRow {
    /// As the first version wrote it: it was added with the profile, or before.
    Undated(String),
    Dated {
        address: String,
        #[serde(with = "micros")]
        since: Timestamp,
    },
}

/// What a user is apart from their name, devices and preferences.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    pub locale: Option<Locale>,
    pub time_zone: Option<String>,
    pub contacts: Contacts,
}

impl ProfileRow {
    /// With the date of each contact as `since` has it.
    fn of(user: &User, since: impl Fn(Channel, &Contact) -> Timestamp) -> Self {
        let mut contacts = BTreeMap::<_, Vec<_>>::new();
        for (channel, contact) in user.contacts.iter() {
            let row =
                ContactRow::Dated { address: contact.address.expose().to_owned(), since: since(channel, contact) };
            contacts.entry(channel.to_string()).or_default().push(row);
        }
        Self { locale: user.locale.clone(), time_zone: user.time_zone.clone(), contacts }
    }
}

impl Profile {
    /// A contact without a date has been there since `written_at`.
    fn of(row: ProfileRow, written_at: Timestamp) -> Result<Self, String> {
        let mut contacts = Contacts::default();
        for (name, addresses) in row.contacts {
            // a newer version of Carillon has channels that this one cannot send on
            let Ok(channel) = Channel::parse(&name) else { continue };
            for row in addresses {
                let (address, since) = match row {
                    ContactRow::Undated(address) => (address, written_at),
                    ContactRow::Dated { address, since } => (address, since),
                };
                contacts.add(channel, Contact { address: Address::parse(channel, &address)?, since });
            }
        }
        Ok(Self { locale: row.locale, time_zone: row.time_zone, contacts })
    }
}

/// Contacts, locale and time zone of a user as JSON, for stores that keep them apart from the preferences. A contact that is
/// `there` keeps its date: whoever names it once more, as in a nightly import, does not know that it is alive.
pub(crate) fn encode_profile(user: &User, there: Option<&User>) -> String {
    let known = |channel, contact: &Contact| {
        let on_channel = there.map_or(&[][..], |user| user.contacts.on(channel));
        on_channel.iter().find(|known| known.address == contact.address).map_or(contact.since, |known| known.since)
    };
    json!(ProfileRow::of(user, known)).to_string()
}

/// The reverse of [`encode_profile`], of one that was written at that time.
pub(crate) fn decode_profile(json: &str, written_at: Timestamp) -> Result<Profile, String> {
    Profile::of(serde_json::from_str(json).map_err(|e| place(&e))?, written_at)
}

/// The channel with the SHA-256 of an address, in hex: a name for it where the address itself must not show.
pub(crate) fn address_key(channel: Channel, address: &Address) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, address.expose().as_bytes());
    [channel.as_str(), ":", &HEXLOWER.encode(digest.as_ref())].concat()
}

/// Preferences as JSON.
pub(crate) fn encode_preferences(preferences: &Preferences) -> String {
    json!(preferences).to_string()
}

/// The reverse of [`encode_preferences`].
pub(crate) fn decode_preferences(json: &str) -> Result<Preferences, String> {
    serde_json::from_str(json).map_err(|e| place(&e))
}

/// An index document, flat. It borrows what is written and owns what is read.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Row<'a> {
    Notification(NotificationRow<'a>),
    Delivery(DeliveryRow<'a>),
}

#[derive(Serialize, Deserialize)]
struct NotificationRow<'a> {
    id: NotificationId,
    notification: NotificationId,
    tenant: Cow<'a, TenantId>,
    recipients: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Cow<'a, CategoryKey>>,
    priority: Priority,
    channels: Cow<'a, [Selector]>,
    #[serde(with = "micros")]
    accepted_at: Timestamp,
    #[serde(with = "micros")]
    updated_at: Timestamp,
    #[serde(default, with = "optional_micros", skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<Cow<'a, str>>,
    metadata: Cow<'a, BTreeMap<String, String>>,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct DeliveryRow<'a> {
    id: DeliveryId,
    notification: NotificationId,
    tenant: Cow<'a, TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, UserId>>,
    recipient: Cow<'a, str>,
    channel: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Cow<'a, CategoryKey>>,
    priority: Priority,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<Cow<'a, str>>,
    #[serde(default)]
    leads: bool,
    #[serde(with = "micros")]
    accepted_at: Timestamp,
    #[serde(with = "micros")]
    updated_at: Timestamp,
    metadata: Cow<'a, BTreeMap<String, String>>,
    version: u64,
    history: Cow<'a, History>,
    /// What it is found by, where the index does not cut it itself.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    words: Option<BTreeSet<String>>,
}

/// The version of a notification's document: it is written once and has no steps.
pub(crate) const NOTIFICATION_VERSION: u64 = 1;

/// An index document as flat JSON at the end of `to`, with the words that a delivery is found by. Times are RFC 3339 in UTC with
/// microseconds, so that they sort as text.
pub(crate) fn write_document(document: &Document, to: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut row = Row::of(document);
    if let (Row::Delivery(row), Status::Delivery(d)) = (&mut row, document) {
        row.words = Some(words::of(d));
    }
    serde_json::to_writer(to, &row)
}

/// The reverse of [`write_document`].
pub(crate) fn document_from_json(json: Value) -> Result<Document, String> {
    document_from_row(serde_json::from_value(json).map_err(|e| place(&e))?)
}

/// The reverse of [`write_document`], from text.
pub(crate) fn document_from_text(json: &[u8]) -> Result<Document, String> {
    document_from_row(serde_json::from_slice(json).map_err(|e| place(&e))?)
}

fn document_from_row(row: Row<'_>) -> Result<Document, String> {
    Ok(match row {
        Row::Notification(row) => Status::Notification(row.into()),
        Row::Delivery(row) => Status::Delivery(row.try_into()?),
    })
}

impl<'a> Row<'a> {
    fn of(document: &'a Document) -> Self {
        match document {
            Status::Notification(n) => Self::Notification(n.into()),
            Status::Delivery(d) => Self::Delivery(d.into()),
        }
    }
}

impl<'a> From<&'a NotificationStatus> for NotificationRow<'a> {
    fn from(n: &'a NotificationStatus) -> Self {
        Self {
            id: n.id,
            notification: n.id,
            tenant: Cow::Borrowed(&n.tenant),
            recipients: n.recipients,
            category: n.category.as_ref().map(Cow::Borrowed),
            priority: n.priority,
            channels: Cow::Borrowed(&n.channels),
            accepted_at: n.accepted_at,
            updated_at: n.accepted_at,
            expires_at: n.expires_at,
            template: n.template.as_deref().map(Cow::Borrowed),
            metadata: Cow::Borrowed(&n.metadata),
            version: NOTIFICATION_VERSION,
        }
    }
}

impl From<NotificationRow<'_>> for NotificationStatus {
    fn from(row: NotificationRow<'_>) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant.into_owned(),
            recipients: row.recipients,
            category: row.category.map(Cow::into_owned),
            priority: row.priority,
            channels: row.channels.into_owned(),
            accepted_at: row.accepted_at,
            expires_at: row.expires_at,
            template: row.template.map(Cow::into_owned),
            metadata: row.metadata.into_owned(),
        }
    }
}

impl<'a> From<&'a DeliveryStatus> for DeliveryRow<'a> {
    fn from(d: &'a DeliveryStatus) -> Self {
        Self {
            id: d.id,
            notification: d.notification,
            tenant: Cow::Borrowed(&d.tenant),
            user: d.user.as_ref().map(Cow::Borrowed),
            recipient: Cow::Borrowed(&d.recipient_key),
            channel: Cow::Borrowed(d.channel.as_str()),
            address: d.address.as_deref().map(Cow::Borrowed),
            category: d.category.as_ref().map(Cow::Borrowed),
            priority: d.priority,
            state: d.state,
            reason: d.reason,
            template: d.template.as_deref().map(Cow::Borrowed),
            provider: d.provider.as_deref().map(Cow::Borrowed),
            leads: d.leads,
            accepted_at: d.accepted_at,
            updated_at: d.updated_at,
            metadata: Cow::Borrowed(&d.metadata),
            version: d.version(),
            history: Cow::Borrowed(&d.history),
            words: None,
        }
    }
}

impl TryFrom<DeliveryRow<'_>> for DeliveryStatus {
    type Error = String;
    fn try_from(row: DeliveryRow<'_>) -> Result<Self, String> {
        Ok(Self {
            id: row.id,
            notification: row.notification,
            tenant: row.tenant.into_owned(),
            user: row.user.map(Cow::into_owned),
            recipient_key: row.recipient.into_owned(),
            channel: Channel::parse(&row.channel)?,
            address: row.address.map(Cow::into_owned),
            category: row.category.map(Cow::into_owned),
            priority: row.priority,
            state: row.state,
            reason: row.reason,
            template: row.template.map(Cow::into_owned),
            provider: row.provider.map(Cow::into_owned),
            leads: row.leads,
            accepted_at: row.accepted_at,
            updated_at: row.updated_at,
            metadata: row.metadata.into_owned(),
            history: row.history.into_owned(),
        })
    }
}

/// Where the JSON is wrong. Serde's own words would quote what it found, which may be an address.
pub(crate) fn place(e: &serde_json::Error) -> String {
    format!("not the JSON that was expected, at line {} column {}", e.line(), e.column())
}

/// A time as RFC 3339 with six decimals.
pub(crate) mod micros {
    use domain::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{at:.6}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(from)
    }
}

/// The same for a time that may be missing.
mod optional_micros {
    use domain::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::micros::serialize(at, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_profile_is_described_without_quoting_it() {
        for json in
            [r#"{"contacts": {"webhook": "https://secret.example/x"}}"#, r#"{"contacts": {"webhook": ["secret"]}}"#]
        {
            let error = decode_profile(json, Timestamp::UNIX_EPOCH).expect_err("wrong");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn times_in_documents_sort_as_text() {
        let text = |s: &str| json!({ "at": s }).to_string();
        let at = |s: &str| {
            let n = NotificationStatus {
                id: NotificationId(uuid::Uuid::nil()),
                tenant: TenantId::parse("t").expect("name"),
                recipients: 1,
                category: None,
                priority: Priority::default(),
                channels: vec![],
                accepted_at: s.parse().expect("time"),
                expires_at: None,
                template: None,
                metadata: BTreeMap::new(),
            };
            let mut json = Vec::new();
            write_document(&Status::Notification(n), &mut json).expect("json");
            let json: Value = serde_json::from_slice(&json).expect("json");
            json!({ "at": json["accepted_at"] }).to_string()
        };
        assert_eq!(at("2026-11-21T09:00:00Z"), text("2026-11-21T09:00:00.000000Z"));
        assert_eq!(at("2026-11-21T10:00:00.1+01:00"), text("2026-11-21T09:00:00.100000Z"));
    }
}
