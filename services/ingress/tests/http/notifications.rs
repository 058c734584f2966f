//! Taking notifications over.

use domain::{Lane, Message, Notification, Recipient, Status};
use serde_json::{Value, json};
use wire::TraceContext;

use crate::api::{ACME, Api, notification, request};

#[tokio::test]
async fn an_accepted_notification_lies_on_the_log_as_asked() {
    let api = Api::start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut body = notification();
    body["to"] = json!([{"user": "ana"}, {"channel": "webhook", "address": "https://example.com/x"}, {"user": "ana"}]);
    body["priority"] = json!(9);
    body["metadata"] = json!({"order_id": "17"});
    let mut request = request("POST", "/v1/notifications", ACME, body.to_string());
    request.headers_mut().insert("traceparent", parent.parse().unwrap());
    request.headers_mut().insert("x-request-id", "my-own.id/7".parse().unwrap());
    let answer = api.send(request).await;
    assert_eq!(answer.headers["x-request-id"], "my-own.id/7");
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let body = answer.ok(202);
    let id = body["id"].as_str().unwrap();
    assert_eq!((body["state"].as_str(), location), (Some("accepted"), format!("/v1/notifications/{id}")));

    let records = api.records("t.notifications.chat.high").await;
    assert_eq!(records.len(), 2, "one record per recipient, each recipient once");
    let parent = TraceContext::parse(parent.as_bytes()).unwrap();
    for record in &records {
        let n: Notification = wire::decode(record.value.as_ref()).unwrap();
        assert_eq!((n.id.to_string().as_str(), n.tenant.as_str(), n.priority.get()), (id, "acme", 9));
        assert_eq!((n.category.as_ref().unwrap().as_str(), n.channels[0].as_str()), ("orders", "webhook"));
        let Message::Content(content) = &n.message else { panic!("content") };
        assert_eq!((n.metadata["order_id"].as_str(), content.default.as_ref().unwrap().body.as_str()), ("17", "B"));
        assert_eq!(record.key.as_ref(), Some(&bus::topic::recipient_key(&n.tenant, &n.recipient)));
        let trace = TraceContext::parse(record.headers.get("traceparent").unwrap()).unwrap();
        assert_eq!((trace.trace_id, trace.flags), (parent.trace_id, parent.flags), "the client's own trace");
        assert_ne!(trace.span_id, parent.span_id, "the request has a span of its own");
        assert_eq!(record.headers.get("content-type").unwrap(), "application/protobuf");
    }
    let mut to: Vec<_> =
        records.iter().map(|r| wire::decode::<Notification>(r.value.as_ref()).unwrap().recipient).collect();
    to.sort_by_key(|r| r.user().is_none());
    assert!(matches!(&to[0], Recipient::User(user) if user.as_str() == "ana"));
    assert!(matches!(&to[1], Recipient::Address(_, address) if address.expose() == "https://example.com/x"));

    let [status] = api.records("t.status").await.try_into().expect("one status event");
    assert_eq!(status.key.unwrap(), format!("acme/notification:{id}"));
    assert!(status.headers.get("traceparent").is_some());
    let Status::Notification(said) = wire::decode(status.value.as_ref()).unwrap() else { panic!("a notification") };
    assert_eq!((said.id.to_string().as_str(), said.recipients, said.priority.get()), (id, 2, 9));
}

#[tokio::test]
async fn lanes_and_channels_follow_the_request_and_the_category() {
    let api = Api::start().await;
    for (priority, lane) in [(2, Lane::Low), (5, Lane::Normal), (8, Lane::High)] {
        let mut body = notification();
        body["priority"] = json!(priority);
        api.post("/v1/notifications", &body).await.ok(202);
        assert_eq!(api.records(&format!("t.notifications.chat.{lane}")).await.len(), 1);
    }
    api.put("/v1/config/categories/bare", ACME, &json!({})).await.ok(200);
    let mut body = notification();
    body["category"] = json!("bare");
    let answer = api.post("/v1/notifications", &body).await;
    assert_eq!(answer.problem(400)[0].0, "/channels");
    answer.refused(400, "the category `bare` has none of its own");
    body["category"] = json!("ordrs");
    let answer = api.post("/v1/notifications", &body).await;
    assert_eq!(answer.problem(400)[0].0, "/category");
    answer.refused(400, "there are bare, orders");
    assert_eq!(api.published().await, 6, "what is refused leaves nothing");
}

#[tokio::test]
async fn one_bad_item_spoils_no_other_of_its_batch() {
    let api = Api::start().await;
    let mut bad = notification();
    bad["to"] = json!([{"user": "ana"}, {"user": "a b"}]);
    bad["priority"] = json!(0);
    let surrogate: &str = r#"{"to": [{"user": "\ud800"}]}"#;
    let good = notification();
    let body = format!(r#"{{"notifications": [{good}, {bad}, {surrogate}, 7, {good}]}}"#);
    let results = api.call("POST", "/v1/notifications/batch", ACME, body).await.ok(202)["results"].clone();
    let ids: Vec<_> = [0, 4].map(|i| results[i]["id"].as_str().expect("accepted").to_owned()).into();
    let problem = &results[1]["error"];
    assert_eq!((&problem["status"], &problem["title"]), (&json!(400), &json!("The request is not valid")));
    let pointer = |e: &Value| e["pointer"].as_str().unwrap().to_owned();
    let pointers: Vec<_> = problem["errors"].as_array().unwrap().iter().map(pointer).collect();
    assert_eq!(pointers, ["/notifications/1/to/1/user", "/notifications/1/priority"]);
    for i in [2, 3] {
        assert!(pointer(&results[i]["error"]["errors"][0]).starts_with(&format!("/notifications/{i}")), "{results}");
    }
    let records = api.records("t.notifications.chat.normal").await;
    let found: Vec<_> =
        records.iter().map(|r| wire::decode::<Notification>(r.value.as_ref()).unwrap().id.to_string()).collect();
    assert_eq!(found, ids, "the good ones, and nothing of the bad ones");
    assert_eq!(api.records("t.status").await.len(), 2);
}

#[tokio::test]
async fn a_batch_has_limits_of_its_own() {
    let api = Api::start().await;
    let small = json!({"to": [{"user": "a"}], "category": "orders", "content": {"default": {"body": "B"}}});
    let of = |n: usize| json!({"notifications": vec![small.clone(); n]});
    for (body, pointer, says) in [
        (of(0), "/notifications", "1 to 1,000 notifications, not 0"),
        (of(1001), "/notifications", "not 1001"),
        (json!({"notifications": {}}), "/notifications", "expected a sequence"),
        (json!({}), "", "missing field `notifications`"),
        (json!({"notifications": [], "x": 1}), "/x", "unknown field `x`"),
    ] {
        let answer = api.post("/v1/notifications/batch", &body).await;
        assert_eq!(answer.problem(400)[0].0, pointer, "{}", answer.body);
        answer.refused(400, says);
    }
    assert_eq!(api.published().await, 0);
    let results = api.post("/v1/notifications/batch", &of(1000)).await.ok(202);
    assert_eq!(results["results"].as_array().map(Vec::len), Some(1000));
    assert_eq!(api.published().await, 2000);
}
