//! Batch in, deliveries and status events out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus::{
    Config, Log, Outgoing, Topics,
    config::Snapshot,
    consume::{Ack, Stage, Work},
    dead::DeadLetters,
    topic,
};
use domain::{Delivery, Notification, Plan, Planned, Policy, State, Status, TenantId, Timestamp, User, decide};
use foldhash::HashMap;
use store::{Decided, Decision, Ledger, StoreError, UserKey, Users};
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
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) dead: DeadLetters,
    pub(crate) words: Words,
}

/// A record that decoded.
struct Item {
    notification: Notification,
    work: Work,
}

/// Boxed, for a case is large and passed on a few times.
type Cases = Vec<Box<Case>>;

/// A record that was decided over, with the user as they are now, for the language.
struct Case {
    item: Item,
    user: Option<User>,
    plan: Plan,
}

#[async_trait]
impl Stage for Router {
    async fn handle(&self, batch: Vec<Work>) {
        let decoded = self.dead.decode::<Notification>(batch).await;
        let items: Vec<_> = decoded.into_iter().map(|(notification, work)| Item { notification, work }).collect();
        let decided = self.decide(items).await;
        let mut burst = Vec::with_capacity(2 * decided.len());
        let mut shares = Vec::with_capacity(decided.len());
        let mut begun = Instant::now();
        let snapshot = self.config.snapshot();
        for decided in in_turns(decided.into_iter(), |d| d.item.notification.tenant.clone()) {
            if begun.elapsed() > BURST {
                self.publish(std::mem::take(&mut burst), std::mem::take(&mut shares)).await;
                begun = Instant::now();
            }
            let before = burst.len();
            let ended = self.outgoing(&decided, &snapshot, &mut burst);
            let ack = decided.item.work.ack;
            if let Err(Missing(template)) = ended {
                tracing::warn!(%template, "a template is not here yet, the record waits");
                burst.truncate(before);
                ack.retry(DOWN);
                continue;
            }
            shares.push((ack, burst.len() - before));
        }
        self.publish(burst, shares).await;
    }
}

/// Puts what is of one tenant behind each other and the tenants side by side, so that none of them has to wait for all that
/// another one has sent.
fn in_turns<T>(all: impl Iterator<Item = T>, tenant: impl Fn(&T) -> TenantId) -> impl Iterator<Item = T> {
    let mut turns: HashMap<TenantId, usize> = HashMap::default();
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
    /// Decides, and has the ledger keep it: whoever comes to a record again, because this process or its answer was lost, makes
    /// the same of it, though the user may have changed since. A record of which that cannot be said waits.
    async fn decide(&self, items: Vec<Item>) -> Cases {
        let recipient = |item: &Item| UserKey::of(&item.notification.tenant, &item.notification.recipient);
        let users = match self.users.look_up_each(items.iter().map(recipient)).await {
            Ok(users) => users,
            Err(error) => return wait(items.into_iter(), &error, "cannot look up recipients, the records wait"),
        };
        let (now, snapshot) = (Timestamp::now(), self.config.snapshot());
        let (mut decided, mut decisions) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for (item, user) in items.into_iter().zip(users) {
            let user = match user {
                Ok(user) => user,
                Err(error) => {
                    tracing::error!(%error, "cannot read a user, whose records wait");
                    item.work.ack.retry(DOWN);
                    continue;
                }
            };
            let n = &item.notification;
            let category = n.category.as_ref().and_then(|c| snapshot.category(&n.tenant, c));
            let policy = Policy { opt_in: category.is_some_and(|c| c.opt_in) };
            let plan = decide(n, user.as_ref(), policy, now);
            let (notification, recipient) = (n.id, n.recipient.key());
            decisions.push(Decision { notification, recipient, plan: Decided(plan.encode()) });
            decided.push(Box::new(Case { item, user, plan }));
        }
        match self.ledger.decide(&decisions).await {
            Ok(stood) => self.stand_by(decided, stood).await,
            Err(error) => {
                wait(decided.into_iter().map(|d| d.item), &error, "cannot record decisions, the records wait")
            }
        }
    }

    /// Takes the decisions that stood already.
    async fn stand_by(&self, decided: Cases, stood: Vec<Option<Decided>>) -> Cases {
        let (mut standing, mut unreadable) = (Vec::with_capacity(decided.len()), Vec::new());
        for (mut decided, stood) in decided.into_iter().zip(stood) {
            match stood.map(|plan| Plan::decode(&plan.0)) {
                None => standing.push(decided),
                Some(Ok(plan)) => {
                    decided.plan = plan;
                    decided.item.notification.accepted_at = decided.plan.accepted_at;
                    standing.push(decided);
                }
                Some(Err(error)) => unreadable.push((decided.item.work, format!("the ledger's entry: {error}"))),
            }
        }
        self.dead.bury_or_wait(unreadable, "undecodable").await;
        standing
    }

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
        Case { item, user, plan }: &Case,
        snapshot: &Snapshot,
        burst: &mut Vec<Outgoing>,
    ) -> Result<(), Missing> {
        let n = &item.notification;
        let key = topic::recipient_key(&n.tenant, &n.recipient);
        let headers = item.work.record.headers.handed_on();
        let mut publish = |topic, value| {
            burst.push(Outgoing { topic, key: Some(key.clone()), headers: headers.clone(), value: Some(value) });
        };
        for (i, line) in plan.lines.iter().enumerate() {
            let mut delivery = match line {
                Planned::Send { channel, target, locale } => {
                    let wanted = [n.locale.as_ref(), locale.as_ref(), user.as_ref().and_then(|u| u.locale.as_ref())];
                    let target = Some(target.clone());
                    let mut delivery = Delivery::begin(n, *channel, target, plan.at, State::Queued, None);
                    self.words.put_into(&mut delivery, n, snapshot, wanted)?;
                    delivery
                }
                Planned::End { channel, state, reason } => {
                    Delivery::begin(n, *channel, None, plan.at, *state, Some(*reason))
                }
            };
            delivery.leads = i == 0;
            if delivery.state() == State::Queued {
                publish(self.topics.deliveries(delivery.channel, n.priority.lane()), delivery.encode());
            }
            publish(self.topics.status(), Status::Delivery(delivery.into_status()).encode());
        }
        Ok(())
    }
}

/// Hands the records back until a store answers again.
fn wait(items: impl Iterator<Item = Item>, error: &StoreError, what: &str) -> Cases {
    let mut records = 0;
    for item in items {
        item.work.ack.retry(DOWN);
        records += 1;
    }
    tracing::warn!(%error, records, "{what}");
    Vec::new()
}
