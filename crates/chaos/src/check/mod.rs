//! The five claims, held against evidence from outside.

mod ends;
mod letters;
mod order;
mod sends;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use domain::Timestamp;

use crate::{
    evidence::{Delivery, Evidence, Reception},
    people::{Contact, Person},
};
pub use letters::{balanced, redriven, refused};

/// Something that was promised and is not so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which of the five.
    pub claim: u8,
    /// What is wrong, with the ids to look for.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim {}: {}", self.claim, self.what)
    }
}

/// The evidence by what it is about.
pub(crate) struct Case<'a> {
    evidence: &'a Evidence,
    people: BTreeMap<&'a str, &'a Person>,
    /// The index by delivery.
    index: BTreeMap<&'a str, &'a Delivery>,
    /// Each delivery as it stands: its last end on `status`, or else its last event; of one without events the index.
    stands: BTreeMap<&'a str, &'a Delivery>,
    /// Events by delivery, in their order.
    events: BTreeMap<&'a str, Vec<&'a Delivery>>,
    /// Receptions by delivery, in their order.
    receptions: BTreeMap<&'a str, Vec<&'a Reception>>,
    found: BTreeSet<Violation>,
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence, people: &'a [Person]) -> Self {
        let mut case = Self {
            evidence,
            people: people.iter().map(|p| (p.id.as_str(), p)).collect(),
            index: evidence.index.iter().map(|d| (d.id.as_str(), d)).collect(),
            stands: BTreeMap::new(),
            events: BTreeMap::new(),
            receptions: BTreeMap::new(),
            found: BTreeSet::new(),
        };
        for event in &evidence.events {
            case.events.entry(&event.id).or_default().push(event);
        }
        for reception in &evidence.receptions {
            case.receptions.entry(&reception.delivery).or_default().push(reception);
        }
        case.stands = case.index.clone();
        for (id, events) in &case.events {
            // a decision that was made again is said again, perhaps after the end
            let last = events.iter().max_by_key(|e| (e.redriven(), e.state.is_settled(), e.reached_at()));
            case.stands.extend(last.map(|last| (*id, *last)));
        }
        case
    }

    fn fail(&mut self, claim: u8, what: String) {
        self.found.insert(Violation { claim, what });
    }

    fn contact(&self, d: &Delivery) -> Option<&'a Contact> {
        self.people.get(d.user.as_str())?.on(d.channel)
    }

    fn received(&self, delivery: &str) -> &[&'a Reception] {
        self.receptions.get(delivery).map_or(&[], Vec::as_slice)
    }

    /// Every delivery as it stands.
    fn all(&self) -> Vec<&'a Delivery> {
        self.stands.values().copied().collect()
    }

    /// The delivery in words, with its state.
    fn about(&self, d: &Delivery) -> String {
        let reason = d.reason.map_or_else(String::new, |r| format!(" ({r})"));
        format!("{}, {}{reason}", self.name(d), d.state)
    }

    /// Everything that was said of the delivery: each different trace.
    fn story(&self, d: &Delivery) -> String {
        let step = |s: &crate::evidence::Step| {
            let outcome = s.outcome.as_ref().map_or_else(String::new, |o| format!(" after {o}"));
            format!("{}{outcome}", s.state)
        };
        let told = |e: &&Delivery| e.trace.iter().map(step).collect::<Vec<_>>().join(", ");
        let mut stories: Vec<_> = self.events.get(d.id.as_str()).into_iter().flatten().map(told).collect();
        stories.dedup();
        stories.join(" | ")
    }

    /// The delivery in words.
    fn name(&self, d: &Delivery) -> String {
        let address = self.contact(d).map_or_else(|| format!("{} (no address)", d.channel), ToString::to_string);
        format!("delivery {} of {} for {}, {address}", d.id, d.notification, d.user)
    }
}

/// Everything that is wrong, sorted. What is wrong with the balance and after a re-drive is for [`balanced`] and [`redriven`].
pub fn check(evidence: &Evidence, people: &[Person]) -> Vec<Violation> {
    let mut case = Case::new(evidence, people);
    case.all_have_ended();
    case.ends_are_right();
    case.sent_is_received();
    case.nothing_is_sent_too_late();
    case.records_are_finished();
    case.order_holds();
    case.recipients_are_decided();
    case.letters_had_to_be();
    case.found.into_iter().collect()
}

/// How much of the time between two moments somebody was stopped.
fn paused(pauses: &[(Timestamp, Timestamp)], from: Timestamp, to: Timestamp) -> std::time::Duration {
    let overlap = |(since, until): &(Timestamp, Timestamp)| {
        let span = (*until).min(to).duration_since((*since).max(from));
        std::time::Duration::try_from(span).unwrap_or_default()
    };
    pauses.iter().map(overlap).sum()
}
