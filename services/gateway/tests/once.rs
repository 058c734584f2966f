//! Sent once, and what is not known is said: a provider that breaks off, a record that is read twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus::{FollowEvent, Headers, Outgoing, topic};
use domain::{
    Address, Channel, Delivery, DeliveryStatus, Lane, Notification, NotificationId, Outcome, Priority, Recipient,
    Selector, State, Status, Strategy, TenantId, Timestamp, config::Account,
};
use gateway::channels::{Answer, Provider};
use service_kit::{Kit, Settings};
use wire::Record as _;

/// Takes everything, but panics over the first requests.
#[derive(Default)]
struct Breaks {
    panics: usize,
    calls: AtomicUsize,
}

#[async_trait]
impl Provider for Breaks {
    async fn send(&self, _: &Delivery, _: Option<&Account>) -> Answer {
        let call = self.calls.fetch_add(1, SeqCst);
        assert!(call >= self.panics, "broken on purpose");
        Answer { outcome: Outcome::Sent, detail: "taken".into() }
    }
}

fn delivery() -> Delivery {
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("now");
    let to = Address::parse(Channel::Webhook, "https://example.com/hook").expect("a URL");
    let notification = Notification {
        id: NotificationId::new(now),
        tenant: TenantId::parse("acme").expect("a tenant"),
        recipient: Recipient::Address(Channel::Webhook, to.clone()),
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        strategy: Strategy::All,
        content: domain::Content::default(),
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    };
    Delivery::begin(&notification, Channel::Webhook, Some(to), now, State::Queued, None)
}

/// Hands the delivery over `times` times to a gateway; gives its final events, as many, and the calls of the provider.
async fn final_events(provider: Breaks, times: usize) -> (Vec<DeliveryStatus>, usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    let kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
    kit.spawn_config();
    kit.config.ready().await;
    let delivery = delivery();
    let record = Outgoing {
        topic: kit.topics.deliveries(Channel::Webhook, Lane::Normal),
        key: Some(topic::recipient_key(&delivery.tenant, &delivery.recipient)),
        headers: Headers::default(),
        value: Some(delivery.encode()),
    };
    assert!(kit.log.publish(vec![record; times]).await.iter().all(Result::is_ok));
    let provider = Arc::new(provider);
    gateway::run_with(&kit, Channel::Webhook, provider.clone()).expect("valid settings");
    let mut follow = kit.log.follow(&kit.topics.status()).await.expect("status");
    let mut events = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while events.len() < times {
        let left = deadline.saturating_duration_since(Instant::now());
        let event =
            tokio::time::timeout(left, follow.next()).await.expect("the events come in time").expect("an event");
        let FollowEvent::Records(records) = event else { continue };
        for record in records {
            if let Status::Delivery(d) = wire::decode(record.value.as_ref()).expect("a status") {
                events.push(d);
            }
        }
    }
    kit.shutdown.cancel();
    assert!(kit.finish().await, "it drains");
    (events, provider.calls.load(SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_read_again_is_not_sent_again() {
    let (events, calls) = final_events(Breaks::default(), 3).await;
    assert_eq!(calls, 1);
    assert_eq!(events[0].state, State::Sent);
    assert!(events.iter().all(|e| *e == events[0]), "the same event again: {events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_broke_off_is_unknown_not_unmade() {
    let (events, calls) = final_events(Breaks { panics: 1, ..Breaks::default() }, 1).await;
    assert_eq!(calls, 2);
    let attempts: Vec<_> = events[0].history.0.iter().filter_map(|s| s.attempt.as_ref()).collect();
    let told: Vec<_> = attempts.iter().map(|a| (a.number, a.outcome.as_str())).collect();
    assert_eq!(told, [(1, "unknown"), (2, "sent")]);
    assert_eq!(events[0].state, State::Sent);
}
