//! The log on a Kafka cluster, through librdkafka.

mod admin;
mod batch;
mod client;
mod errors;
mod follow;
mod member;
mod membership;
mod publish;
mod records;
mod settings;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::ClientConfig;

pub use self::settings::KafkaSettings;
use self::{admin::ensure, follow::Follower, member::Member, publish::Publisher};
use crate::{Follow, Log, LogError, Outgoing, Position, Subscription, TopicSpec, log::TopicReport};

/// A Kafka cluster as a [`Log`]. One producer serves the whole process; each subscription has a consumer and a thread.
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    publisher: Mutex<Option<Arc<Publisher>>>,
    /// Sends each record in a request of its own; made when it is needed.
    alone: Mutex<Option<Arc<Publisher>>>,
}

impl Kafka {
    /// Prepares the clients; nothing is sent yet. Fails when librdkafka refuses a setting.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        settings.check()?;
        let kafka = Self { settings: Arc::new(settings), publisher: Mutex::default(), alone: Mutex::default() };
        kafka.publisher()?;
        Ok(kafka)
    }

    /// Whether all these topics are there and may be seen; the error names those that are not, and the remedy. For the start:
    /// later a missing topic is said whenever it is needed.
    pub async fn check_topics(&self, names: Vec<Arc<str>>) -> Result<(), LogError> {
        let publisher = self.publisher()?;
        blocking(move || publisher.check_topics(&names)).await
    }

    fn publisher(&self) -> Result<Arc<Publisher>, LogError> {
        self.working(&self.publisher, || self.settings.producer())
    }

    /// The producer of a slot, or a new one when there is none or a fatal error has ended it: librdkafka then refuses
    /// every further record.
    fn working(
        &self,
        slot: &Mutex<Option<Arc<Publisher>>>,
        config: impl FnOnce() -> ClientConfig,
    ) -> Result<Arc<Publisher>, LogError> {
        let mut slot = lock(slot);
        if let Some(reason) = slot.as_ref().and_then(|p| p.ended()) {
            tracing::warn!(reason, "the producer has ended, another takes its place");
            *slot = None;
        }
        if let Some(publisher) = slot.as_ref() {
            return Ok(publisher.clone());
        }
        Ok(slot.insert(Arc::new(Publisher::new(&self.settings, &config())?)).clone())
    }

    /// The broker refuses a request as a whole when it is too large for the topic, so those that were refused are tried
    /// once more, each alone. Topics as [`crate::Topics::specs`] asks for them take every request; with a smaller limit a
    /// record that is tried again comes after its successors.
    async fn again(&self, batch: &[Outgoing], results: &mut [Result<Position, LogError>]) -> Result<(), LogError> {
        let refused = |r: &Result<_, _>| matches!(r, Err(LogError::TooLarge(_)));
        let large: Vec<usize> = (0..batch.len()).filter(|i| refused(&results[*i])).collect();
        if large.is_empty() {
            return Ok(());
        }
        let config = || self.settings.producer().set("batch.num.messages", "1").clone();
        let alone = self.working(&self.alone, config)?;
        let records: Vec<_> = large.iter().map(|i| batch[*i].clone()).collect();
        for (i, result) in large.into_iter().zip(alone.publish(&records).await) {
            results[i] = result;
        }
        Ok(())
    }
}

#[async_trait]
impl Log for Kafka {
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        let publisher = match self.publisher() {
            Ok(publisher) => publisher,
            Err(e) => return batch.iter().map(|_| Err(e.clone())).collect(),
        };
        let mut results = publisher.publish(&batch).await;
        if let Err(error) = self.again(&batch, &mut results).await {
            tracing::warn!(%error, "records that may have been refused for their neighbours were not tried alone");
        }
        results
    }

    async fn subscribe(
        &self,
        group: &str,
        topics: &[Arc<str>],
        gather: Duration,
    ) -> Result<Box<dyn Subscription>, LogError> {
        Ok(Box::new(Member::join(self.settings.clone(), group.to_owned(), topics.to_vec(), gather).await?))
    }

    async fn follow(&self, topic: &str) -> Result<Box<dyn Follow>, LogError> {
        Ok(Box::new(Follower::start(self.settings.clone(), topic.into()).await?))
    }

    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, LogError> {
        ensure(&self.settings, specs).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        let publisher = self.publisher()?;
        blocking(move || publisher.ping()).await
    }
}

/// Runs what waits for librdkafka where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(LogError::Unavailable(e.to_string())),
    }
}

/// What these locks guard is whole at every moment, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
