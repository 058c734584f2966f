//! To and from the JSON of the HTTP API.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de, ser};

use crate::v1::{NotificationView, SendRequest};

/// Beyond, doubles leave whole numbers out.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A request that JSON cannot say, or the other way round.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotJson(#[from] serde_json::Error);

impl SendRequest {
    /// The body of `POST /v1/notifications` that says the same.
    ///
    /// # Errors
    /// A number is none that JSON has.
    pub fn to_json(&self) -> Result<Vec<u8>, NotJson> {
        Ok(serde_json::to_vec(self)?)
    }

    /// From such a body.
    ///
    /// # Errors
    /// It is not JSON, or a field is unknown or of the wrong type. Everything else is for the server to say.
    pub fn from_json(json: &[u8]) -> Result<Self, NotJson> {
        Ok(serde_json::from_slice(json)?)
    }
}

impl NotificationView {
    /// From what `GET /v1/notifications/{id}` answers.
    ///
    /// # Errors
    /// It is not that.
    pub fn from_json(json: serde_json::Value) -> Result<Self, NotJson> {
        Ok(serde_json::from_value(json)?)
    }
}

/// Said by nobody.
pub(crate) fn is_unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `google.protobuf.Struct` as a JSON object.
pub(crate) mod object {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(object: &Option<Struct>, to: S) -> Result<S::Ok, S::Error> {
        let json = object.clone().map(|object| to_json(Kind::StructValue(object))).transpose();
        json.map_err(ser::Error::custom)?.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Struct>, D::Error> {
        let json = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(from)?;
        json.map(to_struct).transpose().map_err(de::Error::custom)
    }
}

fn to_json(kind: Kind) -> Result<serde_json::Value, &'static str> {
    let of = |value: Value| to_json(value.kind.unwrap_or(Kind::NullValue(0)));
    Ok(match kind {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(is) => is.into(),
        Kind::StringValue(text) => text.into(),
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
        Kind::NumberValue(number) if number.fract() == 0.0 && number.abs() <= EXACT => (number as i64).into(),
        Kind::NumberValue(number) if number.is_finite() => number.into(),
        Kind::NumberValue(_) => return Err("a number is infinite or none at all, which JSON does not have"),
        Kind::ListValue(list) => list.values.into_iter().map(of).collect::<Result<_, _>>()?,
        Kind::StructValue(object) => {
            let fields = object.fields.into_iter().map(|(name, value)| Ok((name, of(value)?)));
            serde_json::Value::Object(fields.collect::<Result<_, &'static str>>()?)
        }
    })
}

fn to_struct(object: serde_json::Map<String, serde_json::Value>) -> Result<Struct, &'static str> {
    let fields = object.into_iter().map(|(name, value)| Ok((name, from_json(value)?)));
    Ok(Struct { fields: fields.collect::<Result<_, &'static str>>()? })
}

fn from_json(json: serde_json::Value) -> Result<Value, &'static str> {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(is) => Kind::BoolValue(is),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Number(number) => {
            Kind::NumberValue(number.as_f64().ok_or("a number that no double can hold")?)
        }
        serde_json::Value::Array(items) => {
            let values = items.into_iter().map(from_json);
            Kind::ListValue(ListValue { values: values.collect::<Result<_, _>>()? })
        }
        serde_json::Value::Object(object) => Kind::StructValue(to_struct(object)?),
    };
    Ok(Value { kind: Some(kind) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SendStreamRequest;

    const WHOLE: &str = r#"{"to":[{"user":"ana"},{"channel":"email","address":"a@example.com"}],"category":"orders",
        "priority":11,"channels":["push"],"strategy":"all","template":"t","data":{"n":17,"x":1.5,"big":1e300,"no":null},
        "content":{"default":{"title":"T","body":"B"},"slack":{"blocks":[true,[],{}]}},"locale":"de","expires_at":"soon",
        "collapse_key":"","metadata":{"a":"b"},"send_at":"x","digest":{},"fallback":{"after":"5m"},"escalation":"e"}"#;

    #[test]
    fn a_request_says_the_same_in_both_forms() {
        let request = SendRequest::from_json(WHOLE.as_bytes()).expect("a request");
        let there = SendStreamRequest::from(request.clone());
        assert_eq!(SendRequest::from_item(there.notification).expect("an item"), request);
        let json: serde_json::Value = serde_json::from_slice(&request.to_json().expect("JSON")).expect("JSON");
        assert_eq!(json, serde_json::from_str::<serde_json::Value>(WHOLE).expect("JSON"));
        assert_eq!(SendRequest::default().to_json().expect("JSON"), b"{}", "what nobody said is not there");
        assert!(SendRequest::from_json(br#"{"chanels": []}"#).expect_err("unknown").to_string().contains("chanels"));
    }

    #[test]
    fn numbers_that_json_lacks_are_refused() {
        for number in [f64::NAN, f64::INFINITY] {
            let value = Value { kind: Some(Kind::NumberValue(number)) };
            let content = Struct { fields: [("webhook".to_owned(), value)].into() };
            let request = SendRequest { content: Some(content), ..SendRequest::default() };
            assert!(request.to_json().expect_err("not JSON").to_string().contains("number"));
        }
    }
}
