//! Reading a request's body: bounded, JSON only, and when it is wrong, where.

use std::error::Error as _;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use domain::{FieldErrors, content::escape};
use serde::Deserialize;
use serde_json::{Map, Value, error::Category};
use serde_path_to_error::{Path, Segment};

use crate::{
    Ingress,
    problem::{Kind, Problem},
};

/// Most bytes of a body.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Reads a JSON body, at most [`MAX_BYTES`] and for no longer than the request timeout.
pub(crate) async fn read(ingress: &Ingress, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    check_media_type(headers)?;
    let too_large = || Problem::new(Kind::TooLarge, "a body has at most 1 MiB (1,048,576 bytes); split the request");
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > MAX_BYTES) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(ingress.request_timeout, axum::body::to_bytes(body, MAX_BYTES)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(e)) if e.source().is_some_and(|s| s.is::<http_body_util::LengthLimitError>()) => return Err(too_large()),
        Ok(Err(_)) => return Err(Problem::new(Kind::Invalid, "the body broke off before its end; send it again")),
        Err(_) => return Err(Problem::new(Kind::Timeout, "the body did not arrive in time; nothing was done")),
    };
    if has_nul(&bytes) {
        return Err(Problem::field("", "the body holds the character NUL (\\u0000), which no field takes"));
    }
    Ok(bytes)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|v| v.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    if text(header::CONTENT_ENCODING).is_some_and(|e| e != "identity") {
        return Err(Problem::new(Kind::MediaType, "no Content-Encoding is taken; send the body as it is"));
    }
    let essence = text(header::CONTENT_TYPE).map(|t| t.split(';').next().unwrap_or("").trim().to_owned());
    match essence.as_deref() {
        Some("application/json" | "application/merge-patch+json") => Ok(()),
        _ => Err(Problem::new(Kind::MediaType, "send JSON with the header `Content-Type: application/json`")),
    }
}

/// Whether a JSON text holds the escape of U+0000, which stores and providers take for the end of a text.
pub(crate) fn has_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        if rest[at + 1..].starts_with(b"u0000") {
            return true;
        }
        // a backslash always has a character after it, which may be a backslash
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// Parses JSON; the error has the pointer of the field, below `at`, or the line and column.
pub(crate) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], at: &str) -> Result<T, FieldErrors> {
    // only what is wrong is read again, for where that is
    if let Ok(value) = serde_json::from_slice(json) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|e| (pointer(at, e.path()), e.into_inner()))
        .and_then(|value| deserializer.end().map(|()| value).map_err(|e| (at.to_owned(), e)));
    parsed.map_err(|(pointer, error)| {
        let mut errors = FieldErrors::default();
        match error.classify() {
            Category::Data => errors.add(pointer, short(&error)),
            Category::Syntax | Category::Eof | Category::Io => {
                errors.add(at, format!("malformed JSON: {}", short(&error)))
            }
        }
        errors
    })
}

/// The same for JSON that is parsed already.
pub(crate) fn shape<'a, T: Deserialize<'a>>(value: &'a Value, at: &str) -> Result<T, FieldErrors> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let mut errors = FieldErrors::default();
        errors.add(pointer(at, e.path()), short(e.inner()));
        errors
    })
}

/// An error may quote the whole of what it got.
fn short(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn pointer(at: &str, path: &Path) -> String {
    let mut pointer = at.to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Notes the fields that an object must not have: those of the contract that are not built yet, and those that nobody knows.
pub(crate) fn check_names(
    extra: &Map<String, Value>,
    known: &[&str],
    planned: &[&str],
    at: &str,
    errors: &mut FieldErrors,
) {
    for (name, value) in extra {
        let pointer = format!("{at}/{}", escape(name));
        if !planned.contains(&name.as_str()) {
            errors.add(pointer, unknown(name, known));
        } else if !value.is_null() {
            errors.add(pointer, format!("`{name}` is not yet built in this version"));
        }
    }
}

/// Says that a name is unknown, and which one may have been meant.
pub(crate) fn unknown(name: &str, known: &[&str]) -> String {
    let shown: String = name.chars().take(40).collect();
    let shown = shown.escape_debug();
    let nearest = known.iter().map(|k| (distance(name, k), k)).min();
    match nearest {
        Some((d, meant)) if d <= meant.len().div_ceil(4).max(1) => {
            format!("`{shown}` is unknown; did you mean `{meant}`?")
        }
        _ => format!("`{shown}` is unknown; there are {}", known.join(", ")),
    }
}

/// Levenshtein's distance, in bytes; names that are much longer than ours are far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 40 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_seen_only_where_it_is_one() {
        for (json, nul) in [
            (r#"{"a": "x\u0000y"}"#, true),
            (r#"{"a\u0000": 1}"#, true),
            (r#"{"a": "\\u0000"}"#, false),
            (r#"{"a": "\\\u0000"}"#, true),
            (r#"{"a": "\u00001"}"#, true),
            (r#"{"a": "\u0001"}"#, false),
            ("\\", false),
            ("", false),
        ] {
            assert_eq!(has_nul(json.as_bytes()), nul, "{json}");
        }
    }

    #[test]
    fn a_near_miss_is_recognised() {
        let known = ["to", "category", "channels"];
        assert_eq!(unknown("chanels", &known), "`chanels` is unknown; did you mean `channels`?");
        assert_eq!(unknown("recipient", &known), "`recipient` is unknown; there are to, category, channels");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
