//! What every `Deliveries` does.

mod balance;
mod search;
mod words;

use std::collections::BTreeMap;

use domain::{
    Attempt, CategoryKey, Channel, ChannelType, DeliveryId, DeliveryStatus, History, NotificationId,
    NotificationStatus, Outcome, Priority, Reason, Selector, State, Status, TenantId, UserId,
};
use store::{Balance, Deliveries, DeliveryQuery, NotificationView, Page};
use uuid::Uuid;

pub use self::{balance::*, search::*, words::*};
use crate::{at, eventually, made::notification, tenant};

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

pub async fn ping(store: &dyn Deliveries) {
    store.ping().await.expect("it answers");
}
