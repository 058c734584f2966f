//! Batch in, one bulk request out; each document's own result decides over its record.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{
    consume::{Stage, Work},
    dead::DeadLetters,
};
use domain::Status;
use store::{Deliveries, IndexError};

/// How long records wait when the index is down or has refused them for now.
const DOWN: Duration = Duration::from_secs(1);

pub(crate) struct Indexer {
    pub(crate) deliveries: Arc<dyn Deliveries>,
    pub(crate) dead: DeadLetters,
}

#[async_trait]
impl Stage for Indexer {
    async fn handle(&self, batch: Vec<Work>) {
        let (documents, works): (Vec<_>, Vec<_>) = self.dead.decode::<Status>(batch).await.into_iter().unzip();
        if documents.is_empty() {
            return;
        }
        match self.deliveries.index(&documents).await {
            Ok(results) => {
                let mut refused = Vec::new();
                for (work, result) in works.into_iter().zip(results) {
                    match result {
                        Ok(()) => work.ack.done(),
                        Err(IndexError::Transient(error)) => {
                            tracing::warn!(error, "the index did not take a document, it is tried again");
                            work.ack.retry(DOWN);
                        }
                        Err(IndexError::Rejected(error)) => refused.push((work, error)),
                    }
                }
                self.dead.bury_or_wait(refused, "index_rejected").await;
            }
            Err(error) => {
                tracing::warn!(%error, records = works.len(), "cannot write to the index, the records wait");
                works.into_iter().for_each(|work| work.ack.retry(DOWN));
            }
        }
    }
}
