//! A batch: who may still be reached, and which deliveries are ours to send, in one round trip each; then every delivery goes
//! its own way.

use async_trait::async_trait;
use bus::consume::{Stage, Work};
use domain::{Delivery, Timestamp};
use futures::{StreamExt as _, stream::FuturesUnordered};
use store::{Claim, ClaimRequest, StoreError, UserKey};
use tokio::time::Instant;

use crate::{
    patience::DOWN,
    send::{Item, Sender},
    wanted::Known,
};

pub(crate) struct Gateway {
    pub(crate) sender: Sender,
}

#[async_trait]
impl Stage for Gateway {
    async fn handle(&self, batch: Vec<Work>) {
        let decoded = self.sender.dead.decode::<Box<Delivery>>(batch).await;
        let items: Vec<_> = decoded.into_iter().map(|(delivery, work)| Item { delivery, work }).collect();
        if items.is_empty() {
            return;
        }
        let recipient = |item: &Item| UserKey::of(&item.delivery.tenant, &item.delivery.recipient);
        let asked = Instant::now();
        let users = self.sender.users.preferences_of_each(items.iter().map(recipient));
        let (users, claims, gone) = match tokio::try_join!(users, self.claim(&items), self.sender.known_gone(&items)) {
            Ok(answers) => answers,
            Err(error) => {
                // a claim that was granted all the same stays ours, and is recognised when the record comes back
                tracing::warn!(%error, records = items.len(), "cannot ask before sending, the records wait");
                items.into_iter().for_each(|item| item.work.ack.retry(DOWN));
                return;
            }
        };
        let sender = &self.sender;
        let mut sends: FuturesUnordered<_> = items
            .into_iter()
            .zip(users.into_iter().zip(claims).zip(gone))
            .map(|(item, ((preferences, claim), gone))| {
                let known = preferences.map(|preferences| Known { preferences, asked });
                sender.carry_out(item, known, claim, gone)
            })
            .collect();
        while sends.next().await.is_some() {}
    }
}

impl Gateway {
    async fn claim(&self, items: &[Item]) -> Result<Vec<Claim>, StoreError> {
        let at = Timestamp::now();
        let request = |item: &Item| ClaimRequest { delivery: item.delivery.id, owner: self.sender.owner, at };
        self.sender.ledger.claim(&items.iter().map(request).collect::<Vec<_>>()).await
    }
}
