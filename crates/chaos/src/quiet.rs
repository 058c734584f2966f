//! When nothing more is to come.

use std::collections::BTreeSet;

use domain::State;

use crate::{
    evidence::{Delivery, Evidence},
    flow::Told,
};

/// Looks again and again; it is quiet when all has ended and nothing has changed since the last look but one.
#[derive(Default)]
pub(crate) struct Quiet {
    seen: Vec<(usize, u64)>,
}

impl Quiet {
    pub(crate) fn has_come(&mut self, told: &Told, sandbox: &sandbox::Running, index: Vec<Delivery>) -> bool {
        let known: BTreeSet<&str> = index.iter().map(|d| d.notification.as_str()).collect();
        let all_known = told.accepted.iter().all(|a| known.contains(a.id.as_str()));
        let all_ended = index.iter().all(|d| d.state.is_settled());
        let now = (index.len(), sandbox.summary().count);
        self.seen.push(now);
        let still = self.seen.iter().rev().take(3).filter(|then| **then == now).count() == 3;
        all_known && all_ended && still
    }
}

/// Every dead letter's delivery that may go on has heard that it should.
pub(crate) fn heard(before: &Evidence, index: &[Delivery]) -> bool {
    let letters: BTreeSet<&str> =
        before.dead.iter().filter(|l| l.stage == "gateway").map(|l| l.subject.as_str()).collect();
    let waiting = before.index.iter().filter(|d| letters.contains(d.id.as_str()) && d.state.may_become(State::Queued));
    waiting.into_iter().all(|was| index.iter().any(|is| is.id == was.id && is.redriven() > was.redriven()))
}
