//! Filters and pages.

use super::*;

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
