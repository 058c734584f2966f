//! What is written is read back, and what is not valid is refused by name.

use domain::{
    Address, Attempt, Channel, Content, Delivery, Environment, Locale, Message, Notification, NotificationId,
    NotificationStatus, Outcome, Plan, Planned, Priority, Reason, Recipient, Selector, State, Status, Strategy, Target,
    TemplateRef, TenantId, Timestamp, UserId,
};

use crate::{Record, proto};

fn notification(recipient: Recipient) -> Notification {
    let accepted_at: Timestamp = "2026-11-21T09:00:00.123456Z".parse().expect("time");
    Notification {
        id: NotificationId::new(accepted_at),
        tenant: TenantId::parse("acme").expect("valid"),
        recipient,
        category: Some(domain::CategoryKey::parse("orders").expect("valid")),
        priority: Priority::parse(9).expect("valid"),
        channels: vec![Selector::parse("webhook").expect("valid"), Selector::parse("chat").expect("valid")],
        strategy: Strategy::BestOf,
        message: Message::Content(
            serde_json::from_str::<Content>(r#"{"default": {"title": "T", "body": "ü"}, "webhook": {"a": [1]}}"#)
                .expect("content"),
        ),
        locale: Some(Locale::parse("de-CH").expect("valid")),
        expires_at: Some("2026-12-01T09:00:00Z".parse().expect("time")),
        collapse_key: Some("order-17".into()),
        metadata: [("order_id".to_owned(), "17".to_owned())].into(),
        accepted_at,
    }
}

/// The record read back, of bytes that are as the generated message has them, field by field.
fn back<T: Record, M: prost::Message + Default + std::fmt::Debug>(record: &T) -> T {
    let bytes = record.encode();
    let message = M::decode(&*bytes).expect("decodes");
    assert!(message.encode_to_vec() == bytes, "{message:?}");
    T::decode(&bytes).expect("decodes")
}

#[test]
fn a_decision_comes_back_whole() {
    let device = Target {
        address: Address::parse(Channel::Apns, &"ab".repeat(32)).expect("valid"),
        since: Some("2026-11-21T08:00:00.000001Z".parse().expect("time")),
        app: Some("com.example".into()),
        environment: Environment::Sandbox,
    };
    let hook = Target::raw(Address::parse(Channel::Webhook, "https://a.example/hook").expect("valid"));
    let lines = vec![
        Planned::Send { channel: Channel::Apns, target: device, locale: Locale::parse("de-CH").ok() },
        Planned::Send { channel: Channel::Webhook, target: hook, locale: None },
        Planned::End { channel: Channel::Email, state: State::Suppressed, reason: Reason::NoAddress },
    ];
    let time = |text: &str| text.parse::<Timestamp>().expect("time");
    let plan = Plan { at: time("2026-11-21T09:00:00.123456Z"), accepted_at: time("2026-11-21T08:59:59.5Z"), lines };
    assert_eq!(back::<_, proto::Decision>(&plan), plan);
    let nothing = Plan { lines: vec![], ..plan };
    assert!(Plan::decode(&nothing.encode()).expect_err("a decision says something").to_string().contains("lines"));
}

#[test]
fn every_record_comes_back_whole() {
    let to = Address::parse(Channel::Webhook, "https://a.example/hook").expect("valid");
    for recipient in
        [Recipient::User(UserId::parse("ana").expect("valid")), Recipient::Address(Channel::Webhook, to.clone())]
    {
        let n = notification(recipient);
        assert_eq!(back::<_, proto::Notification>(&n), n);

        let template = TemplateRef::parse("shipped@3").expect("valid");
        let data = serde_json::json!({"order": 17, "null": null}).as_object().expect("object").clone();
        let templated = Notification { message: Message::Template { template: template.clone(), data }, ..n.clone() };
        assert_eq!(back::<_, proto::Notification>(&templated), templated);

        let target = Target {
            address: to.clone(),
            since: Some(n.accepted_at),
            app: Some("com.example".into()),
            environment: Environment::Sandbox,
        };
        let mut d = Delivery::begin(&templated, Channel::Webhook, Some(target), n.accepted_at, State::Queued, None);
        (d.leads, d.provider, d.locale) = (true, Some("webhook".into()), n.locale.clone());
        d.history.attempted(
            n.accepted_at,
            State::Sending,
            None,
            Attempt::new(1, &Outcome::Unknown, "no answer\r\n", 12),
        );
        d.history.reached(n.accepted_at, State::Failed, Some(Reason::RetriesExhausted));
        assert_eq!(back::<_, proto::Delivery>(&d), d);

        let status = Status::Delivery(d.clone().into_status());
        assert_eq!(back::<_, proto::StatusEvent>(&status), status);
        assert!(!String::from_utf8_lossy(&status.encode()).contains("a.example/hook"), "status events hold no address");
    }
    let accepted = Status::Notification(NotificationStatus {
        id: NotificationId::new(Timestamp::UNIX_EPOCH),
        tenant: TenantId::parse("acme").expect("valid"),
        recipients: 1000,
        category: None,
        priority: Priority::default(),
        channels: vec![],
        accepted_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        template: Some("shipped@3".into()),
        metadata: [].into(),
    });
    assert_eq!(back::<_, proto::StatusEvent>(&accepted), accepted);
}

#[test]
fn bad_bytes_are_named() {
    let said = |bytes: &[u8]| Notification::decode(bytes).expect_err("bad").to_string();
    assert!(said(b"\xff\xff\xff").starts_with("not a Notification message"));
    assert_eq!(said(b""), "field strategy: unknown");
    let n = notification(Recipient::User(UserId::parse("ana").expect("valid")));
    let mut message = <proto::Notification as prost::Message>::decode(n.encode()).expect("decodes");
    message.priority = 11;
    let bytes = prost::Message::encode_to_vec(&message);
    assert_eq!(said(&bytes), "field priority: priority is 1 to 10, not 11");
    assert!(crate::decode::<Notification>(None).expect_err("empty").to_string().contains("no value"));
}
