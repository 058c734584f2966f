//! The preference stage, as a pure function: who is reached where, and if not, why not.

use jiff::Timestamp;

use crate::{Channel, Locale, Notification, Preferences, Reason, Recipient, State, Strategy, Target, User};

/// What the tenant's configuration says about a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// The category needs the user's own yes.
    pub opt_in: bool,
}

/// The decision on one notification for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// When it was decided.
    pub at: Timestamp,
    /// When the notification was taken over. An event that is published twice has two such times; the one that was decided over
    /// counts.
    pub accepted_at: Timestamp,
    /// At least one.
    pub lines: Vec<Planned>,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// A delivery to make.
    Send {
        /// On which channel.
        channel: Channel,
        /// Where.
        target: Target,
        /// What is read there, where that is known of the device.
        locale: Option<Locale>,
    },
    /// A delivery that will not be made, and why; recorded like any other.
    End {
        /// On which channel it would have been.
        channel: Channel,
        /// `suppressed` or `expired`.
        state: State,
        /// Why.
        reason: Reason,
    },
}

/// Decides one notification for one recipient. `user` is what the store knows of them, `None` if nothing.
pub fn decide(n: &Notification, user: Option<&User>, policy: Policy, now: Timestamp) -> Plan {
    let mut all = Vec::new();
    for selector in &n.channels {
        let lines: Vec<Planned> =
            selector.channels().flat_map(|channel| on_channel(n, user, policy, now, channel)).collect();
        let usable = lines.iter().any(|line| matches!(line, Planned::Send { .. }));
        all.extend(lines);
        if usable && n.strategy == Strategy::BestOf {
            break;
        }
    }
    // types may overlap with channels that are named as well: each address is reached once
    let mut lines = Vec::with_capacity(all.len());
    for line in all {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Plan { at: now, accepted_at: n.accepted_at, lines }
}

fn on_channel(n: &Notification, user: Option<&User>, policy: Policy, now: Timestamp, channel: Channel) -> Vec<Planned> {
    let end = |reason| {
        let state = if reason == Reason::Expired { State::Expired } else { State::Suppressed };
        vec![Planned::End { channel, state, reason }]
    };
    if n.is_expired(now) {
        return end(Reason::Expired);
    }
    let targets = match (&n.recipient, user) {
        (Recipient::Address(own, address), _) if *own == channel => vec![(Target::raw(address.clone()), None)],
        (Recipient::Address(..), _) => return end(Reason::NoAddress),
        (Recipient::User(_), None) => return end(Reason::UnknownUser),
        (Recipient::User(_), Some(user)) => {
            if let Err(reason) = user.preferences.allows(n.category.as_ref(), channel, policy.opt_in) {
                return end(reason);
            }
            user.targets(channel)
        }
    };
    if targets.is_empty() {
        return end(Reason::NoAddress);
    }
    targets.into_iter().map(|(target, locale)| Planned::Send { channel, target, locale: locale.cloned() }).collect()
}

/// What the gateway asks again, right before it sends: may this still go out? `preferences` are `None` for a user whom nobody knows.
pub fn may_still_send(
    delivery: &crate::Delivery,
    preferences: Option<&Preferences>,
    policy: Policy,
    now: Timestamp,
) -> Result<(), (State, Reason)> {
    if delivery.expires_at.is_some_and(|at| at <= now) {
        return Err((State::Expired, Reason::Expired));
    }
    match (&delivery.recipient, preferences) {
        (Recipient::Address(..), _) => Ok(()),
        (Recipient::User(_), None) => Err((State::Suppressed, Reason::UnknownUser)),
        (Recipient::User(_), Some(preferences)) => preferences
            .allows(delivery.category.as_ref(), delivery.channel, policy.opt_in)
            .map_err(|reason| (State::Suppressed, reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Address, ChannelType, Contact, Contacts, Content, Message, NotificationId, Preferences, Priority, Selector,
        TenantId, UserId,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn notification() -> Notification {
        Notification {
            id: NotificationId(uuid::Uuid::from_u128(1)),
            tenant: TenantId::parse("acme").expect("valid"),
            recipient: Recipient::User(UserId::parse("ana").expect("valid")),
            category: None,
            priority: Priority::default(),
            channels: vec![Selector::Channel(Channel::Webhook)],
            strategy: Strategy::All,
            message: Message::Content(Content::default()),
            locale: None,
            expires_at: Some(at("2026-11-21T10:00:00Z")),
            collapse_key: None,
            metadata: BTreeMap::new(),
            accepted_at: at("2026-11-21T09:00:00Z"),
        }
    }

    fn ana(urls: &[&str], preferences: &str) -> User {
        let mut contacts = Contacts::default();
        for url in urls {
            let address = Address::parse(Channel::Webhook, url).expect("valid");
            contacts.add(Channel::Webhook, Contact { address, since: at("2026-11-21T08:00:00Z") });
        }
        User {
            tenant: TenantId::parse("acme").expect("valid"),
            id: UserId::parse("ana").expect("valid"),
            locale: None,
            time_zone: None,
            contacts,
            devices: vec![],
            preferences: serde_json::from_str::<Preferences>(preferences).expect("preferences"),
            updated_at: at("2026-11-21T08:00:00Z"),
        }
    }

    fn told(plan: &Plan) -> Vec<String> {
        plan.lines
            .iter()
            .map(|line| match line {
                Planned::Send { target, .. } => format!("send {}", target.address.expose()),
                Planned::End { state, reason, .. } => format!("{state} {reason}"),
            })
            .collect()
    }

    #[test]
    fn every_way_a_decision_can_go() {
        let now = at("2026-11-21T09:30:00Z");
        let n = notification();
        let decided = |user: Option<&User>| told(&decide(&n, user, Policy::default(), now));
        assert_eq!(decided(Some(&ana(&["https://a.example/"], "{}"))), ["send https://a.example/"]);
        assert_eq!(decided(Some(&ana(&["https://a.example/", "https://b.example/"], "{}"))).len(), 2);
        assert_eq!(decided(Some(&ana(&[], "{}"))), ["suppressed no_address"]);
        assert_eq!(decided(None), ["suppressed unknown_user"]);
        assert_eq!(decided(Some(&ana(&["https://a.example/"], r#"{"all": false}"#))), ["suppressed opted_out_all"]);
        let late = decide(&n, Some(&ana(&["https://a.example/"], "{}")), Policy::default(), at("2026-11-21T10:00:00Z"));
        assert_eq!(told(&late), ["expired expired"], "the end itself is too late");
        let strict = decide(&n, Some(&ana(&["https://a.example/"], "{}")), Policy { opt_in: true }, now);
        assert_eq!(told(&strict), ["suppressed not_opted_in"]);
    }

    #[test]
    fn a_raw_address_has_no_preferences_and_overlaps_are_sent_once() {
        let now = at("2026-11-21T09:30:00Z");
        let to = Address::parse(Channel::Webhook, "https://a.example/").expect("valid");
        let n = Notification { recipient: Recipient::Address(Channel::Webhook, to), ..notification() };
        assert_eq!(told(&decide(&n, None, Policy { opt_in: true }, now)), ["send https://a.example/"]);
        let n = Notification {
            channels: vec![Selector::Type(ChannelType::Chat), Selector::Channel(Channel::Webhook)],
            ..notification()
        };
        assert_eq!(told(&decide(&n, Some(&ana(&["https://a.example/"], "{}")), Policy::default(), now)).len(), 1);
    }
}
