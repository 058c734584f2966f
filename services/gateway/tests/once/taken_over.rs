//! Claims that change hands while somebody is at them, or while nobody hears of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Address, Attempt, Channel, Delivery, DeliveryId, Outcome, Reason, State, Status, TenantId, Timestamp,
    config::Account,
};
use futures::future::BoxFuture;
use gateway::channels::{Answer, Provider};
use service_kit::{Health, Kit, Settings};
use store::{Claim, ClaimRequest, Decided, Decision, Ledger, Settled, StoreError};
use wire::Record as _;

use crate::{Breaks, delivery, events_on, to_ana};

/// Is so slow that its gateway is taken for gone: meanwhile another one takes over, and ends the delivery.
struct Slow {
    ledger: Arc<dyn Ledger>,
    owner: u128,
    health: Health,
    /// The other one ends it before this one has its answer; or else when this one has come to its own end with it, and waits.
    first: bool,
}

/// Until a loop has a record that waits.
async fn until_one_waits(health: &Health) {
    while health.loops().iter().all(|vitals| vitals.waiting() == 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[async_trait]
impl Provider for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    async fn send(&self, delivery: &Delivery, _: Option<&Account>) -> Answer {
        let other = ClaimRequest { delivery: delivery.id, owner: 2, at: Timestamp::now() };
        assert!(self.ledger.take_over(&other, self.owner).await.expect("answered"), "it was ours");
        let (mut end, ledger, health, first) = (delivery.clone(), self.ledger.clone(), self.health.clone(), self.first);
        let ends = async move {
            if !first {
                until_one_waits(&health).await;
            }
            end.history.reached(Timestamp::now(), State::Failed, Some(Reason::ProviderRejected));
            let end = (end.id, Settled(Status::Delivery(end.into_status()).encode()));
            assert_eq!(ledger.settle(2, &[end]).await.expect("settled"), [None], "it is the other one's");
        };
        if first {
            ends.await
        } else {
            drop(tokio::spawn(ends))
        }
        Answer { outcome: Outcome::Sent, detail: "taken".into() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_is_told_however_slow_a_gateway_was() {
    for first in [true, false] {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
        let mut kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
        kit.exclusive = false;
        let slow = Slow { ledger: kit.stores.ledger.clone(), owner: kit.owner, health: kit.health.clone(), first };
        let events = events_on(kit, Arc::new(slow), vec![delivery()]).await;
        let states: Vec<_> = events.iter().map(|event| event.state).collect();
        assert_eq!(states, [State::Failed], "the end of who has taken over");
    }
}

/// A ledger that does some calls though nobody hears of it: the calls of that name with these numbers, from 0 on.
struct Mute {
    ledger: Arc<dyn Ledger>,
    call: &'static str,
    lost: Vec<usize>,
    calls: AtomicUsize,
    /// Happens before the last of them is lost.
    meanwhile: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Mute {
    fn new(ledger: Arc<dyn Ledger>, call: &'static str, lost: Vec<usize>) -> Self {
        Self { ledger, call, lost, calls: AtomicUsize::new(0), meanwhile: Box::new(|| Box::pin(async {})) }
    }

    async fn say<T: Send>(&self, call: &str, answer: T) -> Result<T, StoreError> {
        if call != self.call {
            return Ok(answer);
        }
        let number = self.calls.fetch_add(1, SeqCst);
        if !self.lost.contains(&number) {
            return Ok(answer);
        }
        if self.lost.last() == Some(&number) {
            (self.meanwhile)().await;
        }
        Err(StoreError::unavailable("ledger", "timed out"))
    }
}

#[async_trait]
impl Ledger for Mute {
    async fn take_over(&self, request: &ClaimRequest, from: u128) -> Result<bool, StoreError> {
        let taken = self.ledger.take_over(request, from).await?;
        self.say("take_over", taken).await
    }

    async fn decide(&self, decisions: &[Decision]) -> Result<Vec<Option<Decided>>, StoreError> {
        self.ledger.decide(decisions).await
    }

    async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
        let claims = self.ledger.claim(requests).await?;
        self.say("claim", claims).await
    }

    async fn release(&self, delivery: DeliveryId, owner: u128) -> Result<(), StoreError> {
        self.ledger.release(delivery, owner).await
    }

    async fn settle(&self, owner: u128, ends: &[(DeliveryId, Settled)]) -> Result<Vec<Option<Claim>>, StoreError> {
        self.ledger.settle(owner, ends).await
    }

    async fn reopen(&self, request: &ClaimRequest, settled: &Settled) -> Result<bool, StoreError> {
        let opened = self.ledger.reopen(request, settled).await?;
        self.say("reopen", opened).await
    }

    async fn mark_gone(
        &self,
        tenant: &TenantId,
        channel: Channel,
        address: &Address,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.ledger.mark_gone(tenant, channel, address, at).await
    }

    async fn gone(&self, addresses: &[(TenantId, Channel, Address)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        self.ledger.gone(addresses).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ledger.ping().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_without_an_answer_does_not_forget_who_had_the_claim() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    let mut kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
    // somebody has claimed it, may have sent it, and is gone; now it is too late for it
    let mut delivery = delivery();
    let claim = ClaimRequest { delivery: delivery.id, owner: 2, at: Timestamp::now() };
    assert_eq!(kit.stores.ledger.claim(&[claim]).await.expect("answered"), [Claim::Granted]);
    delivery.expires_at = Some(Timestamp::now());
    kit.stores.ledger = Arc::new(Mute::new(kit.stores.ledger.clone(), "take_over", vec![0]));
    ends_unknown_without_a_request(kit, delivery).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_opened_again_without_an_answer_keeps_its_attempts() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    let mut kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
    let mut delivery = delivery();
    // an end whose attempt the record does not know of
    let (mut end, at) = (delivery.clone(), Timestamp::now());
    end.history.attempted(at, State::Unknown, None, Attempt::new(1, &Outcome::Unknown, "no answer", 0));
    let claim = ClaimRequest { delivery: delivery.id, owner: 2, at };
    assert_eq!(kit.stores.ledger.claim(&[claim]).await.expect("answered"), [Claim::Granted]);
    let end = (delivery.id, Settled(Status::Delivery(end.into_status()).encode()));
    assert_eq!(kit.stores.ledger.settle(2, &[end]).await.expect("settled"), [None]);
    // an operator drives it on, too late
    delivery.history.reached(Timestamp::now(), State::Queued, Some(Reason::Redriven));
    delivery.expires_at = Some(Timestamp::now());
    kit.stores.ledger = Arc::new(Mute::new(kit.stores.ledger.clone(), "reopen", vec![0]));
    ends_unknown_without_a_request(kit, delivery).await;
}

async fn ends_unknown_without_a_request(kit: Kit, delivery: Delivery) {
    let provider = Arc::new(Breaks::default());
    let events = events_on(kit, provider.clone(), vec![delivery]).await;
    let attempts: Vec<_> = events[0].history.0.iter().filter_map(|s| s.attempt.as_ref()).collect();
    let told: Vec<_> = attempts.iter().map(|a| (a.number, a.outcome.as_str())).collect();
    assert_eq!((events[0].state, told), (State::Unknown, vec![(1, "unknown")]), "it may have been sent");
    assert_eq!(provider.calls.load(SeqCst), 0);
}

/// Found by `make chaos MODE=sim SEED=466859817`.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_opts_out_while_the_ledger_is_down_gets_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    let mut kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
    let mut delivery = delivery();
    let opts_out = to_ana(&kit, &mut delivery).await;
    // the claim is granted unheard, then found; the question what came of it is asked twice, and she opts out in between
    let mut mute = Mute::new(kit.stores.ledger.clone(), "claim", vec![0, 2]);
    mute.meanwhile = Box::new(opts_out);
    kit.stores.ledger = Arc::new(mute);
    let provider = Arc::new(Breaks::default());
    let events = events_on(kit, provider.clone(), vec![delivery]).await;
    assert_eq!((events[0].state, events[0].reason), (State::Suppressed, Some(Reason::OptedOutAll)));
    assert_eq!(provider.calls.load(SeqCst), 0);
}

/// Found by `make chaos MODE=sim SEED=480019907`.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_given_back_meanwhile_is_another_s() {
    let dir = tempfile::tempdir().expect("a folder");
    let short = [("CARILLON__GATEWAY__WEBHOOK__TIMEOUT", "1s"), ("CARILLON__GATEWAY__RETRY__CAP", "500ms")];
    let short = short.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let settings = Settings::load(&[gateway::SETTINGS], None, short).expect("valid settings");
    let mut kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
    kit.exclusive = false;
    let (delivery, us, ledger, health) = (delivery(), kit.owner, kit.stores.ledger.clone(), kit.health.clone());
    let mut end = delivery.clone();
    end.history.reached(Timestamp::now(), State::Failed, Some(Reason::ProviderRejected));
    let (id, end) = (end.id, Settled(Status::Delivery(end.into_status()).encode()));
    // granted unheard, then found as ours; an earlier assignment gives it back, and another gateway takes it
    let mut mute = Mute::new(ledger.clone(), "claim", vec![0, 2]);
    mute.meanwhile = Box::new(move || {
        let (ledger, end, health) = (ledger.clone(), end.clone(), health.clone());
        Box::pin(async move {
            ledger.release(id, us).await.expect("released");
            let claim = ClaimRequest { delivery: id, owner: 2, at: Timestamp::now() };
            assert_eq!(ledger.claim(&[claim]).await.expect("answered"), [Claim::Granted]);
            tokio::spawn(async move {
                until_one_waits(&health).await;
                assert_eq!(ledger.settle(2, &[(id, end)]).await.expect("settled"), [None], "it is the other one's");
            });
        })
    });
    kit.stores.ledger = Arc::new(mute);
    let provider = Arc::new(Breaks::default());
    let events = events_on(kit, provider.clone(), vec![delivery]).await;
    assert_eq!((events[0].state, provider.calls.load(SeqCst)), (State::Failed, 0), "the other one has sent it");
}
