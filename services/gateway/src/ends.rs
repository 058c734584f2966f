//! Ends, as many at a time as have come together: settled in one call, told in one publish, and only then their records are
//! finished. While one batch is on its way the next one gathers, so no end waits for others that may not come.

use std::{mem::take, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bus::{Log, Outgoing, consume::Work};
use bytes::Bytes;
use domain::{Channel, DeliveryId, Reason, State, Timestamp};
use futures::FutureExt as _;
use store::{Claim, ClaimRequest, Ledger, Settled};
use tokio::{sync::mpsc, time::Instant};

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
    /// When its claim was sure to be ours.
    pub(crate) begun: Instant,
}

/// Where ends of one lane go.
pub(crate) struct Ends {
    pub(crate) channel: Channel,
    pub(crate) owner: u128,
    /// How long another process respects our claim; zero if there is none.
    pub(crate) lease: Duration,
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

    /// Records ends in the ledger, however long that takes: without it a second run would send again.
    async fn settle(&self, batch: &mut [Ended]) {
        let fresh = batch.iter().filter(|ended| ended.fresh.is_some());
        let ends: Vec<_> = fresh.map(|ended| (ended.delivery, Settled(ended.event.clone()))).collect();
        if ends.is_empty() {
            return;
        }
        until_answered("settle claims", || self.ledger.settle(&ends)).await;
        self.give_way(batch).await;
        for mut fresh in batch.iter_mut().filter_map(|ended| ended.fresh.take()) {
            fresh.sending.over = true;
            metrics::ended(self.channel, fresh.state, fresh.reason);
        }
    }

    /// Whoever took longer than its lease may have been taken over: then another end stands, and that one is told.
    async fn give_way(&self, batch: &mut [Ended]) {
        let late = |ended: &&mut Ended| ended.fresh.as_ref().is_some_and(|f| f.begun.elapsed() > self.lease);
        let mut late: Vec<_> = batch.iter_mut().filter(|_| !self.lease.is_zero()).filter(late).collect();
        if late.is_empty() {
            return;
        }
        let (owner, at) = (self.owner, Timestamp::now());
        let asked: Vec<_> = late.iter().map(|e| ClaimRequest { delivery: e.delivery, owner, at }).collect();
        let claims = until_answered("ask for claims", || self.ledger.claim(&asked)).await;
        for (ended, claim) in late.iter_mut().zip(claims) {
            if let Claim::Settled(Settled(event)) = claim
                && event != ended.event
                && let Some(mut fresh) = ended.fresh.take()
            {
                ended.event = event;
                fresh.sending.over = true;
            }
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
