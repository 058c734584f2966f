//! Claim 1: every accepted id has exactly one terminal state per delivery; none is missing, none contradicts the sandbox.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Channel, Reason, State, Timestamp};

use super::{Case, paused};
use crate::{
    evidence::{Delivery, Reception},
    people::tears,
};

impl Case<'_> {
    pub(super) fn all_have_ended(&mut self) {
        let all = self.all();
        let decided: BTreeSet<(&str, &str)> = all.iter().map(|d| (d.notification.as_str(), d.user.as_str())).collect();
        for accepted in &self.evidence.told.accepted {
            for user in accepted.to.iter().filter(|user| !decided.contains(&(accepted.id.as_str(), user.as_str()))) {
                let letter = self.evidence.dead.iter().find(|l| accepted.event.as_ref() == Some(&l.subject));
                let fate = letter.map_or_else(|| "lost".to_owned(), |l| format!("dead letter {} ({})", l.id, l.reason));
                let (id, way, at) = (&accepted.id, accepted.way, accepted.at);
                self.fail(1, format!("{id} ({way:?}, answered {at}) has no delivery for {user}: {fate}"));
            }
        }
        for d in all.iter().filter(|d| !d.state.is_settled()) {
            self.fail(1, format!("{} has not ended", self.about(d)));
        }
        self.decided_once();
        self.index_follows_the_events();
    }

    /// Everybody has one address on a channel, so there is one delivery: another one comes of a decision that was made again
    /// and went another way.
    fn decided_once(&mut self) {
        let mut places: BTreeMap<_, Vec<&Delivery>> = BTreeMap::new();
        for d in self.all() {
            places.entry((&d.notification, &d.user, d.channel)).or_default().push(d);
        }
        for twice in places.into_values().filter(|all| all.len() > 1) {
            let all: Vec<_> = twice.iter().map(|d| self.about(d)).collect();
            self.fail(1, format!("decided twice: {}", all.join(" and ")));
        }
    }

    /// One end for each word of an operator; and the index shows the last one.
    fn index_follows_the_events(&mut self) {
        for (id, events) in self.events.clone() {
            let mut ends: BTreeMap<usize, BTreeSet<State>> = BTreeMap::new();
            for event in events.iter().filter(|e| e.state.is_settled()) {
                ends.entry(event.redriven()).or_default().insert(event.state);
            }
            for states in ends.values().filter(|states| states.len() > 1) {
                let states: Vec<_> = states.iter().map(|s| s.as_str()).collect();
                self.fail(1, format!("{} ended as {}", self.name(events[0]), states.join(" and as ")));
            }
            let Some(last) = self.stands.get(id).copied() else { continue };
            match self.index.get(id).copied() {
                None => self.fail(1, format!("{} is on `status` and not in the index", self.about(last))),
                Some(shown) if (shown.state, shown.reason) != (last.state, last.reason) => {
                    let reason = last.reason.map_or("no reason", Reason::as_str);
                    let about = self.about(shown);
                    self.fail(1, format!("{about} in the index, and {} ({reason}) on `status`", last.state));
                }
                Some(_) => {}
            }
        }
        let mut shown = BTreeSet::new();
        for d in self.evidence.index.iter().filter(|d| !shown.insert(d.id.as_str())) {
            self.fail(1, format!("{} is in the index twice", self.about(d)));
        }
        let unsaid = self.evidence.index.iter().filter(|d| !self.events.contains_key(d.id.as_str()));
        for d in unsaid.collect::<Vec<_>>() {
            self.fail(1, format!("{} is in the index and not on `status`", self.about(d)));
        }
    }

    pub(super) fn ends_are_right(&mut self) {
        for d in self.all().into_iter().filter(|d| d.state.is_settled()) {
            if !self.is_right(d) {
                self.fail(1, format!("{}: nothing leads to that end", self.about(d)));
            }
            let taken = self.received(&d.id).iter().find(|r| r.is_taken());
            if let Some(taken) = taken.filter(|_| !matches!(d.state, State::Sent | State::Unknown)) {
                self.fail(1, format!("{}, and the sandbox took it at {}", self.about(d), taken.at));
            }
        }
    }

    /// Given up because each of its attempts broke off with the connection of a neighbour, by the sandbox's record, or with the
    /// process that made it.
    pub(super) fn was_struck(&self, d: &Delivery) -> bool {
        let struck = |from: Timestamp, to: Timestamp| {
            let within = |at: Timestamp| (from..=to).contains(&at);
            let torn = |r: &Reception| r.answered.is_none() && tears(r.channel, &r.path) && within(r.at);
            self.evidence.receptions.iter().any(torn)
                || self.evidence.deaths.iter().any(|at| within(*at))
                || !paused(&self.evidence.pauses, from, to).is_zero()
        };
        let last_word = d.trace.iter().rposition(|s| s.reason == Some(Reason::Redriven)).unwrap_or_default();
        let mut attempts = d.trace[last_word..].windows(2).filter(|steps| steps[1].outcome.is_some()).peekable();
        let given_up = (d.state, d.reason) == (State::Unknown, Some(Reason::RetriesExhausted));
        d.channel == Channel::Apns
            && given_up
            && attempts.peek().is_some()
            && attempts.all(|steps| steps[1].outcome.as_deref() == Some("unknown") && struck(steps[0].at, steps[1].at))
    }

    fn is_right(&self, d: &Delivery) -> bool {
        let unknown = d.unknowns() > 0;
        let as_said = |state| d.state == state || (d.state == State::Unknown && unknown);
        match d.reason {
            Some(Reason::OptedOutAll | Reason::OptedOutCategory) => {
                as_said(State::Suppressed)
                    && self.evidence.told.opt_outs.iter().any(|o| {
                        o.user == d.user
                            && o.asked <= d.reached_at()
                            && o.category.is_none_or(|c| d.category.as_deref() == Some(c))
                    })
            }
            Some(Reason::Expired) => as_said(State::Expired) && d.expires_at.is_some_and(|at| at <= d.reached_at()),
            reason => match self.contact(d) {
                Some(contact) => contact.ends.allows(d.state, reason, unknown) || self.was_struck(d),
                None => (d.state, reason) == (State::Suppressed, Some(Reason::NoAddress)),
            },
        }
    }
}
