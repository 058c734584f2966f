//! Batch in, deliveries and status events out.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus::{
    Config, Headers, Log, Outgoing, Topics,
    consume::{Ack, Stage, Work},
    dead::DeadLetters,
    topic,
};
use domain::{Delivery, Notification, Plan, Planned, Policy, State, Status, TenantId, Timestamp, User, decide};
use store::{UserKey, Users};
use wire::Record as _;

use crate::words::{Missing, Words};

/// How long records wait when a store or the log is down.
const DOWN: Duration = Duration::from_secs(1);

/// What was decided is published after this time, though the batch has more: a template can take long to render, and neither
/// the other notifications nor the other tasks of this thread wait for all of them.
const BURST: Duration = Duration::from_millis(50);

pub(crate) struct Router {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) topics: Topics,
    pub(crate) config: Config,
    pub(crate) users: Arc<dyn Users>,
    pub(crate) dead: DeadLetters,
    pub(crate) words: Words,
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
        let mut begun = Instant::now();
        for (item, user) in in_turns(items.into_iter().zip(users), |(item, _)| item.notification.tenant.clone()) {
            if begun.elapsed() > BURST {
                self.publish(std::mem::take(&mut burst), std::mem::take(&mut shares)).await;
                begun = Instant::now();
            }
            let user = match user {
                Ok(user) => user,
                Err(error) => {
                    tracing::error!(%error, "cannot read a user, whose records wait");
                    item.ack.retry(DOWN);
                    continue;
                }
            };
            let before = burst.len();
            if let Err(Missing(template)) = self.outgoing(&item, user.as_ref(), now, &mut burst) {
                tracing::warn!(%template, "a template is not here yet, the record waits");
                burst.truncate(before);
                item.ack.retry(DOWN);
                continue;
            }
            shares.push((item.ack, burst.len() - before));
        }
        self.publish(burst, shares).await;
    }
}

/// Puts what is of one tenant behind each other and the tenants side by side, so that none of them has to wait for all that
/// another one has sent.
fn in_turns<T>(all: impl Iterator<Item = T>, tenant: impl Fn(&T) -> TenantId) -> impl Iterator<Item = T> {
    let mut turns: HashMap<TenantId, usize> = HashMap::new();
    let turn = |item| {
        let turn = turns.entry(tenant(&item)).or_default();
        *turn += 1;
        (*turn, item)
    };
    let mut all: Vec<_> = all.map(turn).collect();
    all.sort_by_key(|(turn, _)| *turn);
    all.into_iter().map(|(_, item)| item)
}

impl Router {
    /// Publishes the decisions on some notifications, of which each has a share, and finishes those.
    async fn publish(&self, burst: Vec<Outgoing>, shares: Vec<(Ack, usize)>) {
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

    /// Everything that comes of one notification: its deliveries, and a status event for each line of the plan.
    fn outgoing(
        &self,
        item: &Item,
        user: Option<&User>,
        now: Timestamp,
        burst: &mut Vec<Outgoing>,
    ) -> Result<(), Missing> {
        let n = &item.notification;
        let snapshot = self.config.snapshot();
        let category = n.category.as_ref().and_then(|c| snapshot.category(&n.tenant, c));
        let policy = Policy { opt_in: category.is_some_and(|c| c.opt_in) };
        let key = topic::recipient_key(&n.tenant, &n.recipient);
        let mut publish = |topic, value| {
            burst.push(Outgoing { topic, key: Some(key.clone()), headers: item.headers.clone(), value: Some(value) });
        };
        let Plan(lines) = decide(n, user, policy, now);
        for (i, line) in lines.into_iter().enumerate() {
            let mut delivery = match line {
                Planned::Send { channel, target, locale } => {
                    let wanted = [n.locale.as_ref(), locale.as_ref(), user.and_then(|u| u.locale.as_ref())];
                    let delivery = Delivery::begin(n, channel, Some(target), now, State::Queued, None);
                    self.words.put_into(delivery, n, &snapshot, wanted, now)?
                }
                Planned::End { channel, state, reason } => Delivery::begin(n, channel, None, now, state, Some(reason)),
            };
            delivery.leads = i == 0;
            if delivery.state() == State::Queued {
                publish(self.topics.deliveries(delivery.channel, n.priority.lane()), delivery.encode());
            }
            publish(self.topics.status(), Status::Delivery(delivery.status()).encode());
        }
        Ok(())
    }
}
