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
        object.as_ref().map(Object).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Struct>, D::Error> {
        let json = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(from)?;
        json.map(to_struct).transpose().map_err(de::Error::custom)
    }
}

/// As a JSON object.
struct Object<'a>(&'a Struct);

impl ser::Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.fields.iter().map(|(name, value)| (name, Json(value))))
    }
}

/// As any JSON.
struct Json<'a>(&'a Value);

impl ser::Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0.kind {
            None | Some(Kind::NullValue(_)) => to.serialize_unit(),
            Some(Kind::BoolValue(is)) => to.serialize_bool(*is),
            Some(Kind::StringValue(text)) => to.serialize_str(text),
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= EXACT => {
                to.serialize_i64(*number as i64)
            }
            Some(Kind::NumberValue(number)) if number.is_finite() => to.serialize_f64(*number),
            Some(Kind::NumberValue(_)) => {
                Err(ser::Error::custom("a number is infinite or none at all, which JSON does not have"))
            }
            Some(Kind::ListValue(list)) => to.collect_seq(list.values.iter().map(Json)),
            Some(Kind::StructValue(object)) => Object(object).serialize(to),
        }
    }
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
