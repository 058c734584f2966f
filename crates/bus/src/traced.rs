//! A log whose publishing shows up in traces: every record that belongs to a trace names the span in which it was published.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Follow, Log, LogError, Outgoing, Position, Subscription, TopicSpec, log::TopicReport, trace};

/// Any log, traced. While nobody collects spans it only passes on.
pub struct Traced(pub Arc<dyn Log>);

#[async_trait]
impl Log for Traced {
    async fn publish(&self, mut batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        if !trace::is_on() {
            return self.0.publish(batch).await;
        }
        let begin = |record: &mut Outgoing| Some((trace::send(&mut record.headers)?, record.topic.clone()));
        let open: Vec<_> = batch.iter_mut().map(begin).collect();
        let results = self.0.publish(batch).await;
        for (open, result) in open.into_iter().zip(&results) {
            if let Some((open, topic)) = open {
                open.sent(&topic, result);
            }
        }
        results
    }

    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError> {
        self.0.subscribe(group, topics, gather).await
    }

    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError> {
        self.0.follow(topic).await
    }

    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
        self.0.ensure_topics(specs).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        self.0.ping().await
    }
}
