//! A follower of the simulated log.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::Shared;
use crate::{Follow, FollowEvent, LogError, Partition, Record};

pub(super) struct Follower {
    shared: Arc<Shared>,
    wake: Arc<Notify>,
    positions: Vec<(Partition, i64)>,
    /// The heads at the start, until they have been reached.
    goal: Option<Vec<i64>>,
}

pub(super) fn follow(shared: &Arc<Shared>, topic: &str) -> Result<Follower, LogError> {
    let wake = Arc::new(Notify::new());
    let mut state = shared.lock();
    state.readers.push(Arc::downgrade(&wake));
    let count = state.topic(topic)?.count();
    let topic: Arc<str> = topic.into();
    let positions: Vec<_> = (0..count).map(|index| (Partition { topic: Arc::clone(&topic), index }, 0)).collect();
    let goal = Some(positions.iter().map(|(partition, _)| state.head(partition)).collect());
    Ok(Follower { shared: Arc::clone(shared), wake, positions, goal })
}

impl Follower {
    fn deliver(&mut self) -> Vec<Record> {
        let mut state = self.shared.lock();
        let most = if state.happens(self.shared.faults.batch_small) { state.chance.usize(1..=3) } else { usize::MAX };
        let mut all = Vec::new();
        for (partition, position) in &mut self.positions {
            let records = state.read(partition, *position, most - all.len());
            *position += i64::try_from(records.len()).unwrap_or(0);
            all.extend(records);
        }
        all
    }
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<FollowEvent, LogError> {
        self.shared.dawdle(self.shared.faults.delivery_late).await;
        loop {
            if let Some(goal) = &self.goal
                && self.positions.iter().zip(goal).all(|((_, at), goal)| at >= goal)
            {
                self.goal = None;
                return Ok(FollowEvent::CaughtUp);
            }
            let records = self.deliver();
            if !records.is_empty() {
                return Ok(FollowEvent::Records(records));
            }
            self.wake.notified().await;
        }
    }
}
