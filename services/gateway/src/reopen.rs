//! Re-driven dead letters: a delivery that ended is sent again on an operator's word, once for each word.
//!
//! The word is a step in the record's own history (`queued`, `redriven`, with the time of the request), so a record that is
//! read again, or a request that is made twice, does nothing more: the claim has ended with that step in it.

use domain::{Delivery, DeliveryId, DeliveryStatus, Reason, State, Status, Timestamp};
use store::{Claim, ClaimRequest, Settled};
use wire::Record as _;

use crate::{patience::until_answered, send::Sender};

impl Sender {
    /// Opens the claim again if the record bears a word that its end has not heard: `Some(true)`. `Some(false)`: somebody
    /// else was quicker. `None`: the end stands.
    pub(crate) async fn reopen(&self, delivery: &mut Delivery, settled: &Settled) -> Option<bool> {
        let Status::Delivery(end) = Status::decode(&settled.0).ok()? else { return None };
        let word = delivery.history.redriven_at().filter(|_| may_reopen(delivery, &end))?;
        // the end knows of attempts that whoever gave the word may not have heard of
        delivery.history = end.history;
        delivery.history.reached(word, State::Queued, Some(Reason::Redriven));
        let opened = until_answered("open a claim again", || self.open_again(delivery.id, settled)).await;
        Some(opened || self.is_ours(delivery.id).await)
    }

    /// Whether it was opened to us though we did not hear of it, and asked again.
    async fn is_ours(&self, delivery: DeliveryId) -> bool {
        match self.claim(delivery).await {
            Some(Claim::Open { owner, .. }) => owner == self.owner,
            claim => claim == Some(Claim::Granted),
        }
    }

    async fn open_again(&self, delivery: DeliveryId, settled: &Settled) -> Result<bool, store::StoreError> {
        let request = ClaimRequest { delivery, owner: self.owner, at: Timestamp::now() };
        self.ledger.reopen(&request, settled).await
    }
}

fn may_reopen(delivery: &Delivery, end: &DeliveryStatus) -> bool {
    end.state.may_become(State::Queued) && delivery.history.redriven_at() > end.history.redriven_at()
}
