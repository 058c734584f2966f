//! Claim 5: conservation holds; the dead letters are those that had to be; re-driving them ends them.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Reason, State};
use serde_json::Value;

use super::{Case, Violation};
use crate::{
    evidence::{Dead, Evidence},
    people::{Ends, Person},
};

impl<'a> Case<'a> {
    /// Of what was confirmed, as many recipients as were announced are decided, and no more. Of a request that nobody was
    /// promised anything for, some records may be there and others not.
    pub(super) fn recipients_are_decided(&mut self) {
        let decided = self.decided();
        for accepted in &self.evidence.told.accepted {
            let id = accepted.id.as_str();
            let found = decided.get(id).map_or(0, BTreeSet::len);
            match self.evidence.announced.get(id) {
                None if found > 0 => self.fail(5, format!("{id} was accepted and never announced")),
                Some(recipients) if found != *recipients as usize => {
                    self.fail(5, format!("{id} has {recipients} recipients, of which {found} are decided"));
                }
                // of one that is lost claim 1 has told
                _ => {}
            }
        }
    }

    /// By notification, for whom it was decided.
    fn decided(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut decided: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for d in self.all() {
            decided.entry(&d.notification).or_default().insert(&d.user);
        }
        decided
    }

    pub(super) fn letters_had_to_be(&mut self) {
        for letter in &self.evidence.dead {
            let why = match letter.stage {
                "ingress" if letter.reason == "unknown_source" => None,
                "gateway" => self.why_not(letter),
                _ => Some("nothing there had to be given up".to_owned()),
            };
            if let Some(why) = why {
                self.fail(5, format!("dead letter {} ({}, {}): {why}", letter.id, letter.reason, letter.subject));
            }
        }
        let letters: BTreeSet<&str> = self.evidence.dead.iter().map(|l| l.subject.as_str()).collect();
        let given_up = |e: &&crate::evidence::Delivery| {
            e.state.is_settled() && matches!(e.reason, Some(Reason::RetriesExhausted | Reason::Misconfigured))
        };
        for event in self.evidence.events.iter().filter(given_up).filter(|e| !letters.contains(e.id.as_str())) {
            self.fail(5, format!("{} is no dead letter", self.about(event)));
        }
        for event in self.evidence.told.strange.iter().filter(|id| !letters.contains(id.as_str())) {
            self.fail(5, format!("event {event} of an unknown source is no dead letter"));
        }
    }

    /// Why a letter of the gateway's should not be there.
    fn why_not(&self, letter: &Dead) -> Option<String> {
        let Some(events) = self.events.get(letter.subject.as_str()) else {
            return Some("nobody knows the delivery".to_owned());
        };
        let gave_up = events.iter().any(|e| e.reason.is_some_and(|r| r.as_str() == letter.reason));
        // whoever wrote the letter died before the end was recorded, and the next one went on
        let went_on = events.iter().any(|e| e.unknowns() > 0);
        let (contact, d) = (self.contact(events[0]), events[0]);
        let could_fail = contact.is_some_and(|c| matches!(c.ends, Ends::Exhausted | Ends::LaterSent | Ends::Either));
        let could_fail = could_fail || events.iter().any(|e| self.was_struck(e));
        match (gave_up || went_on, could_fail) {
            (false, _) => Some(format!("{} was not given up", self.name(d))),
            (_, false) => Some(format!("{} had no reason to be given up", self.name(d))),
            _ => None,
        }
    }
}

/// What is wrong with the `results` of a re-drive: a letter stays where it is only if its delivery has ended well meanwhile.
pub fn refused(before: &Evidence, people: &[Person], results: &Value) -> Vec<Violation> {
    let case = Case::new(before, people);
    let ended_well = |id: &str| {
        let letter = before.dead.iter().find(|l| l.id == id);
        let stands = letter.and_then(|l| case.stands.get(l.subject.as_str()));
        stands.is_some_and(|d| !d.state.may_become(State::Queued))
    };
    let wrong = results.as_array().into_iter().flatten().filter(|r| {
        let is_right = r["outcome"] == "not_possible" && r["id"].as_str().is_some_and(ended_well);
        r["outcome"] != "redriven" && !is_right
    });
    wrong.map(|r| Violation { claim: 5, what: format!("a dead letter is not re-driven: {r}") }).collect()
}

/// What is wrong with `GET /v1/conservation`: it counts what the topics hold, no more and no less. So it is in balance, but for
/// what [`check`](super::check) leaves out.
pub fn balanced(evidence: &Evidence, people: &[Person], answer: &Value) -> Vec<Violation> {
    let announced: u64 = evidence.announced.values().map(|recipients| u64::from(*recipients)).sum();
    let decided: usize = Case::new(evidence, people).decided().values().map(BTreeSet::len).sum();
    let items = || answer["items"].as_array().into_iter().flatten();
    let counted = |name: &str| -> u64 { items().filter_map(|item| item[name].as_u64()).sum() };
    let pairs = [("recipients", announced), ("decided", decided as u64)];
    let wrong = pairs.into_iter().filter(|(name, there)| *there != counted(name));
    wrong.map(|(name, there)| Violation { claim: 5, what: format!("there are {there} {name}: {answer}") }).collect()
}

/// What is wrong after every dead letter of `before` was sent on its way again.
pub fn redriven(before: &Evidence, after: &Evidence, people: &[Person]) -> Vec<Violation> {
    let (was, case) = (Case::new(before, people), Case::new(after, people));
    let mut found = BTreeSet::new();
    for letter in before.dead.iter().filter(|l| l.stage == "gateway") {
        let id = letter.subject.as_str();
        let (Some(was), Some(is)) = (was.stands.get(id), case.stands.get(id)) else { continue };
        if !was.state.may_become(State::Queued) {
            continue;
        }
        let ends = case.contact(is).map(|c| c.ends);
        let mut fail = |what| {
            let what = format!("dead letter {} was re-driven: {} {what}", letter.id, case.about(is));
            found.insert(Violation { claim: 5, what });
        };
        if is.redriven() <= was.redriven() {
            fail("did not hear of it");
        } else if !is.state.is_settled() {
            fail("has not ended");
        } else if ends == Some(Ends::LaterSent) && is.reason == Some(Reason::RetriesExhausted) {
            fail("failed again where it cannot");
        }
    }
    found.into_iter().collect()
}
