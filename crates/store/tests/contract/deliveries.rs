//! What every `Deliveries` does.

use std::collections::BTreeMap;

use domain::{
    Attempt, CategoryKey, Channel, ChannelType, DeliveryId, DeliveryStatus, History, NotificationId,
    NotificationStatus, Outcome, Priority, Reason, Selector, State, Status, TenantId, UserId,
};
use store::{Balance, Deliveries, DeliveryQuery, NotificationView, Page};
use uuid::Uuid;

use crate::{at, eventually, tenant};

fn notification(tenant: &TenantId) -> NotificationStatus {
    NotificationStatus {
        id: NotificationId::new(at(0)),
        tenant: tenant.clone(),
        recipients: 1,
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        accepted_at: at(0),
        expires_at: None,
        template: None,
        metadata: BTreeMap::new(),
    }
}

/// A delivery that has been through these states.
fn delivery(tenant: &TenantId, notification: NotificationId, accepted: i64, states: &[State]) -> DeliveryStatus {
    let mut history = History::default();
    for (i, state) in (0..).zip(states) {
        history.reached(at(accepted + i), *state, None);
    }
    DeliveryStatus {
        id: DeliveryId(Uuid::new_v4()),
        notification,
        tenant: tenant.clone(),
        user: Some(UserId::parse("ana").expect("an id")),
        recipient_key: "user:ana".into(),
        channel: Channel::Webhook,
        address: Some("https://example.com/…".into()),
        category: None,
        priority: Priority::default(),
        state: *states.last().expect("a state"),
        reason: None,
        template: None,
        provider: None,
        leads: true,
        accepted_at: at(accepted),
        updated_at: history.last().expect("a step").at,
        metadata: BTreeMap::new(),
        history,
    }
}

fn stranger() -> NotificationId {
    NotificationId(Uuid::new_v4())
}

async fn index(store: &dyn Deliveries, documents: &[Status]) {
    assert_eq!(store.index(documents).await.expect("index"), vec![Ok(()); documents.len()]);
}

async fn page(
    store: &dyn Deliveries,
    tenant: &TenantId,
    query: &DeliveryQuery,
    cursor: Option<&str>,
    n: usize,
) -> Page {
    store.search(tenant, query, cursor, n).await.expect("search").expect("a readable cursor")
}

async fn found(store: &dyn Deliveries, tenant: &TenantId, query: &DeliveryQuery) -> Vec<DeliveryId> {
    page(store, tenant, query, None, 1000).await.items.iter().map(|d| d.id).collect()
}

/// Waits until a tenant has as many deliveries as that.
async fn settle(store: &dyn Deliveries, tenant: &TenantId, count: usize) {
    let all = DeliveryQuery::default();
    let counted = || async { (found(store, tenant, &all).await.len() == count).then_some(()) };
    eventually("all deliveries are found", counted).await;
}

/// Waits until a notification can be seen with as many deliveries as that.
async fn view(store: &dyn Deliveries, tenant: &TenantId, id: NotificationId, count: usize) -> NotificationView {
    let seen = || async { store.notification(tenant, id).await.expect("notification") };
    eventually("the notification is seen", || async { seen().await.filter(|v| v.deliveries.len() == count) }).await
}

pub async fn a_document_comes_back_whole(store: &dyn Deliveries) {
    let tenant = tenant();
    let words =
        [("ключ", "значение"), ("with.dot", "a\"b\\c\n\u{1F514}"), ("", ""), ("a", "2026-01-01"), ("n", "1e400")];
    let metadata: BTreeMap<_, _> = words.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let full = NotificationStatus {
        recipients: 1000,
        category: Some(CategoryKey::parse("orders_2-x").expect("a name")),
        priority: Priority::parse(10).expect("a priority"),
        channels: vec![Selector::Channel(Channel::Webhook), Selector::Type(ChannelType::Chat)],
        expires_at: Some(at(5_000_000_000)),
        template: Some("order-shipped@3".into()),
        metadata: metadata.clone(),
        ..notification(&tenant)
    };
    let mut rich = delivery(&tenant, full.id, 0, &[State::Accepted, State::Queued]);
    let attempt =
        |number, outcome: Outcome| Attempt::new(number, &outcome, "503 überlastet: \"später\"", 12_345_678_901);
    rich.history.attempted(at(3), State::Deferred, None, attempt(1, Outcome::Transient { retry_after: None }));
    rich.history.attempted(
        at(4),
        State::Failed,
        Some(Reason::ProviderRejected),
        attempt(2, Outcome::Rejected(Reason::ProviderRejected)),
    );
    rich.history.reached(at(4), State::Failed, Some(Reason::RetriesExhausted));
    let rich = DeliveryStatus {
        category: full.category.clone(),
        priority: full.priority,
        state: State::Failed,
        reason: Some(Reason::RetriesExhausted),
        template: Some("order-shipped@3".into()),
        provider: Some("webhook".into()),
        leads: false,
        updated_at: at(4),
        metadata,
        ..rich
    };
    let raw = DeliveryStatus {
        user: None,
        recipient_key: "webhook:0123456789abcdef".into(),
        address: None,
        ..delivery(&tenant, full.id, 1, &[State::Accepted])
    };
    let bare = notification(&tenant);
    let documents = [
        Status::Delivery(rich.clone()),
        Status::Notification(full.clone()),
        Status::Notification(bare.clone()),
        Status::Delivery(raw.clone()),
    ];
    index(store, &documents).await;
    let expected = NotificationView { notification: full.clone(), deliveries: vec![rich.clone(), raw.clone()] };
    assert_eq!(view(store, &tenant, full.id, 2).await, expected);
    assert_eq!(view(store, &tenant, bare.id, 0).await, NotificationView { notification: bare, deliveries: vec![] });
    settle(store, &tenant, 2).await;
    assert_eq!(page(store, &tenant, &DeliveryQuery::default(), None, 10).await.items, [raw, rich], "newest first");
    assert_eq!(store.index(&[]).await.expect("index"), []);
}

pub async fn deliveries_are_oldest_first_and_wait_for_their_notification(store: &dyn Deliveries) {
    let tenant = tenant();
    let request = notification(&tenant);
    let steps = [3, 1, 2, 5, 4];
    let early: Vec<_> = steps.map(|s| Status::Delivery(delivery(&tenant, request.id, s, &[State::Accepted]))).into();
    index(store, &early).await;
    settle(store, &tenant, 5).await;
    assert_eq!(store.notification(&tenant, request.id).await.expect("notification"), None, "it has not come yet");
    index(store, &[Status::Notification(request.clone())]).await;
    let seen = view(store, &tenant, request.id, 5).await;
    assert_eq!(seen.notification, request);
    assert_eq!(seen.deliveries.iter().map(|d| d.accepted_at).collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(at));
    assert_eq!(store.notification(&tenant, stranger()).await.expect("notification"), None);
}

/// Row 36 of the catalogue (reliability.md, section 7): a version conflict is no failure.
pub async fn an_older_version_never_replaces_a_newer_one(store: &dyn Deliveries) {
    let tenant = tenant();
    let request = notification(&tenant);
    let third = delivery(&tenant, request.id, 0, &[State::Accepted, State::Queued, State::Sending]);
    let after = |states: &[State]| {
        let DeliveryStatus { state, updated_at, history, .. } = delivery(&tenant, request.id, 0, states);
        DeliveryStatus { state, updated_at, history, ..third.clone() }
    };
    let (second, fourth) = (
        after(&[State::Accepted, State::Queued]),
        after(&[State::Accepted, State::Queued, State::Sending, State::Sent]),
    );
    let state = || async { view(store, &tenant, request.id, 1).await.deliveries.remove(0).state };

    index(store, &[Status::Notification(request.clone()), Status::Delivery(third.clone())]).await;
    assert_eq!(state().await, State::Sending);
    // older, the same again, older and newer in one call
    index(store, &[Status::Delivery(second.clone()), Status::Notification(request.clone())]).await;
    index(store, &[Status::Delivery(third.clone()), Status::Delivery(third.clone())]).await;
    let marker = delivery(&tenant, stranger(), 9, &[State::Accepted]);
    index(store, &[Status::Delivery(marker)]).await;
    settle(store, &tenant, 2).await;
    assert_eq!(state().await, State::Sending, "it stays");

    index(store, &[Status::Delivery(third), Status::Delivery(fourth.clone()), Status::Delivery(second)]).await;
    let newest = || async { (state().await == State::Sent).then_some(()) };
    eventually("the newest version is seen", newest).await;
    assert_eq!(view(store, &tenant, request.id, 1).await.deliveries, [fourth]);
    let sent = DeliveryQuery { state: Some(State::Sent), ..DeliveryQuery::default() };
    let sending = DeliveryQuery { state: Some(State::Sending), ..DeliveryQuery::default() };
    eventually("it is found by its new state", || async {
        (found(store, &tenant, &sent).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(found(store, &tenant, &sending).await, [], "and not by its old one");
}

/// Row 48 of the catalogue (reliability.md, section 7).
pub async fn a_tenant_sees_nothing_of_another(store: &dyn Deliveries) {
    let (ours, theirs) = (tenant(), tenant());
    let request = notification(&theirs);
    let documents: Vec<_> = [Status::Notification(request.clone())]
        .into_iter()
        .chain((0..3).map(|s| Status::Delivery(delivery(&theirs, request.id, s, &[State::Accepted]))))
        .collect();
    index(store, &documents).await;
    let own = delivery(&ours, stranger(), 1, &[State::Accepted]);
    index(store, &[Status::Delivery(own.clone())]).await;
    view(store, &theirs, request.id, 3).await;
    settle(store, &theirs, 3).await;
    settle(store, &ours, 1).await;

    assert_eq!(store.notification(&ours, request.id).await.expect("notification"), None);
    let of_theirs = DeliveryQuery { notification: Some(request.id), ..DeliveryQuery::default() };
    assert_eq!(found(store, &ours, &of_theirs).await, []);
    assert_eq!(found(store, &ours, &DeliveryQuery::default()).await, [own.id]);
    for q in [request.id.to_string(), "ana".to_owned(), format!("{theirs}"), format!("ana\" OR tenant : \"{theirs}")] {
        let query = DeliveryQuery { q: Some(q), ..DeliveryQuery::default() };
        assert!(found(store, &ours, &query).await.iter().all(|id| *id == own.id), "{query:?}");
    }
    let balances = store.balance(Some(&ours), at(100)).await.expect("balance");
    assert!(balances.iter().all(|b| b.tenant == ours && b.recipients == 0 && b.decided == 1), "{balances:?}");
    let cursor = page(store, &theirs, &DeliveryQuery::default(), None, 1).await.next_cursor.expect("two more");
    let stolen = store.search(&ours, &DeliveryQuery::default(), Some(&cursor), 10).await.expect("search");
    assert!(stolen.is_none_or(|p| p.items.iter().all(|d| d.tenant == ours)), "another tenant's cursor opens nothing");
}

pub async fn a_view_and_a_page_are_limited(store: &dyn Deliveries) {
    let tenant = tenant();
    let request = notification(&tenant);
    let all: Vec<_> = (0..10_020).map(|step| delivery(&tenant, request.id, step, &[State::Accepted])).collect();
    index(store, &[Status::Notification(request.clone())]).await;
    for some in all.chunks(1_000) {
        index(store, &some.iter().cloned().map(Status::Delivery).collect::<Vec<_>>()).await;
    }
    let oldest: Vec<_> = all[..10_000].iter().map(|d| d.id).collect();
    let limited = || async {
        let seen = store.notification(&tenant, request.id).await.expect("notification")?;
        (seen.deliveries.iter().map(|d| d.id).collect::<Vec<_>>() == oldest).then_some(())
    };
    eventually("the view has the 10,000 oldest", limited).await;
    let newest: Vec<_> = all.iter().rev().take(1_000).map(|d| d.id).collect();
    let limited = || async {
        let page = page(store, &tenant, &DeliveryQuery::default(), None, 1_000).await;
        (page.items.iter().map(|d| d.id).collect::<Vec<_>>() == newest && page.next_cursor.is_some()).then_some(())
    };
    eventually("the page has the 1,000 newest", limited).await;
}

pub async fn every_filter_filters(store: &dyn Deliveries) {
    let tenant = tenant();
    let n = stranger();
    let orders = CategoryKey::parse("orders").expect("a name");
    let bob = UserId::parse("Bob:x+y@example.com").expect("an id");
    let plain = delivery(&tenant, stranger(), 0, &[State::Queued]);
    let of_bob = DeliveryStatus { user: Some(bob.clone()), ..delivery(&tenant, stranger(), 1, &[State::Queued]) };
    let of_n = delivery(&tenant, n, 2, &[State::Queued]);
    let sent = delivery(&tenant, stranger(), 3, &[State::Sent]);
    let gone = Some(Reason::AddressGone);
    let failed = DeliveryStatus { reason: gone, ..delivery(&tenant, stranger(), 4, &[State::Failed]) };
    let order = DeliveryStatus { category: Some(orders.clone()), ..delivery(&tenant, stranger(), 5, &[State::Queued]) };
    let raw = DeliveryStatus { user: None, ..delivery(&tenant, stranger(), 6, &[State::Queued]) };
    let both = DeliveryStatus {
        user: Some(bob.clone()),
        category: Some(orders.clone()),
        ..delivery(&tenant, n, 7, &[State::Sent])
    };
    let templated = |template: &str, step| DeliveryStatus {
        template: Some(template.into()),
        provider: Some("apns".into()),
        ..delivery(&tenant, stranger(), step, &[State::Queued])
    };
    let (third, fourth) = (templated("order.shipped@3", 8), templated("order.shipped@33", 9));
    let other = DeliveryStatus { provider: Some("smtp".into()), ..templated("order.shipped-2@3", 10) };
    let all = [&plain, &of_bob, &of_n, &sent, &failed, &order, &raw, &both, &third, &fourth, &other].map(|d| d.id);
    let documents = [plain, of_bob, of_n, sent, failed, order, raw, both, third, fourth, other].map(Status::Delivery);
    index(store, &documents).await;
    settle(store, &tenant, 11).await;

    let any = DeliveryQuery::default;
    let cases = [
        (any(), vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (DeliveryQuery { user: Some(bob.clone()), ..any() }, vec![7, 1]),
        (DeliveryQuery { user: Some(UserId::parse("bob:x+y@example.com").expect("an id")), ..any() }, vec![]),
        (DeliveryQuery { user: Some(UserId::parse("Bob").expect("an id")), ..any() }, vec![]),
        (DeliveryQuery { notification: Some(n), ..any() }, vec![7, 2]),
        (DeliveryQuery { notification: Some(stranger()), ..any() }, vec![]),
        (DeliveryQuery { channel: Some(Channel::Webhook), until: Some(at(3)), ..any() }, vec![2, 1, 0]),
        (DeliveryQuery { channel: Some(Channel::Apns), ..any() }, vec![]),
        (DeliveryQuery { state: Some(State::Sent), ..any() }, vec![7, 3]),
        (DeliveryQuery { state: Some(State::Read), ..any() }, vec![]),
        (DeliveryQuery { reason: gone, ..any() }, vec![4]),
        (DeliveryQuery { category: Some(orders.clone()), ..any() }, vec![7, 5]),
        (DeliveryQuery { state: Some(State::Sent), category: Some(orders.clone()), ..any() }, vec![7]),
        (DeliveryQuery { state: Some(State::Failed), category: Some(orders.clone()), ..any() }, vec![]),
        (DeliveryQuery { provider: Some("apns".into()), ..any() }, vec![9, 8]),
        (DeliveryQuery { provider: Some("apn".into()), ..any() }, vec![]),
        (DeliveryQuery { template: Some("order.shipped".into()), ..any() }, vec![9, 8]),
        (DeliveryQuery { template: Some("order.shipped@3".into()), ..any() }, vec![8]),
        (DeliveryQuery { template: Some("order.shipped-2".into()), provider: Some("smtp".into()), ..any() }, vec![10]),
        (DeliveryQuery { template: Some("order".into()), ..any() }, vec![]),
        (DeliveryQuery { template: Some("order.shipped@".into()), ..any() }, vec![]),
        (DeliveryQuery { template: Some("%\" OR *".into()), ..any() }, vec![]),
        (
            DeliveryQuery {
                user: Some(bob),
                notification: Some(n),
                channel: Some(Channel::Webhook),
                state: Some(State::Sent),
                reason: None,
                category: Some(orders),
                q: Some("bob".into()),
                since: Some(at(7)),
                until: Some(at(8)),
                ..any()
            },
            vec![7],
        ),
    ];
    for (query, expected) in cases {
        let expected: Vec<_> = expected.into_iter().map(|i| all[i]).collect();
        assert_eq!(found(store, &tenant, &query).await, expected, "{query:?}");
    }
}

pub async fn times_filter_from_inclusive_until_exclusive(store: &dyn Deliveries) {
    let tenant = tenant();
    let documents: Vec<_> =
        (0..4).map(|s| Status::Delivery(delivery(&tenant, stranger(), s, &[State::Accepted]))).collect();
    index(store, &documents).await;
    settle(store, &tenant, 4).await;
    let us = |step, us| at(step).checked_add(std::time::Duration::from_micros(us)).expect("a time");
    for (since, until, expected) in [
        (Some(at(1)), Some(at(3)), vec![2, 1]),
        (Some(us(1, 1)), Some(us(3, 1)), vec![3, 2]),
        (Some(at(2)), None, vec![3, 2]),
        (None, Some(at(1)), vec![0]),
        (Some(at(3)), Some(at(3)), vec![]),
        (Some(at(4)), None, vec![]),
    ] {
        let query = DeliveryQuery { since, until, ..DeliveryQuery::default() };
        let items = page(store, &tenant, &query, None, 10).await.items;
        assert_eq!(
            items.iter().map(|d| d.accepted_at).collect::<Vec<_>>(),
            expected.into_iter().map(at).collect::<Vec<_>>()
        );
    }
}

pub async fn pages_have_no_gap_and_no_repeat(store: &dyn Deliveries) {
    let by_state = DeliveryQuery { state: Some(State::Accepted), ..DeliveryQuery::default() };
    let by_user = DeliveryQuery { user: Some(UserId::parse("ana").expect("an id")), ..DeliveryQuery::default() };
    for query in [by_state, by_user] {
        pages_of(store, &query).await;
    }
}

async fn pages_of(store: &dyn Deliveries, query: &DeliveryQuery) {
    let tenant = tenant();
    // 17 were accepted at each moment, so that pages end in the middle of one
    let documents: Vec<_> =
        (0..250).map(|i| Status::Delivery(delivery(&tenant, stranger(), i / 17, &[State::Accepted]))).collect();
    index(store, &documents).await;
    settle(store, &tenant, 250).await;
    let (mut seen, mut sizes, mut cursor) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let page = page(store, &tenant, query, cursor.as_deref(), 100).await;
        sizes.push(page.items.len());
        seen.extend(page.items);
        // what comes in meanwhile is newer than all pages to come
        let newer = delivery(&tenant, stranger(), 1_000, &[State::Accepted]);
        index(store, &[Status::Delivery(newer)]).await;
        let Some(next) = page.next_cursor else { break };
        cursor = Some(next);
    }
    assert_eq!(sizes, [100, 100, 50], "{query:?}");
    assert!(seen.is_sorted_by(|a, b| a.accepted_at >= b.accepted_at), "newest first");
    let mut ids: Vec<_> = seen.iter().map(|d| d.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 250);
}

pub async fn the_last_page_has_no_cursor(store: &dyn Deliveries) {
    let tenant = tenant();
    let query = DeliveryQuery::default();
    assert_eq!(page(store, &tenant, &query, None, 1000).await, Page { items: vec![], next_cursor: None });
    let documents: Vec<_> =
        (0..6).map(|s| Status::Delivery(delivery(&tenant, stranger(), s, &[State::Accepted]))).collect();
    index(store, &documents).await;
    settle(store, &tenant, 6).await;
    let first = page(store, &tenant, &query, None, 3).await;
    let second = page(store, &tenant, &query, first.next_cursor.as_deref(), 3).await;
    assert_eq!((first.items.len(), second.items.len()), (3, 3));
    assert!(first.next_cursor.is_some());
    assert_eq!(second.next_cursor, None, "also when it is full");
    let one = page(store, &tenant, &query, None, 1).await;
    assert_eq!((one.items.len(), one.next_cursor.is_some()), (1, true));
}

pub async fn an_unreadable_cursor_is_said_to_be_one(store: &dyn Deliveries) {
    let tenant = tenant();
    let long = "f".repeat(5_000);
    for cursor in ["", "nonsense", "🔔🔔🔔", "[]", "{\"a\":1}", "../..", long.as_str()] {
        let answer = store.search(&tenant, &DeliveryQuery::default(), Some(cursor), 10).await.expect("search");
        assert_eq!(answer, None, "{cursor}");
    }
}

pub async fn words_find_what_people_may_know_and_nothing_else(store: &dyn Deliveries) {
    let tenant = tenant();
    let mut told = delivery(&tenant, stranger(), 0, &[State::Queued]);
    let answer =
        Attempt::new(1, &Outcome::Rejected(Reason::ProviderRejected), "550 5.1.1 Überlastet: no_such-mailbox", 7);
    told.history.attempted(at(1), State::Failed, Some(Reason::ProviderRejected), answer);
    let metadata =
        [("order", "A-4711/x"), ("ключ", "Größe ЖЁЛТЫЙ 注文"), ("long", &"Ab".repeat(300)), ("keyword", "v")];
    let told = DeliveryStatus {
        user: Some(UserId::parse("Ana.Maria+test@example.com").expect("an id")),
        template: Some("order.shipped@3".into()),
        category: Some(CategoryKey::parse("order_news").expect("a name")),
        address: Some("https://masked.example/…".into()),
        metadata: metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..told
    };
    let other = delivery(&tenant, stranger(), 1, &[State::Queued]);
    index(store, &[Status::Delivery(told.clone()), Status::Delivery(other.clone())]).await;
    settle(store, &tenant, 2).await;
    let find = |q: String| {
        let query = DeliveryQuery { q: Some(q), ..DeliveryQuery::default() };
        let tenant = &tenant;
        async move { found(store, tenant, &query).await }
    };
    let (id, notification) = (told.id.to_string(), told.notification.to_string().to_uppercase());
    let long = "aB".repeat(300);
    for q in [
        "4711",
        "a-4711",
        "A 4711 X",
        "größe",
        "GRÖSSE".replace("SS", "ß").as_str(),
        "жёлтый",
        "注文",
        "überlastet",
        "550 no such mailbox",
        "maria",
        "ana.maria+test@example.com",
        "shipped 3",
        "order.shipped@3",
        "order_news news",
        id.as_str(),
        notification.as_str(),
        long.as_str(),
        "mailbox \" größe",
    ] {
        assert_eq!(find(q.to_owned()).await, [told.id], "{q}");
    }
    for q in [
        "471",
        "4711 nothing",
        "gross",
        "masked",
        "masked.example",
        "keyword",
        "failed",
        "webhook",
        "",
        " ",
        "…!\"",
        "*",
        "größ*",
        "words : größe",
        "NOT",
        "\u{0}",
    ] {
        assert_eq!(find(q.to_owned()).await, [], "{q:?}");
    }
    assert_eq!(find("ana".into()).await, [other.id, told.id], "also a page of several, newest first");
    let query = DeliveryQuery { q: Some("ana".into()), ..DeliveryQuery::default() };
    let first = page(store, &tenant, &query, None, 1).await;
    let second = page(store, &tenant, &query, first.next_cursor.as_deref(), 1).await;
    assert_eq!([&first.items[0], &second.items[0]], [&other, &told], "page by page, and whole");
    assert_eq!(second.next_cursor, None);
}

pub async fn words_follow_what_happens(store: &dyn Deliveries) {
    let tenant = tenant();
    let request = notification(&tenant);
    let mut now = delivery(&tenant, request.id, 0, &[State::Queued]);
    let query = |q: &str| DeliveryQuery { q: Some(q.into()), ..DeliveryQuery::default() };
    index(store, &[Status::Notification(request), Status::Delivery(now.clone())]).await;
    for (step, answer) in [(1, "503 busy"), (2, "421 tomorrow"), (3, "250 accepted")] {
        let attempt = Attempt::new(1, &Outcome::Transient { retry_after: None }, answer, 1);
        now.history.attempted(at(step), State::Deferred, None, attempt);
        now = DeliveryStatus { state: State::Deferred, updated_at: at(step), ..now };
        index(store, &[Status::Delivery(now.clone())]).await;
        let told = || async { (found(store, &tenant, &query(answer)).await == [now.id]).then_some(()) };
        eventually("the answer is found", told).await;
    }
    assert_eq!(found(store, &tenant, &query("503 421 250")).await, [now.id], "with the answers before");
}

/// A balance as it should be.
fn balanced(tenant: &TenantId, recipients: u64, decided: u64, states: &[(State, u64)]) -> Balance {
    let states: BTreeMap<_, _> = states.iter().copied().collect();
    let channels = if states.is_empty() { BTreeMap::new() } else { [(Channel::Webhook, states)].into() };
    Balance { tenant: tenant.clone(), recipients, decided, channels }
}

async fn balance(store: &dyn Deliveries, tenant: &TenantId, until: i64) -> Option<Balance> {
    let mut found = store.balance(Some(tenant), at(until)).await.expect("balance");
    assert!(found.len() <= 1);
    found.pop()
}

pub async fn a_balance_counts_everything_once(store: &dyn Deliveries) {
    let tenant = tenant();
    assert_eq!(balance(store, &tenant, 100).await, None, "nothing was asked for");
    let (one, two) = (notification(&tenant), NotificationStatus { accepted_at: at(50), ..notification(&tenant) });
    let (one, two) = (NotificationStatus { recipients: 700, ..one }, NotificationStatus { recipients: 3, ..two });
    let later = |d: &DeliveryStatus, state| {
        let mut history = d.history.clone();
        history.reached(at(60), state, None);
        DeliveryStatus { state, updated_at: at(60), history, ..d.clone() }
    };
    let first = delivery(&tenant, one.id, 0, &[State::Queued]);
    let second = DeliveryStatus { leads: false, ..delivery(&tenant, one.id, 0, &[State::Suppressed]) };
    let third = delivery(&tenant, two.id, 50, &[State::Queued]);
    let apns = DeliveryStatus { channel: Channel::Apns, ..delivery(&tenant, two.id, 49, &[State::Unknown]) };
    let documents = [Status::Notification(one.clone()), Status::Notification(two), Status::Notification(one)];
    index(store, &documents).await;
    index(store, &[first.clone(), second, third.clone(), apns, first.clone()].map(Status::Delivery)).await;
    index(store, &[Status::Delivery(later(&first, State::Sent)), Status::Delivery(later(&third, State::Failed))]).await;
    let mut all = balanced(&tenant, 703, 3, &[(State::Sent, 1), (State::Suppressed, 1), (State::Failed, 1)]);
    all.channels.insert(Channel::Apns, [(State::Unknown, 1)].into());
    let counted = || async { (balance(store, &tenant, 51).await.as_ref() == Some(&all)).then_some(()) };
    eventually("everything is counted", counted).await;
    let mut early = balanced(&tenant, 700, 2, &[(State::Sent, 1), (State::Suppressed, 1)]);
    early.channels.insert(Channel::Apns, [(State::Unknown, 1)].into());
    assert_eq!(balance(store, &tenant, 50).await, Some(early), "accepted before that time");
    assert_eq!(balance(store, &tenant, 0).await, None);
}

/// More than one page of whatever counts.
pub async fn a_balance_counts_every_tenant(store: &dyn Deliveries) {
    let tenants: Vec<_> = (0..1_100).map(|_| tenant()).collect();
    let mut documents = Vec::new();
    for tenant in &tenants {
        let request = NotificationStatus { recipients: 2, ..notification(tenant) };
        documents.push(Status::Delivery(delivery(tenant, request.id, 0, &[State::Queued])));
        documents.push(Status::Delivery(delivery(tenant, request.id, 0, &[State::Sent])));
        documents.push(Status::Notification(request));
    }
    index(store, &documents).await;
    let expected: BTreeMap<_, _> = tenants
        .iter()
        .map(|tenant| (tenant.clone(), balanced(tenant, 2, 2, &[(State::Queued, 1), (State::Sent, 1)])))
        .collect();
    let counted = || async {
        let all = store.balance(None, at(1)).await.expect("balance");
        assert!(all.is_sorted_by(|a, b| a.tenant < b.tenant), "by tenant, each once");
        let ours: BTreeMap<_, _> = all.into_iter().map(|b| (b.tenant.clone(), b)).collect();
        tenants.iter().all(|tenant| ours.get(tenant) == expected.get(tenant)).then_some(())
    };
    eventually("every tenant is counted", counted).await;
}

pub async fn ping(store: &dyn Deliveries) {
    store.ping().await.expect("it answers");
}
