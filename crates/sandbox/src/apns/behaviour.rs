//! What a device token makes the fake APNs do: the table of the README, as a pure function.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use crate::{behaviour::PATIENCE, rules::Rule};

/// `0411`: the token has been dead since then, in milliseconds.
const LONG_AGO: i64 = 1_600_000_000_000;

/// What is done with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    /// First wait so long.
    pub(super) delay: Duration,
    /// First allow so many streams: `None` inside is what the settings say.
    pub(super) streams: Option<Option<u32>>,
    pub(super) end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Answer(Answer),
    /// GOAWAY: this request and all after it are not processed.
    Unprocessed,
    /// GOAWAY: this request is processed and never answered.
    Unanswered,
    /// GOAWAY after the answer.
    Last(Answer),
    /// `RST_STREAM`.
    ResetStream(h2::Reason),
    /// TCP RST.
    Reset,
    /// The connection is closed as if nothing had come.
    Close,
    /// No answer on this stream.
    Stall,
    /// The connection is dead and nobody says so.
    Freeze,
}

/// A status and a body, which a 200 lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Cow<'static, str>,
    pub(super) html: bool,
}

impl Answer {
    pub(super) const OK: Self = Self { status: 200, body: Cow::Borrowed(""), html: false };

    /// APNs' error.
    pub(super) fn error(status: u16, reason: &str) -> Self {
        Self { status, body: json!({ "reason": reason }).to_string().into(), html: false }
    }

    fn gone(reason: &str, since: i64) -> Self {
        Self { status: 410, body: json!({ "reason": reason, "timestamp": since }).to_string().into(), html: false }
    }
}

impl From<Answer> for Act {
    fn from(answer: Answer) -> Self {
        End::Answer(answer).into()
    }
}

impl From<End> for Act {
    fn from(end: End) -> Self {
        Self { delay: Duration::ZERO, streams: None, end }
    }
}

impl Act {
    /// The status that the sender gets to see, if any.
    pub(super) fn status(&self) -> Option<u16> {
        match &self.end {
            End::Answer(answer) | End::Last(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// The sender may know that this request was not processed.
    pub(super) fn unprocessed(&self) -> bool {
        matches!(self.end, End::Unprocessed | End::ResetStream(h2::Reason::REFUSED_STREAM))
    }

    /// As a rule wants it that strikes.
    pub(super) fn bent(self, rule: Option<Rule>, now: Timestamp) -> Self {
        let Some(rule) = rule else { return self };
        let end = match rule.status {
            _ if rule.drop => End::Reset,
            _ if rule.goaway => End::Unprocessed,
            Some(status) => End::Answer(ruled(status, rule.reason.as_deref(), now)),
            None => self.end,
        };
        let streams = rule.max_streams.map(Some).or(self.streams);
        Self { delay: rule.delay.unwrap_or(self.delay), streams, end }
    }
}

fn ruled(status: u16, reason: Option<&str>, now: Timestamp) -> Answer {
    let usual = match status {
        200..=299 => return Answer { status, ..Answer::OK },
        400 => "BadDeviceToken",
        403 => "InvalidProviderToken",
        410 => return Answer::gone(reason.unwrap_or("Unregistered"), now.as_millisecond()),
        413 => "PayloadTooLarge",
        429 => "TooManyRequests",
        500 => "InternalServerError",
        503 => "ServiceUnavailable",
        _ => "Unknown",
    };
    Answer::error(status, reason.unwrap_or(usual))
}

/// What the token says. `seen` is the number of verified requests with the same `apns-id` before this one.
pub(super) fn of(token: &str, seen: u32, now: Timestamp) -> Act {
    let (code, rest) = token.split_at_checked(4).unwrap_or((token, ""));
    if let Some(act) = refusal(code, now) {
        return act.into();
    }
    let once = |end: End| if seen == 0 { end.into() } else { Answer::OK.into() };
    match code {
        "0403" => once(End::Answer(Answer::error(403, "ExpiredProviderToken"))),
        "042e" => once(End::Answer(Answer::error(429, "TooManyRequests"))),
        "0504" => once(End::Last(Answer::error(503, "Shutdown"))),
        "0600" => once(End::Unprocessed),
        "0601" => once(End::Unanswered),
        "0602" => End::Last(Answer::OK).into(),
        "0610" => once(End::Reset),
        "0611" => End::Reset.into(),
        "0612" => once(End::Close),
        "0620" => End::Stall.into(),
        "0621" => once(End::Freeze),
        "0630" => once(End::ResetStream(h2::Reason::REFUSED_STREAM)),
        "0631" => End::ResetStream(h2::Reason::REFUSED_STREAM).into(),
        "0632" => once(End::ResetStream(h2::Reason::INTERNAL_ERROR)),
        "0640" => Act { streams: Some(Some(1)), ..Answer::OK.into() },
        "0641" => Act { streams: Some(None), ..Answer::OK.into() },
        "0700" => Act { delay: wait(rest), ..Answer::OK.into() },
        _ => flaky(code, seen).unwrap_or(Answer::OK).into(),
    }
}

/// The codes that always get the same answer.
fn refusal(code: &str, now: Timestamp) -> Option<Answer> {
    let (status, reason) = match code {
        "0400" => (400, "BadDeviceToken"),
        "0401" => (400, "DeviceTokenNotForTopic"),
        "0402" => (400, "TopicDisallowed"),
        "0404" => (404, "BadPath"),
        "0405" => (405, "MethodNotAllowed"),
        "0406" => (403, "InvalidProviderToken"),
        "0407" => (403, "BadEnvironmentKeyIdInToken"),
        "0408" => (403, "BadCertificateEnvironment"),
        "0409" => (403, "Forbidden"),
        "040a" => (403, "UnrelatedKeyIdInToken"),
        "040b" => (400, "IdleTimeout"),
        "040c" => (403, "ExpiredProviderToken"),
        "0410" => return Some(Answer::gone("Unregistered", now.as_millisecond())),
        "0411" => return Some(Answer::gone("Unregistered", LONG_AGO)),
        "0412" => return Some(Answer::gone("ExpiredToken", now.as_millisecond())),
        "0413" => (413, "PayloadTooLarge"),
        "0429" => (429, "TooManyRequests"),
        "042a" => (429, "TooManyProviderTokenUpdates"),
        "0500" => (500, "InternalServerError"),
        "0503" => (503, "ServiceUnavailable"),
        "0650" => (400, "AReasonThatIsNew"),
        "0651" => {
            let body = "<html><body><h1>502 Bad Gateway</h1></body></html>".into();
            return Some(Answer { status: 502, body, html: true });
        }
        "0652" => return Some(Answer { status: 500, ..Answer::OK }),
        "0653" => (410, "Unregistered"),
        "0654" => {
            let body = json!({ "reason": "x".repeat(1024 * 1024) }).to_string().into();
            return Some(Answer { status: 500, body, html: false });
        }
        _ => return None,
    };
    Some(Answer::error(status, reason))
}

/// `05fN`: 503 for the first N requests.
fn flaky(code: &str, seen: u32) -> Option<Answer> {
    let count = u32::from_str_radix(code.strip_prefix("05f")?, 16).ok()?;
    (seen < count).then(|| Answer::error(503, "ServiceUnavailable"))
}

/// The five decimal digits after the code, in milliseconds.
fn wait(digits: &str) -> Duration {
    let ms = digits.get(..5).and_then(|d| d.parse().ok()).unwrap_or_default();
    Duration::from_millis(ms).min(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_answers_as_apns_would() {
        let bent = |rule| Act::from(Answer::OK).bent(Some(rule), Timestamp::UNIX_EPOCH);
        let status = |s| Rule { status: Some(s), ..Rule::default() };
        let gone = bent(status(410));
        assert_eq!(gone.end, End::Answer(Answer::gone("Unregistered", 0)));
        let named = bent(Rule { reason: Some("BadTopic".into()), ..status(400) });
        assert_eq!(named.end, End::Answer(Answer::error(400, "BadTopic")));
        assert_eq!(bent(Rule { goaway: true, ..Rule::default() }).end, End::Unprocessed);
        let fewer = bent(Rule { max_streams: Some(3), delay: Some(PATIENCE), ..Rule::default() });
        assert_eq!(fewer, Act { delay: PATIENCE, streams: Some(Some(3)), end: End::Answer(Answer::OK) });
    }

    #[test]
    fn a_wait_is_bounded_and_short_tokens_are_ok() {
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(of("0700002500", 0, at).delay, Duration::from_millis(250));
        assert_eq!(of("070099999", 0, at).delay, PATIENCE);
        for ok in ["", "00", "0700", "07000a", "05f0", "05g1", "0200aa", "ffffffff"] {
            assert_eq!(of(ok, 0, at), Answer::OK.into(), "{ok}");
        }
    }
}
