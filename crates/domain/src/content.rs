//! What a notification says: one default text, and what single channels say instead.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{Channel, FieldErrors};

/// Most bytes that a content may have as JSON.
pub const MAX_BYTES: usize = 64 * 1024;

/// Inline content, checked.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Content {
    /// For every channel that has nothing of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Text>,
    /// By the channel's name: the object that the channel sends.
    #[serde(flatten)]
    pub channels: BTreeMap<String, Map<String, Value>>,
}

/// A title and a body.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// At most 256 characters.
    #[serde(default)]
    pub title: String,
    /// At most 16,384 bytes.
    pub body: String,
}

impl Content {
    /// Checks `content` of a request; pointers in the errors start with `at`.
    pub fn parse(raw: Map<String, Value>, at: &str) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        check_size(&raw, at, &mut errors);
        if raw.is_empty() {
            errors.add(at, "the content is empty; give it `default` with a `body`");
        }
        let mut content = Self::default();
        for (key, value) in raw {
            let pointer = format!("{at}/{}", escape(&key));
            if key == "default" {
                content.default = errors.take(&pointer, parse_text(value));
                continue;
            }
            match (Channel::parse(&key), value) {
                (Err(detail), _) => errors.add(pointer, detail),
                (Ok(channel), Value::Object(map)) => {
                    channel.check_content(&map, &pointer, &mut errors);
                    content.channels.insert(key, map);
                }
                (Ok(_), _) => errors.add(pointer, "a channel's content is an object"),
            }
        }
        errors.into_result().map(|()| content)
    }

    /// Checks a content that was made of a template, by the same rules; pointers in the errors start with `at`.
    pub fn check(&self, at: &str) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::default();
        check_size(self, at, &mut errors);
        if let Some(Err(detail)) = self.default.as_ref().map(check_text) {
            errors.add(format!("{at}/default"), detail);
        }
        for (name, own) in &self.channels {
            let pointer = format!("{at}/{}", escape(name));
            if let Some(channel) = errors.take(&pointer, Channel::parse(name)) {
                channel.check_content(own, &pointer, &mut errors);
            }
        }
        errors.into_result()
    }

    /// What the channel says of its own.
    pub fn own(&self, channel: Channel) -> Option<&Map<String, Value>> {
        self.channels.get(channel.as_str())
    }

    /// Whether the channel has something to say.
    pub fn covers(&self, channel: Channel) -> bool {
        self.default.is_some() || self.channels.contains_key(channel.as_str())
    }
}

fn parse_text(value: Value) -> Result<Text, String> {
    let text: Text = serde_json::from_value(value).map_err(|e| format!("{e}; it has `title` and `body`"))?;
    check_text(&text)?;
    Ok(text)
}

fn check_size<T: serde::Serialize>(content: &T, at: &str, errors: &mut FieldErrors) {
    let size = json_size(content);
    if size > MAX_BYTES {
        errors.add(at, format!("the content has {size} bytes as JSON; {MAX_BYTES} at most"));
    }
}

/// Bytes that a value takes as JSON.
pub fn json_size<T: serde::Serialize + ?Sized>(value: &T) -> usize {
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, value).map_or(usize::MAX, |()| counted.0)
}

fn check_text(text: &Text) -> Result<(), String> {
    if text.body.is_empty() || text.body.len() > 16 * 1024 {
        return Err("`body` has 1 to 16,384 bytes".into());
    }
    if text.title.chars().count() > 256 || text.title.chars().any(char::is_control) {
        return Err("`title` has at most 256 characters, none of them a control character".into());
    }
    Ok(())
}

/// A key as a token of a JSON pointer (RFC 6901).
pub fn escape(key: &str) -> String {
    key.chars().take(64).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Content, FieldErrors> {
        Content::parse(serde_json::from_str(json).expect("JSON"), "/content")
    }

    #[test]
    fn content_is_checked_field_by_field() {
        let good = parse(r#"{"default": {"title": "T", "body": "B"}, "webhook": {"x": 1}}"#).expect("valid");
        assert!(good.covers(Channel::Webhook));
        let json = serde_json::to_string(&good).expect("JSON");
        assert_eq!(serde_json::from_str::<Content>(&json).expect("round trip"), good);

        let bad = parse(r#"{"default": {"title": "T"}, "sms": {}, "pige/on": {}, "webhook": 1}"#).expect_err("bad");
        let pointers: Vec<_> = bad.0.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/content/default", "/content/pige~1on", "/content/sms", "/content/webhook"]);
        assert!(bad.0[2].detail.contains("not yet"));
        assert!(parse("{}").is_err());
        let big = format!(r#"{{"webhook": {{"x": "{}"}}}}"#, "x".repeat(MAX_BYTES));
        assert!(parse(&big).expect_err("big").0[0].detail.contains("at most"));
    }
}
