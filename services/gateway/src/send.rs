//! One delivery, from the claim to its recorded end.
//!
//! The order is what keeps the promise: claim, send, settle in the ledger, publish the final event, finish the record. Die
//! before the send and nobody has got it; die after it and the claim is found open, so the outcome is recorded as unknown and
//! the channel's policy decides; die after settling and the final event is published again, without a second send.

use std::{sync::Arc, time::Duration};

use bus::{Config, Headers, Log, Outgoing, consume::Work, dead::DeadLetters, topic};
use domain::{
    Attempt, Channel, Delivery, DeliveryId, Outcome, Policy, Reason, RetryPolicy, State, Status, Timestamp, User,
    decide::may_still_send,
};
use store::{Claim, ClaimRequest, Ledger, Settled, UserKey, Users, users::Found};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::Record as _;

use crate::{
    begun::{Begun, Sending},
    channels::{Answer, Provider},
    gone::is_alive,
    metrics,
};

/// Between two attempts to reach a store or the log.
const DOWN: Duration = Duration::from_secs(1);
/// Added to a lease, for clocks that differ and a store that is slow.
pub(crate) const MARGIN: Duration = Duration::from_secs(2);

pub(crate) struct Sender {
    pub(crate) channel: Channel,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) policy: RetryPolicy,
    /// How long another process's open claim is respected.
    pub(crate) lease: Duration,
    pub(crate) owner: u128,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) status: Arc<str>,
    pub(crate) config: Config,
    pub(crate) users: Arc<dyn Users>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) dead: DeadLetters,
    /// Shared by its loops.
    pub(crate) begun: Begun,
    pub(crate) shutdown: CancellationToken,
}

/// A record that decoded.
pub(crate) struct Item {
    pub(crate) delivery: Delivery,
    pub(crate) work: Work,
}

/// How the attempts ended.
enum End {
    /// The history says how.
    Reached,
    /// As `Reached`, and a person should look: the record becomes a dead letter as well.
    GivenUp(&'static str),
    /// Not at all: the record is left to whoever reads it next.
    LeftOpen,
}

impl Sender {
    /// Takes a delivery to its end, or leaves its record to be handed out again.
    pub(crate) async fn carry_out(
        &self,
        Item { mut delivery, work }: Item,
        user: Found,
        claim: Claim,
        gone: Option<Timestamp>,
    ) {
        let (id, begun) = (delivery.id, Instant::now());
        let claim = match claim {
            Claim::Settled(settled) => match self.reopen(&mut delivery, &settled).await {
                Some(true) => Claim::Granted,
                Some(false) => return work.ack.retry(Duration::from_millis(100)),
                None => return self.publish_again(settled, work).await,
            },
            claim => claim,
        };
        let user = match user {
            Ok(user) => user,
            Err(error) => {
                tracing::error!(%error, "cannot read a user, whose records wait");
                return work.ack.retry(DOWN);
            }
        };
        let Some(mut sending) = Sending::begin(&self.begun, id) else {
            // an earlier assignment of the same partition still sends it
            return work.ack.retry(Duration::from_millis(100));
        };
        match claim {
            Claim::Open { owner, at } if owner != self.owner => {
                if let Err(wait) = self.take_over(id, owner, at).await {
                    sending.over = true;
                    return work.ack.retry(wait);
                }
                unanswered(&mut delivery, "the gateway that claimed it is gone");
            }
            // ours from before; whoever was at it may have come to the end since we asked
            Claim::Open { .. } => match self.settled(id).await {
                Some(settled) => {
                    sending.over = true;
                    return self.publish_again(settled, work).await;
                }
                None if sending.again => unanswered(&mut delivery, "the gateway broke off"),
                None => {}
            },
            Claim::Granted if sending.again => unanswered(&mut delivery, "the gateway broke off"),
            Claim::Granted | Claim::Settled(_) => {}
        }
        match self.attempt_until_end(&mut delivery, &work.record.headers, user, gone).await {
            End::Reached => {}
            End::GivenUp(code) => {
                let why = last_answer(&delivery);
                self.until_answered("write a dead letter", || self.dead.bury(&work.record, code, &why)).await;
            }
            End::LeftOpen => {
                // what is not known must not be forgotten: then the claim stays, and whoever reads it next knows as little
                if !delivery.history.has_unknown() {
                    self.release(id).await;
                    sending.over = true;
                }
                return work.ack.retry(DOWN);
            }
        }
        self.settle(&delivery).await;
        sending.over = true;
        // whoever took longer than its lease may have been taken over: then another end stands, and that one is told
        if !self.lease.is_zero()
            && begun.elapsed() > self.lease
            && let Some(settled) = self.settled(id).await
        {
            return self.publish_again(settled, work).await;
        }
        let last = delivery.history.last();
        metrics::ended(self.channel, delivery.state(), last.and_then(|s| s.reason));
        self.publish(&delivery, work).await;
    }

    /// Attempts as the policy has them; before each one it asks whether the delivery is still wanted.
    async fn attempt_until_end(
        &self,
        delivery: &mut Delivery,
        headers: &Headers,
        mut user: Option<User>,
        gone: Option<Timestamp>,
    ) -> End {
        delivery.provider = Some(self.provider.name().to_owned());
        if let Some(gone) = gone.filter(|gone| !is_alive(delivery, *gone)) {
            // another user may have it too, or whoever learnt it died before it was taken out
            self.address_gone(delivery, gone).await;
            return not_sent(delivery, State::Suppressed, Reason::AddressGone);
        }
        loop {
            let account = {
                let snapshot = self.config.snapshot();
                let category = delivery.category.as_ref().and_then(|c| snapshot.category(&delivery.tenant, c));
                let policy = Policy { opt_in: category.is_some_and(|c| c.opt_in) };
                if let Err((state, reason)) = may_still_send(delivery, user.as_ref(), policy, Timestamp::now()) {
                    return not_sent(delivery, state, reason);
                }
                snapshot.account(&delivery.tenant, self.channel).cloned()
            };
            let (number, asked_at, begun) = (delivery.history.attempts() + 1, Timestamp::now(), Instant::now());
            let Answer { outcome, detail } = self.provider.send(delivery, account.as_ref()).await;
            let took = begun.elapsed();
            metrics::attempt(self.channel, &outcome, took);
            bus::trace::attempted(headers, self.provider.name(), delivery, number, &outcome, took);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let attempt = Attempt::new(number, &outcome, &detail, took_ms);
            let now = Timestamp::now();
            let retry_after = match outcome {
                Outcome::Sent => {
                    delivery.history.attempted(now, State::Sent, None, attempt);
                    return End::Reached;
                }
                Outcome::Transient { retry_after } => retry_after,
                Outcome::Unknown => None,
                Outcome::AddressGone { since } => {
                    // before the end is recorded: whoever finds it ended does not come here again
                    self.address_gone(delivery, since.unwrap_or(asked_at)).await;
                    return fail(delivery, attempt, Reason::AddressGone);
                }
                Outcome::Rejected(reason) => return fail(delivery, attempt, reason),
                Outcome::Misconfigured => {
                    fail(delivery, attempt, Reason::Misconfigured);
                    return End::GivenUp("misconfigured");
                }
            };
            let Some(wait) = self.policy.wait(delivery.history.tries() + 1, retry_after, fastrand::f64()) else {
                fail(delivery, attempt, Reason::RetriesExhausted);
                return End::GivenUp("retries_exhausted");
            };
            delivery.history.attempted(now, State::Deferred, None, attempt);
            user = match self.wait_and_ask_again(delivery, wait).await {
                Some(user) => user,
                None => return End::LeftOpen,
            };
        }
    }

    /// Waits, renews the claim and looks the user up again. `None`: leave the delivery to whoever reads it next.
    async fn wait_and_ask_again(&self, delivery: &Delivery, wait: Duration) -> Option<Option<User>> {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // nothing is under way: the next owner can go on at once
            () = self.shutdown.cancelled() => return None,
        }
        let request = ClaimRequest { delivery: delivery.id, owner: self.owner, at: Timestamp::now() };
        let renewed = self.until_answered("renew a claim", || self.ledger.take_over(&request, self.owner)).await;
        if !renewed {
            return None;
        }
        let Some(key) = UserKey::of(&delivery.tenant, &delivery.recipient) else { return Some(None) };
        let key = [key];
        let mut users = self.until_answered("look a user up", || self.users.lookup(&key)).await;
        Some(users.pop().flatten())
    }

    /// How a delivery with a claim of our own has ended, if it has.
    async fn settled(&self, delivery: DeliveryId) -> Option<Settled> {
        let request = [ClaimRequest { delivery, owner: self.owner, at: Timestamp::now() }];
        match self.until_answered("ask for a claim", || self.ledger.claim(&request)).await.pop() {
            Some(Claim::Settled(settled)) => Some(settled),
            _ => None,
        }
    }

    /// Takes an open claim over once its lease is out; until then, how long to wait.
    async fn take_over(&self, delivery: DeliveryId, from: u128, at: Timestamp) -> Result<(), Duration> {
        let now = Timestamp::now();
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        if let Some(left) = self.lease.checked_sub(age).filter(|left| !left.is_zero()) {
            return Err(left);
        }
        match self.ledger.take_over(&ClaimRequest { delivery, owner: self.owner, at: now }, from).await {
            Ok(true) => Ok(()),
            // somebody else was quicker
            Ok(false) => Err(Duration::from_millis(100)),
            Err(error) => {
                tracing::warn!(%error, "cannot take a claim over, the record waits");
                Err(DOWN)
            }
        }
    }

    async fn release(&self, delivery: DeliveryId) {
        if let Err(error) = self.ledger.release(delivery, self.owner).await {
            tracing::warn!(%error, "cannot give a claim back, it ends with its lease");
        }
    }

    /// Records the end in the ledger, however long that takes: without it a second run would send again.
    async fn settle(&self, delivery: &Delivery) {
        let end = [(delivery.id, Settled(delivery.encode()))];
        self.until_answered("settle a claim", || self.ledger.settle(&end)).await;
    }

    /// Asks until there is an answer: what is known about the delivery by now is only here.
    pub(crate) async fn until_answered<T, E, F>(&self, what: &str, mut ask: impl FnMut() -> F) -> T
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => tracing::warn!(%error, "cannot {what}, trying again"),
            }
            tokio::time::sleep(DOWN).await;
        }
    }

    /// Publishes the final event and finishes the record; if that fails the record comes back and finds its claim settled.
    async fn publish(&self, delivery: &Delivery, work: Work) {
        let event = Status::Delivery(delivery.status()).encode();
        let key = topic::recipient_key(&delivery.tenant, &delivery.recipient);
        let record = Outgoing {
            topic: self.status.clone(),
            key: Some(key),
            headers: work.record.headers.handed_on(),
            value: Some(event),
        };
        match self.log.publish(vec![record]).await.into_iter().next() {
            Some(Ok(_)) => work.ack.done(),
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot publish an end, the record waits");
                work.ack.retry(DOWN);
            }
            None => work.ack.retry(DOWN),
        }
    }

    async fn publish_again(&self, Settled(bytes): Settled, work: Work) {
        match Delivery::decode(&bytes) {
            Ok(delivery) => self.publish(&delivery, work).await,
            Err(error) => {
                let detail = format!("the ledger's entry: {error}");
                self.dead.bury_or_wait(vec![(work, detail)], "undecodable").await;
            }
        }
    }
}

/// Notes that an earlier request may have been sent.
fn unanswered(delivery: &mut Delivery, why: &str) {
    let attempt = Attempt::new(delivery.history.attempts() + 1, &Outcome::Unknown, why, 0);
    delivery.history.attempted(Timestamp::now(), State::Sending, None, attempt);
}

/// Ends it without a request. That is not certain when an earlier attempt got no answer.
fn not_sent(delivery: &mut Delivery, state: State, reason: Reason) -> End {
    let state = if delivery.history.has_unknown() { State::Unknown } else { state };
    delivery.history.reached(Timestamp::now(), state, Some(reason));
    End::Reached
}

fn fail(delivery: &mut Delivery, attempt: Attempt, reason: Reason) -> End {
    let open = attempt.is_unknown() || delivery.history.has_unknown();
    let state = if open { State::Unknown } else { State::Failed };
    delivery.history.attempted(Timestamp::now(), state, Some(reason), attempt);
    End::Reached
}

fn last_answer(delivery: &Delivery) -> String {
    let mut attempts = delivery.history.0.iter().filter_map(|s| s.attempt.as_ref());
    attempts.next_back().map(|a| format!("attempt {}: {} {}", a.number, a.outcome, a.answer)).unwrap_or_default()
}
