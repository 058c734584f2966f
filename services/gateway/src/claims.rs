//! The claim on one delivery: how it stands, taking it over from whoever is gone, giving it back.

use std::time::Duration;

use domain::{DeliveryId, Timestamp};
use store::{Claim, ClaimRequest};

use crate::{
    begun::Sending,
    patience::{DOWN, until_answered},
    send::Sender,
};

/// Added to a lease, for clocks that differ and a store that is slow.
pub(crate) const MARGIN: Duration = Duration::from_secs(2);

impl Sender {
    /// How the claim stands, which is ours if nobody has it.
    pub(crate) async fn claim(&self, delivery: DeliveryId) -> Option<Claim> {
        let request = [ClaimRequest { delivery, owner: self.owner, at: Timestamp::now() }];
        until_answered("ask for a claim", || self.ledger.claim(&request)).await.pop()
    }

    /// Takes an open claim over once its lease is out; until then, how long to wait. Without an answer the claim may be ours by
    /// now, so the delivery stays begun: whoever had the claim may have sent it.
    pub(crate) async fn take_over(
        &self,
        sending: &mut Sending,
        delivery: DeliveryId,
        from: u128,
        at: Timestamp,
    ) -> Result<(), Duration> {
        let now = Timestamp::now();
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        if let Some(left) = self.lease.checked_sub(age).filter(|left| !left.is_zero()) {
            sending.over = true;
            return Err(left);
        }
        match self.ledger.take_over(&ClaimRequest { delivery, owner: self.owner, at: now }, from).await {
            Ok(true) => Ok(()),
            // somebody else was quicker
            Ok(false) => {
                sending.over = true;
                Err(Duration::from_millis(100))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a claim over, the record waits");
                Err(DOWN)
            }
        }
    }

    pub(crate) async fn release(&self, delivery: DeliveryId) {
        if let Err(error) = self.ledger.release(delivery, self.owner).await {
            tracing::warn!(%error, "cannot give a claim back, it ends with its lease");
        }
    }
}
