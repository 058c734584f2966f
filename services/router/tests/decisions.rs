//! What comes of a notification: whose words in which language, what fails alone, what waits, and who leads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{Follow, FollowEvent, Headers, Outgoing, topic};
use domain::{
    Address, Channel, ChannelType, Contact, Contacts, Content, Delivery, DeliveryStatus, Device, DeviceId, Environment,
    Locale, Message, Notification, NotificationId, Preferences, Priority, Reason, Recipient, Selector, State, Status,
    Strategy, TemplateRef, TenantId, Timestamp, User, UserId,
    config::{EntryKey, Kind},
    content::Text,
    template::Template,
};
use serde_json::{Map, Value, json};
use service_kit::{Kit, Settings};
use store::{Change, UserKey};
use templates::{Compiled, Limits};
use wire::Record as _;

/// A router over the embedded engines, and what it has said so far.
struct Desk {
    kit: Kit,
    status: Box<dyn Follow>,
    said: Vec<DeliveryStatus>,
    _dir: tempfile::TempDir,
}

impl Desk {
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut settings = Settings::load(&[router::SETTINGS], None, []).expect("the defaults are valid");
        // so that there is one order of all events
        settings.set("embedded.partitions", 1);
        let kit = Kit::embedded(settings, dir.path()).await.expect("a kit");
        kit.spawn_config();
        kit.config.ready().await;
        let status = kit.log.follow(&kit.topics.status()).await.expect("status");
        Self { kit, status, said: Vec::new(), _dir: dir }
    }

    async fn template(&self, owner: &str, version: &str, contents: Value) {
        let at = EntryKey { tenant: tenant(owner), kind: Kind::Templates, name: version.to_owned() };
        let value =
            json!({"template": template(contents), "published_at": "2026-11-21T08:00:00Z", "published_by": "t"});
        self.kit.config.put(&at, Some(&value)).await.expect("put");
    }

    /// A user of acme with a webhook, a mail address and a device for each language, which may be none.
    async fn user(&self, id: &str, locale: Option<&str>, devices: &[Option<&str>], preferences: Preferences) {
        let now = Timestamp::now();
        let mut contacts = Contacts::default();
        for (channel, address) in [(Channel::Webhook, "https://example.com/hook"), (Channel::Email, "ana@example.com")]
        {
            let address = Address::parse(channel, address).expect("an address");
            contacts.add(channel, Contact { address, since: now });
        }
        let key = UserKey { tenant: tenant("acme"), user: UserId::parse(id).expect("an id") };
        let change = Change { by: "test".into(), from: "test".into(), at: now };
        let user = User {
            tenant: key.tenant.clone(),
            id: key.user.clone(),
            locale: locale.map(self::locale),
            time_zone: None,
            contacts,
            devices: vec![],
            preferences,
            updated_at: now,
        };
        self.kit.stores.users.put(&user, &change).await.expect("put");
        for (i, read) in devices.iter().enumerate() {
            let token = Address::parse(Channel::Apns, &format!("{:02x}", i + 1).repeat(32)).expect("a token");
            let device = Device {
                id: DeviceId::derive(&key.tenant, Channel::Apns, id, &token),
                channel: Channel::Apns,
                app: id.to_owned(),
                token,
                environment: Environment::Production,
                locale: read.map(self::locale),
                time_zone: None,
                registered_at: now,
                last_active_at: now,
            };
            let put = self.kit.stores.users.put_device(&key, &device, None, 5, &change).await.expect("put_device");
            assert_eq!(put, Some(vec![]));
        }
    }

    async fn hand_over(&self, notifications: &[&Notification]) {
        let record = |n: &&Notification| Outgoing {
            topic: self.kit.topics.notifications(ChannelType::Chat, n.priority.lane()),
            key: Some(topic::recipient_key(&n.tenant, &n.recipient)),
            headers: Headers::default(),
            value: Some(n.encode()),
        };
        let results = self.kit.log.publish(notifications.iter().map(record).collect()).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Waits until it has said so much in all.
    async fn says(&mut self, count: usize) {
        let all = async {
            while self.said.len() < count {
                let FollowEvent::Records(records) = self.status.next().await.expect("an event") else { continue };
                for record in records {
                    match wire::decode(record.value.as_ref()).expect("a status") {
                        Status::Delivery(delivery) => self.said.push(delivery),
                        Status::Notification(_) => panic!("the ingress says that"),
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("it is decided in time");
    }

    /// What it has handed on for a channel.
    async fn deliveries(&self, channel: Channel) -> Vec<Delivery> {
        let topic = self.kit.topics.deliveries(channel, Priority::default().lane());
        let mut follow = self.kit.log.follow(&topic).await.expect("deliveries");
        let mut found = Vec::new();
        while let FollowEvent::Records(records) = follow.next().await.expect("an event") {
            found.extend(records.iter().map(|r| wire::decode::<Delivery>(r.value.as_ref()).expect("a delivery")));
        }
        found
    }

    /// Stops it when it has said so much in all, and nothing else.
    async fn ends_with(mut self, count: usize) {
        self.kit.shutdown.cancel();
        assert!(self.kit.clone().finish().await, "it drains");
        let Self { kit, said, .. } = &mut self;
        let mut follow = kit.log.follow(&kit.topics.status()).await.expect("status");
        let mut events = 0;
        while let FollowEvent::Records(records) = follow.next().await.expect("an event") {
            events += records.len();
        }
        assert_eq!(events, count, "{said:?}");
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a name")
}

fn locale(text: &str) -> Locale {
    Locale::parse(text).expect("a locale")
}

fn template(contents: Value) -> Value {
    json!({"default_locale": "en", "variables": {"order": {"default": "17"}, "a": {"default": ""}, "l": {"default": []}},
        "contents": contents})
}

fn notification(owner: &str, recipient: Recipient, channels: &[Channel], message: Message) -> Notification {
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("now");
    Notification {
        id: NotificationId::new(now),
        tenant: tenant(owner),
        recipient,
        category: None,
        priority: Priority::default(),
        channels: channels.iter().copied().map(Selector::Channel).collect(),
        strategy: Strategy::All,
        message,
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    }
}

fn ana() -> Recipient {
    Recipient::User(UserId::parse("ana").expect("an id"))
}

fn raw(channel: Channel, text: &str) -> Recipient {
    Recipient::Address(channel, Address::parse(channel, text).expect("an address"))
}

fn order(data: Value) -> Message {
    let Value::Object(data) = data else { panic!("data is an object") };
    Message::Template { template: TemplateRef::parse("order@1").expect("a version"), data }
}

fn plain() -> Message {
    let text = Text { title: String::new(), body: "B".into() };
    Message::Content(Content { default: Some(text), channels: [].into() })
}

/// A minute ago and more: longer than anything that was accepted takes to be here.
fn long_ago() -> Timestamp {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now - 61).expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_the_recipients_language() {
    let mut desk = Desk::open().await;
    let said = |language: &str| json!({"default": {"title": language, "body": "{{ order }} {{ a }}"}});
    let contents: Map<_, _> = ["en", "de", "fr", "it"].map(|l| (l.to_owned(), said(l))).into_iter().collect();
    desk.template("acme", "order@1", contents.into()).await;
    desk.user("ana", Some("it-CH"), &[Some("de-AT"), None, Some("ja")], Preferences::default()).await;
    desk.user("bob", Some("ja"), &[None], Preferences::default()).await;
    router::run(&desk.kit).expect("valid settings");

    let both = [Channel::Apns, Channel::Webhook];
    let bob = Recipient::User(UserId::parse("bob").expect("an id"));
    let stranger = raw(Channel::Webhook, "https://example.com/raw");
    let mut all = Vec::new();
    for (recipient, asked, expected) in [
        // the device's before the user's, and what nobody has written is not chosen
        (ana(), None, (vec!["de", "it", "it"], vec!["it"])),
        // the request's before both, as far as it is known
        (ana(), Some("fr-CA"), (vec!["fr", "fr", "fr"], vec!["fr"])),
        (ana(), Some("ja"), (vec!["de", "it", "it"], vec!["it"])),
        (bob, None, (vec!["en"], vec!["en"])),
        (stranger.clone(), None, (vec![], vec!["en"])),
        (stranger, Some("de-CH"), (vec![], vec!["de"])),
    ] {
        let n = notification("acme", recipient, &both, order(json!({"a": "x"})));
        all.push((Notification { locale: asked.map(locale), ..n }, expected));
    }
    desk.hand_over(&all.iter().map(|(n, _)| n).collect::<Vec<_>>()).await;
    // those who have only an address are told that there is none for the other channel
    let count = 4 + 4 + 4 + 2 + 2 + 2;
    desk.says(count).await;
    let mut handed_on = BTreeMap::new();
    for channel in both {
        for d in desk.deliveries(channel).await {
            let text = d.content.default.clone().expect("a default");
            assert_eq!((text.body.as_str(), &d.locale), ("17 x", &Some(locale(&text.title))), "rendered, and in what");
            assert_eq!(d.template.as_ref().map(ToString::to_string).as_deref(), Some("order@1"));
            handed_on.entry((d.notification, channel)).or_insert_with(Vec::new).push(text.title);
        }
    }
    for (n, (apns, webhook)) in &all {
        for (channel, expected) in [(Channel::Apns, apns), (Channel::Webhook, webhook)] {
            let mut found = handed_on.remove(&(n.id, channel)).unwrap_or_default();
            found.sort();
            assert_eq!(found, *expected, "{channel}, asked for {:?}", n.locale);
        }
    }
    desk.ends_with(count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_fails_for_the_channel_that_it_fails_for() {
    let mut desk = Desk::open().await;
    let contents = json!({"en": {
        "default": {"title": "", "body": "order {{ order }}"},
        // undefined at that time, and refused by the channel when it is rendered
        "webhook": {"text": "{{ order.no.such }}"},
        "email": {"subject": "{{ a }}", "text": "T"},
    }});
    desk.template("acme", "order@1", contents).await;
    desk.user("ana", None, &[None], Preferences::default()).await;
    router::run(&desk.kit).expect("valid settings");
    let channels = [Channel::Webhook, Channel::Email, Channel::Apns];
    let n = notification("acme", ana(), &channels, order(json!({"a": "Hi\r\nBcc: eve@example.com"})));
    desk.hand_over(&[&n]).await;
    desk.says(3).await;
    let failed = Some(Reason::TemplateFailed);
    let ends: Vec<_> = desk.said.iter().map(|d| (d.channel, d.state, d.reason, d.leads)).collect();
    let expected = [
        (Channel::Webhook, State::Failed, failed, true),
        (Channel::Email, State::Failed, failed, false),
        (Channel::Apns, State::Queued, None, false),
    ];
    assert_eq!(ends, expected);
    assert!(desk.said.iter().all(|d| d.template.as_deref() == Some("order@1")), "what failed is found by its template");
    assert_eq!((desk.deliveries(Channel::Webhook).await, desk.deliveries(Channel::Email).await), (vec![], vec![]));
    let sent = desk.deliveries(Channel::Apns).await.remove(0).content.default.expect("a default");
    assert_eq!(sent.body, "order 17");
    desk.ends_with(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_here_yet_is_waited_for() {
    let mut desk = Desk::open().await;
    desk.user("ana", None, &[], Preferences::default()).await;
    router::run(&desk.kit).expect("valid settings");
    let channels = [Channel::Webhook, Channel::Email];
    let early = notification("acme", ana(), &channels, order(json!({})));
    let next = notification("acme", ana(), &channels[..1], plain());
    // in one batch with it
    let others = [1, 2].map(|i| {
        let to = raw(Channel::Webhook, &format!("https://example.com/{i}"));
        notification("acme", to, &channels[..1], plain())
    });
    desk.hand_over(&[&early, &next, &others[0]]).await;
    desk.says(1).await;
    desk.hand_over(&[&others[1]]).await;
    desk.says(2).await;
    let said: Vec<_> = desk.said.iter().map(|d| d.notification).collect();
    assert_eq!(said, others.each_ref().map(|n| n.id), "the others go on, and of this one nothing is said");
    // half of it would be there if it were published as it is decided
    desk.template("acme", "order@1", json!({"en": {"default": {"title": "", "body": "here"}}})).await;
    desk.says(5).await;
    let said: Vec<_> = desk.said[2..].iter().map(|d| (d.notification, d.state)).collect();
    let expected = [early.id, early.id, next.id].map(|id| (id, State::Queued));
    assert_eq!(said, expected, "in the order of their recipient");
    let words: Vec<_> = desk.deliveries(Channel::Webhook).await.into_iter().map(|d| d.content.default).collect();
    let words: Vec<_> = words.into_iter().flatten().map(|text| text.body).collect();
    assert_eq!(words, ["B", "B", "here", "B"]);
    desk.ends_with(5).await;
}

/// Row 48 of the catalogue (reliability.md, section 7): another tenant's version of that name is no version at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_does_not_come_fails_also_when_another_tenant_has_it() {
    let mut desk = Desk::open().await;
    desk.template("acme", "order@1", json!({"en": {"default": {"title": "", "body": "acme's secret"}}})).await;
    router::run(&desk.kit).expect("valid settings");
    let to = raw(Channel::Webhook, "https://example.com/hook");
    let theirs = notification("globex", to.clone(), &[Channel::Webhook], order(json!({})));
    let theirs = Notification { accepted_at: long_ago(), ..theirs };
    let ours = notification("acme", to, &[Channel::Webhook], order(json!({})));
    let ours = Notification { accepted_at: long_ago(), ..ours };
    desk.hand_over(&[&theirs, &ours]).await;
    desk.says(2).await;
    let ends: Vec<_> = desk.said.iter().map(|d| (d.tenant.as_str(), d.state, d.reason)).collect();
    assert_eq!(ends, [("globex", State::Failed, Some(Reason::TemplateFailed)), ("acme", State::Queued, None)]);
    let handed_on = desk.deliveries(Channel::Webhook).await;
    assert_eq!(handed_on.iter().map(|d| d.tenant.as_str()).collect::<Vec<_>>(), ["acme"]);
    desk.ends_with(2).await;
}

/// What conservation stands on: the first line of a plan leads, whatever becomes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_every_recipient_one_delivery_leads() {
    let mut desk = Desk::open().await;
    desk.template("acme", "order@1", json!({"en": {"webhook": {"text": "{{ order.no.such }}"}}})).await;
    desk.user("ana", None, &[None, None], Preferences::default()).await;
    desk.user("deaf", None, &[None], Preferences { all: Some(false), ..Preferences::default() }).await;
    router::run(&desk.kit).expect("valid settings");
    let user = |id: &str| Recipient::User(UserId::parse(id).expect("an id"));
    let all = [Channel::Apns, Channel::Email, Channel::Webhook];
    let expired = notification("acme", ana(), &all, plain());
    let expired = Notification { expires_at: Some(expired.accepted_at), ..expired };
    let twice = notification("acme", ana(), &all, plain());
    let push = vec![Selector::Type(ChannelType::Push), Selector::Channel(Channel::Apns)];
    let twice = Notification { channels: push, ..twice };
    let best = notification("acme", ana(), &all, plain());
    let best = Notification { strategy: Strategy::BestOf, ..best };
    let cases = [
        (notification("acme", ana(), &all, plain()), 4),
        (notification("acme", user("deaf"), &all, plain()), 3),
        (notification("acme", user("nobody"), &all, plain()), 3),
        (notification("acme", raw(Channel::Email, "eve@example.com"), &all, plain()), 3),
        (notification("acme", ana(), &[Channel::Webhook, Channel::Email], order(json!({}))), 2),
        (expired, 3),
        (twice, 2),
        (best, 2),
    ];
    desk.hand_over(&cases.iter().map(|(n, _)| n).collect::<Vec<_>>()).await;
    let count = cases.iter().map(|(_, lines)| lines).sum();
    desk.says(count).await;
    for (n, lines) in &cases {
        let of: Vec<_> = desk.said.iter().filter(|d| d.notification == n.id).collect();
        assert_eq!(of.len(), *lines, "{of:?}");
        let leads: Vec<_> = of.iter().map(|d| d.leads).collect();
        assert!(leads[0] && leads[1..].iter().all(|leads| !leads), "{leads:?}");
    }
    // also in what the gateways will say of them
    let mut handed_on = Vec::new();
    for channel in all {
        handed_on.extend(desk.deliveries(channel).await);
    }
    for d in handed_on {
        let said = desk.said.iter().find(|s| s.id == d.id).expect("it was said");
        assert_eq!(said.leads, d.leads);
    }
    desk.ends_with(count).await;
}

/// As a router that comes after one that was killed has it, which finds a record again that was decided, wholly told or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_once_stands_whatever_the_user_does_then() {
    let mut desk = Desk::open().await;
    desk.user("ana", Some("de"), &[None, None], Preferences::default()).await;
    desk.user("ben", None, &[], Preferences { all: Some(false), ..Preferences::default() }).await;
    router::run(&desk.kit).expect("valid settings");
    let all = [Channel::Apns, Channel::Email];
    let ben = Recipient::User(UserId::parse("ben").expect("an id"));
    let soon = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(3600)).expect("a time");
    let wanted = Notification { expires_at: Some(soon), ..notification("acme", ana(), &all, plain()) };
    let unwanted = notification("acme", ben, &all, plain());
    desk.hand_over(&[&wanted, &unwanted]).await;
    desk.says(5).await;

    desk.user("ana", None, &[], Preferences { all: Some(false), ..Preferences::default() }).await;
    desk.user("ben", None, &[None], Preferences::default()).await;
    // as an event that was published twice comes a second time
    let accepted_at = Timestamp::now();
    let late = Notification { expires_at: Some(wanted.accepted_at), accepted_at, ..wanted.clone() };
    desk.hand_over(&[&late, &unwanted]).await;
    desk.says(10).await;
    let told = |d: &DeliveryStatus| (d.id, d.state, d.reason, d.leads, d.accepted_at, d.history.clone());
    let (first, again) = desk.said.split_at(5);
    assert_eq!(first.iter().map(told).collect::<Vec<_>>(), again.iter().map(told).collect::<Vec<_>>());
    let ids = |deliveries: Vec<Delivery>| deliveries.iter().map(|d| d.id).collect::<Vec<_>>();
    let pushed = ids(desk.deliveries(Channel::Apns).await);
    assert_eq!((pushed.len(), &pushed[..2]), (4, &pushed[2..]), "told again, as the gateway may not have it");
    desk.ends_with(10).await;
}

/// As much work as a text may be: 3,025 rounds, each with twice as many bytes as `a` has.
const BOMB: &str = "{% for i in l %}{% for j in l %}{% set x = a ~ a %}{% endfor %}{% endfor %}done";

fn heavy(bytes: usize) -> Value {
    json!({"a": "x".repeat(bytes), "l": vec![0; 55]})
}

/// The router's half of row 41 of the catalogue (reliability.md, section 7): it renders within the limits that the bombs of
/// `crates/templates` are held against, once each; and nobody has to wait for all bombs of a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_bounded_and_other_tenants_do_not_wait_for_them() {
    const BOMBS: usize = 400;
    let contents = json!({"en": {"default": {"title": "", "body": BOMB}}});
    let bomb: Arc<Template> =
        serde_json::from_value::<Template>(template(contents.clone())).expect("a template").into();
    let compiled = Compiled::new(&bomb).expect("it compiles");
    let renders = |bytes: usize| {
        let Value::Object(data) = heavy(bytes) else { panic!("an object") };
        compiled.render(Channel::Webhook, &[], &data, Limits::default()).is_ok()
    };
    // the most that may be, by bisection
    let (mut most, mut least) = (1, 4096);
    assert!(renders(most) && !renders(least));
    while least - most > 1 {
        let middle = usize::midpoint(most, least);
        if renders(middle) { most = middle } else { least = middle }
    }

    let mut desk = Desk::open().await;
    desk.template("acme", "order@1", contents).await;
    desk.template("globex", "order@1", json!({"en": {"default": {"title": "", "body": "small"}}})).await;
    let to = |i: usize| raw(Channel::Webhook, &format!("https://example.com/{i}"));
    let sized = |i, bytes| notification("acme", to(i), &[Channel::Webhook], order(heavy(bytes)));
    let mut all = vec![sized(0, most)];
    all.extend((1..=BOMBS).map(|i| sized(i, least)));
    all.push(notification("globex", to(0), &[Channel::Webhook], order(json!({}))));
    desk.hand_over(&all.iter().collect::<Vec<_>>()).await;
    router::run(&desk.kit).expect("valid settings");
    desk.says(all.len()).await;
    let place = desk.said.iter().position(|d| d.tenant.as_str() == "globex").expect("it is decided");
    assert!(place < BOMBS / 4, "behind {place} of another tenant");
    for d in &desk.said {
        let expected = match d.notification {
            id if id == all[0].id || d.tenant.as_str() == "globex" => (State::Queued, None),
            _ => (State::Failed, Some(Reason::TemplateFailed)),
        };
        assert_eq!((d.state, d.reason), expected, "what is too much is so by one byte");
    }
    let words: Vec<_> = desk.deliveries(Channel::Webhook).await.into_iter().filter_map(|d| d.content.default).collect();
    let mut words: Vec<_> = words.iter().map(|text| text.body.as_str()).collect();
    words.sort_unstable();
    assert_eq!(words, ["done", "small"]);
    let count = all.len();
    desk.ends_with(count).await;
}
