//! Claims 2 and 3: what is `sent` was received, once unless an outcome was unknown; nothing was sent after an opt-out or an
//! expiry.

use std::time::Duration;

use domain::{State, Timestamp};

use super::{Case, paused};
use crate::evidence::{Delivery, Reception};

/// A change reaches everybody within it.
const OPT_OUT: Duration = Duration::from_secs(3);
/// From the last look at the clock until a request has arrived, on a machine that is busy.
const EXPIRY: Duration = Duration::from_secs(2);

impl Case<'_> {
    pub(super) fn sent_is_received(&mut self) {
        for d in self.all() {
            let received = self.received(&d.id).to_vec();
            if d.state == State::Sent && !received.iter().any(|r| r.is_taken()) {
                self.fail(
                    2,
                    format!("{}, and the sandbox has not taken it ({} requests)", self.about(d), received.len()),
                );
            }
            let maybe: Vec<_> = received.iter().filter(|r| self.may_be_taken(d, r)).map(|r| r.at).collect();
            if maybe.len() > 1 && d.unknowns() == 0 {
                let times = maybe.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let (about, story) = (self.about(d), self.story(d));
                self.fail(
                    2,
                    format!("{about} arrived {} times ({times}), and no outcome was unknown: {story}", maybe.len()),
                );
            }
        }
        for r in &self.evidence.receptions {
            let Some(d) = self.stands.get(r.delivery.as_str()).copied() else {
                self.fail(2, format!("{} {} was received of {:?}, which nobody knows", r.channel, r.at, r.delivery));
                continue;
            };
            if !r.verified {
                self.fail(2, format!("{}: the sandbox got a request that is not right at {}", self.about(d), r.at));
            }
            if self.contact(d).is_none_or(|c| c.path != r.path) {
                self.fail(2, format!("{} went elsewhere", self.about(d)));
            }
        }
    }

    /// It was, or nobody can say that it was not.
    fn may_be_taken(&self, d: &Delivery, r: &Reception) -> bool {
        let refused = || self.contact(d).is_some_and(|c| c.is_unprocessed_without_answer());
        r.is_taken() || (r.answered.is_none() && !refused())
    }

    pub(super) fn nothing_is_sent_too_late(&mut self) {
        for r in &self.evidence.receptions {
            let Some(d) = self.stands.get(r.delivery.as_str()).copied() else { continue };
            let opt_outs = self.evidence.told.opt_outs.iter();
            let heard =
                opt_outs.filter(|o| o.user == d.user && o.category.is_none_or(|c| d.category.as_deref() == Some(c)));
            if let Some(said) = heard.map(|o| o.confirmed).min()
                && let Some(late) = self.late(said, r.at, OPT_OUT)
            {
                self.fail(3, format!("{}: sent {late:?} after the opt-out was confirmed at {said}", self.about(d)));
            }
            if let Some(expires_at) = d.expires_at
                && let Some(late) = self.late(expires_at, r.at, EXPIRY)
            {
                self.fail(3, format!("{}: sent {late:?} after it had expired at {expires_at}", self.about(d)));
            }
        }
    }

    /// How much too late something is; time in which somebody was stopped has not passed for them.
    fn late(&self, limit: Timestamp, at: Timestamp, grace: Duration) -> Option<Duration> {
        let late = Duration::try_from(at.duration_since(limit)).ok()?;
        let excused = grace + paused(&self.evidence.pauses, limit, at);
        (late > excused).then_some(late)
    }
}
