//! What was given up: seen by whose it is, and sent on its way again byte by byte. And the balance of it all.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bus::{Headers, Log as _, Outgoing, Record, dead::DeadLetters, topic::Stage};
use domain::{
    Address, CategoryKey, Channel, Content, Delivery, Message, Notification, NotificationId, NotificationStatus,
    Priority, Reason, Recipient, Selector, State, Status, Strategy, Target, TenantId, Timestamp, UserId,
};
use serde_json::{Value, json};
use wire::Record as _;

use crate::api::{ACME, Api, GLOBEX, OPERATOR};

const ADDRESS: &str = "https://secret.example/hook";

fn notification(tenant: &str, user: &str) -> Notification {
    let now = Timestamp::now();
    Notification {
        id: NotificationId::new(now),
        tenant: TenantId::parse(tenant).expect("valid"),
        recipient: Recipient::User(UserId::parse(user).expect("valid")),
        category: CategoryKey::parse("orders").ok(),
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        strategy: Strategy::All,
        message: Message::Content(Content::default()),
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [("order".to_owned(), "confidential".to_owned())].into(),
        accepted_at: now,
    }
}

fn delivery(tenant: &str, user: &str) -> Delivery {
    let address = Address::parse(Channel::Webhook, ADDRESS).expect("valid");
    let n = notification(tenant, user);
    let target = Some(Target::raw(address));
    Delivery { leads: true, ..Delivery::begin(&n, Channel::Webhook, target, Timestamp::now(), State::Queued, None) }
}

impl Api {
    /// Puts a record on a topic and has it given up; the record as it was, and the id of its letter.
    async fn bury(&self, stage: Stage, topic: &str, value: &[u8], reason: &'static str) -> (Record, String) {
        let headers = Headers::default().with("traceparent", "00-x").with("x-binary", vec![0xff_u8, 0]);
        let (key, value) = (Some("acme/user:ana".into()), Some(value.to_vec().into()));
        let outgoing = Outgoing { topic: topic.into(), key, headers, value };
        let at = self.log.publish(vec![outgoing]).await.remove(0).expect("published");
        let record = self.records(topic).await.into_iter().find(|r| r.at == at).expect("there");
        let dead = DeadLetters::new(Arc::new(self.log.clone()), &self.topics, stage);
        dead.bury(&record, reason, "in words").await.expect("buried");
        let dead = self.topics.dead(stage);
        let letters = self.records(&dead).await;
        let origin = record.at.offset.to_string();
        let letter = letters.iter().find(|l| {
            l.headers.get("dead-offset").is_some_and(|o| *o == origin)
                && l.headers.get("dead-topic").is_some_and(|t| *t == topic)
                && l.headers.get("dead-partition").is_some_and(|p| *p == record.at.partition.index.to_string())
        });
        let at = &letter.expect("a letter").at;
        (record, format!("{}-{}-{}", stage.as_str(), at.partition.index, at.offset))
    }

    /// What every test here begins with: letters of three stages and two tenants, and who they are.
    async fn buried(&self) -> (Delivery, Record, [String; 4]) {
        let topic = "t.deliveries.webhook.normal";
        let ours = delivery("acme", "ana");
        let (record, gateway) = self.bury(Stage::Gateway, topic, &ours.encode(), "retries_exhausted").await;
        let (_, garbage) = self.bury(Stage::Gateway, topic, b"\xff\xfe garbage", "undecodable").await;
        let theirs = notification("globex", "gus").encode();
        let (_, router) = self.bury(Stage::Router, "t.notifications.chat.normal", &theirs, "stuck").await;
        let (_, event) = self.bury(Stage::Ingress, "t.events", b"{}", "bad_cloudevent").await;
        (ours, record, [gateway, garbage, router, event])
    }

    async fn ids(&self, query: &str, key: &str) -> Vec<String> {
        let page = self.get(&format!("/v1/dead-letters{query}"), key).await.ok(200);
        let id = |item: &Value| item["id"].as_str().expect("id").to_owned();
        page["items"].as_array().expect("items").iter().map(id).collect()
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn an_operator_sees_what_was_given_up_and_how_it_stands_now() {
    let api = Api::start().await;
    let (mut ours, record, [gateway, garbage, router, event]) = api.buried().await;
    let all = sorted(vec![gateway.clone(), garbage.clone(), router.clone(), event.clone()]);
    assert_eq!(sorted(api.ids("", OPERATOR).await), all);
    assert_eq!(api.ids("", ACME).await, [gateway.as_str()], "what cannot be read is nobody's");
    assert_eq!(api.ids("", GLOBEX).await, [router.as_str()]);
    for (query, expected) in [
        ("?stage=gateway", 2),
        ("?stage=gateway&reason=undecodable", 1),
        ("?stage=indexer", 0),
        ("?since=2020-01-01T00:00:00Z", 4),
        ("?until=2020-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(api.ids(query, OPERATOR).await.len(), expected, "{query}");
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = api.get(&format!("/v1/dead-letters{query}"), OPERATOR).await.ok(200);
        seen.extend(page["items"].as_array().expect("items").iter().map(|i| i["id"].as_str().expect("id").to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=3&cursor={cursor}");
    }
    assert_eq!((seen.last(), sorted(seen.clone())), (Some(&gateway), all), "the newest first, each once");

    let page = api.get("/v1/dead-letters", ACME).await.ok(200);
    let item = &page["items"][0];
    let origin = json!({"topic": "t.deliveries.webhook.normal", "partition": record.at.partition.index, "offset": record.at.offset});
    assert_eq!(
        (&item["reason"], &item["error"], &item["origin"]),
        (&json!("retries_exhausted"), &json!("in words"), &origin)
    );
    assert_eq!((&item["delivery"], &item["user"]), (&json!(ours.id.0), &json!("ana")));
    assert_eq!((&item["tenant"], &item["channel"], &item["state"]), (&json!("acme"), &json!("webhook"), &json!(null)));
    assert!(!page.to_string().contains("secret.example") && !page.to_string().contains("confidential"), "{page}");

    ours.history.reached(Timestamp::now(), State::Failed, Some(Reason::RetriesExhausted));
    let index = async |delivery: &Delivery| {
        api.stores
            .deliveries
            .index(&[Status::Delivery(delivery.clone().into_status())])
            .await
            .expect("indexed")
            .remove(0)
            .expect("taken");
    };
    index(&ours).await;
    let item = &api.get("/v1/dead-letters", ACME).await.ok(200)["items"][0];
    assert_eq!((&item["state"], &item["state_reason"]), (&json!("failed"), &json!("retries_exhausted")));
    ours.history.reached(Timestamp::now(), State::Queued, Some(Reason::Redriven));
    ours.history.reached(Timestamp::now(), State::Sent, None);
    index(&ours).await;
    assert_eq!(api.get("/v1/dead-letters", ACME).await.ok(200)["items"][0]["state"], "sent");

    let whole = api.get(&format!("/v1/dead-letters/{gateway}"), ACME).await.ok(200);
    let value = BASE64_STANDARD.decode(whole["value_base64"].as_str().expect("value")).expect("base64");
    assert_eq!(Some(value.as_slice()), record.value.as_deref());
    assert_eq!(whole["headers"][0], json!({"name": "traceparent", "value": "00-x", "value_base64": null}));
    assert_eq!(whole["headers"][1], json!({"name": "x-binary", "value": null, "value_base64": "/wA="}));
    assert_eq!((&whole["headers"][2], &whole["state"]), (&json!(null), &json!("sent")));
    api.get(&format!("/v1/dead-letters/{gateway}"), GLOBEX).await.refused(404, "no such dead letter");
    api.get(&format!("/v1/dead-letters/{garbage}"), ACME).await.refused(404, "no such dead letter");
    api.get(&format!("/v1/dead-letters/{garbage}"), OPERATOR).await.ok(200);
    api.get("/v1/dead-letters/gateway-0-999", OPERATOR).await.refused(404, "no such dead letter");
}

#[tokio::test]
async fn what_is_redriven_lies_again_where_it_lay() {
    let api = Api::start().await;
    let (mut ours, record, [gateway, garbage, router, event]) = api.buried().await;
    let topic = "t.deliveries.webhook.normal";
    let redrive = async |key: &str, body: Value| {
        api.call("POST", "/v1/dead-letters/redrive", key, body.to_string()).await.ok(200)
    };
    let outcomes = |answer: &Value| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        answer["results"].as_array().expect("results").iter().map(|r| (text(&r["id"]), text(&r["outcome"]))).collect()
    };
    let said = |id: &str, outcome: &str| (id.to_owned(), outcome.to_owned());
    let ids = json!([gateway, router, gateway, "gateway-0-999", garbage]);

    let dry = redrive(ACME, json!({"ids": ids, "dry_run": true})).await;
    assert_eq!((outcomes(&dry)[0].clone(), &dry["dry_run"]), (said(&gateway, "would_be_redriven"), &json!(true)));
    assert_eq!(api.records(topic).await.len(), 2, "a dry run does nothing");

    let done = redrive(ACME, json!({"ids": ids})).await;
    let expected = [
        said(&gateway, "redriven"),
        said(&router, "not_found"),
        said("gateway-0-999", "not_found"),
        said(&garbage, "not_found"),
    ];
    assert_eq!(outcomes(&done), expected, "another tenant's is not there");
    let records = api.records(topic).await;
    assert_eq!(records.len(), 3);
    let at = done["redriven_at"].as_str().expect("time").to_owned();
    let back = records.iter().find(|r| r.headers.get("redriven-at").is_some()).expect("it is there again");
    assert_eq!(back.key, record.key);
    assert_eq!(back.headers, record.headers.clone().with("redriven-at", at.clone()), "no trace of the dead letter");
    // as it was, and with the operator's word as a step of its history
    let (was, is) =
        [&record, back].map(|r| Delivery::decode(r.value.as_deref().expect("a value")).expect("one")).into();
    let mut expected = was;
    expected.history.reached(at.parse().expect("a time"), State::Queued, Some(Reason::Redriven));
    assert_eq!(is, expected);
    assert_eq!(back.at.partition, record.at.partition, "behind those of the same key");

    let all = redrive(OPERATOR, json!({"since": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(outcomes(&all).len(), 4);
    assert!(outcomes(&all).iter().all(|(_, outcome)| outcome == "redriven"), "{all}");
    assert_eq!(
        (outcomes(&all)[0].0.as_str(), &all["next_cursor"]),
        (gateway.as_str(), &json!(null)),
        "the oldest first"
    );
    assert_eq!(api.records("t.events").await.len(), 2);
    let back = api.records(topic).await;
    let same = back.iter().filter(|r| r.value.as_deref() == Some(b"\xff\xfe garbage".as_slice())).count();
    assert_eq!(same, 2, "what cannot be read goes back byte by byte");

    // what the index knows decides, and its trace goes on
    for (state, reason, outcome) in [
        (State::Sending, None, "not_possible"),
        (State::Failed, Some(Reason::RetriesExhausted), "redriven"),
        (State::Queued, Some(Reason::Redriven), "not_possible"),
        (State::Sent, None, "not_possible"),
    ] {
        ours.history.reached(Timestamp::now(), state, reason);
        api.stores
            .deliveries
            .index(&[Status::Delivery(ours.clone().into_status())])
            .await
            .expect("indexed")
            .remove(0)
            .expect("taken");
        let answer = redrive(ACME, json!({"ids": [gateway]})).await;
        assert_eq!(outcomes(&answer), [said(&gateway, outcome)], "{state}: {answer}");
    }
    let last = api.records(topic).await.into_iter().filter(|r| r.key == record.key).max_by_key(|r| r.at.offset);
    let last = Delivery::decode(last.and_then(|r| r.value).as_deref().expect("a value")).expect("a delivery");
    let steps: Vec<_> = last.history.0.iter().map(|s| (s.state, s.reason)).collect();
    let expected = [(State::Failed, Some(Reason::RetriesExhausted)), (State::Queued, Some(Reason::Redriven))];
    assert!(steps.ends_with(&expected) && steps.len() == 5, "{steps:?}");

    let some = redrive(OPERATOR, json!({"reason": "bad_cloudevent", "stage": "ingress"})).await;
    assert_eq!(outcomes(&some), [said(&event, "redriven")]);
}

#[tokio::test]
async fn a_request_for_dead_letters_names_what_is_wrong() {
    let api = Api::start().await;
    for (body, pointer, says) in [
        (json!({}), "", "either `ids`"),
        (json!({"dry_run": true}), "", "either `ids`"),
        (json!({"ids": ["gateway-0-1"], "reason": "x"}), "", "either `ids`"),
        (json!({"ids": []}), "/ids", "1 to 1,000"),
        (json!({"ids": ["gateway-0-1", "x"]}), "/ids/1", "like gateway-3-42"),
        (json!({"stage": "gate"}), "/stage", "ingress, router, gateway, indexer"),
        (json!({"reason": "A b"}), "/reason", "a code"),
        (json!({"since": "now"}), "/since", "RFC 3339"),
        (json!({"stage": "router", "cursor": "x"}), "/cursor", "not a cursor"),
        (json!({"stage": "router", "dryrun": true}), "/dryrun", "did you mean `dry_run`"),
    ] {
        let errors = api.call("POST", "/v1/dead-letters/redrive", OPERATOR, body.to_string()).await.problem(400);
        assert!(errors.len() == 1 && errors[0].0 == pointer && errors[0].1.contains(says), "{body}: {errors:?}");
    }
    let errors = api.get("/v1/dead-letters?stage=x&since=y&limit=0&cursor=z&reson=a", OPERATOR).await.problem(400);
    assert_eq!(errors.len(), 5, "{errors:?}");
    api.get("/v1/dead-letters/x", OPERATOR).await.refused(404, "like gateway-3-42");
    let reader = json!({"key": "a-reader-0123456789abcdef", "scopes": ["notifications:read"]});
    api.put("/v1/config/keys/reader", ACME, &reader).await.ok(200);
    for path in ["/v1/dead-letters", "/v1/dead-letters/gateway-0-0", "/v1/conservation"] {
        api.get(path, "a-reader-0123456789abcdef").await.refused(403, "`operator`");
    }
}

#[tokio::test]
async fn what_nobody_decided_over_is_missing() {
    let api = Api::start().await;
    let accepted_at = Timestamp::now() - Duration::from_secs(300);
    let mut ours = delivery("acme", "ana");
    ours.accepted_at = accepted_at;
    let request = |recipients| {
        Status::Notification(NotificationStatus {
            id: ours.notification,
            tenant: ours.tenant.clone(),
            recipients,
            category: None,
            priority: Priority::default(),
            channels: vec![Selector::Channel(Channel::Webhook)],
            template: None,
            accepted_at,
            expires_at: None,
            metadata: [].into(),
        })
    };
    for document in [request(3), Status::Delivery(ours.clone().into_status())] {
        api.stores.deliveries.index(&[document]).await.expect("indexed").remove(0).expect("taken");
    }
    let balance = api.get("/v1/conservation", ACME).await.ok(200);
    assert_eq!(
        (&balance["missing"], &balance["surplus"], &balance["grace_seconds"]),
        (&json!(2), &json!(0), &json!(60))
    );
    let expected = json!([{
        "tenant": "acme", "recipients": 3, "decided": 1, "missing": 2, "surplus": 0, "in_flight": 1,
        "channels": {"webhook": {"queued": 1}},
    }]);
    assert_eq!(balance["items"], expected);
    assert_eq!(api.get("/v1/conservation", OPERATOR).await.ok(200)["items"], expected);
    let before = format!("/v1/conservation?until={}", accepted_at - Duration::from_secs(1));
    assert_eq!(api.get(&before, ACME).await.ok(200)["items"], json!([]));
    assert_eq!(api.get("/v1/conservation", GLOBEX).await.ok(200)["missing"], 0);
    api.get("/v1/conservation?tenant=acme", GLOBEX).await.refused(404, "no such tenant");
    let until = api.get("/v1/conservation?until=2999-01-01T00:00:00Z", ACME).await.ok(200)["until"].clone();
    let until: Timestamp = until.as_str().expect("text").parse().expect("time");
    assert!(until <= Timestamp::now(), "what is not accepted yet is never counted");
}
