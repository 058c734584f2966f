//! Ends, as many at a time as have come together: settled in one call, told in one publish, and only then their records are
//! finished. While one batch is on its way the next one gathers, so no end waits for others that may not come.

use std::{mem::take, panic::AssertUnwindSafe, sync::Arc};

use bus::{Log, Outgoing, consume::Work};
use bytes::Bytes;
use domain::{Channel, DeliveryId, Reason, State};
use futures::FutureExt as _;
use store::{Claim, Ledger, Settled};
use tokio::sync::mpsc;

use crate::{
    begun::Sending,
    metrics,
    patience::{DOWN, until_answered},
};

/// Ends in one batch at most: as many as the ledger takes in one call.
const AT_ONCE: usize = 500;

/// A delivery that has come to its end, and its record, which waits until that is known.
pub(crate) struct Ended {
    pub(crate) delivery: DeliveryId,
    /// The final event, as it is settled and told.
    pub(crate) event: Bytes,
    /// `None`: it stands in the ledger already.
    pub(crate) fresh: Option<Fresh>,
    pub(crate) work: Work,
}

/// An end that nobody knows yet.
pub(crate) struct Fresh {
    pub(crate) state: State,
    pub(crate) reason: Option<Reason>,
    /// Until it is settled nobody else may be at it.
    pub(crate) sending: Sending,
}

/// Where ends of one lane go.
pub(crate) struct Ends {
    pub(crate) channel: Channel,
    pub(crate) owner: u128,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) status: Arc<str>,
}

impl Ends {
    /// Goes on until nobody is left who could come to an end.
    pub(crate) async fn run(self, mut ended: mpsc::Receiver<Ended>) {
        let mut batch = Vec::new();
        while ended.recv_many(&mut batch, AT_ONCE).await > 0 {
            let finish = AssertUnwindSafe(self.finish(take(&mut batch)));
            if finish.catch_unwind().await.is_err() {
                tracing::error!("a batch of ends broke off, its records come back");
            }
        }
    }

    async fn finish(&self, mut batch: Vec<Ended>) {
        self.settle(&mut batch).await;
        self.tell(batch).await;
    }

    /// Records ends in the ledger, however long that takes: without it a second run would send again. Whoever was slow may have
    /// been taken over: then the end that stands is told, and where there is none yet, by whoever has the claim.
    async fn settle(&self, batch: &mut Vec<Ended>) {
        let fresh = batch.iter().filter(|ended| ended.fresh.is_some());
        let ends: Vec<_> = fresh.map(|ended| (ended.delivery, Settled(ended.event.clone()))).collect();
        if ends.is_empty() {
            return;
        }
        let mut standing = until_answered("settle claims", || self.ledger.settle(self.owner, &ends)).await.into_iter();
        for mut ended in take(batch) {
            if let Some(mut fresh) = ended.fresh.take() {
                fresh.sending.over = true;
                match standing.next().flatten() {
                    Some(Claim::Settled(Settled(event))) if event != ended.event => ended.event = event,
                    None | Some(Claim::Settled(_)) => metrics::ended(self.channel, fresh.state, fresh.reason),
                    Some(Claim::Open { .. } | Claim::Granted) => {
                        ended.work.ack.retry(DOWN);
                        continue;
                    }
                }
            }
            batch.push(ended);
        }
    }

    /// Publishes final events and finishes their records; one that fails comes back and finds its claim settled.
    async fn tell(&self, batch: Vec<Ended>) {
        let event = |ended: &Ended| Outgoing {
            topic: self.status.clone(),
            // a delivery lies under its recipient, and so does what is told of it
            key: ended.work.record.key.clone(),
            headers: ended.work.record.headers.handed_on(),
            value: Some(ended.event.clone()),
        };
        let mut results = self.log.publish(batch.iter().map(event).collect()).await.into_iter();
        for Ended { work, .. } in batch {
            match results.next() {
                Some(Ok(_)) => work.ack.done(),
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot publish an end, the record waits");
                    work.ack.retry(DOWN);
                }
                None => work.ack.retry(DOWN),
            }
        }
    }
}
