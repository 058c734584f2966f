//! What a receiver's answer means. Standard Webhooks retries every failure but "gone".

use std::time::Duration;

use domain::{Outcome, Reason, Timestamp};
use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};
use jiff::fmt::rfc2822;

/// The longest wait that a receiver may ask for.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of an answer that are kept.
const KEPT: usize = 200;

/// The verdict on an answer that came at `now`.
pub(super) fn verdict(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Sent,
        // not followed: the new address has not been vetted, and the sender should know it
        300..=399 => Outcome::Rejected(Reason::ProviderRejected),
        410 => Outcome::AddressGone { since: None },
        _ => Outcome::Transient { retry_after: headers.get(RETRY_AFTER).and_then(|value| wish(value, now)) },
    }
}

/// `Retry-After` in seconds or as an HTTP date. What is no wait (the past, zero, garbage) is no wish: our own schedule holds.
fn wish(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // more digits than fit are very long as well
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else if text.len() <= 40 {
        let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(at.duration_since(now)).ok()?
    } else {
        return None;
    };
    Some(wait.min(LONGEST)).filter(|w| !w.is_zero())
}

/// The status and the beginning of the text, unless that `repeats` what was sent.
pub(super) fn detail(status: StatusCode, text: &str, repeats: impl FnOnce(&str) -> bool) -> String {
    let mut kept = text.split_whitespace().collect::<Vec<_>>().join(" ");
    kept.retain(|c| !c.is_control());
    let kept: String = kept.chars().take(KEPT).collect();
    match status.as_u16() {
        code if kept.is_empty() => format!("HTTP {code}"),
        code if repeats(text) => format!("HTTP {code}: (the answer repeats what was sent)"),
        code => format!("HTTP {code}: {kept}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: u16, retry_after: &str) -> Outcome {
        let now = "2026-11-21T09:00:00Z".parse().expect("time");
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(retry_after.as_bytes()).expect("value"));
        verdict(StatusCode::from_u16(status).expect("status"), &headers, now)
    }

    #[test]
    fn every_status_has_a_verdict() {
        for status in 200..=999 {
            let expected = match status {
                200..=299 => "sent",
                300..=399 => "rejected",
                410 => "address_gone",
                _ => "transient",
            };
            assert_eq!(after(status, "").code(), expected, "{status}");
        }
    }

    /// Row 19 of the catalogue (reliability.md, section 7).
    #[test]
    fn retry_after_is_heeded_within_reason() {
        let day = Some(LONGEST);
        for (text, expected) in [
            ("120", Some(Duration::from_secs(120))),
            (" 7 ", Some(Duration::from_secs(7))),
            ("Sat, 21 Nov 2026 09:02:00 GMT", Some(Duration::from_secs(120))),
            ("1000000000", day),
            ("99999999999999999999999999", day),
            ("Wed, 21 Oct 2099 07:28:00 GMT", day),
            ("0", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Sat, 21 Nov 2026 08:59:00 GMT", None),
            ("Fri, 99 Nov 2026 99:99:99 GMT", None),
            ("+5", None),
            ("\u{fc}", None),
        ] {
            assert_eq!(after(503, text), Outcome::Transient { retry_after: expected }, "{text}");
            assert_eq!(after(429, text), Outcome::Transient { retry_after: expected }, "{text}");
        }
        assert_eq!(after(503, &"9".repeat(10_000)), Outcome::Transient { retry_after: day });
        assert_eq!(after(503, &"x".repeat(10_000)), Outcome::Transient { retry_after: None });
    }

    #[test]
    fn details_are_short_and_clean() {
        let ok = StatusCode::OK;
        assert_eq!(detail(ok, " \r\n ", |_| false), "HTTP 200");
        assert_eq!(detail(ok, "a\r\n\u{1b}[31m b", |_| false), "HTTP 200: a [31m b");
        assert_eq!(detail(ok, &"é".repeat(20_000), |_| false).chars().count(), "HTTP 200: ".len() + KEPT);
        assert_eq!(detail(ok, "secret", |_| true), "HTTP 200: (the answer repeats what was sent)");
    }
}
