//! One delivery, from the claim to its recorded end.
//!
//! The order is what keeps the promise: claim, send, settle in the ledger, publish the final event, finish the record. Die
//! before the send and nobody has got it; die after it and the claim is found open, so the outcome is recorded as unknown and
//! the channel's policy decides; die after settling and the final event is published again, without a second send.

use std::{sync::Arc, time::Duration};

use bus::{Config, consume::Work, dead::DeadLetters};
use domain::{Attempt, Channel, Delivery, DeliveryId, Outcome, Reason, RetryPolicy, State, Status, Timestamp};
use store::{Claim, Ledger, Settled, StoreError, Users};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use wire::Record as _;

use crate::{
    begun::{Begun, Sending},
    channels::{Answer, Provider},
    ends::{Ended, Fresh},
    gone::is_alive,
    metrics,
    patience::{DOWN, until_answered},
    wanted::{Known, Unsent},
};

pub(crate) struct Sender {
    pub(crate) channel: Channel,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) policy: RetryPolicy,
    /// How long another process's open claim is respected.
    pub(crate) lease: Duration,
    pub(crate) owner: u128,
    pub(crate) config: Config,
    pub(crate) users: Arc<dyn Users>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) dead: DeadLetters,
    /// Shared by the loops of its channel.
    pub(crate) begun: Begun,
    /// Takes what has ended; there is a place for everything that is in flight.
    pub(crate) ends: mpsc::Sender<Ended>,
    pub(crate) shutdown: CancellationToken,
}

/// A record that decoded.
pub(crate) struct Item {
    pub(crate) delivery: Box<Delivery>,
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

/// A request that was made.
struct Asked {
    at: Timestamp,
    took: Duration,
    answer: Answer,
}

impl Sender {
    /// Takes a delivery to its end, or leaves its record to be handed out again. (An async function would have room for its
    /// arguments twice, and hundreds of these are in hand at once.)
    pub(crate) fn carry_out(
        &self,
        mut item: Item,
        mut known: Result<Known, StoreError>,
        mut claim: Claim,
        gone: Option<Timestamp>,
    ) -> impl Future<Output = ()> {
        let id = item.delivery.id;
        async move {
            claim = match claim {
                // what is rare is kept apart: hundreds of these are in hand at once
                Claim::Settled(settled) => match Box::pin(self.reopen(&mut item.delivery, &settled)).await {
                    Some(true) => Claim::Granted,
                    Some(false) => return item.work.ack.retry(Duration::from_millis(100)),
                    None => return Box::pin(self.tell_again(id, settled, item.work)).await,
                },
                claim => claim,
            };
            let known = match &mut known {
                Ok(known) => known,
                Err(error) => {
                    tracing::error!(%error, "cannot read a user, whose records wait");
                    return item.work.ack.retry(DOWN);
                }
            };
            let Some(mut sending) = Sending::begin(&self.begun, id) else {
                // an earlier assignment of the same partition still sends it
                return item.work.ack.retry(Duration::from_millis(100));
            };
            match claim {
                Claim::Open { owner, at } if owner != self.owner => {
                    if let Err(wait) = Box::pin(self.take_over(&mut sending, id, owner, at)).await {
                        return item.work.ack.retry(wait);
                    }
                    unanswered(&mut item.delivery, "the gateway that claimed it is gone");
                }
                // ours from before; whoever was at it may have come to the end since we asked, or have given it back
                Claim::Open { .. } => match Box::pin(self.claim(id)).await {
                    Some(Claim::Settled(settled)) => {
                        sending.over = true;
                        return Box::pin(self.tell_again(id, settled, item.work)).await;
                    }
                    Some(Claim::Open { owner, .. }) if owner != self.owner => {
                        sending.over = true;
                        return item.work.ack.retry(Duration::from_millis(100));
                    }
                    _ if sending.again => unanswered(&mut item.delivery, "the gateway broke off"),
                    _ => {}
                },
                Claim::Granted if sending.again => unanswered(&mut item.delivery, "the gateway broke off"),
                Claim::Granted | Claim::Settled(_) => {}
            }
            match self.attempt_until_end(&mut item, known, gone).await {
                End::Reached => {}
                End::GivenUp(code) => {
                    let why = last_answer(&item.delivery);
                    let bury = || self.dead.bury(&item.work.record, code, &why);
                    Box::pin(until_answered("write a dead letter", bury)).await;
                }
                End::LeftOpen => {
                    // what is not known must not be forgotten: then the claim stays, and whoever reads it next knows as little
                    if !item.delivery.history.has_unknown() {
                        Box::pin(self.release(id)).await;
                        sending.over = true;
                    }
                    return item.work.ack.retry(DOWN);
                }
            }
            let Item { delivery, work } = item;
            let (state, reason) = (delivery.state(), delivery.history.last().and_then(|s| s.reason));
            let event = Status::Delivery(delivery.into_status()).encode();
            self.end(Ended { delivery: id, event, fresh: Some(Fresh { state, reason, sending }), work });
        }
    }

    /// Attempts as the policy has them.
    async fn attempt_until_end(&self, item: &mut Item, known: &mut Known, gone: Option<Timestamp>) -> End {
        let Item { delivery, work } = item;
        delivery.provider = Some(self.provider.name().to_owned());
        if let Some(gone) = gone.filter(|gone| !is_alive(delivery, *gone)) {
            // another user may have it too, or whoever learnt it died before it was taken out
            Box::pin(self.address_gone(delivery, gone)).await;
            return not_sent(delivery, State::Suppressed, Reason::AddressGone);
        }
        loop {
            let Asked { at: asked_at, took, answer: Answer { outcome, detail } } =
                match self.attempt(delivery, known).await {
                    Ok(asked) => asked,
                    Err(Unsent::NotWanted(state, reason)) => return not_sent(delivery, state, reason),
                    Err(Unsent::LeftOpen) => return End::LeftOpen,
                };
            let number = delivery.history.attempts() + 1;
            metrics::attempt(self.channel, &outcome, took);
            bus::trace::attempted(&work.record.headers, self.provider.name(), delivery, number, &outcome, took);
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
                    Box::pin(self.address_gone(delivery, since.unwrap_or(asked_at))).await;
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
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // nothing is under way: the next owner can go on at once
                () = self.shutdown.cancelled() => return End::LeftOpen,
            }
            *known = match Box::pin(self.ask_again(delivery)).await {
                Some(known) => known,
                None => return End::LeftOpen,
            };
        }
    }

    /// One request, as soon as there is room for it. Waiting for that is no attempt, however long it takes; whether the
    /// delivery is still wanted is asked before it, so that nothing waits in vain, and after it, right before the request.
    async fn attempt(&self, delivery: &Delivery, known: &mut Known) -> Result<Asked, Unsent> {
        loop {
            let snapshot = self.config.snapshot();
            self.still_wanted(&snapshot, delivery, known)?;
            let account = snapshot.account(&delivery.tenant, self.channel);
            let ready = tokio::select! {
                biased;
                ready = self.provider.ready(delivery, account) => ready,
                () = self.shutdown.cancelled() => return Err(Unsent::LeftOpen),
            };
            if let Ok(request) = ready
                && self.is_current(delivery, known).await?
            {
                let (at, begun) = (Timestamp::now(), Instant::now());
                let answer = request.await;
                return Ok(Asked { at, took: begun.elapsed(), answer });
            }
            *known = Box::pin(self.ask_again(delivery)).await.ok_or(Unsent::LeftOpen)?;
        }
    }

    /// Tells an end that stands in the ledger.
    async fn tell_again(&self, delivery: DeliveryId, Settled(event): Settled, work: Work) {
        match Status::decode(&event) {
            Ok(_) => self.end(Ended { delivery, event, fresh: None, work }),
            Err(error) => {
                let detail = format!("the ledger's entry: {error}");
                self.dead.bury_or_wait(vec![(work, detail)], "undecodable").await;
            }
        }
    }

    fn end(&self, ended: Ended) {
        use mpsc::error::TrySendError::{Closed, Full};
        // there is a place for everything that is in flight
        if let Err(Closed(ended) | Full(ended)) = self.ends.try_send(ended) {
            tracing::warn!("nobody takes an end, its record waits");
            ended.work.ack.retry(DOWN);
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
