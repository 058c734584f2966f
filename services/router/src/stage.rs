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

/// Boxed, for a case is large and passed on a few times.
type Cases = Vec<Box<Case>>;

/// A record that decoded, and what is made of it.
struct Case {
    notification: Notification,
    work: Work,
    /// As they are now, for the language.
    user: Option<User>,
    /// Has no lines until it is decided.
    plan: Plan,
}

impl Case {
    fn new((notification, work): (Notification, Work)) -> Box<Self> {
        let plan = Plan { at: notification.accepted_at, accepted_at: notification.accepted_at, lines: Vec::new() };
        Box::new(Self { notification, work, user: None, plan })
    }
}

#[async_trait]
impl Stage for Router {
    async fn handle(&self, batch: Vec<Work>) {
        let decoded = self.dead.decode::<Notification>(batch).await;
        let decided = self.decide(decoded.into_iter().map(Case::new).collect()).await;
        let mut burst = Vec::with_capacity(2 * decided.len());
        let mut shares = Vec::with_capacity(decided.len());
        let mut begun = Instant::now();
        let snapshot = self.config.snapshot();
        for mut case in in_turns(decided, |case| &case.notification.tenant) {
            if begun.elapsed() > BURST {
                self.publish(std::mem::take(&mut burst), std::mem::take(&mut shares)).await;
                begun = Instant::now();
            }
            let before = burst.len();
            let ended = self.outgoing(&mut case, &snapshot, &mut burst);
            let ack = case.work.ack;
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
fn in_turns<T>(all: Vec<T>, tenant: impl Fn(&T) -> &TenantId) -> impl Iterator<Item = T> {
    let mut counts: HashMap<&TenantId, usize> = HashMap::default();
    let turn = |item| {
        let count = counts.entry(tenant(item)).or_default();
        *count += 1;
        *count
    };
    let turns: Vec<_> = all.iter().map(turn).collect();
    let mut all: Vec<_> = turns.into_iter().zip(all).collect();
    all.sort_by_key(|(turn, _)| *turn);
    all.into_iter().map(|(_, item)| item)
}

impl Router {
    /// Decides, and has the ledger keep it: whoever comes to a record again, because this process or its answer was lost, makes
    /// the same of it, though the user may have changed since. A record of which that cannot be said waits.
    async fn decide(&self, cases: Cases) -> Cases {
        let recipients = cases.iter().map(|case| UserKey::of(&case.notification.tenant, &case.notification.recipient));
        let users = match self.users.look_up_each(recipients).await {
            Ok(users) => users,
            Err(error) => return wait(cases, &error, "cannot look up recipients, the records wait"),
        };
        let (now, snapshot) = (Timestamp::now(), self.config.snapshot());
        let (mut decided, mut decisions) = (Vec::with_capacity(cases.len()), Vec::with_capacity(cases.len()));
        for (mut case, user) in cases.into_iter().zip(users) {
            match user {
                Ok(user) => case.user = user,
                Err(error) => {
                    tracing::error!(%error, "cannot read a user, whose records wait");
                    case.work.ack.retry(DOWN);
                    continue;
                }
            }
            let n = &case.notification;
            let category = n.category.as_ref().and_then(|c| snapshot.category(&n.tenant, c));
            let policy = Policy { opt_in: category.is_some_and(|c| c.opt_in) };
            let plan = decide(n, case.user.as_ref(), policy, now);
            let (notification, recipient) = (n.id, n.recipient.key());
            decisions.push(Decision { notification, recipient, plan: Decided(plan.encode()) });
            case.plan = plan;
            decided.push(case);
        }
        match self.ledger.decide(&decisions).await {
            Ok(stood) => self.stand_by(decided, stood).await,
            Err(error) => wait(decided, &error, "cannot record decisions, the records wait"),
        }
    }

    /// Takes the decisions that stood already.
    async fn stand_by(&self, decided: Cases, stood: Vec<Option<Decided>>) -> Cases {
        let (mut standing, mut unreadable) = (Vec::with_capacity(decided.len()), Vec::new());
        for (mut case, stood) in decided.into_iter().zip(stood) {
            match stood.map(|plan| Plan::decode(&plan.0)) {
                None => standing.push(case),
                Some(Ok(plan)) => {
                    case.notification.accepted_at = plan.accepted_at;
                    case.plan = plan;
                    standing.push(case);
                }
                Some(Err(error)) => unreadable.push((case.work, format!("the ledger's entry: {error}"))),
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

    /// Everything that comes of one notification: its deliveries, and a status event for each line of the plan, which are taken
    /// out of it.
    fn outgoing(
        &self,
        Case { notification: n, work, user, plan }: &mut Case,
        snapshot: &Snapshot,
        burst: &mut Vec<Outgoing>,
    ) -> Result<(), Missing> {
        let key = topic::recipient_key(&n.tenant, &n.recipient);
        let headers = work.record.headers.handed_on();
        let mut publish = |topic, value| {
            burst.push(Outgoing { topic, key: Some(key.clone()), headers: headers.clone(), value: Some(value) });
        };
        for (i, line) in std::mem::take(&mut plan.lines).into_iter().enumerate() {
            let mut delivery = match line {
                Planned::Send { channel, target, locale } => {
                    let wanted = [n.locale.as_ref(), locale.as_ref(), user.as_ref().and_then(|u| u.locale.as_ref())];
                    let mut delivery = Delivery::begin(n, channel, Some(target), plan.at, State::Queued, None);
                    self.words.put_into(&mut delivery, n, snapshot, wanted)?;
                    delivery
                }
                Planned::End { channel, state, reason } => {
                    Delivery::begin(n, channel, None, plan.at, state, Some(reason))
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
fn wait(cases: Cases, error: &StoreError, what: &str) -> Cases {
    tracing::warn!(%error, records = cases.len(), "{what}");
    cases.into_iter().for_each(|case| case.work.ack.retry(DOWN));
    Vec::new()
}
