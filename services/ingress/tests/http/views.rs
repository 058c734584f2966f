//! Reading what became of notifications, and never another tenant's.

use domain::{
    Attempt, CategoryKey, Channel, DeliveryId, DeliveryStatus, History, NotificationId, NotificationStatus, Outcome,
    Priority, Reason, Selector, State, Status, TenantId, Timestamp, UserId,
};
use serde_json::json;
use uuid::Uuid;

use crate::api::{ACME, Api, GLOBEX, OPERATOR};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_255_200 + second).expect("time")
}

fn request(id: u128, recipients: u32) -> Status {
    Status::Notification(NotificationStatus {
        id: NotificationId(Uuid::from_u128(id)),
        tenant: TenantId::parse("acme").expect("valid"),
        recipients,
        category: CategoryKey::parse("orders").ok(),
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        template: Some("shipped@3".into()),
        accepted_at: at(0),
        expires_at: None,
        metadata: [("order_id".to_owned(), "17".to_owned())].into(),
    })
}

fn delivery(id: u128, notification: u128, user: &str, state: State, reason: Option<Reason>) -> Status {
    let mut history = History::default();
    history.reached(at(0), State::Accepted, None);
    history.reached(at(1), State::Queued, None);
    if state.is_success() {
        history.attempted(at(2), state, None, Attempt::new(1, &Outcome::Sent, "200 OK", 12));
    } else {
        history.reached(at(2), state, reason);
    }
    Status::Delivery(DeliveryStatus {
        id: DeliveryId(Uuid::from_u128(id)),
        notification: NotificationId(Uuid::from_u128(notification)),
        tenant: TenantId::parse("acme").expect("valid"),
        user: UserId::parse(user).ok(),
        recipient_key: format!("user:{user}"),
        channel: Channel::Webhook,
        address: Some("https://example.com/…".into()),
        category: CategoryKey::parse("orders").ok(),
        priority: Priority::default(),
        state,
        reason,
        template: Some("shipped@3".into()),
        provider: state.is_success().then(|| "webhook".into()),
        leads: true,
        accepted_at: at(0),
        updated_at: at(2),
        metadata: [("order_id".to_owned(), "17".to_owned())].into(),
        history,
    })
}

async fn index(api: &Api, documents: &[Status]) {
    let results = api.stores.deliveries.index(documents).await.expect("indexed");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test]
async fn a_notification_shows_its_deliveries_and_the_whole_trace() {
    let api = Api::start().await;
    index(&api, &[request(7, 2), delivery(71, 7, "ana", State::Sent, None)]).await;
    let path = format!("/v1/notifications/{}", Uuid::from_u128(7));
    let open = api.get(&path, ACME).await.ok(200);
    assert_eq!(
        (&open["state"], &open["recipients"]),
        (&json!("queued"), &json!(2)),
        "one recipient is undecided: {open}"
    );
    assert_eq!((&open["category"], &open["channels"]), (&json!("orders"), &json!(["webhook"])));
    assert_eq!(open["metadata"], json!({"order_id": "17"}));
    assert_eq!((&open["template"], &open["deliveries"][0]["template"]), (&json!("shipped@3"), &json!("shipped@3")));
    assert_eq!(open["deliveries"][0]["provider"], "webhook");
    let trace = &open["deliveries"][0]["trace"];
    assert_eq!(trace.as_array().map(Vec::len), Some(3));
    assert_eq!(trace[2]["attempt"], json!({"number": 1, "outcome": "sent", "answer": "200 OK", "took_ms": 12}));
    assert_eq!((&trace[1]["state"], &trace[1]["attempt"]), (&json!("queued"), &json!(null)));

    index(&api, &[delivery(72, 7, "ben", State::Suppressed, Some(Reason::OptedOutCategory))]).await;
    let done = api.get(&path, ACME).await.ok(200);
    assert_eq!(done["state"], "sent", "{done}");
    assert_eq!(done["deliveries"].as_array().map(Vec::len), Some(2));

    api.get(&path, GLOBEX).await.refused(404, "no such notification");
    api.get(&format!("/v1/notifications/{}", Uuid::from_u128(8)), ACME).await.refused(404, "no such notification");
    api.get("/v1/notifications/not-a-uuid", ACME).await.problem(404);
    api.get(&path, OPERATOR).await.problem(403);
}

#[tokio::test]
async fn deliveries_are_found_by_what_is_asked() {
    let api = Api::start().await;
    let opted_out = Some(Reason::OptedOutCategory);
    let documents: Vec<_> = (0..5).map(|i| delivery(100 + i, 9, &format!("u{i}"), State::Sent, None)).collect();
    index(&api, &documents).await;
    index(&api, &[delivery(200, 9, "ben", State::Suppressed, opted_out)]).await;
    let count = async |query: &str| {
        let page = api.get(&format!("/v1/deliveries{query}"), ACME).await.ok(200);
        page["items"].as_array().expect("items").len()
    };
    let nine = format!("?notification={}", Uuid::from_u128(9));
    for (query, expected) in [
        ("", 6),
        ("?user=ben", 1),
        ("?state=sent", 5),
        ("?state=suppressed&reason=opted_out_category", 1),
        ("?channel=webhook&category=orders", 6),
        (nine.as_str(), 6),
        ("?user=nobody", 0),
        ("?provider=webhook", 5),
        ("?provider=smtp", 0),
        ("?template=shipped", 6),
        ("?template=shipped@3&provider=webhook", 5),
        ("?template=shipped@4", 0),
        ("?q=17%20SHIPPED", 6),
        ("?q=ben", 1),
        ("?q=nothing-of-the-kind", 0),
        ("?limit=2", 2),
        ("?since=2026-11-21T00:00:00Z&until=2026-11-22T00:00:00Z", 6),
        ("?until=2020-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(count(query).await, expected, "{query}");
    }
    let mut seen = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = api.get(&format!("/v1/deliveries{query}"), ACME).await.ok(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=4&cursor={cursor}");
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 6, "the pages together are the whole, once");
    assert_eq!(api.get("/v1/deliveries", GLOBEX).await.ok(200), json!({"items": [], "next_cursor": null}));
}

#[tokio::test]
async fn a_search_names_its_bad_parameters() {
    let api = Api::start().await;
    let query = "?user=a%20b&notification=x&channel=sms&state=done&reason=why&since=now&limit=1001&q=%20&template=T@0&provider=a%0Ab&usr=x";
    let errors = api.get(&format!("/v1/deliveries{query}"), ACME).await.problem(400);
    let says = |pointer: &str| errors.iter().find(|(p, _)| p == pointer).map(|(_, detail)| detail.as_str());
    for (pointer, detail) in [
        ("/user", "1 to 128"),
        ("/notification", "UUID"),
        ("/channel", "not yet built"),
        ("/state", "a state is one of accepted"),
        ("/reason", "opted_out_category"),
        ("/since", "RFC 3339"),
        ("/limit", "1 to 1,000"),
        ("/q", "1 to 200 characters"),
        ("/provider", "none of them a control character"),
        ("/template", "a template key has"),
        ("/usr", "did you mean `user`"),
    ] {
        assert!(says(pointer).is_some_and(|d| d.contains(detail)), "{pointer}: {errors:?}");
    }
    assert_eq!(errors.len(), 11);
    let errors = api.get("/v1/deliveries?state=sent&state=failed", ACME).await.problem(400);
    assert!(errors[0].1.contains("more than once"));
    let errors = api.get("/v1/deliveries?cursor=garbage", ACME).await.problem(400);
    assert_eq!(errors[0].0, "/cursor");
}
