//! A person: where they can be reached and what they want.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{Address, Channel, Device, FieldErrors, Locale, Preferences, Target, TenantId, UserId, content::escape};

/// Most addresses of one user on one channel.
pub const MAX_ADDRESSES: usize = 5;

/// A user as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// The owner.
    pub tenant: TenantId,
    /// The tenant's name for the person.
    pub id: UserId,
    /// What they read.
    pub locale: Option<Locale>,
    /// IANA, for instance `Europe/Zurich`.
    pub time_zone: Option<String>,
    /// Where they can be reached.
    pub contacts: Contacts,
    /// Where pushes go.
    pub devices: Vec<Device>,
    /// What they want.
    pub preferences: Preferences,
    /// When it last changed; also its version: of two writes the later one wins.
    pub updated_at: Timestamp,
}

impl User {
    /// Where they are reached on a channel: contacts, or devices with the language that is read on each.
    pub fn targets(&self, channel: Channel) -> Vec<(Target, Option<&Locale>)> {
        let contact = |c: &Contact| Target { since: Some(c.since), ..Target::raw(c.address.clone()) };
        let contacts = self.contacts.on(channel).iter().map(|c| (contact(c), None));
        let devices = self.devices.iter().filter(|d| d.channel == channel).map(|d| (d.into(), d.locale.as_ref()));
        contacts.chain(devices).collect()
    }
}

/// An address and since when it is the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Where.
    pub address: Address,
    /// Since when: a provider that says that it was gone before that does not speak of this one.
    pub since: Timestamp,
}

/// Addresses by channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contacts(BTreeMap<Channel, Vec<Contact>>);

impl Contacts {
    /// Checks contacts as a request of that time has them: a list of addresses by channel name.
    pub fn parse(raw: BTreeMap<String, Vec<String>>, at: &str, since: Timestamp) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let mut contacts = Self::default();
        for (name, texts) in raw {
            let pointer = format!("{at}/{}", escape(&name));
            let Some(channel) = errors.take(&pointer, Channel::parse(&name)) else { continue };
            if channel.has_devices() {
                errors.add(&pointer, "has devices, not contacts; register them at POST /v1/users/{user}/devices");
                continue;
            }
            if texts.len() > MAX_ADDRESSES {
                errors.add(&pointer, format!("at most {MAX_ADDRESSES} addresses for a channel, not {}", texts.len()));
            }
            for (i, text) in texts.iter().enumerate() {
                if let Some(address) = errors.take(&format!("{pointer}/{i}"), Address::parse(channel, text)) {
                    contacts.add(channel, Contact { address, since });
                }
            }
        }
        errors.into_result().map(|()| contacts)
    }

    /// Adds an address unless it is there.
    pub fn add(&mut self, channel: Channel, contact: Contact) {
        let list = self.0.entry(channel).or_default();
        if list.iter().all(|c| c.address != contact.address) {
            list.push(contact);
        }
    }

    /// The addresses on a channel.
    pub fn on(&self, channel: Channel) -> &[Contact] {
        self.0.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// Every address with its channel.
    pub fn iter(&self) -> impl Iterator<Item = (Channel, &Contact)> {
        self.0.iter().flat_map(|(channel, list)| list.iter().map(|c| (*channel, c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_name_the_bad_one() {
        let raw =
            |json: &str| Contacts::parse(serde_json::from_str(json).expect("JSON"), "/contacts", Timestamp::UNIX_EPOCH);
        let good =
            raw(r#"{"webhook": ["https://a.example/x", "https://a.example/x", "https://b.example/"]}"#).expect("ok");
        assert_eq!(good.on(Channel::Webhook).len(), 2);
        let bad =
            raw(r#"{"webhook": ["https://a.example/x", "nope"], "sms": ["+1"], "apns": ["c0ff"]}"#).expect_err("bad");
        let pointers: Vec<_> = bad.0.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/contacts/apns", "/contacts/sms", "/contacts/webhook/1"]);
    }
}
