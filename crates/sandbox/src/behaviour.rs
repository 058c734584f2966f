//! What a path makes the receiver do: the table of the README, as a pure function.

use std::{borrow::Cow, time::Duration};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use url::form_urlencoded;

use crate::rules::Rule;

/// The longest that any request is kept waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is done with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act {
    /// First wait so long.
    pub(crate) delay: Duration,
    pub(crate) end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// A short answer.
    Answer { status: StatusCode, header: Option<(HeaderName, HeaderValue)>, text: &'static str },
    /// 200 and a body that hardly ends.
    Big,
    /// 200 and a body that hardly begins.
    Drip,
    /// The connection is closed without an answer.
    Drop,
    /// No answer.
    Hang,
}

impl Act {
    pub(crate) const fn answer(status: StatusCode, text: &'static str) -> Self {
        Self { delay: Duration::ZERO, end: End::Answer { status, header: None, text } }
    }

    const fn end(end: End) -> Self {
        Self { delay: Duration::ZERO, end }
    }

    fn with_header(status: StatusCode, name: HeaderName, value: &str) -> Option<Self> {
        let header = Some((name, HeaderValue::from_str(value).ok()?));
        Some(Self::end(End::Answer { status, header, text: "" }))
    }

    /// As a rule wants it that strikes.
    pub(crate) fn bent(self, rule: Option<Rule>) -> Self {
        let Some(rule) = rule else { return self };
        let end = match rule.status.and_then(|s| StatusCode::from_u16(s).ok()) {
            _ if rule.drop => End::Drop,
            Some(status) => End::Answer { status, header: None, text: "as the rule says" },
            None => self.end,
        };
        Self { delay: rule.delay.unwrap_or(self.delay), end }
    }

    /// The status that the sender gets to see, if any.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.end {
            End::Answer { status, .. } => Some(status.as_u16()),
            End::Big | End::Drip => Some(200),
            End::Drop | End::Hang => None,
        }
    }
}

/// What the path says. `seen` is the number of verified requests with the same id before this one.
pub(crate) fn of(path: &str, query: Option<&str>, seen: u32) -> Act {
    let Some(rest) = path.strip_prefix("/hook/") else {
        return Act::answer(StatusCode::NOT_FOUND, "webhooks are taken under /hook/");
    };
    let mut segments = rest.split('/');
    let word = segments.next().unwrap_or_default();
    let argument = segments.next().unwrap_or_default();
    let ok = Act::answer(StatusCode::OK, "");
    let act = match word {
        "ok" => Some(ok),
        "status" => status(argument).map(|s| Act::answer(s, "")),
        "seq" => sequence(argument, seen).map(|s| Act::answer(s, "")),
        "flaky" => first(argument, seen, Act::answer(StatusCode::SERVICE_UNAVAILABLE, "")),
        "gone" => Some(Act::answer(StatusCode::GONE, "")),
        "retry-after" if seen > 0 => Some(ok),
        "retry-after" => Act::with_header(StatusCode::TOO_MANY_REQUESTS, header::RETRY_AFTER, &decoded(argument)),
        "redirect" => redirect(argument, query),
        "slow" => argument.parse().ok().map(|ms| Act { delay: Duration::from_millis(ms).min(PATIENCE), ..ok }),
        "hang" => Some(Act::end(End::Hang)),
        "drop" => Some(Act::end(End::Drop)),
        "dropn" => first(argument, seen, Act::end(End::Drop)),
        "big" => Some(Act::end(End::Big)),
        "drip" => Some(Act::end(End::Drip)),
        _ => return Act::answer(StatusCode::NOT_FOUND, "no such behaviour; the sandbox's README lists them"),
    };
    act.unwrap_or_else(|| Act::answer(StatusCode::BAD_REQUEST, "a bad argument; the sandbox's README shows them"))
}

fn first(count: &str, seen: u32, then: Act) -> Option<Act> {
    let count: u32 = count.parse().ok()?;
    Some(if seen < count { then } else { Act::answer(StatusCode::OK, "") })
}

/// A final status: an answer of 1xx would be none.
pub(crate) fn status(text: &str) -> Option<StatusCode> {
    let code: u16 = text.parse().ok()?;
    (200..=599).contains(&code).then(|| StatusCode::from_u16(code).ok()).flatten()
}

fn sequence(codes: &str, seen: u32) -> Option<StatusCode> {
    let codes: Vec<_> = codes.split(',').map(status).collect::<Option<_>>()?;
    codes.get(usize::try_from(seen).ok()?).or(codes.last()).copied()
}

fn redirect(code: &str, query: Option<&str>) -> Option<Act> {
    let status = status(code).filter(|s| matches!(s.as_u16(), 301 | 302 | 303 | 307 | 308))?;
    let (_, to) = form_urlencoded::parse(query?.as_bytes()).find(|(name, _)| name == "to")?;
    Act::with_header(status, header::LOCATION, &to)
}

/// A percent-decoded segment.
fn decoded(segment: &str) -> Cow<'_, str> {
    // a segment holds no `&` of its own once it is encoded, and `+` means itself in a path
    let pair = segment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    Cow::Owned(form_urlencoded::parse(pair.as_bytes()).map(|(name, _)| name.into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_what_the_readme_says() {
        let statuses = |path: &str| [0, 1, 2, 3].map(|seen| of(path, None, seen).status().unwrap_or(0));
        assert_eq!(statuses("/hook/ok/ana"), [200; 4]);
        assert_eq!(statuses("/hook/status/418/x"), [418; 4]);
        assert_eq!(statuses("/hook/seq/500,429,204"), [500, 429, 204, 204]);
        assert_eq!(statuses("/hook/flaky/2/x"), [503, 503, 200, 200]);
        assert_eq!(statuses("/hook/dropn/1/x"), [0, 200, 200, 200]);
        assert_eq!(statuses("/hook/gone"), [410; 4]);
        assert_eq!(statuses("/hook/retry-after/3"), [429, 200, 200, 200]);
        assert_eq!(statuses("/hook/hang"), [0; 4]);
        assert_eq!(of("/hook/slow/250", None, 0).delay, Duration::from_millis(250));
        assert_eq!(of("/hook/slow/99999999", None, 0).delay, PATIENCE);
        for bad in
            ["/hook/status/99", "/hook/status/199", "/hook/flaky/x", "/hook/seq/", "/hook/redirect/200", "/hook/slow/"]
        {
            assert_eq!(of(bad, Some("to=/x"), 0).status(), Some(400), "{bad}");
        }
        for unknown in ["/", "/hook", "/hook/", "/hook/oh", "/received"] {
            assert_eq!(of(unknown, None, 0).status(), Some(404), "{unknown}");
        }
    }

    #[test]
    fn header_values_are_decoded_and_never_split() {
        let header = |path: &str, query| match of(path, query, 0).end {
            End::Answer { header: Some((_, value)), .. } => value.to_str().expect("text").to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            header("/hook/retry-after/Wed,%2021%20Oct%202026%2007:28:00%20GMT/x", None),
            "Wed, 21 Oct 2026 07:28:00 GMT"
        );
        assert_eq!(header("/hook/redirect/307", Some("to=http%3A%2F%2F127.0.0.1%3A1%2F")), "http://127.0.0.1:1/");
        assert_eq!(of("/hook/retry-after/1%0D%0Ax:y", None, 0).status(), Some(400));
    }
}
