//! Templates: what is said in which language, with variables; versions of them, which never change.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde_json::Value;

use crate::{Content, Locale, TemplateKey};

/// What a template says. The texts of its contents are minijinja sources.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// For whoever has none of the others' languages.
    pub default_locale: Locale,
    /// What its texts may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
    /// What is said, by language.
    pub contents: BTreeMap<Locale, Content>,
}

/// A declared variable.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Taken when a notification's data has none; without it the data must have one. `null` is a default as well.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub default: Option<Value>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// `null` is a value here, not an absence.
fn given<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    serde::Deserialize::deserialize(from).map(Some)
}

/// Where a template stands: configuration entry `KEY` of kind `templates`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version that notifications get; `None` until the first is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<u32>,
    /// The highest version there has been; 0: none.
    pub latest: u32,
    /// What was put and not yet published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Template>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// By which key.
    pub updated_by: String,
}

/// A published version: configuration entry `KEY@N` of kind `templates`. It never changes.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// What it says.
    pub template: Template,
    /// When.
    pub published_at: Timestamp,
    /// By which key.
    pub published_by: String,
}

/// A version of a template: `key@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateRef {
    /// Which template.
    pub key: TemplateKey,
    /// Which version of it, from 1.
    pub version: u32,
}

impl TemplateRef {
    /// Parses `key@3`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, version) = text.split_once('@').ok_or("a version of a template is like order-shipped@3")?;
        let version = version.parse().ok().filter(|v| *v > 0 && !version.starts_with(['+', '0']));
        Ok(Self { key: TemplateKey::parse(key)?, version: version.ok_or("a version is a number from 1")? })
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_one_way() {
        assert_eq!(TemplateRef::parse("order.shipped-1@12").expect("valid").to_string(), "order.shipped-1@12");
        for bad in ["", "a", "a@", "a@0", "a@-1", "a@+1", "a@01", "a@1@2", "A@1", "@1", "a b@1", "-a@1"] {
            assert!(TemplateRef::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn null_is_a_default() {
        let variable = |json| serde_json::from_str::<Variable>(json).expect("valid").default;
        assert_eq!(variable("{}"), None);
        assert_eq!(variable(r#"{"default": null}"#), Some(Value::Null));
    }
}
