//! Checks a request as Apple does: path, headers and size, each with its documented status and reason.

use http::{HeaderMap, Method, request::Parts};
use serde_json::Value;

use crate::verify::text;

/// The largest body, and that of a `voip` push.
const MAX_PAYLOAD: usize = 4096;
const MAX_VOIP: usize = 5120;
/// The longest `apns-collapse-id`, in bytes.
const MAX_COLLAPSE_ID: usize = 64;

/// Push types and what they append to the bundle id; `mdm` has another kind of topic.
const PUSH_TYPES: [(&str, &str); 11] = [
    ("alert", ""),
    ("background", ""),
    ("location", ".location-query"),
    ("voip", ".voip"),
    ("complication", ".complication"),
    ("fileprovider", ".pushkit.fileprovider"),
    ("mdm", ""),
    ("liveactivity", ".push-type.liveactivity"),
    ("pushtotalk", ".voip-ptt"),
    ("widgets", ".push-type.widgets"),
    ("controls", ".push-type.controls"),
];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

pub(super) const fn refuse(status: u16, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

/// How the client showed who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Token,
    Certificate,
}

/// Checks all but the body; gives the device token. `proof` is asked for when the path and the `apns-id` are right.
pub(super) fn head(parts: &Parts, proof: Result<Proof, Refusal>) -> Result<&str, Refusal> {
    if parts.method != Method::POST {
        return Err(refuse(405, "MethodNotAllowed"));
    }
    let token = match parts.uri.path().strip_prefix("/3/device") {
        Some("" | "/") => return Err(refuse(400, "MissingDeviceToken")),
        Some(rest) => rest.strip_prefix('/').filter(|t| !t.contains('/')),
        None => None,
    };
    let token = token.filter(|_| parts.uri.query().is_none()).ok_or(refuse(404, "BadPath"))?;
    let headers = &parts.headers;
    if headers.keys().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Err(refuse(400, "DuplicateHeaders"));
    }
    if headers.contains_key("apns-id") && id(headers).is_none() {
        return Err(refuse(400, "BadMessageId"));
    }
    let proof = proof?;
    if token.len() % 2 == 1 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse(400, "BadDeviceToken"));
    }
    let kind = push_type(headers)?;
    topic(headers, kind, proof)?;
    let priority = headers.get("apns-priority").map(http::HeaderValue::as_bytes);
    if !matches!(priority, None | Some(b"10" | b"5" | b"1")) || (kind.0 == "background" && priority == Some(b"10")) {
        return Err(refuse(400, "BadPriority"));
    }
    if headers.contains_key("apns-expiration")
        && !text(headers, "apns-expiration")
            .is_some_and(|e| e.bytes().all(|b| b.is_ascii_digit()) && e.parse::<u64>().is_ok())
    {
        return Err(refuse(400, "BadExpirationDate"));
    }
    if headers.get("apns-collapse-id").is_some_and(|c| !(1..=MAX_COLLAPSE_ID).contains(&c.len())) {
        return Err(refuse(400, "BadCollapseId"));
    }
    Ok(token)
}

/// The type, and the suffix of its topic.
fn push_type(headers: &HeaderMap) -> Result<(&'static str, &'static str), Refusal> {
    let Some(value) = headers.get("apns-push-type") else { return Ok(PUSH_TYPES[0]) };
    let known = PUSH_TYPES.iter().find(|(name, _)| value == name);
    known.copied().ok_or(refuse(400, "InvalidPushType"))
}

fn topic(headers: &HeaderMap, (kind, suffix): (&str, &str), proof: Proof) -> Result<(), Refusal> {
    if !headers.contains_key("apns-topic") {
        // a certificate for one topic names it
        return if proof == Proof::Certificate { Ok(()) } else { Err(refuse(400, "MissingTopic")) };
    }
    let topic = text(headers, "apns-topic").unwrap_or_default();
    let ok = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if topic.len() > 255 || !ok(topic) {
        return Err(refuse(400, "BadTopic"));
    }
    let app = topic.strip_suffix(suffix).unwrap_or_default();
    if kind != "mdm" && app.is_empty() { Err(refuse(400, "TopicDisallowed")) } else { Ok(()) }
}

/// The `apns-id` in lower case, if it is a UUID in its canonical form.
pub(super) fn id(headers: &HeaderMap) -> Option<String> {
    let id = text(headers, "apns-id").filter(|id| id.len() == 36)?;
    Some(uuid::Uuid::try_parse(id).ok()?.to_string())
}

/// The longest body that a request with these headers may have.
pub(super) fn max_body(headers: &HeaderMap) -> usize {
    if headers.get("apns-push-type").is_some_and(|t| t == "voip") { MAX_VOIP } else { MAX_PAYLOAD }
}

/// Checks the body: a JSON object with `aps`, or with `mdm`.
pub(super) fn body(headers: &HeaderMap, bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() > max_body(headers) {
        return Err(refuse(413, "PayloadTooLarge"));
    }
    let aps = |v: Value| v.get("aps").is_some_and(Value::is_object) || v.get("mdm").is_some();
    if serde_json::from_slice(bytes).is_ok_and(aps) { Ok(()) } else { Err(refuse(400, "PayloadEmpty")) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const ID: &str = "eabeae54-14a8-11e5-b60b-1697f925ec7b";

    fn reason(path: &str, headers: &[(&str, &str)]) -> &'static str {
        let with = |proof| {
            let mut request = Request::post(format!("https://apns{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let parts = request.body(()).expect("a request").into_parts().0;
            head(&parts, proof).map_or_else(|r| r.reason, |_| "")
        };
        assert!(!matches!(with(Err(refuse(403, "MissingProviderToken"))), ""), "nothing is right without a proof");
        with(Ok(Proof::Token))
    }

    #[test]
    fn each_part_is_refused_with_its_reason() {
        let topic = ("apns-topic", "com.example.app");
        let ok = [topic, ("apns-id", ID), ("apns-priority", "10"), ("apns-expiration", "0"), ("apns-collapse-id", "a")];
        assert_eq!(reason("/3/device/00ff", &ok), "");
        for (path, says) in [
            ("/3/device", "MissingDeviceToken"),
            ("/3/device/", "MissingDeviceToken"),
            ("/3/devices/00", "BadPath"),
            ("/3/device/00/11", "BadPath"),
            ("/3/device/00?x=1", "BadPath"),
            ("/4/device/00", "BadPath"),
            ("/", "BadPath"),
            ("/3/device/xyz0", "BadDeviceToken"),
            ("/3/device/000", "BadDeviceToken"),
            ("/3/device/00%2F", "BadDeviceToken"),
        ] {
            assert_eq!(reason(path, &[topic]), says, "{path}");
        }
        let long = "x".repeat(65);
        for (header, says) in [
            (("apns-topic", "a"), "DuplicateHeaders"),
            (("apns-id", "00"), "BadMessageId"),
            (("apns-id", "eabeae5414a811e5b60b1697f925ec7b"), "BadMessageId"),
            (("apns-push-type", "shout"), "InvalidPushType"),
            (("apns-push-type", "voip"), "TopicDisallowed"),
            (("apns-priority", "7"), "BadPriority"),
            (("apns-expiration", "-1"), "BadExpirationDate"),
            (("apns-expiration", "+1"), "BadExpirationDate"),
            (("apns-expiration", ""), "BadExpirationDate"),
            (("apns-expiration", "soon"), "BadExpirationDate"),
            (("apns-collapse-id", &long), "BadCollapseId"),
            (("apns-collapse-id", ""), "BadCollapseId"),
        ] {
            assert_eq!(reason("/3/device/00", &[topic, header]), says, "{header:?}");
        }
        assert_eq!(reason("/3/device/00", &[]), "MissingTopic");
        assert_eq!(reason("/3/device/00", &[("apns-topic", "com example")]), "BadTopic");
        let background = [topic, ("apns-push-type", "background"), ("apns-priority", "10")];
        assert_eq!(reason("/3/device/00", &background), "BadPriority");
        let voip = [("apns-topic", "com.example.app.voip"), ("apns-push-type", "voip")];
        assert_eq!(reason("/3/device/00", &voip), "");
    }

    #[test]
    fn a_body_has_aps_and_a_limit() {
        let mut headers = HeaderMap::new();
        let sized = |n: usize| format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(n - 20));
        assert_eq!(body(&headers, sized(4096).as_bytes()), Ok(()));
        assert_eq!(body(&headers, sized(4097).as_bytes()), Err(refuse(413, "PayloadTooLarge")));
        for empty in ["", "{}", "[]", "aps", r#"{"aps":1}"#] {
            assert_eq!(body(&headers, empty.as_bytes()), Err(refuse(400, "PayloadEmpty")), "{empty}");
        }
        headers.insert("apns-push-type", http::HeaderValue::from_static("voip"));
        assert_eq!(body(&headers, sized(5120).as_bytes()), Ok(()));
    }
}
