//! What an answer of APNs means: Apple's table of statuses and reasons.

use domain::{Outcome, Reason, Timestamp};
use hyper::StatusCode;
use serde_json::Value;

/// Characters of a reason that are kept.
const KEPT: usize = 200;

/// An answer, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    status: StatusCode,
    /// As Apple spells it; empty if there was none.
    reason: String,
    /// Since when the token is known to be dead.
    since: Option<Timestamp>,
}

/// What the client can do about an answer before it is a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing.
    None,
    /// Send again, once, with a newer token.
    Renew,
    /// Send again, once, on a new connection.
    Reconnect,
    /// Use the connection no more.
    Retire,
    /// Make no more new tokens.
    KeepToken,
}

impl Answer {
    /// Reads a status and the beginning of a body, which may be anything.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Self {
        let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let reason = json.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
        let since = json.get("timestamp").and_then(Value::as_i64);
        // milliseconds, whatever some clients think
        let since = since.filter(|ms| *ms > 0).and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self { status, reason, since }
    }

    /// Whether the provider token, if one was sent, was taken.
    pub(super) fn shows_trust(&self) -> bool {
        self.status != StatusCode::FORBIDDEN
    }

    /// What to do before the verdict.
    pub(super) fn remedy(&self) -> Remedy {
        match (self.status.as_u16(), self.reason.as_str()) {
            (403, "ExpiredProviderToken") => Remedy::Renew,
            (403, "UnrelatedKeyIdInToken") | (400, "IdleTimeout") => Remedy::Reconnect,
            (503, "Shutdown") => Remedy::Retire,
            (429, "TooManyProviderTokenUpdates") => Remedy::KeepToken,
            _ => Remedy::None,
        }
    }

    /// The verdict. A reason that Apple has not documented yet is judged by its status.
    pub(super) fn outcome(&self) -> Outcome {
        match (self.status.as_u16(), self.reason.as_str()) {
            (200..=299, _) => Outcome::Sent,
            (410, _) => Outcome::AddressGone { since: self.since },
            (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => Outcome::AddressGone { since: None },
            (400, "BadTopic" | "MissingTopic" | "TopicDisallowed") | (401 | 403, _) => Outcome::Misconfigured,
            (400, "IdleTimeout") | (408 | 429 | 500.., _) => Outcome::Transient { retry_after: None },
            _ => Outcome::Rejected(Reason::ProviderRejected),
        }
    }

    /// Status and reason, for people. `token` is the device's: a reason that holds it is not shown.
    pub(super) fn detail(&self, token: &str) -> String {
        let status = self.status.as_u16();
        // reasons are words; whatever else stands there is not Apple's
        let wordy = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '_' | '-');
        let reason: String = self.reason.chars().map(|c| if wordy(c) { c } else { '?' }).take(KEPT).collect();
        match reason {
            none if none.is_empty() => format!("HTTP {status}"),
            echo if echo.to_ascii_lowercase().contains(token) => {
                format!("HTTP {status}: (the answer repeats the token)")
            }
            reason => format!("HTTP {status}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "c0ffee01";
    const GONE: &str = "address_gone";

    fn answer(status: u16, body: &str) -> Answer {
        Answer::read(StatusCode::from_u16(status).expect("status"), body.as_bytes())
    }

    /// Every row of Apple's table, and then what is not in it.
    const TABLE: [(u16, &str, &str); 45] = [
        (200, "", "sent"),
        (400, "BadDeviceToken", GONE),
        (400, "DeviceTokenNotForTopic", GONE),
        (400, "MissingDeviceToken", "rejected"),
        (400, "BadTopic", "misconfigured"),
        (400, "MissingTopic", "misconfigured"),
        (400, "TopicDisallowed", "misconfigured"),
        (400, "BadCollapseId", "rejected"),
        (400, "BadMessageId", "rejected"),
        (400, "BadExpirationDate", "rejected"),
        (400, "BadPriority", "rejected"),
        (400, "InvalidPushType", "rejected"),
        (400, "DuplicateHeaders", "rejected"),
        (400, "PayloadEmpty", "rejected"),
        (400, "IdleTimeout", "transient"),
        (403, "ExpiredProviderToken", "misconfigured"),
        (403, "InvalidProviderToken", "misconfigured"),
        (403, "MissingProviderToken", "misconfigured"),
        (403, "BadCertificate", "misconfigured"),
        (403, "BadCertificateEnvironment", "misconfigured"),
        (403, "Forbidden", "misconfigured"),
        (403, "UnrelatedKeyIdInToken", "misconfigured"),
        (403, "BadEnvironmentKeyIdInToken", "misconfigured"),
        (403, "BadEnvironmentKeyInToken", "misconfigured"),
        (404, "BadPath", "rejected"),
        (405, "MethodNotAllowed", "rejected"),
        (410, "Unregistered", GONE),
        (410, "ExpiredToken", GONE),
        (413, "PayloadTooLarge", "rejected"),
        (429, "TooManyRequests", "transient"),
        (429, "TooManyProviderTokenUpdates", "transient"),
        (500, "InternalServerError", "transient"),
        (503, "ServiceUnavailable", "transient"),
        (503, "Shutdown", "transient"),
        (204, "", "sent"),
        (302, "", "rejected"),
        (400, "NewReason", "rejected"),
        (403, "NewReason", "misconfigured"),
        (410, "NewReason", GONE),
        (429, "NewReason", "transient"),
        (502, "", "transient"),
        (599, "BadDeviceToken", "transient"),
        (401, "", "misconfigured"),
        (408, "", "transient"),
        (418, "", "rejected"),
    ];

    #[test]
    fn every_documented_answer_has_its_verdict() {
        for (status, reason, code) in TABLE {
            let answer = answer(status, &format!(r#"{{"reason":"{reason}"}}"#));
            assert_eq!(answer.outcome().code(), code, "{status} {reason}");
            let shown = if reason.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {reason}") };
            assert_eq!(answer.detail(DEVICE), shown);
            let remedy = match reason {
                "ExpiredProviderToken" => Remedy::Renew,
                "UnrelatedKeyIdInToken" | "IdleTimeout" => Remedy::Reconnect,
                "Shutdown" => Remedy::Retire,
                "TooManyProviderTokenUpdates" => Remedy::KeepToken,
                _ => Remedy::None,
            };
            assert_eq!(answer.remedy(), remedy, "{status} {reason}");
        }
    }

    #[test]
    fn the_time_of_death_is_in_milliseconds_and_may_be_missing() {
        let since = |body: &str| match answer(410, body).outcome() {
            Outcome::AddressGone { since } => since.map(|t| t.to_string()),
            other => panic!("{other:?}"),
        };
        let at = |ms: &str| since(&format!(r#"{{"reason":"Unregistered","timestamp":{ms}}}"#));
        assert_eq!(at("1700000000123").as_deref(), Some("2023-11-14T22:13:20.123Z"));
        for bad in ["null", "-1", "0", "1.5", "\"x\"", "9223372036854775807", "1e400"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_body_may_be_anything() {
        for body in
            ["", "<html><h1>502</h1></html>", "[]", "7", "{\"reason\":7}", "{\"reason\":\"Bad", "\u{0}\u{fc}", "{"]
        {
            let answer = answer(410, body);
            assert_eq!(
                (answer.outcome(), answer.detail(DEVICE)),
                (Outcome::AddressGone { since: None }, "HTTP 410".into())
            );
        }
        let long = answer(500, &format!(r#"{{"reason":"\r\n{}"}}"#, "x".repeat(3000))).detail(DEVICE);
        assert_eq!((long.len(), long.contains(char::is_control)), ("HTTP 500: ".len() + KEPT, false));
        let echo = answer(400, r#"{"reason":"no device C0FFEE01 here"}"#).detail(DEVICE);
        assert_eq!(echo, "HTTP 400: (the answer repeats the token)");
    }
}
