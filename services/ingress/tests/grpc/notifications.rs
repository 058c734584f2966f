//! Sending one and many, and reading what became of them.

use std::{collections::BTreeMap, sync::Arc};

use bus::{
    Log as _,
    sim::{Faults, Sim},
};
use domain::{
    Attempt, CategoryKey, Channel, DeliveryId, DeliveryStatus, History, Notification, NotificationId,
    NotificationStatus, Outcome, Priority, Selector, State, Status, TenantId, Timestamp, UserId,
};
use grpc::{
    RpcStatusExt as _, SendBatchRequest, StatusExt as _,
    v1::{GetRequest, SendRequest, send_result},
};
use serde_json::{Value, json};
use tonic::{Code, Request};
use uuid::Uuid;
use wire::TraceContext;

use crate::{
    api::{ACME, Api, GLOBEX, TOPICS, notification},
    served::{Served, request, violations},
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn what_is_taken_is_on_the_log_with_its_trace() {
    let served = Served::start().await;
    let mut client = served.client(ACME).await;
    let mut call = Request::new(request(&notification()));
    call.metadata_mut().insert("traceparent", TRACE.parse().unwrap());
    call.metadata_mut().insert("x-request-id", "mine-17".parse().unwrap());
    let answer = client.send(call).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine-17");
    let answer = answer.into_inner();
    assert_eq!(answer.state, "accepted");
    let mut found = Vec::new();
    for topic in served.api.topics.notifications_of_lane(domain::Lane::Normal) {
        found.extend(served.api.records(&topic).await);
    }
    let [record] = found.as_slice() else { panic!("{} records", found.len()) };
    let taken: Notification = wire::decode(record.value.as_ref()).unwrap();
    assert_eq!((taken.id.to_string(), taken.tenant.as_str()), (answer.id, "acme"));
    let trace = TraceContext::parse(record.headers.get(TraceContext::HEADER).unwrap()).unwrap();
    assert_eq!(trace.trace_id, TraceContext::parse(TRACE.as_bytes()).unwrap().trace_id);
    assert_eq!(served.api.published().await, 2);
    served.drained().await;
}

/// What the same JSON is told by both ways.
async fn told(served: &Served, json: &Value) -> [Vec<(String, String)>; 2] {
    let http = served.api.post("/v1/notifications", json).await.problem(400);
    let status = served.client(ACME).await.send(request(json)).await.unwrap_err();
    [http, violations(&status, Code::InvalidArgument)]
}

#[tokio::test]
async fn bad_input_is_told_in_the_same_words_as_over_http() {
    let served = Served::start().await;
    let mut several = notification();
    several["to"] = json!([{"user": "a b"}, {"channel": "webhook", "address": "nope"}, {"topic": "t"}, {}]);
    for (name, value) in [
        ("priority", json!(11)),
        ("send_at", json!("2026-12-01T08:00:00Z")),
        ("fallback", json!({"after": "5m"})),
        ("expires_at", json!("tomorrow")),
        ("collapse_key", json!("")),
        ("category", json!("ordrs")),
    ] {
        several[name] = value;
    }
    let cases = [
        json!({}),
        several,
        json!({"to": [{"user": "ana"}], "category": "orders"}),
        json!({"to": [{"user": "ana"}], "category": "orders", "template": "no-such", "data": {"n": 17}}),
        json!({"to": [{"user": "ana"}], "category": "orders", "content": {"default": {"title": "T"}, "sms": {"n": 1.5}}}),
        json!({"to": [{"user": "ana"}], "category": "orders", "content": {"default": {"body": 17}}}),
        json!({"to": [{"user": "ana"}], "category": "orders", "locale": "german", "metadata": {"": "x"}}),
    ];
    for json in cases {
        let [http, grpc] = told(&served, &json).await;
        assert!(!http.is_empty());
        assert_eq!(http, grpc, "{json}");
    }
    assert_eq!(served.api.published().await, 0);
}

#[tokio::test]
async fn what_json_cannot_say_and_what_is_too_much_is_refused() {
    let served = Served::start().await;
    let mut client = served.client(ACME).await;
    let mut nul = notification();
    nul["content"]["default"]["body"] = "a\0b".into();
    let told = violations(&client.send(request(&nul)).await.unwrap_err(), Code::InvalidArgument);
    assert!(told[0].1.contains("NUL"), "{told:?}");
    // deeper than a message may be nested
    let deep = format!(r#"{{"data": {}1{}}}"#, r#"{"a":"#.repeat(60), "}".repeat(60));
    let deep = SendRequest::from_json(deep.as_bytes()).unwrap();
    let told = violations(&client.send(deep).await.unwrap_err(), Code::InvalidArgument);
    assert!(told[0].1.contains("cannot be read"), "{told:?}");
    let mut large = notification();
    large["metadata"] = json!({"a": "x".repeat(1024 * 1024)});
    let status = client.send(request(&large)).await.unwrap_err();
    violations(&status, Code::ResourceExhausted);
    assert!(status.message().contains("at most 1 MiB"));
    // as many violations as trailers have room for
    let many = json!({"to": (0..1000).map(|_| json!({"user": "a b"})).collect::<Vec<_>>(), "category": "orders"});
    let told = violations(&client.send(request(&many)).await.unwrap_err(), Code::InvalidArgument);
    let (pointer, more) = told.last().unwrap();
    assert!(told.len() > 10 && pointer.is_empty() && more.contains("more fields are wrong"), "{told:?}");
    let mut early = Request::new(request(&notification()));
    early.metadata_mut().insert("idempotency-key", "17".parse().unwrap());
    let told = violations(&client.send(early).await.unwrap_err(), Code::InvalidArgument);
    assert!(told[0].1.contains("not yet built"), "{told:?}");
    assert_eq!(served.api.published().await, 0);
    assert!(client.send(request(&notification())).await.is_ok(), "the connection is still good");
}

#[tokio::test]
async fn one_bad_item_of_a_batch_spoils_no_other() {
    let served = Served::start().await;
    let mut client = served.client(ACME).await;
    let bad = json!({"to": [], "category": "orders", "content": {"default": {"body": "B"}}});
    let mut batch: SendBatchRequest = [notification(), bad.clone(), notification()].iter().map(request).collect();
    batch.notifications.insert(2, vec![0xff, 0xff].into());
    let results = client.send_batch(batch).await.unwrap().into_inner().results;
    let outcomes: Vec<_> = results.into_iter().map(|r| r.result.unwrap()).collect();
    let [
        send_result::Result::Id(a),
        send_result::Result::Error(wrong),
        send_result::Result::Error(garbage),
        send_result::Result::Id(b),
    ] = outcomes.as_slice()
    else {
        panic!("{outcomes:?}")
    };
    assert_ne!(a, b);
    assert_eq!((wrong.code, garbage.code), (Code::InvalidArgument.into(), Code::InvalidArgument.into()));
    let field = |status: &grpc::ItemStatus| status.get_details_bad_request().unwrap().field_violations[0].clone();
    assert_eq!(field(garbage).field, "/notifications/2");
    let http = served.api.post("/v1/notifications/batch", &json!({"notifications": [notification(), bad]})).await;
    let http = &http.ok(202)["results"][1]["error"]["errors"][0];
    let same = field(wrong);
    assert_eq!((http["pointer"].as_str(), http["detail"].as_str()), (Some(&*same.field), Some(&*same.description)));
    assert_eq!(served.api.published().await, 6, "two here and one over HTTP, a status each");
    for count in [0, 1001] {
        let batch: SendBatchRequest = (0..count).map(|_| SendRequest::default()).collect();
        let told = violations(&client.send_batch(batch).await.unwrap_err(), Code::InvalidArgument);
        assert_eq!(told[0].0, "/notifications");
    }
}

/// Notification 7: one that was sent, of one that is undecided.
async fn index(api: &Api) {
    let at = |second: i64| Timestamp::from_second(1_795_255_200 + second).unwrap();
    let tenant = TenantId::parse("acme").unwrap();
    let metadata: BTreeMap<_, _> = [("order_id".to_owned(), "17".to_owned())].into();
    let mut history = History::default();
    history.reached(at(0), State::Accepted, None);
    history.attempted(at(2), State::Sent, None, Attempt::new(1, &Outcome::Sent, "200 OK", 12));
    let notification = NotificationStatus {
        id: NotificationId(Uuid::from_u128(7)),
        tenant: tenant.clone(),
        recipients: 2,
        category: CategoryKey::parse("orders").ok(),
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        template: Some("shipped@3".into()),
        accepted_at: at(0),
        expires_at: Some(at(60)),
        metadata: metadata.clone(),
    };
    let delivery = DeliveryStatus {
        id: DeliveryId(Uuid::from_u128(71)),
        notification: notification.id,
        tenant,
        user: UserId::parse("ana").ok(),
        recipient_key: "user:ana".into(),
        channel: Channel::Webhook,
        address: Some("https://example.com/…".into()),
        category: None,
        priority: Priority::default(),
        state: State::Sent,
        reason: None,
        template: Some("shipped@3".into()),
        provider: Some("webhook".into()),
        leads: true,
        accepted_at: at(0),
        updated_at: at(2),
        metadata,
        history,
    };
    let results = api.stores.deliveries.index(&[Status::Notification(notification), Status::Delivery(delivery)]).await;
    assert!(results.unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_notification_reads_as_it_does_over_http() {
    let served = Served::start().await;
    let (id, other) = (Uuid::from_u128(7).to_string(), Uuid::from_u128(8).to_string());
    index(&served.api).await;
    let mut client = served.client(ACME).await;
    let view = client.get(GetRequest { id: id.clone() }).await.unwrap().into_inner().notification.unwrap();
    assert!(!view.deliveries.is_empty() && !view.deliveries[0].trace.is_empty());
    let http = served.api.get(&format!("/v1/notifications/{id}"), ACME).await.ok(200);
    assert_eq!(serde_json::to_value(view).unwrap(), http, "every member that HTTP has, and no other");
    for (key, id) in [(ACME, other.as_str()), (GLOBEX, id.as_str()), (ACME, "17")] {
        let status = served.client(key).await.get(GetRequest { id: id.into() }).await.unwrap_err();
        violations(&status, Code::NotFound);
    }
}

#[tokio::test]
async fn a_log_that_refuses_is_unavailable_and_nothing_is_taken() {
    let api = Api::start().await;
    let sim = Sim::new(1, Faults { publish_refused: 1.0, ..Faults::default() });
    sim.ensure_topics(&api.topics.specs(TOPICS)).await.unwrap();
    let served = Served::over(api, Arc::new(sim)).await;
    let mut client = served.client(ACME).await;
    let status = client.send(request(&notification())).await.unwrap_err();
    violations(&status, Code::Unavailable);
    assert!(status.get_details_retry_info().is_some() && status.message().contains("may be sent again"));
    let batch: SendBatchRequest = [notification(), json!({"to": []})].iter().map(request).collect();
    violations(&client.send_batch(batch).await.unwrap_err(), Code::Unavailable);
}
