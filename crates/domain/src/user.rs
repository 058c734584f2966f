//! A person: where they can be reached and what they want.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{Address, Channel, FieldErrors, Preferences, TenantId, UserId, content::escape};

/// Most addresses of one user on one channel.
pub const MAX_ADDRESSES: usize = 5;

/// A user as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// The owner.
    pub tenant: TenantId,
    /// The tenant's name for the person.
    pub id: UserId,
    /// BCP 47, for instance `de-CH`.
    pub locale: Option<String>,
    /// IANA, for instance `Europe/Zurich`.
    pub time_zone: Option<String>,
    /// Where they can be reached.
    pub contacts: Contacts,
    /// What they want.
    pub preferences: Preferences,
    /// When it last changed; also its version: of two writes the later one wins.
    pub updated_at: Timestamp,
}

/// Addresses by channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contacts(BTreeMap<Channel, Vec<Address>>);

impl Contacts {
    /// Checks contacts as a request has them: a list of addresses by channel name.
    pub fn parse(raw: BTreeMap<String, Vec<String>>, at: &str) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let mut contacts = Self::default();
        for (name, texts) in raw {
            let pointer = format!("{at}/{}", escape(&name));
            let Some(channel) = errors.take(&pointer, Channel::parse(&name)) else { continue };
            if texts.len() > MAX_ADDRESSES {
                errors.add(&pointer, format!("at most {MAX_ADDRESSES} addresses for a channel, not {}", texts.len()));
            }
            for (i, text) in texts.iter().enumerate() {
                if let Some(address) = errors.take(&format!("{pointer}/{i}"), Address::parse(channel, text)) {
                    contacts.add(channel, address);
                }
            }
        }
        errors.into_result().map(|()| contacts)
    }

    /// Adds an address unless it is there.
    pub fn add(&mut self, channel: Channel, address: Address) {
        let list = self.0.entry(channel).or_default();
        if !list.contains(&address) {
            list.push(address);
        }
    }

    /// The addresses on a channel.
    pub fn on(&self, channel: Channel) -> &[Address] {
        self.0.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// Every address with its channel.
    pub fn iter(&self) -> impl Iterator<Item = (Channel, &Address)> {
        self.0.iter().flat_map(|(channel, list)| list.iter().map(|a| (*channel, a)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_name_the_bad_one() {
        let raw = |json: &str| Contacts::parse(serde_json::from_str(json).expect("JSON"), "/contacts");
        let good =
            raw(r#"{"webhook": ["https://a.example/x", "https://a.example/x", "https://b.example/"]}"#).expect("ok");
        assert_eq!(good.on(Channel::Webhook).len(), 2);
        let bad = raw(r#"{"webhook": ["https://a.example/x", "nope"], "sms": ["+1"]}"#).expect_err("bad");
        let pointers: Vec<_> = bad.0.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/contacts/sms", "/contacts/webhook/1"]);
    }
}
