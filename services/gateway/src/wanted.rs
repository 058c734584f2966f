//! Whether a delivery is still wanted, asked right before each request: preferences and the expiry may have changed since.

use std::time::Duration;

use bus::config::Snapshot;
use domain::{Delivery, Policy, Preferences, Reason, State, Timestamp, decide::may_still_send};
use store::{ClaimRequest, StoreError, UserKey};
use tokio::time::Instant;

use crate::{patience::until_answered, send::Sender};

/// What a user wanted longer ago than that is asked for again right before a request.
const FRESH: Duration = Duration::from_millis(100);

/// What is known of a delivery's user, who may be none.
pub(crate) struct Known {
    pub(crate) preferences: Option<Preferences>,
    /// Before the answer, so that whatever has changed since then is not in it.
    pub(crate) asked: Instant,
}

/// Why no request was made.
pub(crate) enum Unsent {
    NotWanted(State, Reason),
    LeftOpen,
}

impl Sender {
    /// Asks once more whether the delivery is still wanted if what is known is from long before now: the wait may have been for
    /// room, for a claim, for a store that was down. `false`: nobody can say.
    pub(crate) async fn is_current(&self, delivery: &Delivery, known: &mut Known) -> Result<bool, Unsent> {
        if known.asked.elapsed() < FRESH {
            return Ok(true);
        }
        match Box::pin(self.look_up(delivery)).await {
            Ok(found) => *known = found,
            Err(error) => {
                tracing::warn!(%error, "cannot look a user up right before sending, the place is given away");
                return Ok(false);
            }
        }
        self.still_wanted(&self.config.snapshot(), delivery, known).map(|()| true)
    }

    pub(crate) fn still_wanted(&self, snapshot: &Snapshot, delivery: &Delivery, known: &Known) -> Result<(), Unsent> {
        let category = delivery.category.as_ref().and_then(|c| snapshot.category(&delivery.tenant, c));
        let policy = Policy { opt_in: category.is_some_and(|c| c.opt_in) };
        may_still_send(delivery, known.preferences.as_ref(), policy, Timestamp::now())
            .map_err(|(state, why)| Unsent::NotWanted(state, why))
    }

    /// Renews the claim and looks the user up again. `None`: leave the delivery to whoever reads it next.
    pub(crate) async fn ask_again(&self, delivery: &Delivery) -> Option<Known> {
        let request = ClaimRequest { delivery: delivery.id, owner: self.owner, at: Timestamp::now() };
        let renewed = until_answered("renew a claim", || self.ledger.take_over(&request, self.owner)).await;
        if !renewed {
            return None;
        }
        Some(until_answered("look a user up", || self.look_up(delivery)).await)
    }

    async fn look_up(&self, delivery: &Delivery) -> Result<Known, StoreError> {
        let asked = Instant::now();
        let preferences = match UserKey::of(&delivery.tenant, &delivery.recipient) {
            Some(key) => self.users.preferences(&[key]).await?.pop().flatten(),
            None => None,
        };
        Ok(Known { preferences, asked })
    }
}
