//! The one consume loop, above every log: per-recipient order by one in-flight slot per key, bounded permits, contiguous
//! commit, bounded drain. A service supplies only what to do with a batch.

mod ack;
mod pace;
mod partition;
mod run;
mod tracker;
mod vitals;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use ack::{Ack, Work};
pub use pace::Pace;
pub use vitals::Vitals;

use crate::{Log, dead::DeadLetters};

/// What a service does with records.
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    /// Handles a batch, whose records are all of different keys if the loop keeps their order. Each record's [`Ack`] is used
    /// when that record is finished; they need not finish together. Several batches are in hand at once.
    async fn handle(&self, batch: Vec<Work>);
}

/// How a loop runs.
#[derive(Debug, Clone)]
pub struct ConsumeSettings {
    /// The consumer group.
    pub group: String,
    /// The topics.
    pub topics: Vec<Arc<str>>,
    /// Records in flight at most.
    pub permits: usize,
    /// Records in a batch at most.
    pub max_batch: usize,
    /// Records taken in per partition at most, finished or not; above it the partition is paused.
    pub max_window: usize,
    /// When records are handed out.
    pub pace: Pace,
    /// How often finished offsets are committed.
    pub commit_every: Duration,
    /// How long a revocation waits for what is in flight.
    pub drain: Duration,
    /// How long the end waits for what is in flight.
    pub finish_within: Duration,
}

impl ConsumeSettings {
    /// Sensible numbers for a group on some topics.
    pub fn new(group: String, topics: Vec<Arc<str>>) -> Self {
        Self {
            group,
            topics,
            permits: 1024,
            max_batch: 512,
            max_window: 4096,
            pace: Pace::InOrder,
            commit_every: Duration::from_millis(200),
            // shorter than a log waits (5 s): afterwards a commit comes too late
            drain: Duration::from_secs(4),
            finish_within: Duration::from_secs(20),
        }
    }
}

/// Consumes until `shutdown`, then drains: stop fetching, finish what is in flight within the deadline, commit, leave.
/// Reconnects by itself; only `shutdown` ends it. `false`: the deadline passed with records in flight (they will be read
/// again).
pub async fn consume(
    log: Arc<dyn Log>,
    stage: Arc<dyn Stage>,
    dead: DeadLetters,
    settings: ConsumeSettings,
    vitals: Vitals,
    shutdown: CancellationToken,
) -> bool {
    run::Loop::new(log, stage, dead, settings, vitals).run(shutdown).await
}
