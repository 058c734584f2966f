//! Counts what passes through a log or an index, so that it is known when all is done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus::{Follow, Log, LogError, Outgoing, Position, Subscription, TopicSpec, log::TopicReport};
use domain::{NotificationId, TenantId, Timestamp};
use store::{Balance, Deliveries, DeliveryQuery, Document, IndexError, NotificationView, Page, StoreError};

/// Counts what was published.
pub struct CountedLog {
    /// Does the work.
    pub log: Arc<dyn Log>,
    /// Records that are durable.
    pub published: Arc<AtomicU64>,
}

#[async_trait]
impl Log for CountedLog {
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        let results = self.log.publish(batch).await;
        self.published.fetch_add(results.iter().filter(|r| r.is_ok()).count() as u64, Relaxed);
        results
    }

    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError> {
        self.log.subscribe(group, topics, gather).await
    }

    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError> {
        self.log.follow(topic).await
    }

    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
        self.log.ensure_topics(specs).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        self.log.ping().await
    }
}

/// Counts what was indexed.
pub struct CountedIndex {
    /// Does the work.
    pub index: Arc<dyn Deliveries>,
    /// Documents that were taken.
    pub taken: Arc<AtomicU64>,
}

#[async_trait]
impl Deliveries for CountedIndex {
    async fn index(&self, documents: &[Document]) -> Result<Vec<Result<(), IndexError>>, StoreError> {
        let results = self.index.index(documents).await?;
        self.taken.fetch_add(results.iter().filter(|r| r.is_ok()).count() as u64, Relaxed);
        Ok(results)
    }

    async fn notification(
        &self,
        tenant: &TenantId,
        id: NotificationId,
    ) -> Result<Option<NotificationView>, StoreError> {
        self.index.notification(tenant, id).await
    }

    async fn search(
        &self,
        tenant: &TenantId,
        query: &DeliveryQuery,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.index.search(tenant, query, cursor, limit).await
    }

    async fn balance(&self, tenant: Option<&TenantId>, until: Timestamp) -> Result<Vec<Balance>, StoreError> {
        self.index.balance(tenant, until).await
    }

    async fn prune(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        self.index.prune(now).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.index.ping().await
    }
}
