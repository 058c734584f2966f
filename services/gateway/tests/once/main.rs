//! Sent once, and what is not known is said: a provider that breaks off, a record that is read twice.

mod taken_over;

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
    Address, Channel, Contacts, Delivery, DeliveryStatus, Lane, Message, Notification, NotificationId, Outcome,
    Preferences, Priority, Reason, Recipient, Selector, State, Status, Strategy, Target, TenantId, Timestamp, User,
    UserId, config::Account,
};
use futures::future::BoxFuture;
use gateway::channels::{Answer, NoRoom, Provider};
use service_kit::{Kit, Settings};
use store::{Change, UserKey};
use wire::Record as _;

/// Takes everything, but panics over the first requests.
#[derive(Default)]
struct Breaks {
    panics: usize,
    calls: AtomicUsize,
}

#[async_trait]
impl Provider for Breaks {
    fn name(&self) -> &'static str {
        "breaks"
    }

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
        message: Message::Content(domain::Content::default()),
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    };
    Delivery::begin(&notification, Channel::Webhook, Some(Target::raw(to)), now, State::Queued, None)
}

/// Makes it a delivery to Ana, whom the kit knows then; calling the answer opts her out.
async fn to_ana(kit: &Kit, delivery: &mut Delivery) -> impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let key = UserKey { tenant: delivery.tenant.clone(), user: UserId::parse("ana").expect("a user") };
    delivery.recipient = Recipient::User(key.user.clone());
    let now = Timestamp::now();
    let ana = User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: None,
        time_zone: None,
        contacts: Contacts::default(),
        devices: vec![],
        preferences: Preferences::default(),
        updated_at: now,
    };
    let change = Change { by: "ana".into(), from: "test".into(), at: now };
    kit.stores.users.put(&ana, &change).await.expect("put");
    let users = kit.stores.users.clone();
    move || {
        let (users, key, change) = (users.clone(), key.clone(), Change { at: Timestamp::now(), ..change.clone() });
        Box::pin(async move {
            let no = Preferences { all: Some(false), ..Preferences::default() };
            assert!(users.put_preferences(&key, &no, &change).await.expect("put"), "she is there");
        })
    }
}

/// Hands the delivery over `times` times to a gateway; gives its final events, as many, and the calls of the provider.
async fn final_events(provider: Breaks, times: usize) -> (Vec<DeliveryStatus>, usize) {
    let provider = Arc::new(provider);
    let records = vec![delivery(); times];
    let events = events_of(provider.clone(), records).await;
    (events, provider.calls.load(SeqCst))
}

/// Hands deliveries over to a gateway, one after the other has ended; gives the final event of each.
async fn events_of(provider: Arc<dyn Provider>, deliveries: Vec<Delivery>) -> Vec<DeliveryStatus> {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
    events_on(Kit::embedded(settings, dir.path()).await.expect("a kit"), provider, deliveries).await
}

async fn events_on(kit: Kit, provider: Arc<dyn Provider>, deliveries: Vec<Delivery>) -> Vec<DeliveryStatus> {
    kit.spawn_config();
    kit.config.ready().await;
    let times = deliveries.len();
    // one recipient: the order holds
    let record = |delivery: &Delivery| Outgoing {
        topic: kit.topics.deliveries(Channel::Webhook, Lane::Normal),
        key: Some(topic::recipient_key(&delivery.tenant, &delivery.recipient)),
        headers: Headers::default(),
        value: Some(delivery.encode()),
    };
    assert!(kit.log.publish(deliveries.iter().map(record).collect()).await.iter().all(Result::is_ok));
    gateway::run_with(&kit, Channel::Webhook, provider).expect("valid settings");
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
    events
}

/// Gives one answer after the other, the last one again and again.
struct Answers(Vec<Outcome>, AtomicUsize);

#[async_trait]
impl Provider for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    async fn send(&self, _: &Delivery, _: Option<&Account>) -> Answer {
        let call = self.1.fetch_add(1, SeqCst).min(self.0.len() - 1);
        Answer { outcome: self.0[call], detail: "as scripted".into() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_driven_on_once_for_each_word() {
    let first = delivery();
    let word = |seconds: i64| {
        let mut again = first.clone();
        let at = Timestamp::from_second(first.accepted_at.as_second() + seconds).expect("a time");
        again.history.reached(at, State::Queued, Some(Reason::Redriven));
        again
    };
    let no = Outcome::Rejected(Reason::ProviderRejected);
    let provider = Arc::new(Answers(vec![no, no, Outcome::Sent], AtomicUsize::new(0)));
    // refused; driven on and refused again; the same word once more; another word; and one that comes too late
    let records = vec![first.clone(), word(10), word(10), word(20), word(30)];
    let events = events_of(provider.clone(), records).await;
    let states: Vec<_> = events.iter().map(|e| (e.state, e.history.attempts())).collect();
    let ends = [(State::Failed, 1), (State::Failed, 2), (State::Failed, 2), (State::Sent, 3), (State::Sent, 3)];
    assert_eq!(states, ends);
    assert_eq!(provider.1.load(SeqCst), 3, "the provider was asked once for each word");
    let versions: Vec<_> = events.iter().map(DeliveryStatus::version).collect();
    assert!(versions.is_sorted() && versions[0] < versions[1] && versions[2] < versions[3], "{versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_is_not_asked_for_again() {
    let (first, mut second) = (delivery(), delivery());
    second.recipient = first.recipient.clone();
    let provider = Arc::new(Answers(vec![Outcome::AddressGone { since: None }], AtomicUsize::new(0)));
    let mut alive = delivery();
    if let Some(target) = &mut alive.target {
        // registered a while after the provider was asked
        target.since = Some(Timestamp::from_second(Timestamp::now().as_second() + 60).expect("a time"));
    }
    let events = events_of(provider.clone(), vec![first, second, alive]).await;
    let ends: Vec<_> = events.iter().map(|e| (e.state, e.reason)).collect();
    let gone = Some(Reason::AddressGone);
    assert_eq!(ends, [(State::Failed, gone), (State::Suppressed, gone), (State::Failed, gone)]);
    assert_eq!(provider.1.load(SeqCst), 2, "the second was not asked for, the third is a new address");
}

/// Has no room so many times; meanwhile something happens.
struct Full {
    times: usize,
    asked: AtomicUsize,
    sent: AtomicUsize,
    meanwhile: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Full {
    fn new(times: usize, meanwhile: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { times, asked: AtomicUsize::new(0), sent: AtomicUsize::new(0), meanwhile: Box::new(meanwhile) })
    }
}

#[async_trait]
impl Provider for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    async fn send(&self, _: &Delivery, _: Option<&Account>) -> Answer {
        self.sent.fetch_add(1, SeqCst);
        Answer { outcome: Outcome::Sent, detail: "taken".into() }
    }

    async fn ready<'a>(
        &'a self,
        delivery: &'a Delivery,
        account: Option<&'a Account>,
    ) -> Result<BoxFuture<'a, Answer>, NoRoom> {
        (self.meanwhile)().await;
        if self.asked.fetch_add(1, SeqCst) < self.times { Err(NoRoom) } else { Ok(self.send(delivery, account)) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_room_is_no_attempt() {
    // more often than there are attempts
    let provider = Full::new(20, || Box::pin(async {}));
    let events = events_of(provider.clone(), vec![delivery()]).await;
    let told: Vec<_> = events[0].history.0.iter().filter_map(|s| s.attempt.as_ref()).map(|a| a.number).collect();
    assert_eq!((events[0].state, told), (State::Sent, vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opts_out_during_the_wait_for_room_gets_nothing() {
    // without room at first; and with room, after a wait
    for times in [1, 0] {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::load(&[gateway::SETTINGS], None, []).expect("the defaults are valid");
        let kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
        let mut delivery = delivery();
        let opts_out = to_ana(&kit, &mut delivery).await;
        let provider = Full::new(times, move || {
            let opted_out = opts_out();
            Box::pin(async move {
                opted_out.await;
                // as long as a wait for a connection
                tokio::time::sleep(Duration::from_millis(200)).await;
            })
        });
        let events = events_on(kit, provider.clone(), vec![delivery]).await;
        assert_eq!((events[0].state, events[0].reason), (State::Suppressed, Some(Reason::OptedOutAll)));
        assert_eq!((provider.sent.load(SeqCst), events[0].history.attempts()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_during_the_wait_for_room_is_not_sent() {
    let mut delivery = delivery();
    let (within, begun) = (Duration::from_secs(1), tokio::time::Instant::now());
    delivery.expires_at = Some(Timestamp::now() + within);
    let provider = Full::new(0, move || Box::pin(tokio::time::sleep_until(begun + 2 * within)));
    let events = events_of(provider.clone(), vec![delivery]).await;
    assert_eq!((events[0].state, events[0].reason), (State::Expired, Some(Reason::Expired)));
    assert_eq!((provider.asked.load(SeqCst), provider.sent.load(SeqCst)), (1, 0));
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
