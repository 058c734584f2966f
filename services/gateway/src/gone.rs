//! Dead addresses: what a provider says about one is remembered at once, and asked for before the next send.

use domain::{Delivery, Timestamp};
use store::{StoreError, UserKey};

use crate::{
    patience::until_answered,
    send::{Item, Sender},
};

impl Sender {
    /// When the address of each delivery was last known to be gone, in one round trip.
    pub(crate) async fn known_gone(&self, items: &[Item]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let place = |d: &Delivery| Some((d.tenant.clone(), d.channel, d.address()?.clone()));
        let asked: Vec<_> = items.iter().filter_map(|item| place(&item.delivery)).collect();
        let mut gone = self.ledger.gone(&asked).await?.into_iter();
        Ok(items.iter().map(|item| item.delivery.address().and_then(|_| gone.next().flatten())).collect())
    }

    /// Takes the address out of its user and remembers it as gone since `at`; a registration after that stays. Both can be
    /// repeated.
    pub(crate) async fn address_gone(&self, delivery: &Delivery, at: Timestamp) {
        let Some(address) = delivery.address() else { return };
        let (tenant, channel) = (&delivery.tenant, self.channel);
        until_answered("remember a dead address", || self.ledger.mark_gone(tenant, channel, address, at)).await;
        if let Some(key) = UserKey::of(tenant, &delivery.recipient) {
            let forget = || self.users.address_gone(&key, channel, address, at);
            let taken = until_answered("take a dead address out of its user", forget).await;
            tracing::info!(%tenant, %channel, delivery = %delivery.id, taken, "an address is gone");
        }
    }
}

/// Whether the delivery's address was registered after it was known to be gone.
pub(crate) fn is_alive(delivery: &Delivery, gone: Timestamp) -> bool {
    delivery.target.as_ref().and_then(|t| t.since).is_some_and(|since| since > gone)
}
