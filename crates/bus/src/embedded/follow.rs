//! Reading a whole topic without a group.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Inner, cursor::Cursors, topics::Topic};
use crate::{Follow, FollowEvent, LogError};

pub(super) struct Follower {
    cursors: Cursors,
    wake: Arc<Notify>,
    /// The heads at the start, until they have been reached.
    goal: Option<Vec<i64>>,
    // the file stays open, and the topic's appends known, as long as somebody follows
    _log: Arc<Inner>,
    _topic: Arc<Topic>,
}

pub(super) fn follow(log: &Arc<Inner>, topic: &str) -> Result<Follower, LogError> {
    let topic = log.topics.get(topic)?;
    let wake = Arc::new(Notify::new());
    topic.watch(&wake);
    let goal = Some(topic.parts.iter().map(|part| part.head()).collect());
    let mut cursors = Cursors::new(log.readers.clone());
    topic.parts.iter().for_each(|part| cursors.add(Arc::clone(part), 0));
    Ok(Follower { cursors, wake, goal, _log: Arc::clone(log), _topic: topic })
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<FollowEvent, LogError> {
        loop {
            if self.goal.as_ref().is_some_and(|goal| self.cursors.reached(goal)) {
                self.goal = None;
                return Ok(FollowEvent::CaughtUp);
            }
            match self.cursors.read().await? {
                Some(records) => return Ok(FollowEvent::Records(records)),
                None if self.goal.is_none() => self.wake.notified().await,
                // the last stretch held no records any more
                None => {}
            }
        }
    }
}
