//! The log on a Kafka cluster, through librdkafka.

mod admin;
mod client;
mod errors;
mod follow;
mod member;
mod membership;
mod publish;
mod records;
mod settings;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

pub use self::settings::KafkaSettings;
use self::{admin::ensure, follow::Follower, member::Member, publish::Publisher};
use crate::{Follow, Log, LogError, Outgoing, Position, Subscription, TopicSpec, log::TopicReport};

/// A Kafka cluster as a [`Log`]. One producer serves the whole process; each subscription has a consumer and a thread.
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    publisher: Mutex<Arc<Publisher>>,
}

impl Kafka {
    /// Prepares the clients; nothing is sent yet. Fails when librdkafka refuses a setting.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        settings.check()?;
        let publisher = Mutex::new(Arc::new(Publisher::new(&settings)?));
        Ok(Self { settings: Arc::new(settings), publisher })
    }

    /// The producer, or a new one when a fatal error has ended it: librdkafka then refuses every further record.
    fn publisher(&self) -> Result<Arc<Publisher>, LogError> {
        let mut publisher = lock(&self.publisher);
        if let Some(reason) = publisher.ended() {
            tracing::warn!(reason, "the producer has ended, another takes its place");
            *publisher = Arc::new(Publisher::new(&self.settings)?);
        }
        Ok(publisher.clone())
    }
}

#[async_trait]
impl Log for Kafka {
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Position, LogError>> {
        match self.publisher() {
            Ok(publisher) => publisher.publish(&batch).await,
            Err(e) => batch.iter().map(|_| Err(e.clone())).collect(),
        }
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Subscription>, LogError> {
        Ok(Box::new(Member::join(self.settings.clone(), group.to_owned(), topics.to_vec()).await?))
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
