//! Batch in, one bulk request out; each document's own result decides over its records.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

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
        let (documents, records) = newest(self.dead.decode::<Status>(batch).await);
        if documents.is_empty() {
            return;
        }
        match self.deliveries.index(&documents).await {
            Ok(results) => {
                let mut refused = Vec::new();
                for (records, result) in records.into_iter().zip(results) {
                    match result {
                        Ok(()) => records.all().for_each(|work| work.ack.done()),
                        Err(IndexError::Transient(error)) => {
                            tracing::warn!(error, "the index did not take a document, it is tried again");
                            records.all().for_each(|work| work.ack.retry(DOWN));
                        }
                        Err(IndexError::Rejected(error)) => {
                            refused.push((records.newest, error));
                            // what they say is no longer contained in anything
                            records.older.into_iter().for_each(|work| work.ack.retry(Duration::ZERO));
                        }
                    }
                }
                self.dead.bury_or_wait(refused, "index_rejected").await;
            }
            Err(error) => {
                let records: Vec<_> = records.into_iter().flat_map(Records::all).collect();
                tracing::warn!(%error, records = records.len(), "cannot write to the index, the records wait");
                records.into_iter().for_each(|work| work.ack.retry(DOWN));
            }
        }
    }
}

/// The records of one document in a batch.
struct Records {
    /// That of the version that is written.
    newest: Work,
    older: Vec<Work>,
}

impl Records {
    fn all(self) -> impl Iterator<Item = Work> {
        self.older.into_iter().chain([self.newest])
    }
}

/// Only the newest version of each document: it contains the others.
fn newest(decoded: Vec<(Status, Work)>) -> (Vec<Status>, Vec<Records>) {
    let mut documents = Vec::<Status>::with_capacity(decoded.len());
    let mut records = Vec::<Records>::with_capacity(decoded.len());
    let mut places = HashMap::with_capacity(decoded.len());
    for (document, work) in decoded {
        let (id, version) = identity(&document);
        match places.entry(id) {
            Entry::Vacant(place) => {
                place.insert(documents.len());
                documents.push(document);
                records.push(Records { newest: work, older: Vec::new() });
            }
            Entry::Occupied(place) => {
                let (known, records) = (&mut documents[*place.get()], &mut records[*place.get()]);
                if version > identity(known).1 {
                    *known = document;
                    records.older.push(std::mem::replace(&mut records.newest, work));
                } else {
                    records.older.push(work);
                }
            }
        }
    }
    (documents, records)
}

/// What is written over what: the id of a document, and its version, of which a notification has but one.
fn identity(document: &Status) -> (u128, u64) {
    match document {
        Status::Notification(n) => (n.id.0.as_u128(), 0),
        Status::Delivery(d) => (d.id.0.as_u128(), d.version()),
    }
}
