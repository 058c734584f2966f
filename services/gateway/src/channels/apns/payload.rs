//! What is said to a device, as APNs wants it: the JSON and the headers.

use bytes::Bytes;
use domain::{Content, Delivery, Lane};
use hyper::{
    Method, Request, Uri, Version,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::token::Token;

const TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const ID: HeaderName = HeaderName::from_static("apns-id");
const PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const COLLAPSE: HeaderName = HeaderName::from_static("apns-collapse-id");

/// A value of `apns-push-type`, and what it adds to the topic.
#[derive(Debug, PartialEq, Eq)]
struct PushType {
    name: &'static str,
    suffix: &'static str,
}

const ALERT: &PushType = &PushType { name: "alert", suffix: "" };
const BACKGROUND: &PushType = &PushType { name: "background", suffix: "" };
const VOIP: &PushType = &PushType { name: "voip", suffix: ".voip" };
const PUSH_TO_TALK: &PushType = &PushType { name: "pushtotalk", suffix: ".voip-ptt" };
const PUSH_TYPES: [&PushType; 11] = [
    ALERT,
    BACKGROUND,
    VOIP,
    PUSH_TO_TALK,
    &PushType { name: "location", suffix: ".location-query" },
    &PushType { name: "complication", suffix: ".complication" },
    &PushType { name: "fileprovider", suffix: ".pushkit.fileprovider" },
    &PushType { name: "mdm", suffix: "" },
    &PushType { name: "liveactivity", suffix: ".push-type.liveactivity" },
    &PushType { name: "widgets", suffix: ".push-type.widgets" },
    &PushType { name: "controls", suffix: ".push-type.controls" },
];

#[derive(Serialize)]
struct Body<'a> {
    aps: Aps<'a>,
    #[serde(flatten)]
    data: Option<&'a Map<String, Value>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Aps<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<Alert<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    badge: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_available: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutable_content: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interruption_level: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relevance_score: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_content_id: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Alert<'a> {
    Text(&'a str),
    Parts {
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        subtitle: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<&'a str>,
    },
}

impl<'a> Alert<'a> {
    fn of(title: Option<&'a str>, subtitle: Option<&'a str>, body: Option<&'a str>) -> Option<Self> {
        match (title, subtitle, body) {
            (None, None, None) => None,
            (None, None, Some(body)) => Some(Self::Text(body)),
            _ => Some(Self::Parts { title, subtitle, body }),
        }
    }
}

/// The JSON of a content and its push type. Errors: it makes no push, for good.
fn write(content: &Content) -> Result<(Bytes, &'static PushType), String> {
    let own = content.channels.get("apns");
    let (json, push_type) = match (own, &content.default) {
        (Some(own), _) => write_own(own)?,
        (None, Some(text)) => {
            let title = Some(text.title.as_str()).filter(|t| !t.is_empty());
            let aps = Aps { alert: Alert::of(title, None, Some(&text.body)), ..Aps::default() };
            (to_json(&Body { aps, data: None })?, ALERT)
        }
        (None, None) => return Err("there is nothing to say on apns".to_owned()),
    };
    let limit = if push_type == VOIP { 5120 } else { 4096 };
    if json.len() > limit {
        return Err(format!("the payload has {} bytes; {limit} at most for {}", json.len(), push_type.name));
    }
    Ok((json.into(), push_type))
}

fn write_own(own: &Map<String, Value>) -> Result<(Vec<u8>, &'static PushType), String> {
    let get = |key: &str| own.get(key).filter(|v| !v.is_null());
    let text = |key: &str| get(key).and_then(Value::as_str);
    let flag = |key: &str| get(key).and_then(Value::as_bool).unwrap_or_default();
    let named = match text("push_type") {
        None => None,
        Some(name) => Some(PUSH_TYPES.into_iter().find(|t| t.name == name).ok_or("the push_type is none of Apple's")?),
    };
    if let Some(payload) = get("payload") {
        let aps = payload.get("aps");
        let has = |key: &str| aps.is_some_and(|aps| aps.get(key).is_some());
        let silent = has("content-available") && !["alert", "badge", "sound"].into_iter().any(has);
        return Ok((to_json(payload)?, named.unwrap_or(if silent { BACKGROUND } else { ALERT })));
    }
    let alert = Alert::of(text("title"), text("subtitle"), text("body"));
    let (badge, sound) = (get("badge"), get("sound"));
    let silent = flag("content_available") && alert.is_none() && badge.is_none() && sound.is_none();
    let push_type = named.unwrap_or(if silent { BACKGROUND } else { ALERT });
    let data = get("data").and_then(Value::as_object);
    if data.is_some_and(|data| data.contains_key("aps")) {
        return Err("data holds aps, which is Apple's".to_owned());
    }
    let aps = Aps {
        alert,
        badge,
        sound,
        thread_id: get("thread_id"),
        category: get("category"),
        // Apple drops what is called background and does not say so in the payload
        content_available: (flag("content_available") || push_type == BACKGROUND).then_some(1),
        mutable_content: flag("mutable_content").then_some(1),
        interruption_level: get("interruption_level"),
        relevance_score: get("relevance_score"),
        target_content_id: get("target_content_id"),
    };
    Ok((to_json(&Body { aps, data })?, push_type))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|_| "the content cannot be written as JSON".to_owned())
}

/// A delivery, ready to be sent.
pub(super) struct Message {
    path: PathAndQuery,
    topic: HeaderValue,
    push_type: &'static str,
    priority: &'static str,
    collapse: HeaderValue,
    id: HeaderValue,
    expiration: Option<HeaderValue>,
    /// The JSON.
    body: Bytes,
}

impl Message {
    /// Of a delivery to the device `token` of an app. Errors: it makes no push, for good.
    pub(super) fn new(d: &Delivery, token: &str, app: &str) -> Result<Self, String> {
        let (body, push_type) = write(&d.content)?;
        // it was checked when it was registered; a token from anywhere else may not choose the path
        if !(1..=200).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("the device token is not hexadecimal".to_owned());
        }
        let path = PathAndQuery::from_maybe_shared(Bytes::from(["/3/device/", token].concat()));
        let suffix = if app.ends_with(push_type.suffix) { "" } else { push_type.suffix };
        let topic = HeaderValue::try_from([app, suffix].concat());
        let mut buffer = Uuid::encode_buffer();
        let id = unindexed(d.id.0.hyphenated().encode_lower(&mut buffer))?;
        // a resend shows once: it replaces what it repeats
        let key = d.collapse_key.as_deref().filter(|key| (1..=64).contains(&key.len()));
        let expiration = match d.expires_at {
            _ if push_type == PUSH_TO_TALK => Some(HeaderValue::from_static("0")),
            Some(at) => Some(unindexed(&at.as_second().max(0).to_string())?),
            None => None,
        };
        Ok(Self {
            path: path.map_err(|_| "the device token makes no path".to_owned())?,
            topic: topic.map_err(|_| "the app is no topic".to_owned())?,
            push_type: push_type.name,
            priority: priority(push_type, d.priority.lane()),
            collapse: key.and_then(|key| unindexed(key).ok()).unwrap_or_else(|| id.clone()),
            id,
            expiration,
            body,
        })
    }

    /// The request of one try, and its body.
    pub(super) fn into_request(self, authority: &Authority, token: Option<&Token>) -> (Request<()>, Bytes) {
        let mut uri = hyper::http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(authority.clone());
        uri.path_and_query = Some(self.path);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        let headers = request.headers_mut();
        headers.reserve(6 + usize::from(self.expiration.is_some()));
        headers.insert(TOPIC, self.topic);
        headers.insert(PUSH_TYPE, HeaderValue::from_static(self.push_type));
        headers.insert(PRIORITY, HeaderValue::from_static(self.priority));
        headers.insert(COLLAPSE, self.collapse);
        headers.insert(ID, self.id);
        if let Some(expiration) = self.expiration {
            headers.insert(EXPIRATION, expiration);
        }
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.header.clone());
        }
        (request, self.body)
    }
}

/// `background` has to use 5, and push-to-talk is urgent by nature.
fn priority(push_type: &PushType, lane: Lane) -> &'static str {
    match (push_type, lane) {
        (t, _) if t == BACKGROUND => "5",
        (t, _) if t == PUSH_TO_TALK => "10",
        (_, Lane::High | Lane::Normal) => "10",
        (_, Lane::Low) => "5",
    }
}

/// A value that is another in every request: in the connection's compression table it would only push out what repeats.
fn unindexed(value: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(value).map_err(|_| "no header value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use a2::{
        DefaultNotificationBuilder, NotificationBuilder as _,
        request::payload::{Payload, PayloadLike as _},
    };
    use domain::{
        Address, Channel, Notification, NotificationId, Priority, Recipient, Selector, State, Strategy, TenantId,
    };
    use hyper::HeaderMap;
    use serde_json::json;

    use super::*;

    fn content(json: Value) -> Content {
        Content::parse(json.as_object().expect("an object").clone(), "").expect("valid")
    }

    fn written(json: Value) -> (Value, &'static str) {
        let (bytes, push_type) = write(&content(json)).expect("a push");
        (serde_json::from_slice(&bytes).expect("JSON"), push_type.name)
    }

    /// What a2 sends, but for the `"mutable-content": 0` that it always sends and that means nothing.
    fn oracle(payload: &Payload<'_>) -> Value {
        let mut json: Value = serde_json::from_str(&payload.to_json_string().expect("JSON")).expect("JSON");
        if json["aps"]["mutable-content"] == 0 {
            json["aps"].as_object_mut().expect("an object").remove("mutable-content");
        }
        json
    }

    #[test]
    fn payloads_are_those_of_a2() {
        let new = DefaultNotificationBuilder::new;
        let mut with_data = new().set_title("T").build("t", Default::default());
        with_data.add_custom_data("order", &json!({"id": 17})).expect("JSON");
        for (ours, theirs) in [
            (json!({"default": {"body": "B"}}), new().set_body("B").build("t", Default::default())),
            (
                json!({"default": {"title": "T", "body": "Grüße \u{1f469}\u{200d}\u{1f680}"}}),
                new().set_title("T").set_body("Grüße \u{1f469}\u{200d}\u{1f680}").build("t", Default::default()),
            ),
            (
                json!({"default": {"body": "not this"}, "apns": {"title": "T", "subtitle": "S", "body": "B", "badge": 0,
                    "sound": "ping.caf", "category": "C", "mutable_content": true}}),
                new()
                    .set_title("T")
                    .set_subtitle("S")
                    .set_body("B")
                    .set_badge(0)
                    .set_sound("ping.caf")
                    .set_category("C")
                    .set_mutable_content()
                    .build("t", Default::default()),
            ),
            (
                json!({"apns": {"body": "B", "sound": {"critical": 1, "name": "alarm.caf", "volume": 0.5}}}),
                new().set_body("B").set_sound("alarm.caf").set_critical(true, Some(0.5)).build("t", Default::default()),
            ),
            (
                json!({"apns": {"content_available": true}}),
                new().set_content_available().build("t", Default::default()),
            ),
            (json!({"apns": {"title": "T", "data": {"order": {"id": 17}}}}), with_data),
        ] {
            assert_eq!(written(ours).0, oracle(&theirs));
        }
    }

    #[test]
    fn what_a2_does_not_know_is_written_as_apple_says() {
        let (json, push_type) =
            written(json!({"apns": {"body": "B", "thread_id": "t", "interruption_level": "time-sensitive",
            "relevance_score": 0.5, "target_content_id": "w", "push_type": "alert"}}));
        let aps = json!({"alert": "B", "thread-id": "t", "interruption-level": "time-sensitive", "relevance-score": 0.5,
            "target-content-id": "w"});
        assert_eq!((json, push_type), (json!({"aps": aps}), "alert"));
        for (own, sent, push_type) in [
            (
                json!({"push_type": "background", "data": {"x": 1}}),
                json!({"aps": {"content-available": 1}, "x": 1}),
                "background",
            ),
            (json!({"content_available": true}), json!({"aps": {"content-available": 1}}), "background"),
            (
                json!({"content_available": true, "badge": 1}),
                json!({"aps": {"content-available": 1, "badge": 1}}),
                "alert",
            ),
            (
                json!({"payload": {"aps": {"content-available": 1}, "y": 2}}),
                json!({"aps": {"content-available": 1}, "y": 2}),
                "background",
            ),
            (json!({"payload": {"aps": {"alert": "B"}}}), json!({"aps": {"alert": "B"}}), "alert"),
            (
                json!({"payload": {"aps": {"event": "end"}}, "push_type": "liveactivity"}),
                json!({"aps": {"event": "end"}}),
                "liveactivity",
            ),
        ] {
            assert_eq!(written(json!({"apns": own})), (sent, push_type));
        }
        assert!(write(&Content::default()).is_err());
    }

    /// Row 43 of the catalogue (reliability.md, section 7).
    #[test]
    fn the_limit_is_counted_in_bytes() {
        // of each letter, one, two, three and more bytes; and what JSON escapes counts as it is written
        for letter in ["x", "é", "€", "\u{1f469}\u{200d}\u{1f680}", "\""] {
            for (push_type, limit) in [("alert", 4096), ("voip", 5120)] {
                let push = |n: usize, fill: usize| {
                    let body = letter.repeat(n) + &"x".repeat(fill);
                    write(&content(json!({"apns": {"body": body, "push_type": push_type}})))
                };
                let room = limit - push(0, 0).expect("small").0.len();
                // the alert's own text needs two quotes, which even an empty one has
                let wide = if letter == "\"" { 2 } else { letter.len() };
                let (n, rest) = (room / wide, room % wide);
                assert_eq!(push(n, rest).expect("at the limit").0.len(), limit, "{letter}");
                let wrong = push(n, rest + 1).expect_err("one byte too many");
                assert_eq!(wrong, format!("the payload has {} bytes; {limit} at most for {push_type}", limit + 1));
            }
        }
    }

    fn delivery(change: impl FnOnce(&mut Delivery)) -> Delivery {
        let at = "2026-11-21T08:00:00Z".parse().expect("time");
        let n = Notification {
            id: NotificationId::new(at),
            tenant: TenantId::parse("acme").expect("valid"),
            recipient: Recipient::Address(Channel::Apns, Address::parse(Channel::Apns, "c0ffee").expect("valid")),
            category: None,
            priority: Priority::default(),
            channels: vec![Selector::Channel(Channel::Apns)],
            strategy: Strategy::All,
            message: domain::Message::Content(content(json!({"default": {"title": "T", "body": "B"}}))),
            locale: None,
            expires_at: None,
            collapse_key: None,
            metadata: [].into(),
            accepted_at: at,
        };
        let mut d = Delivery::begin(&n, Channel::Apns, None, at, State::Queued, None);
        change(&mut d);
        d
    }

    fn headers(d: &Delivery, app: &str) -> HeaderMap {
        let message = Message::new(d, "c0ffee", app).expect("a push");
        message.into_request(&Authority::from_static("127.0.0.1:443"), None).0.headers().clone()
    }

    #[test]
    fn headers_are_those_of_apples_table() {
        let plain = delivery(|_| ());
        let sent = headers(&plain, "com.example.app");
        let id = plain.id.to_string();
        assert_eq!(id.len(), 36);
        for (name, value) in [
            ("apns-topic", "com.example.app"),
            ("apns-push-type", "alert"),
            ("apns-priority", "10"),
            ("apns-id", &id),
            ("apns-collapse-id", &id),
        ] {
            assert_eq!(sent[name], value);
        }
        assert!(sent.get("apns-expiration").is_none());
        assert!(sent["apns-id"].is_sensitive() && !sent["apns-topic"].is_sensitive());

        let key = "k".repeat(64);
        let special = delivery(|d| {
            d.priority = Priority::parse(3).expect("valid");
            d.collapse_key = Some(key.clone());
            d.expires_at = Some("2026-11-21T09:00:00.9Z".parse().expect("time"));
        });
        let sent = headers(&special, "com.example.app");
        assert_eq!(
            (&sent["apns-priority"], &sent["apns-expiration"]),
            (&"5".parse().expect("v"), &"1795251600".parse().expect("v"))
        );
        assert_eq!(sent["apns-collapse-id"], key);
        for unfit in ["k".repeat(65), String::new(), "a\nb".to_owned()] {
            let d = delivery(|d| d.collapse_key = Some(unfit));
            assert_eq!(headers(&d, "com.example.app")["apns-collapse-id"], d.id.to_string());
        }
    }

    #[test]
    fn push_types_make_topics_and_priorities() {
        for (push_type, topic, priority) in [
            ("alert", "com.example.app", "10"),
            ("background", "com.example.app", "5"),
            ("location", "com.example.app.location-query", "10"),
            ("voip", "com.example.app.voip", "10"),
            ("complication", "com.example.app.complication", "10"),
            ("fileprovider", "com.example.app.pushkit.fileprovider", "10"),
            ("mdm", "com.example.app", "10"),
            ("liveactivity", "com.example.app.push-type.liveactivity", "10"),
            ("pushtotalk", "com.example.app.voip-ptt", "10"),
            ("widgets", "com.example.app.push-type.widgets", "10"),
            ("controls", "com.example.app.push-type.controls", "10"),
        ] {
            assert!(domain::channel::apns::PUSH_TYPES.contains(&push_type));
            let d = delivery(|d| {
                d.content = content(json!({"apns": {"payload": {"aps": {}}, "push_type": push_type}}));
                d.expires_at = Some("2026-11-21T09:00:00Z".parse().expect("time"));
            });
            let sent = headers(&d, "com.example.app");
            assert_eq!(
                (&sent["apns-topic"], &sent["apns-priority"]),
                (&topic.parse().expect("v"), &priority.parse().expect("v"))
            );
            assert_eq!(sent["apns-expiration"], if push_type == "pushtotalk" { "0" } else { "1795251600" });
            assert_eq!(headers(&d, topic)["apns-topic"], topic, "a suffix is not doubled");
        }
        assert_eq!(PUSH_TYPES.len(), domain::channel::apns::PUSH_TYPES.len());
    }

    /// Row 44.
    #[test]
    fn only_a_hexadecimal_token_reaches_a_path() {
        let d = delivery(|_| ());
        for bad in [
            "",
            "../../4/broadcasts",
            "c0ffee/..",
            "c0ffee?x",
            "c0\r\nffee",
            "ｃ０ｆｆｅｅ",
            "zz",
            &"c0".repeat(500_000),
        ] {
            assert!(Message::new(&d, bad, "com.example.app").is_err());
            assert!(Address::parse(Channel::Apns, bad).is_err());
        }
        assert!(Message::new(&d, "c0ffee", "com.example\r\nx: y").is_err());
        let message = Message::new(&d, "c0ffee", "com.example.app").expect("a push");
        let (request, _) = message.into_request(&Authority::from_static("127.0.0.1:443"), None);
        assert_eq!(request.uri(), "https://127.0.0.1:443/3/device/c0ffee");
        assert!(request.headers().get(AUTHORIZATION).is_none());
    }
}
