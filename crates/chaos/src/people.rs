//! Who is told something, and how the sandbox behaves at each address.

use std::fmt;

use domain::{Channel, Reason, State};
use serde_json::{Value, json};

/// How deliveries to an address end, if nobody opts out and nothing expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Taken, at the latest after some attempts.
    Sent,
    /// The first is told that the address is gone, later ones are not sent.
    Gone,
    /// Refused for good.
    Refused,
    /// Given up after all attempts, also when re-driven.
    Exhausted,
    /// Given up after all attempts; taken when it is re-driven, or when a crash has led to more attempts.
    LaterSent,
    /// Taken or given up: it depends on what goes on beside it.
    Either,
}

impl Ends {
    /// Whether a delivery may end so there.
    pub fn allows(self, state: State, reason: Option<Reason>, unknown: bool) -> bool {
        let failed = state == State::Failed || (state == State::Unknown && unknown);
        let gone = || matches!(reason, Some(Reason::AddressGone));
        let exhausted = failed && reason == Some(Reason::RetriesExhausted);
        match self {
            Self::Sent => state == State::Sent,
            Self::Gone => {
                let after = state == State::Suppressed && (gone() || reason == Some(Reason::NoAddress));
                after || (failed && gone()) || (state == State::Unknown && unknown && gone())
            }
            Self::Refused => failed && reason == Some(Reason::ProviderRejected),
            Self::Exhausted => exhausted,
            Self::LaterSent | Self::Either => exhausted || state == State::Sent,
        }
    }
}

/// An address of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Where.
    pub channel: Channel,
    /// What makes the sandbox behave: the beginning of a path, of a token, or of a mailbox.
    pub behaviour: &'static str,
    /// How deliveries to it end.
    pub ends: Ends,
    /// What the sandbox records as the path.
    pub path: String,
    /// What a person's record says: of a webhook its path.
    pub address: String,
}

impl Contact {
    /// It holds up or breaks what others use as well.
    fn is_rare(&self) -> bool {
        ["0600", "0602", "0610", "070002500"].contains(&self.behaviour)
    }

    /// The sandbox records requests here that it has not processed, and says so: no answer means that nobody took it.
    pub fn is_unprocessed_without_answer(&self) -> bool {
        self.channel == Channel::Apns && ["0600", "0630", "0631"].contains(&self.behaviour)
    }
}

/// Somebody with up to three addresses, one on each channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The id of the user.
    pub id: String,
    /// At least one.
    pub contacts: Vec<Contact>,
    /// How often something is for them: those whose addresses take long get less.
    pub share: u32,
}

/// Out of so many persons one has such an address; those without a number are the rest.
const WEBHOOK: [(&str, Ends, u32); 10] = [
    ("ok", Ends::Sent, 20),
    ("flaky/2", Ends::Sent, 4),
    ("retry-after/1", Ends::Sent, 2),
    ("slow/300", Ends::Sent, 3),
    ("dropn/1", Ends::Sent, 3),
    ("gone", Ends::Gone, 2),
    ("status/400", Ends::Exhausted, 1),
    ("flaky/7", Ends::LaterSent, 2),
    ("redirect/302", Ends::Refused, 1),
    // longer than the gateway waits: a hang, though a short one. Whoever was stopped meanwhile finds the answer there
    ("slow/2500", Ends::Either, 1),
];
/// What strikes a whole connection strikes its neighbours too, so there is little of it.
const APNS: [(&str, Ends, u32); 12] = [
    ("0200", Ends::Sent, 20),
    ("05f2", Ends::Sent, 3),
    ("042e", Ends::Sent, 3),
    ("0600", Ends::Sent, 1),
    ("0602", Ends::Sent, 1),
    ("0610", Ends::Sent, 1),
    ("0630", Ends::Sent, 2),
    ("070000300", Ends::Sent, 2),
    ("0410", Ends::Gone, 3),
    ("0413", Ends::Refused, 1),
    ("05f7", Ends::LaterSent, 2),
    // a hang, though not as long as the gateway waits
    ("070002500", Ends::Sent, 1),
];
/// Devices whose first request makes APNs tear the connection down, with all that is under way on it.
const TEARS: &str = "0610";

/// Whether a request without an answer has broken the connection for all that were on it.
pub fn tears(channel: Channel, path: &str) -> bool {
    channel == Channel::Apns && path.strip_prefix("/3/device/").is_some_and(|token| token.starts_with(TEARS))
}

const EMAIL: [(&str, Ends, u32); 9] = [
    ("mail", Ends::Sent, 20),
    // mails of several lanes to one mailbox are not told apart
    ("grey", Ends::Either, 3),
    ("flaky2", Ends::Sent, 3),
    ("slow300", Ends::Sent, 3),
    ("u550", Ends::Gone, 2),
    ("spam", Ends::Refused, 1),
    ("flaky7", Ends::LaterSent, 2),
    ("drop", Ends::Exhausted, 1),
    ("multi", Ends::Sent, 2),
];

const fn table(channel: Channel) -> &'static [(&'static str, Ends, u32)] {
    match channel {
        Channel::Webhook => &WEBHOOK,
        Channel::Apns => &APNS,
        Channel::Email => &EMAIL,
    }
}

/// So many persons, the same for the same seed.
pub fn people(seed: u64, count: usize) -> Vec<Person> {
    let mut chance = fastrand::Rng::with_seed(seed ^ 0x70_65_6f_70_6c_65);
    (0..count)
        .map(|i| {
            let mut channels = Channel::ALL.to_vec();
            channels.retain(|_| chance.bool());
            let mut contacts: Vec<Contact> = channels.into_iter().map(|c| contact(c, i, &mut chance)).collect();
            if contacts.is_empty() {
                let channel = chance.choice(Channel::ALL).copied().unwrap_or(Channel::Webhook);
                contacts.push(contact(channel, i, &mut chance));
            }
            let slow = contacts.iter().any(|c| matches!(c.ends, Ends::Exhausted | Ends::Either) || c.is_rare());
            Person { id: format!("p{i}"), contacts, share: if slow { 2 } else { 10 } }
        })
        .collect()
}

fn contact(channel: Channel, i: usize, chance: &mut fastrand::Rng) -> Contact {
    let table = table(channel);
    let mut draw = chance.u32(0..table.iter().map(|(.., weight)| weight).sum());
    let found = table.iter().find(|(.., weight)| {
        let hit = draw < *weight;
        draw = draw.saturating_sub(*weight);
        hit
    });
    let (behaviour, ends, _) = found.copied().unwrap_or(table[0]);
    let (address, path) = match channel {
        Channel::Webhook => {
            let path = format!("/hook/{behaviour}/p{i}");
            (path.clone(), path)
        }
        Channel::Apns => {
            let token = format!("{behaviour}{:0>width$}", format!("{i:x}"), width = 32 - behaviour.len());
            (token.clone(), format!("/3/device/{token}"))
        }
        Channel::Email => {
            let mailbox = format!("{behaviour}+p{i}@example.com");
            (mailbox.clone(), mailbox)
        }
    };
    Contact { channel, behaviour, ends, path, address }
}

impl Person {
    /// The address on a channel.
    pub fn on(&self, channel: Channel) -> Option<&Contact> {
        self.contacts.iter().find(|c| c.channel == channel)
    }

    /// The body of `PUT /v1/users/{user}`; webhooks go to `receiver`.
    pub fn record(&self, receiver: &str) -> Value {
        let of = |channel, to: &dyn Fn(&Contact) -> String| {
            self.on(channel).map(|c| json!([to(c)])).unwrap_or_else(|| json!([]))
        };
        json!({"contacts": {
            "webhook": of(Channel::Webhook, &|c| format!("http://{receiver}{}", redirecting(&c.address))),
            "email": of(Channel::Email, &|c| c.address.clone()),
        }})
    }

    /// The body of `POST /v1/users/{user}/devices`, if there is one.
    pub fn device(&self) -> Option<Value> {
        let token = &self.on(Channel::Apns)?.address;
        Some(json!({"platform": "apns", "app": "com.example.app", "token": token}))
    }
}

/// A redirect needs to be told where to; it is never followed.
fn redirecting(path: &str) -> String {
    if path.starts_with("/hook/redirect/") { format!("{path}?to=http://127.0.0.1:1/") } else { path.to_owned() }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.channel, self.behaviour)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn people_follow_from_the_seed_and_meet_every_behaviour() {
        assert_eq!(people(1, 50), people(1, 50));
        assert_ne!(people(1, 50), people(2, 50));
        let all = people(3, 400);
        let met: BTreeSet<_> = all.iter().flat_map(|p| &p.contacts).map(|c| (c.channel, c.behaviour)).collect();
        assert_eq!(met.len(), WEBHOOK.len() + APNS.len() + EMAIL.len());
        let paths: BTreeSet<_> = all.iter().flat_map(|p| &p.contacts).map(|c| &c.path).collect();
        assert_eq!(paths.len(), all.iter().map(|p| p.contacts.len()).sum::<usize>(), "each its own");
    }

    #[test]
    fn an_end_is_allowed_where_the_address_leads_to_it() {
        let exhausted = Some(Reason::RetriesExhausted);
        assert!(Ends::Sent.allows(State::Sent, None, false));
        assert!(!Ends::Sent.allows(State::Failed, exhausted, false));
        assert!(Ends::Exhausted.allows(State::Unknown, exhausted, true));
        assert!(!Ends::Exhausted.allows(State::Unknown, exhausted, false));
        assert!(Ends::Gone.allows(State::Suppressed, Some(Reason::NoAddress), false));
        assert!(!Ends::Gone.allows(State::Sent, None, false));
        assert!(!Ends::Refused.allows(State::Failed, exhausted, false));
    }
}
