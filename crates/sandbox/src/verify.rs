//! Checks a request as a good receiver of Standard Webhooks 1.0 does; written apart from the sender's code, on purpose.

use anyhow::{Context as _, ensure};
use axum::http::{HeaderMap, Method, header::CONTENT_TYPE};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::Secret;
use jiff::Timestamp;
use ring::hmac;

/// How far a timestamp may be from our clock, in seconds.
const TOLERANCE: i64 = 5 * 60;

pub(crate) struct Verifier(hmac::Key);

/// Why a request is refused, and with which status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) problem: &'static str,
}

const fn malformed(problem: &'static str) -> Refusal {
    Refusal { status: 400, problem }
}

const fn unauthorised(problem: &'static str) -> Refusal {
    Refusal { status: 401, problem }
}

impl Verifier {
    pub(crate) fn new(secret: &Secret) -> anyhow::Result<Self> {
        let text = secret.expose().strip_prefix("whsec_").context("the sandbox's secret does not begin with whsec_")?;
        let bytes = BASE64_STANDARD.decode(text).ok().context("the sandbox's secret is not base64 after whsec_")?;
        ensure!((24..=64).contains(&bytes.len()), "the sandbox's secret has {} bytes instead of 24 to 64", bytes.len());
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    pub(crate) fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if method != Method::POST {
            return Err(Refusal { status: 405, problem: "a webhook is a POST" });
        }
        if text(headers, CONTENT_TYPE.as_str()).is_none_or(|t| !t.starts_with("application/json")) {
            return Err(malformed("content-type is not application/json"));
        }
        let id = text(headers, "webhook-id").ok_or(malformed("no webhook-id"))?;
        if id.is_empty() || id.contains('.') {
            return Err(malformed("webhook-id is empty or has a full stop"));
        }
        let timestamp = text(headers, "webhook-timestamp").ok_or(malformed("no webhook-timestamp"))?;
        let seconds: i64 = timestamp.parse().map_err(|_| malformed("webhook-timestamp is no number"))?;
        let signatures = text(headers, "webhook-signature").ok_or(malformed("no webhook-signature"))?;
        if now.as_second().abs_diff(seconds) > TOLERANCE.unsigned_abs() {
            return Err(unauthorised("webhook-timestamp is more than five minutes off"));
        }
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let mut tags = signatures.split(' ').filter_map(|s| BASE64_STANDARD.decode(s.strip_prefix("v1,")?).ok());
        // ring compares in constant time
        if tags.any(|tag| hmac::verify(&self.0, &signed, &tag).is_ok()) {
            Ok(())
        } else {
            Err(unauthorised("no right signature"))
        }
    }
}

/// A header that is there exactly once and is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn check(changes: &[(&'static str, Option<&str>)], body: &[u8], late: i64) -> Result<(), Refusal> {
        let verifier = Verifier::new(&Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")).expect("valid");
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("value"));
        headers.insert("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".parse().expect("value"));
        headers.insert("webhook-timestamp", "1649367553".parse().expect("value"));
        headers.insert("webhook-signature", SIGNATURE.parse().expect("value"));
        for (name, value) in changes {
            headers.remove(*name);
            if let Some(value) = value {
                headers.insert(*name, value.parse().expect("value"));
            }
        }
        let now = Timestamp::from_second(1_649_367_553 + late).expect("time");
        verifier.check(&Method::POST, &headers, body, now)
    }

    #[test]
    fn the_vector_of_the_specification_passes_and_nothing_near_it() {
        assert_eq!(check(&[], BODY, 0), Ok(()));
        let rotated = format!("v1,{} v1a,zzzz {SIGNATURE}", BASE64_STANDARD.encode([7; 32]));
        assert_eq!(check(&[("webhook-signature", Some(&rotated))], BODY, 299), Ok(()));

        let status = |changes: &[(&'static str, Option<&str>)]| check(changes, BODY, 0).map_err(|r| r.status);
        for name in ["content-type", "webhook-id", "webhook-timestamp", "webhook-signature"] {
            assert_eq!(status(&[(name, None)]), Err(400), "{name}");
        }
        assert_eq!(status(&[("webhook-id", Some("a.b"))]), Err(400));
        assert_eq!(status(&[("webhook-timestamp", Some("soon"))]), Err(400));
        assert_eq!(status(&[("webhook-timestamp", Some("1649367554"))]), Err(401));
        assert_eq!(status(&[("webhook-id", Some("msg_other"))]), Err(401));
        for bad in ["", "v1,", "v2,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=", "v1,****", "v1,AAAA"] {
            assert_eq!(status(&[("webhook-signature", Some(bad))]), Err(401), "{bad}");
        }
        assert_eq!(check(&[], b"{}", 0).map_err(|r| r.status), Err(401));
        assert_eq!(check(&[], BODY, 301).map_err(|r| r.status), Err(401));
        assert_eq!(check(&[], BODY, -301).map_err(|r| r.status), Err(401));
        assert_eq!(
            check(&[("webhook-timestamp", Some("-9223372036854775808"))], BODY, 0).map_err(|r| r.status),
            Err(401)
        );
    }

    #[test]
    fn a_secret_has_a_prefix_and_a_length() {
        for bad in ["", "whsec_", "whsec_AAAA", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_%%%%"] {
            assert!(Verifier::new(&Secret::new(bad)).is_err(), "{bad}");
        }
    }
}
