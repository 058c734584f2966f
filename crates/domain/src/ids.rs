//! Names and ids. Delivery ids are derived, so that a second run of anything is recognised.

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use uuid::Uuid;

use crate::{Address, Channel, Recipient};

/// Declares a name: a string that can only be made by `parse`.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Checks length and characters; the error says what is allowed.
            pub fn parse(text: &str) -> Result<Self, String> {
                let ok: fn(&str) -> bool = $ok;
                if text.is_empty() || text.len() > $max || !ok(text) {
                    return Err(format!(concat!($what, " has 1 to {} characters out of {}"), $max, $allowed));
                }
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(Self::parse))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().into()
            }
        }
    };
}

/// Parses a text where it lies.
struct Text<T>(fn(&str) -> Result<T, String>);

impl<T> serde::de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

name!(
    /// Who owns everything: a customer or a department. Lower case, so that it can stand in a topic key or an index name.
    TenantId, "a tenant", 63, "a-z 0-9 -", |text| text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
);
name!(
    /// A person, by the name that the tenant's own systems use.
    UserId, "a user id", 128, "A-Z a-z 0-9 . _ ~ @ : + -",
    |text| text
        .chars()
        .all(|c| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '~' | '@' | ':' | '+' | '-'))
);
name!(
    /// What a user can opt out of, for instance `marketing`.
    CategoryKey, "a category", 63, "a-z 0-9 _ -", |text| text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
);
name!(
    /// A template of a tenant's.
    TemplateKey, "a template key", 63, "a-z 0-9 . _ - (a letter or digit first)",
    |text| text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
);

/// One accepted request: a `UUIDv7`, so that it sorts by time, or for a CloudEvent a `UUIDv5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct NotificationId(pub Uuid);

/// One notification for one recipient, on one channel, to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub Uuid);

/// One app of one tenant on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub Uuid);

const DEVICE_NAMESPACE: Uuid = Uuid::from_u128(0x6361_7269_6c6c_6f6e_8000_6465_7669_6365);
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x6361_7269_6c6c_6f6e_8000_6576_656e_7473);

/// Bytes of a `UUIDv7` that are its time.
const TIME: usize = 6;

impl NotificationId {
    /// A fresh id for a notification that is accepted now.
    pub fn new(now: Timestamp) -> Self {
        let ms = now.as_millisecond().max(0).unsigned_abs();
        let seconds = ms / 1000;
        let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)))
    }

    /// The id of what a CloudEvent asked for: `UUIDv5` of tenant, source and event id, so that an event that is read again,
    /// or published again, is the same notification. Neither text holds a line break.
    pub fn of_event(tenant: &TenantId, source: &str, event: &str) -> Self {
        Self(Uuid::new_v5(&EVENT_NAMESPACE, format!("{tenant}\n{source}\n{event}").as_bytes()))
    }
}

impl DeviceId {
    /// `UUIDv5` of tenant, channel, app and token: registering a device again gives the same id.
    pub fn derive(tenant: &TenantId, channel: Channel, app: &str, token: &Address) -> Self {
        let name = format!("{tenant}\n{channel}\n{app}\n{}", token.expose());
        Self(Uuid::new_v5(&DEVICE_NAMESPACE, name.as_bytes()))
    }
}

impl DeliveryId {
    /// A `UUIDv8` (RFC 9562, section 5.8): the notification's first 48 bits, which are its time, then those of a SHA-256 of
    /// notification, recipient, channel and address, of which none holds a line break. The same decision always has the same id,
    /// and what is stored by it lies in the order in which it came (docs/adr/0016).
    pub fn derive(
        notification: NotificationId,
        recipient: &Recipient,
        channel: Channel,
        address: Option<&Address>,
    ) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(notification.0.as_bytes());
        for part in [&*recipient.key(), channel.as_str(), address.map_or("", Address::expose)] {
            hash.update(part.as_bytes());
            hash.update(b"\n");
        }
        let mut id = uuid::Bytes::default();
        let (time, rest) = id.split_at_mut(TIME);
        time.copy_from_slice(&notification.0.as_bytes()[..TIME]);
        rest.copy_from_slice(&hash.finish().as_ref()[..rest.len()]);
        Self(uuid::Builder::from_custom_bytes(id).into_uuid())
    }
}

/// `Display` and `FromStr` of an id are those of its UUID.
macro_rules! uuid_text {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Uuid::parse_str(text).map(Self).map_err(|_| "an id is a UUID".to_owned())
            }
        }
    };
}
uuid_text!(NotificationId);
uuid_text!(DeliveryId);
uuid_text!(DeviceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_allowed() {
        assert_eq!(UserId::parse("ana@example.com").map(String::from), Ok("ana@example.com".into()));
        for bad in ["", "a b", "a/b", "a\r\nb", &"x".repeat(129)] {
            let error = UserId::parse(bad).expect_err(bad);
            assert!(error.contains("1 to 128 characters out of A-Z"), "{error}");
        }
        assert!(TenantId::parse("Acme").is_err());
    }

    #[test]
    fn a_delivery_id_is_derived_from_all_four_parts() {
        let n = NotificationId(Uuid::from_u128(7));
        let ana = Recipient::User(UserId::parse("ana").expect("valid"));
        let bob = Recipient::User(UserId::parse("bob").expect("valid"));
        let to = Address::parse(Channel::Webhook, "https://example.com/a").expect("valid");
        let id = DeliveryId::derive(n, &ana, Channel::Webhook, Some(&to));
        assert_eq!(id, DeliveryId::derive(n, &ana, Channel::Webhook, Some(&to)));
        assert_ne!(id, DeliveryId::derive(n, &bob, Channel::Webhook, Some(&to)));
        assert_ne!(id, DeliveryId::derive(n, &ana, Channel::Webhook, None));
        assert_ne!(id, DeliveryId::derive(NotificationId(Uuid::from_u128(8)), &ana, Channel::Webhook, Some(&to)));
    }

    #[test]
    fn delivery_ids_lie_in_the_order_of_their_notifications() {
        let ana = Recipient::User(UserId::parse("ana").expect("valid"));
        let at = |ms: i64| NotificationId::new(Timestamp::from_millisecond(1_800_000_000_000 + ms).expect("time"));
        let ids: Vec<_> = (0..100).map(|ms| DeliveryId::derive(at(ms), &ana, Channel::Webhook, None)).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids.iter().all(|id| id.0.get_version_num() == 8 && id.0.get_variant() == uuid::Variant::RFC4122));
        // of one millisecond nothing but the rest tells them apart
        let (one, other) = (at(7), at(7));
        assert_ne!(
            DeliveryId::derive(one, &ana, Channel::Webhook, None),
            DeliveryId::derive(other, &ana, Channel::Webhook, None)
        );
    }

    #[test]
    fn notification_ids_carry_their_time() {
        let now: Timestamp = "2026-11-21T09:00:00.123Z".parse().expect("time");
        let (s, n) = NotificationId::new(now).0.get_timestamp().expect("v7").to_unix();
        assert_eq!((i64::try_from(s).expect("fits"), n), (now.as_second(), 123_000_000));
    }
}
