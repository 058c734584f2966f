//! A user as their copy in Redis has them. It is read for every notification, so texts are read where they lie and times are
//! numbers; the record is what lasts, so a copy of another form is only one more that is not there.

use std::collections::BTreeMap;

use domain::{
    Address, CategoryKey, CategoryRule, Channel, Contact, Contacts, Device, DeviceId, Environment, Locale, Preferences,
    Timestamp, User,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{StoreError, UserKey};

/// Without the names, which are in the key. Times are microseconds. Addresses are exposed: this goes into a store, never into a
/// log.
#[derive(Serialize, Deserialize)]
struct Row<'a> {
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
    #[serde(borrow)]
    contacts: Vec<ContactRow<'a>>,
    #[serde(borrow)]
    devices: Vec<DeviceRow<'a>>,
    all: Option<bool>,
    #[serde(borrow)]
    channels: Rules<'a>,
    #[serde(borrow)]
    categories: Categories<'a>,
    updated_at: i64,
}

type Rules<'a> = Vec<(&'a str, bool)>;

type Categories<'a> = Vec<(&'a str, Option<bool>, Rules<'a>)>;

#[derive(Serialize, Deserialize)]
struct ContactRow<'a> {
    channel: &'a str,
    address: &'a str,
    since: i64,
}

#[derive(Serialize, Deserialize)]
struct DeviceRow<'a> {
    id: [u8; 16],
    channel: &'a str,
    app: &'a str,
    token: &'a str,
    development: bool,
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
    registered_at: i64,
    last_active_at: i64,
}

/// A user's copy.
pub(super) fn encode(user: &User) -> Result<Vec<u8>, StoreError> {
    let Preferences { all, channels, categories } = &user.preferences;
    let row = Row {
        locale: user.locale.as_ref().map(Locale::as_str),
        time_zone: user.time_zone.as_deref(),
        contacts: user.contacts.iter().map(ContactRow::of).collect(),
        devices: user.devices.iter().map(DeviceRow::of).collect(),
        all: *all,
        channels: rules(channels),
        categories: categories.iter().map(|(key, rule)| (key.as_str(), rule.all, rules(&rule.channels))).collect(),
        updated_at: user.updated_at.as_microsecond(),
    };
    postcard::to_allocvec(&row).map_err(|e| StoreError::corrupt("a user's copy", e))
}

/// The reverse of [`encode`]; `None` for what another version wrote.
pub(super) fn decode(key: &UserKey, copy: &[u8]) -> Option<User> {
    let row: Row<'_> = postcard::from_bytes(copy).ok()?;
    let mut contacts = Contacts::default();
    for ContactRow { channel, address, since } in row.contacts {
        let channel = Channel::parse(channel).ok()?;
        contacts.add(channel, Contact { address: Address::parse(channel, address).ok()?, since: time(since)? });
    }
    Some(User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: locale(row.locale)?,
        time_zone: row.time_zone.map(str::to_owned),
        contacts,
        devices: row.devices.into_iter().map(DeviceRow::device).collect::<Option<_>>()?,
        preferences: preferences_of(row.all, row.channels, row.categories)?,
        updated_at: time(row.updated_at)?,
    })
}

/// The preferences of a copy: what else is there is passed over.
pub(super) fn preferences(_: &UserKey, copy: &[u8]) -> Option<Preferences> {
    let row: Row<'_> = postcard::from_bytes(copy).ok()?;
    preferences_of(row.all, row.channels, row.categories)
}

fn preferences_of(all: Option<bool>, channels: Rules<'_>, categories: Categories<'_>) -> Option<Preferences> {
    let category = |(key, all, channels)| {
        Some((CategoryKey::parse(key).ok()?, CategoryRule { all, channels: rules_of(channels) }))
    };
    let categories = categories.into_iter().map(category).collect::<Option<_>>()?;
    Some(Preferences { all, channels: rules_of(channels), categories })
}

impl<'a> ContactRow<'a> {
    fn of((channel, contact): (Channel, &'a Contact)) -> Self {
        let since = contact.since.as_microsecond();
        Self { channel: channel.as_str(), address: contact.address.expose(), since }
    }
}

impl<'a> DeviceRow<'a> {
    fn of(device: &'a Device) -> Self {
        Self {
            id: device.id.0.into_bytes(),
            channel: device.channel.as_str(),
            app: &device.app,
            token: device.token.expose(),
            development: device.environment == Environment::Sandbox,
            locale: device.locale.as_ref().map(Locale::as_str),
            time_zone: device.time_zone.as_deref(),
            registered_at: device.registered_at.as_microsecond(),
            last_active_at: device.last_active_at.as_microsecond(),
        }
    }

    fn device(self) -> Option<Device> {
        let channel = Channel::parse(self.channel).ok()?;
        Some(Device {
            id: DeviceId(Uuid::from_bytes(self.id)),
            channel,
            app: self.app.to_owned(),
            token: Address::parse(channel, self.token).ok()?,
            environment: if self.development { Environment::Sandbox } else { Environment::Production },
            locale: locale(self.locale)?,
            time_zone: self.time_zone.map(str::to_owned),
            registered_at: time(self.registered_at)?,
            last_active_at: time(self.last_active_at)?,
        })
    }
}

fn rules(rules: &BTreeMap<String, bool>) -> Rules<'_> {
    rules.iter().map(|(name, said)| (name.as_str(), *said)).collect()
}

fn rules_of(rules: Rules<'_>) -> BTreeMap<String, bool> {
    rules.into_iter().map(|(name, said)| (name.to_owned(), said)).collect()
}

/// Nothing if it is not one; `Some(None)` if there is none.
fn locale(text: Option<&str>) -> Option<Option<Locale>> {
    text.map(Locale::parse).transpose().ok()
}

fn time(us: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(us).ok()
}

#[cfg(test)]
mod tests {
    use domain::{TenantId, UserId};

    use super::*;

    #[test]
    fn a_copy_is_the_user_and_part_of_one_is_nothing() {
        let (us, name) = (|us| Timestamp::from_microsecond(us).expect("a time"), |s: &str| s.to_owned());
        let (tenant, id) = (TenantId::parse("t").expect("valid"), UserId::parse("ana").expect("valid"));
        let mut contacts = Contacts::default();
        for (channel, address) in [(Channel::Email, "ana@a.example"), (Channel::Webhook, "https://a.example/x")] {
            contacts.add(channel, Contact { address: Address::parse(channel, address).expect("valid"), since: us(1) });
        }
        let token = Address::parse(Channel::Apns, &"ab".repeat(32)).expect("valid");
        let device = Device {
            id: DeviceId::derive(&tenant, Channel::Apns, "com.example", &token),
            channel: Channel::Apns,
            app: name("com.example"),
            token,
            environment: Environment::Sandbox,
            locale: Locale::parse("de-CH").ok(),
            time_zone: Some(name("Europe/Zurich")),
            registered_at: us(2),
            last_active_at: us(3),
        };
        let rule = CategoryRule { all: Some(false), channels: [(name("sms"), true)].into() };
        let user = User {
            tenant: tenant.clone(),
            id: id.clone(),
            locale: Locale::parse("en").ok(),
            time_zone: None,
            contacts,
            devices: vec![Device { locale: None, time_zone: None, ..device.clone() }, device],
            preferences: Preferences {
                all: Some(true),
                channels: [(name("push"), false)].into(),
                categories: [(CategoryKey::parse("orders").expect("valid"), rule)].into(),
            },
            updated_at: us(4),
        };
        let (key, copy) = (UserKey { tenant, user: id }, encode(&user).expect("encodes"));
        assert_eq!(decode(&key, &copy).as_ref(), Some(&user));
        for end in 0..copy.len() {
            assert_eq!(decode(&key, &copy[..end]), None, "{end} of {} bytes", copy.len());
        }
    }
}
