//! The log as a process sees it that can die.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{
    Event, Follow, Log, LogError, Outgoing, Partition, Position, Subscription, TopicSpec, log::TopicReport, sim::Sim,
};

use super::life::{Chair, Life};

pub(super) struct Mortal {
    pub(super) life: Arc<Life>,
    pub(super) log: Sim,
}

#[async_trait]
impl Log for Mortal {
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        self.life.moment().await;
        let results = self.log.publish(batch).await;
        self.life.moment().await;
        results
    }

    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError> {
        self.life.live().await;
        let seat = self.life.seat(self.log.subscribe(group, topics, gather).await?);
        Ok(Box::new(Seated { life: self.life.clone(), seat }))
    }

    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError> {
        self.life.live().await;
        self.log.follow(topic).await
    }

    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
        self.log.ensure_topics(specs).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        self.log.ping().await
    }
}

struct Seated {
    life: Arc<Life>,
    seat: Arc<Chair>,
}

impl Seated {
    fn with(&self, act: impl FnOnce(&mut dyn Subscription)) {
        // only a death holds it meanwhile
        if let Ok(mut seat) = self.seat.try_lock()
            && let Some(subscription) = seat.as_mut()
        {
            act(subscription.as_mut());
        }
    }
}

#[async_trait]
impl Subscription for Seated {
    async fn next(&mut self) -> Result<Event, LogError> {
        let next = async {
            match self.seat.lock().await.as_mut() {
                Some(subscription) => subscription.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.life.dead.cancelled() => std::future::pending().await,
            event = next => event,
        }
    }

    async fn commit(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError> {
        self.life.moment().await;
        let committed = async {
            match self.seat.lock().await.as_mut() {
                Some(subscription) => subscription.commit(offsets).await,
                None => std::future::pending().await,
            }
        };
        let committed = tokio::select! {
            biased;
            () = self.life.dead.cancelled() => std::future::pending().await,
            committed = committed => committed,
        };
        self.life.moment().await;
        committed
    }

    fn pause(&mut self, partition: &Partition) {
        self.with(|subscription| subscription.pause(partition));
    }

    fn resume(&mut self, partition: &Partition) {
        self.with(|subscription| subscription.resume(partition));
    }

    async fn close(self: Box<Self>) {
        let subscription = self.seat.lock().await.take();
        if let Some(subscription) = subscription {
            subscription.close().await;
        }
    }
}
