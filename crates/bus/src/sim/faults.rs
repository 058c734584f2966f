//! What may go wrong in a simulation, and how often.

use std::time::Duration;

/// A probability for each fault, from 0 (never, the default) to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Per record: it is not written, and the publish fails.
    pub publish_refused: f64,
    /// Per record: it is written, and the publish fails all the same.
    pub publish_doubtful: f64,
    /// Per call, before and after the append: it takes a while.
    pub publish_slow: f64,
    /// Per batch: it is delivered late.
    pub delivery_late: f64,
    /// Per batch: it has one to three records only.
    pub batch_small: f64,
    /// Per call of `next`: it fails, and the next one goes on.
    pub next_fails: f64,
    /// Per assignment: it starts up to five records before the commit.
    pub redelivery: f64,
    /// Per commit: it fails; every other time it stands all the same.
    pub commit_fails: f64,
    /// Per commit, before and after it: it takes a while.
    pub commit_slow: f64,
    /// Per call of `next`: some partition of the group goes to some member, maybe the same.
    pub rebalance: f64,
    /// Per such rebalance: the old owner hears of it only afterwards.
    pub rebalance_lost: f64,
    /// The longest that something slow or late takes.
    pub longest: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self::all(0.0)
    }
}

impl Faults {
    /// Every fault with the same probability; half of the rebalances lose a partition.
    pub fn all(probability: f64) -> Self {
        Self {
            publish_refused: probability,
            publish_doubtful: probability,
            publish_slow: probability,
            delivery_late: probability,
            batch_small: probability,
            next_fails: probability,
            redelivery: probability,
            commit_fails: probability,
            commit_slow: probability,
            rebalance: probability,
            rebalance_lost: if probability > 0.0 { 0.5 } else { 0.0 },
            longest: Duration::from_secs(2),
        }
    }
}
