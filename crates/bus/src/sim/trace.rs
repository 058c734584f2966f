//! What happened in a simulation, for checkers.

use std::sync::Arc;

use crate::{Partition, Position};

/// One event. Members are numbered per group in the order of joining, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A record was written; whether the publisher was told so.
    Published {
        /// Where it lies.
        at: Position,
        /// The publish failed all the same.
        doubtful: bool,
    },
    /// A record was not written, and its publish failed.
    Refused {
        /// Where it should have gone.
        topic: Arc<str>,
    },
    /// A member was told that it owns partitions.
    Assigned {
        /// Who.
        member: Id,
        /// And from which offset on it reads each.
        from: Vec<Position>,
    },
    /// A member was told to give partitions up.
    Revoked {
        /// Who.
        member: Id,
        /// Which.
        partitions: Vec<Partition>,
        /// They are another's already.
        lost: bool,
    },
    /// A member got records.
    Delivered {
        /// Who.
        member: Id,
        /// The first one.
        from: Position,
        /// How many, without gaps.
        count: usize,
    },
    /// A member's commit for one partition.
    Committed {
        /// Who.
        member: Id,
        /// The offset after the last finished record.
        next: Position,
        /// It is durable.
        stands: bool,
        /// The caller was told that it failed.
        failed: bool,
    },
    /// A member is gone.
    Left {
        /// Who.
        member: Id,
    },
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// The group.
    pub group: Arc<str>,
    /// From 1.
    pub number: u64,
}
