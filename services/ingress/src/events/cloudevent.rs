//! The Kafka binding of CloudEvents 1.0: binary and structured content mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>).

use bus::Record;
use domain::Timestamp;
use serde_json::value::RawValue;

use crate::body::MAX_BYTES;

/// What every event has to be.
const TYPE: &str = "carillon.notification.requested";

/// What Carillon needs of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CloudEvent<'a> {
    /// Who published it; decides the tenant.
    pub(super) source: String,
    /// With the source the idempotency key.
    pub(super) id: String,
    /// The extension `expirytime`: not delivered from then on.
    pub(super) expires_at: Option<Timestamp>,
    /// The JSON of `POST /v1/notifications`.
    pub(super) data: &'a [u8],
}

/// The attributes that are looked at, before they are checked.
#[derive(serde::Deserialize)]
struct Structured<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    datacontenttype: Option<String>,
    expirytime: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads a record as an event; the error names the attribute and what would be right.
pub(super) fn parse(record: &Record) -> Result<CloudEvent<'_>, String> {
    let value = record.value.as_deref().ok_or("the record has no value; an event has its data there")?;
    if value.len() > MAX_BYTES {
        return Err(format!("the value has {} bytes; {MAX_BYTES} at most", value.len()));
    }
    let content_type = header(record, "content-type")?;
    match content_type.map(essence) {
        Some(mode) if mode.starts_with("application/cloudevents") => structured(value, &mode),
        _ => binary(record, value, content_type),
    }
}

fn structured<'a>(value: &'a [u8], mode: &str) -> Result<CloudEvent<'a>, String> {
    if mode != "application/cloudevents+json" {
        return Err(format!("content-type: `{mode}` is not taken; structured events are application/cloudevents+json"));
    }
    let event: Structured<'a> = serde_json::from_slice(value)
        .map_err(|e| format!("not a structured CloudEvent in JSON (line {})", e.line()))?;
    check_data_type(event.datacontenttype.as_deref())?;
    let expiry = event.expirytime.as_deref();
    attributes(
        event.specversion,
        event.id,
        event.source,
        event.r#type,
        expiry,
        event.data.map(|data| data.get().as_bytes()),
    )
}

fn binary<'a>(record: &'a Record, value: &'a [u8], content_type: Option<&str>) -> Result<CloudEvent<'a>, String> {
    check_data_type(content_type)?;
    let text = |name| header(record, name).map(|h| h.map(str::to_owned));
    let expiry = header(record, "ce_expirytime")?;
    attributes(text("ce_specversion")?, text("ce_id")?, text("ce_source")?, text("ce_type")?, expiry, Some(value))
}

fn attributes<'a>(
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    expiry: Option<&str>,
    data: Option<&'a [u8]>,
) -> Result<CloudEvent<'a>, String> {
    if required("specversion", specversion)? != "1.0" {
        return Err("specversion: only CloudEvents 1.0 is taken".into());
    }
    if required("type", r#type)? != TYPE {
        return Err(format!("type: only {TYPE} is taken here"));
    }
    let expires_at =
        expiry.map(|at| at.parse().map_err(|_| "expirytime: not a time as RFC 3339 has it")).transpose()?;
    let (source, id) = (required("source", source)?, required("id", id)?);
    let data = data.ok_or("data: is missing (`data_base64` is not taken); it is the JSON of a notification")?;
    Ok(CloudEvent { source, id, expires_at, data })
}

fn required(name: &str, value: Option<String>) -> Result<String, String> {
    let value = value.ok_or_else(|| format!("{name}: the attribute is missing"))?;
    let ok = (1..=500).contains(&value.chars().count()) && !value.chars().any(char::is_control);
    if ok { Ok(value) } else { Err(format!("{name}: has 1 to 500 characters, none of them a control character")) }
}

/// Data without a type is taken for JSON.
fn check_data_type(content_type: Option<&str>) -> Result<(), String> {
    match content_type.map(essence) {
        Some(essence) if essence != "application/json" && !essence.ends_with("+json") => {
            Err(format!("content-type: data of type `{essence}` is not taken; send application/json"))
        }
        _ => Ok(()),
    }
}

/// A media type without its parameters, short and harmless enough for an error.
fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.chars().filter(|c| c.is_ascii_graphic()).take(80).collect::<String>().to_ascii_lowercase()
}

fn header<'a>(record: &'a Record, name: &str) -> Result<Option<&'a str>, String> {
    let mut found = record.headers.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let Some(value) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(format!("{name}: the header is there more than once"));
    }
    std::str::from_utf8(value).map(Some).map_err(|_| format!("{name}: the header is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use bus::{Headers, Partition, Position};
    use bytes::Bytes;

    use super::*;

    fn record(headers: &[(&str, &str)], value: Option<&str>) -> Record {
        let partition = Partition { topic: "carillon.events".into(), index: 0 };
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned().into(), Bytes::from((*v).to_owned()))).collect();
        let value = value.map(|v| Bytes::from(v.to_owned()));
        Record { at: Position { partition, offset: 0 }, timestamp_ms: 0, key: None, headers: Headers(headers), value }
    }

    const BINARY: [(&str, &str); 5] = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", "e-1"),
        ("ce_source", "https://shop.example/orders"),
        ("ce_type", TYPE),
    ];

    /// The binary event with one header changed or, with `None`, left out.
    fn with(name: &str, value: Option<&str>) -> Result<(), String> {
        let mut headers: Vec<_> = BINARY.into_iter().filter(|(n, _)| *n != name).collect();
        headers.extend(value.map(|v| (name, v)));
        parse(&record(&headers, Some("{}"))).map(drop)
    }

    #[test]
    fn both_modes_say_the_same() {
        let data = r#"{"to": [{"user": "ana"}]}"#;
        let expiry = ("ce_expirytime", "2026-12-01T09:00:00Z");
        let binary = record(&[&BINARY[..], &[expiry]].concat(), Some(data));
        let event = parse(&binary).expect("binary");
        assert_eq!((event.source.as_str(), event.id.as_str()), ("https://shop.example/orders", "e-1"));
        assert_eq!(
            (event.data, event.expires_at),
            (data.as_bytes(), Some("2026-12-01T09:00:00Z".parse().expect("time")))
        );
        let json = format!(
            r#"{{"specversion":"1.0","id":"e-1","source":"https://shop.example/orders","type":"{TYPE}",
                "expirytime":"2026-12-01T09:00:00Z","any":"extension","data":{data}}}"#
        );
        let structured = record(&[("Content-Type", "application/cloudevents+json; charset=UTF-8")], Some(&json));
        assert_eq!(parse(&structured).expect("structured"), event);
        assert_eq!(with("content-type", None), Ok(()), "data without a type is JSON");
    }

    #[test]
    fn every_attribute_is_named_when_it_is_wrong() {
        let said = |result: Result<(), String>, what: &str| {
            let error = result.expect_err(what);
            assert!(error.contains(what), "{error}");
        };
        for name in ["specversion", "id", "source", "type"] {
            said(with(&format!("ce_{name}"), None), &format!("{name}: the attribute is missing"));
            said(with(&format!("ce_{name}"), Some("")), name);
        }
        said(with("ce_specversion", Some("0.3")), "specversion: only CloudEvents 1.0");
        said(with("ce_type", Some("other")), TYPE);
        said(with("ce_id", Some("a\nb")), "id: has 1 to 500");
        said(with("content-type", Some("text/xml")), "`text/xml` is not taken");
        said(with("content-type", Some("application/cloudevents-batch+json")), "application/cloudevents+json");
        said(with("content-type", Some("application/cloudevents+json")), "specversion: the attribute is missing");
        said(with("ce_expirytime", Some("soon")), "expirytime");
        said(parse(&record(&BINARY, None)).map(drop), "no value");
        said(parse(&record(&BINARY, Some(&"x".repeat(MAX_BYTES + 1)))).map(drop), "at most");
        said(parse(&record(&[&BINARY[..], &BINARY[2..3]].concat(), Some("{}"))).map(drop), "more than once");
        let base64 = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"{TYPE}","data_base64":"e30="}}"#);
        let structured =
            |json: &str| parse(&record(&[("content-type", "application/cloudevents+json")], Some(json))).map(drop);
        said(structured(&base64), "data: is missing");
        said(structured("nonsense"), "not a structured CloudEvent");
        said(structured(&format!("{}1", "[".repeat(100_000))), "not a structured CloudEvent");
    }
}
