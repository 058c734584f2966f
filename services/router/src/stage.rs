//! Batch in, deliveries and status events out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{
    Config, Headers, Log, Outgoing, Topics,
    consume::{Ack, Stage, Work},
    dead::DeadLetters,
    topic,
};
use domain::{Delivery, Notification, Plan, Planned, Policy, State, Status, Timestamp, User, decide};
use store::{UserKey, Users};
use wire::Record as _;

/// How long records wait when a store or the log is down.
const DOWN: Duration = Duration::from_secs(1);

pub(crate) struct Router {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) topics: Topics,
    pub(crate) config: Config,
    pub(crate) users: Arc<dyn Users>,
    pub(crate) dead: DeadLetters,
}

/// A record that decoded.
struct Item {
    notification: Notification,
    headers: Headers,
    ack: Ack,
}

#[async_trait]
impl Stage for Router {
    async fn handle(&self, batch: Vec<Work>) {
        let decoded = self.dead.decode::<Notification>(batch).await;
        let item =
            |(notification, Work { record, ack })| Item { notification, headers: record.headers.handed_on(), ack };
        let items: Vec<_> = decoded.into_iter().map(item).collect();
        let recipient = |item: &Item| UserKey::of(&item.notification.tenant, &item.notification.recipient);
        let users = match self.users.look_up_each(items.iter().map(recipient)).await {
            Ok(users) => users,
            Err(error) => {
                tracing::warn!(%error, records = items.len(), "cannot look up recipients, the records wait");
                items.into_iter().for_each(|item| item.ack.retry(DOWN));
                return;
            }
        };
        let now = Timestamp::now();
        let mut burst = Vec::with_capacity(2 * items.len());
        let mut shares = Vec::with_capacity(items.len());
        for (item, user) in items.into_iter().zip(users) {
            let user = match user {
                Ok(user) => user,
                Err(error) => {
                    tracing::error!(%error, "cannot read a user, whose records wait");
                    item.ack.retry(DOWN);
                    continue;
                }
            };
            let before = burst.len();
            self.outgoing(&item, user.as_ref(), now, &mut burst);
            shares.push((item.ack, burst.len() - before));
        }
        let mut results = self.log.publish(burst).await.into_iter();
        for (ack, share) in shares {
            let failed = results.by_ref().take(share).filter_map(Result::err).last();
            match failed {
                None => ack.done(),
                Some(error) => {
                    tracing::warn!(%error, "cannot publish a decision, the record waits");
                    ack.retry(DOWN);
                }
            }
        }
    }
}

impl Router {
    /// Everything that comes of one notification: its deliveries, and a status event for each line of the plan.
    fn outgoing(&self, item: &Item, user: Option<&User>, now: Timestamp, burst: &mut Vec<Outgoing>) {
        let n = &item.notification;
        let snapshot = self.config.snapshot();
        let category = n.category.as_ref().and_then(|c| snapshot.category(&n.tenant, c));
        let policy = Policy { opt_in: category.is_some_and(|c| c.opt_in) };
        let key = topic::recipient_key(&n.tenant, &n.recipient);
        let mut publish = |topic, value| {
            burst.push(Outgoing { topic, key: Some(key.clone()), headers: item.headers.clone(), value: Some(value) });
        };
        let Plan(lines) = decide(n, user, policy, now);
        for line in lines {
            let delivery = match line {
                Planned::Send { channel, address } => {
                    Delivery::begin(n, channel, Some(address), now, State::Queued, None)
                }
                Planned::End { channel, address, state, reason } => {
                    Delivery::begin(n, channel, address, now, state, Some(reason))
                }
            };
            if delivery.state() == State::Queued {
                publish(self.topics.deliveries(delivery.channel, n.priority.lane()), delivery.encode());
            }
            publish(self.topics.status(), Status::Delivery(delivery.status()).encode());
        }
    }
}
