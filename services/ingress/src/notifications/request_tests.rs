//! Every way in which a notification can be wrong, and what the client is told.

use bus::config::Snapshot;
use domain::{ChannelType, Recipient, Strategy};

use super::*;

fn tenant() -> TenantId {
    TenantId::parse("acme").expect("valid")
}

fn now() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().expect("time")
}

/// Without any category: those need a log, and are tested over HTTP.
fn parsed(json: &str) -> Result<Draft, FieldErrors> {
    parse(json.as_bytes(), "", &tenant(), &Snapshot::default(), now())
}

/// A valid request with some fields replaced; `null` removes one.
fn with(changes: &str) -> String {
    let mut request = serde_json::json!({
        "to": [{"user": "ana"}], "channels": ["webhook"], "content": {"default": {"title": "T", "body": "B"}}
    });
    let Ok(Value::Object(changes)) = serde_json::from_str(changes) else { panic!("{changes}") };
    let object = request.as_object_mut().expect("object");
    for (key, value) in changes {
        if value.is_null() { drop(object.remove(&key)) } else { drop(object.insert(key, value)) }
    }
    request.to_string()
}

#[test]
fn a_whole_request_is_understood() {
    let draft = parsed(&with(
        r#"{"to": [{"user": "ana"}, {"channel": "webhook", "address": "https://EXAMPLE.com/x"}, {"user": "ana"}],
            "priority": 9, "channels": ["chat", "webhook", "chat"], "strategy": "best_of", "collapse_key": "order-17",
            "expires_at": "2026-11-21T11:00:00+01:00", "metadata": {"order_id": "17"}}"#,
    ))
    .expect("valid");
    let keys: Vec<_> = draft.recipients.iter().map(Recipient::key).collect();
    assert_eq!((keys.len(), keys[0].as_str()), (2, "user:ana"), "the same user twice is one recipient");
    assert_eq!(draft.channels, [Selector::Type(ChannelType::Chat), Selector::Channel(Channel::Webhook)]);
    assert_eq!((draft.priority.get(), draft.strategy), (9, Strategy::BestOf));
    assert_eq!(draft.expires_at.map(|t| t.to_string()).as_deref(), Some("2026-11-21T10:00:00Z"));
    assert_eq!((draft.collapse_key.as_deref(), draft.metadata["order_id"].as_str()), (Some("order-17"), "17"));

    let plain = parsed(&with("{}")).expect("valid");
    assert_eq!((plain.priority.get(), plain.strategy, plain.expires_at), (5, Strategy::All, None));
    let raw = parsed(&with(r#"{"channels": null, "to": [{"channel": "webhook", "address": "https://a.example/"}]}"#));
    assert_eq!(raw.expect("an address says its channel").channels, [Selector::Channel(Channel::Webhook)]);
}

#[test]
fn every_bad_field_is_named_with_its_remedy() {
    let many = |n: usize| {
        let to: Vec<_> = (0..n).map(|i| format!(r#"{{"user": "u{i}"}}"#)).collect();
        format!(r#"{{"to": [{}]}}"#, to.join(","))
    };
    let entries: Vec<_> = (0..51).map(|i| format!(r#""k{i}": "v""#)).collect();
    let crowded = format!(r#"{{"metadata": {{{}}}}}"#, entries.join(","));
    let long_key = format!(r#"{{"metadata": {{"{}": "v"}}}}"#, "k".repeat(65));
    let long_value = format!(r#"{{"metadata": {{"a/b": "{}"}}}}"#, "v".repeat(513));
    let long_collapse = format!(r#"{{"collapse_key": "{}"}}"#, "k".repeat(65));
    let key_pointer = format!("/metadata/{}", "k".repeat(64));
    let table: &[(&str, &str, &str)] = &[
        (r#"{"to": null}"#, "/to", "1 to 1,000 recipients, not 0"),
        (r#"{"to": []}"#, "/to", "1 to 1,000 recipients, not 0"),
        (&many(1001), "/to", "not 1001"),
        (r#"{"to": {"user": "ana"}}"#, "/to", "expected a sequence"),
        (r#"{"to": [{"user": "a b"}]}"#, "/to/0/user", "1 to 128 characters out of"),
        (r#"{"to": [{"user": 7}]}"#, "/to/0/user", "expected a string"),
        (r#"{"to": [{}]}"#, "/to/0", "either `user`, or `channel` and `address`"),
        (r#"{"to": [{"user": "ana", "channel": "webhook"}]}"#, "/to/0", "either `user`"),
        (r#"{"to": [{"channel": "webhook"}]}"#, "/to/0", "`channel` and `address`"),
        (r#"{"to": [{"topic": "match-7"}]}"#, "/to/0/topic", "`topic` is not yet built in this version"),
        (r#"{"to": [{"user": "ana", "usr": "x"}]}"#, "/to/0/usr", "did you mean `user`"),
        (
            r#"{"to": [{"channel": "webhook", "address": "example.com"}]}"#,
            "/to/0/address",
            "like https://example.com/hook",
        ),
        (r#"{"to": [{"channel": "sms", "address": "+1"}]}"#, "/to/0/channel", "not yet built in this version"),
        (r#"{"to": [{"channel": "email", "address": "a@b"}]}"#, "/to/0/address", "like ana@example.com"),
        (r#"{"to": [{"channel": "apns", "address": "../3/device/c0ff"}]}"#, "/to/0/address", "hexadecimal"),
        (r#"{"priority": 0}"#, "/priority", "1 to 10, not 0"),
        (r#"{"priority": 11}"#, "/priority", "1 to 10, not 11"),
        (r#"{"priority": "high"}"#, "/priority", "expected i64"),
        (r#"{"priority": 1.5}"#, "/priority", "expected i64"),
        (r#"{"channels": null}"#, "/channels", "give `channels`, or a `category`"),
        (r#"{"channels": []}"#, "/channels", "give `channels`, or a `category`"),
        (r#"{"channels": ["pigeon"]}"#, "/channels/0", "use one of apns, email, webhook, push, email, chat"),
        (r#"{"channels": ["webhook", "fcm"]}"#, "/channels/1", "not yet built in this version"),
        (r#"{"channels": "webhook"}"#, "/channels", "expected a sequence"),
        (r#"{"category": "orders"}"#, "/category", "none is declared yet"),
        (r#"{"category": "Or ders"}"#, "/category", "1 to 63 characters"),
        (r#"{"strategy": "fallback"}"#, "/strategy", "not yet built in this version"),
        (r#"{"strategy": "bestof"}"#, "/strategy", "did you mean `best_of`"),
        (r#"{"expires_at": "2026-11-21T09:00:00Z"}"#, "/expires_at", "passed already; it is 2026-11-21T09:00:00Z"),
        (r#"{"expires_at": "tomorrow"}"#, "/expires_at", "RFC 3339"),
        (r#"{"collapse_key": ""}"#, "/collapse_key", "1 to 64 visible"),
        (r#"{"collapse_key": "a b"}"#, "/collapse_key", "1 to 64 visible"),
        (&long_collapse, "/collapse_key", "1 to 64 visible"),
        (&crowded, "/metadata", "at most 50 entries, not 51"),
        (&long_key, &key_pointer, "1 to 64 characters"),
        (&long_value, "/metadata/a~1b", "at most 512 characters"),
        (r#"{"metadata": {"": "v"}}"#, "/metadata/", "1 to 64 characters"),
        (r#"{"metadata": {"a": 1}}"#, "/metadata/a", "expected a string"),
        (r#"{"send_at": "2026-12-01T08:00:00Z"}"#, "/send_at", "`send_at` is not yet built"),
        (r#"{"digest": {"key": "orders"}}"#, "/digest", "`digest` is not yet built"),
        (r#"{"fallback": {"after": "5m"}}"#, "/fallback", "`fallback` is not yet built"),
        (r#"{"escalation": "on-call"}"#, "/escalation", "`escalation` is not yet built"),
        (r#"{"chanels": ["webhook"]}"#, "/chanels", "did you mean `channels`"),
        (r#"{"recipients": []}"#, "/recipients", "`recipients` is unknown; there are to, category"),
    ];
    refused(table);
}

/// Each has this one problem.
fn refused(table: &[(&str, &str, &str)]) {
    for (changes, pointer, detail) in table {
        let errors = parsed(&with(changes)).expect_err(changes);
        let [error] = errors.0.as_slice() else { panic!("{changes}: {errors}") };
        assert!(error.detail.contains(detail), "{changes}: {errors}");
        assert_eq!(error.pointer, *pointer, "{changes}: {errors}");
    }
}

#[test]
fn what_is_said_is_checked() {
    refused(&[
        (r#"{"content": null}"#, "/content", "give `template`, or `content`"),
        (r#"{"content": {}}"#, "/content", "give it `default`"),
        (r#"{"content": {"default": {"title": "T"}}}"#, "/content/default", "missing field `body`"),
        (r#"{"content": {"sms": {}, "webhook": {}}}"#, "/content/sms", "not yet built in this version"),
        (r#"{"content": {"email": {}, "webhook": {}}}"#, "/content/email", "`text` or `html`"),
        (
            r#"{"content": {"email": {"text": "T", "subject": "S\r\nBcc: x@y.zz"}, "webhook": {}}}"#,
            "/content/email/subject",
            "none of them a control character",
        ),
        (r#"{"content": {"email": {"text": "T"}}}"#, "/content", "nothing to say on webhook"),
        (r#"{"data": {"order": "17"}}"#, "/data", "fills the variables of a `template`"),
        (r#"{"content": null, "template": "t", "data": []}"#, "/data", "expected a map"),
        (r#"{"locale": "german"}"#, "/locale", "like de, de-CH"),
        (r#"{"content": null, "template": "order-shipped"}"#, "/template", "PUT /v1/templates/order-shipped"),
        (r#"{"content": null, "template": "Order shipped"}"#, "/template", "a template key has 1 to 63"),
        (r#"{"content": null, "template": "order-shipped@3"}"#, "/template", "a template key has 1 to 63"),
        (r#"{"content": null, "template": 7}"#, "/template", "expected a string"),
    ]);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let errors = parsed(
        r#"{"to": [{"user": "a b"}, {"channel": "webhook", "address": "nope"}], "priority": 99, "template": "x",
            "content": {"sms": {}}, "send_at": "x", "prority": 1, "collapse_key": ""}"#,
    )
    .expect_err("bad");
    let mut pointers: Vec<_> = errors.0.iter().map(|e| e.pointer.as_str()).collect();
    pointers.sort_unstable();
    let all = [
        "/channels",
        "/collapse_key",
        "/content",
        "/content/sms",
        "/priority",
        "/prority",
        "/send_at",
        "/template",
        "/to/0/user",
        "/to/1/address",
    ];
    assert_eq!(pointers, all, "{errors}");
    assert!(errors.to_string().contains("give one of `template` and `content`"), "{errors}");
}

#[test]
fn what_is_no_json_is_refused_and_never_panics() {
    let deep = format!(r#"{{"content": {}1{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let deep_list = "[".repeat(500_000);
    for bad in [
        "",
        "{",
        "[]",
        "7",
        "null",
        "{\"to\": [}",
        &deep,
        &deep_list,
        r#"{"to": [{"user": "\ud800"}]}"#,
        r#"{"content": {"webhook": {"x": 1e400}}}"#,
        r#"{"unknown": 1e400}"#,
        "{\"to\": \"a\u{0}b\"}",
        "{} {}",
        r#"{"to": [], "to": []}"#,
        "\u{feff}{}",
    ] {
        let errors = parsed(bad).expect_err("bad");
        assert!(errors.0.iter().all(|e| e.detail.len() < 1000), "an answer is short");
        assert!(errors.0[0].detail.contains("line 1") || bad == "{}", "{errors}");
    }
    let errors = parse(b"\xff\xfe", "/notifications/3", &tenant(), &Snapshot::default(), now()).expect_err("no UTF-8");
    assert_eq!(errors.0[0].pointer, "/notifications/3");
    let many_keys: String = (0..50_000).map(|i| format!("\"k{i}\": 0,")).collect();
    assert!(parsed(&format!("{{{many_keys} \"to\": []}}")).is_err());
}
