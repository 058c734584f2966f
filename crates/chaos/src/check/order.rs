//! Claim 4: no record was passed unfinished; per-recipient order held within a lane.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Channel, Reason, Timestamp};

use super::Case;

impl Case<'_> {
    /// Every record of every queue has come to an end, those that were published twice too: a commit that passed one of them
    /// would have left it behind.
    pub(super) fn records_are_finished(&mut self) {
        let mut decided: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut ended: BTreeSet<&str> = BTreeSet::new();
        for event in &self.evidence.events {
            decided.insert((&event.notification, &event.user));
            if event.state.is_settled() {
                ended.insert(&event.id);
            }
        }
        for q in &self.evidence.notifications {
            if !decided.contains(&(q.notification.as_str(), user(&q.key))) {
                self.fail(4, format!("a record of {} on {} was passed undecided", q.notification, q.partition));
            }
        }
        for q in &self.evidence.deliveries {
            let id = q.delivery.as_deref().unwrap_or_default();
            if !ended.contains(id) {
                self.fail(4, format!("a record of delivery {id} on {} was passed unfinished", q.partition));
            }
        }
    }

    /// For a recipient, in a queue, on a channel: who stood first is tried first.
    pub(super) fn order_holds(&mut self) {
        let mut first: BTreeMap<(&str, &str, Channel), Timestamp> = BTreeMap::new();
        for d in self.all() {
            // what an operator sends on its way again is overtaken by its nature
            let again = d.trace.iter().find(|s| s.reason == Some(Reason::Redriven)).map(|s| s.at);
            let in_turn = self.received(&d.id).iter().map(|r| r.at).filter(|at| again.is_none_or(|again| *at < again));
            let Some(at) = in_turn.min() else { continue };
            first.insert((&d.notification, &d.user, d.channel), at);
        }
        let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut last: BTreeMap<(&str, &str, Channel), (&str, Timestamp)> = BTreeMap::new();
        for q in &self.evidence.notifications {
            if !seen.insert((&q.notification, &q.key)) {
                continue;
            }
            for channel in Channel::ALL {
                let Some(at) = first.get(&(q.notification.as_str(), user(&q.key), *channel)) else { continue };
                let before = last.insert((&q.partition, &q.key, *channel), (&q.notification, *at));
                if let Some((other, then)) = before.filter(|(_, then)| then > at) {
                    let what = format!(
                        "{} was sent at {at} to {} on {channel}, {other} only at {then}, and stood before it on {}",
                        q.notification, q.key, q.partition
                    );
                    self.fail(4, what);
                }
            }
        }
    }
}

/// The user of a record key: `tenant/user:id`.
fn user(key: &str) -> &str {
    key.split_once("user:").map_or(key, |(_, user)| user)
}
