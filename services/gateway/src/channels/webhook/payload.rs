//! What a webhook says, and its signature (Standard Webhooks 1.0).

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use domain::{Address, Delivery, Timestamp, channel::webhook};
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{CONTENT_TYPE, USER_AGENT},
};
use ring::hmac;
use serde_json::{Map, Value};
use url::Url;

/// The keys of an account's signatures: one, or two while receivers change over from the previous one.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Those of the account's secrets.
    pub(super) fn of(account: &webhook::Account) -> Result<Self, &'static str> {
        let secrets = [Some(&account.secret), account.previous_secret.as_ref()];
        let key = |secret| webhook::key(secret).map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        let keys: Option<Vec<_>> = secrets.into_iter().flatten().map(key).collect();
        keys.map(Self).ok_or("a secret of the webhook account is not whsec_ and 24 to 64 bytes in base64")
    }

    /// One signature for each key, the current one first, in the form of the header `webhook-signature`.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let sign = |key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

#[derive(serde::Serialize)]
struct Event<'a> {
    r#type: String,
    /// When the request was taken over, not when it is sent: the body is the same in every attempt.
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(serde::Serialize)]
struct Data<'a> {
    notification_id: String,
    delivery_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
}

/// The body; the same for every attempt.
fn body(d: &Delivery) -> Result<Bytes, serde_json::Error> {
    let content = d.content.own(d.channel);
    // what the channel says of its own stands instead of the default
    let text = d.content.default.as_ref().filter(|_| content.is_none());
    let event = Event {
        r#type: match &d.category {
            // event types have no hyphen; `data.category` has the name as it is
            Some(category) => format!("notification.{}", category.as_str().replace('-', "_")),
            None => "notification".to_owned(),
        },
        timestamp: d.accepted_at,
        data: Data {
            notification_id: d.notification.to_string(),
            delivery_id: d.id.to_string(),
            user: d.recipient.user().map(domain::UserId::as_str),
            category: d.category.as_ref().map(domain::CategoryKey::as_str),
            priority: d.priority.get(),
            title: text.map(|t| t.title.as_str()).filter(|t| !t.is_empty()),
            body: text.map(|t| t.body.as_str()),
            content,
            collapse_key: d.collapse_key.as_deref(),
            metadata: &d.metadata,
        },
    };
    serde_json::to_vec(&event).map(Bytes::from)
}

/// The request of an attempt made at `now`. Errors: the delivery makes no request, for good.
pub(super) fn request(
    d: &Delivery,
    to: &Address,
    keys: &Keys,
    now: Timestamp,
) -> Result<Request<Full<Bytes>>, &'static str> {
    let body = body(d).map_err(|_| "the content cannot be written as JSON")?;
    let id = d.id.to_string();
    let timestamp = now.as_second();
    Request::builder()
        .method(Method::POST)
        .uri(to.expose())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "Carillon")
        .header("webhook-signature", keys.sign(&id, timestamp, &body))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .body(Full::new(body))
        .map_err(|_| "the URL cannot be requested")
}

/// Whether an answer repeats the address or the content, as a web server's error page or an echoing endpoint does: then it
/// must not get into the trace.
pub(super) fn repeats(answer: &str, d: &Delivery) -> bool {
    let mut sent = Vec::new();
    if let Some(address) = d.address() {
        sent.push(address.expose());
    }
    if let Some(text) = &d.content.default {
        sent.extend([text.title.as_str(), text.body.as_str()]);
    }
    if let Some(own) = d.content.own(d.channel) {
        own.values().for_each(|value| texts(value, &mut sent));
    }
    let path = d.address().and_then(|a| Url::parse(a.expose()).ok()).map(|url| url.path().to_owned());
    sent.extend(path.as_deref().map(|p| p.trim_matches('/')));
    sent.into_iter().any(|text| {
        // the beginning tells enough, and an answer may have been cut
        let plain: String = text.chars().take(24).collect();
        let quoted = Value::from(plain.as_str()).to_string();
        plain.chars().count() >= 6 && (answer.contains(&plain) || answer.contains(quoted.trim_matches('"')))
    })
}

fn texts<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(items) => items.iter().for_each(|v| texts(v, into)),
        Value::Object(map) => map.values().for_each(|v| texts(v, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        CategoryKey, Channel, Content, Message, Notification, NotificationId, Priority, Recipient, Secret, Selector,
        State, Strategy, Target, TenantId, UserId,
    };
    use serde_json::json;

    use super::*;

    fn delivery(content: &Value, category: Option<&str>) -> Delivery {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().expect("time");
        let notification = Notification {
            id: NotificationId::new(now),
            tenant: TenantId::parse("acme").expect("valid"),
            recipient: Recipient::User(UserId::parse("ana").expect("valid")),
            category: category.map(|c| CategoryKey::parse(c).expect("valid")),
            priority: Priority::default(),
            channels: vec![Selector::Channel(Channel::Webhook)],
            strategy: Strategy::All,
            message: Message::Content(Content::parse(content.as_object().expect("object").clone(), "").expect("valid")),
            locale: None,
            expires_at: None,
            collapse_key: None,
            metadata: [("order".to_owned(), "17".to_owned())].into(),
            accepted_at: now,
        };
        let to = Address::parse(Channel::Webhook, "https://example.com/hooks/T0KEN42?a=1").expect("valid");
        Delivery::begin(&notification, Channel::Webhook, Some(Target::raw(to)), now, State::Queued, None)
    }

    fn keys(secret: &str, previous: Option<&str>) -> Result<Keys, &'static str> {
        let previous_secret = previous.map(Secret::new);
        Keys::of(&webhook::Account { secret: Secret::new(secret), previous_secret })
    }

    #[test]
    fn both_secrets_sign_while_receivers_change_over() {
        let (new, old) =
            ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let sign = |keys: Result<Keys, _>| keys.expect("valid").sign("msg_1", 1_700_000_000, b"{}");
        assert_eq!(sign(keys(new, Some(old))), format!("{} {}", sign(keys(new, None)), sign(keys(old, None))));
        assert!(keys(new, Some("whsec_")).is_err());
    }

    #[test]
    fn the_vectors_of_the_specification() {
        let sign = |secret: &str, id, timestamp, body: &str| {
            keys(secret, None).expect("valid").sign(id, timestamp, body.as_bytes())
        };
        assert_eq!(
            sign(
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        assert_eq!(
            sign(
                "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
                "msg_2vTESTTESTTESTTESTTESTTEST1",
                1_700_000_000,
                r#"{"type":"notification.delivered","timestamp":"2023-11-14T22:13:20Z","data":{"id":"ntf_1"}}"#,
            ),
            "v1,FRqS8x01fU0mcyR+xV7nsfZW8G7jCozIprM+J+Hx1vg="
        );
        let of_length = |n: usize| keys(&format!("whsec_{}", BASE64_STANDARD.encode(vec![1; n])), None).is_ok();
        assert_eq!([23, 24, 64, 65].map(of_length), [false, true, true, false]);
        for bad in ["", "whsec_", "whsec_*", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"] {
            assert!(keys(bad, None).is_err(), "{bad}");
        }
    }

    /// Row 31 of the catalogue (reliability.md, section 7): id and body stay, the timestamp is each attempt's own.
    #[test]
    fn the_body_says_what_was_asked_and_stays_the_same() {
        let parsed = |d: &Delivery| serde_json::from_slice::<Value>(&body(d).expect("JSON")).expect("JSON");
        let d = delivery(&json!({"default": {"title": "Hi", "body": "Your order"}}), Some("order-news"));
        assert_eq!(
            parsed(&d),
            json!({"type": "notification.order_news", "timestamp": "2026-11-21T09:00:00Z", "data": {
                "notification_id": d.notification.to_string(), "delivery_id": d.id.to_string(), "user": "ana",
                "category": "order-news", "priority": 5, "title": "Hi", "body": "Your order", "metadata": {"order": "17"},
            }})
        );
        let own = delivery(&json!({"default": {"body": "B"}, "webhook": {"x": [1]}}), None);
        let sent = parsed(&own);
        assert_eq!((&sent["type"], &sent["data"]["content"]), (&json!("notification"), &json!({"x": [1]})));
        assert!(sent["data"].get("body").is_none());

        let key = keys(&format!("whsec_{}", BASE64_STANDARD.encode([7; 32])), None).expect("valid");
        let at =
            |s| request(&d, d.address().expect("set"), &key, Timestamp::from_second(s).expect("time")).expect("ok");
        let (first, later) = (at(1_000), at(37_000));
        assert_eq!(first.headers()["webhook-id"], later.headers()["webhook-id"]);
        assert_eq!(
            (&first.headers()["webhook-timestamp"], &later.headers()["webhook-timestamp"]),
            (&"1000".parse().expect("v"), &"37000".parse().expect("v"))
        );
        assert_ne!(first.headers()["webhook-signature"], later.headers()["webhook-signature"]);
    }

    #[test]
    fn an_answer_that_repeats_what_was_sent_is_noticed() {
        let d = delivery(&json!({"webhook": {"a": [{"b": "line one\nline two"}], "n": "ok"}}), None);
        for echo in [
            "Cannot POST /hooks/T0KEN42",
            r#"{"b":"line one\nline two"}"#,
            "> line one\nline two",
            "https://example.com/hooks/T0KEN42?a=1",
        ] {
            assert!(repeats(echo, &d), "{echo}");
        }
        for own in ["", "ok", "quota exceeded", "line"] {
            assert!(!repeats(own, &d), "{own}");
        }
    }

    #[test]
    fn every_url_that_parses_can_be_requested() {
        for odd in [
            r#"https://a.example/"<>`{}|^~[]\x?q="<>`{}|^'[]%zz"#,
            "https://[2606:4700::1]:8443/ü?ö=ß",
            "https://ü.example/",
            "https://a.example?x",
        ] {
            let address = Address::parse(Channel::Webhook, odd).expect(odd);
            assert!(address.expose().parse::<hyper::Uri>().is_ok(), "{}", address.expose());
        }
    }
}
