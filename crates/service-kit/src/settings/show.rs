//! Shows the effective settings without what is secret.

use toml::{Table, Value};

use super::Settings;

const HIDDEN: &str = "(hidden)";

pub(super) fn effective(settings: &Settings) -> String {
    let mut root = Table::new();
    for (key, entry) in &settings.entries {
        insert(&mut root, key, &entry.value);
    }
    root.to_string()
}

fn insert(table: &mut Table, key: &str, value: &Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), shown(key, value))),
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| Table::new().into());
            if let Value::Table(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

fn shown(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) => shown_text(name, text).into(),
        Value::Array(items) => Value::Array(items.iter().map(|item| shown(name, item)).collect()),
        other => other.clone(),
    }
}

fn shown_text(name: &str, text: &str) -> String {
    // whether a secret is set at all is no secret
    if is_secret(name) && !text.is_empty() {
        return HIDDEN.to_owned();
    }
    match text.split_once('=') {
        // an item of `kafka.extra`
        Some((name, _)) if is_secret(name.trim()) => format!("{name}={HIDDEN}"),
        _ => without_userinfo(text),
    }
}

fn is_secret(name: &str) -> bool {
    ["secret", "password", "operator_key"].iter().any(|end| name.ends_with(end))
}

/// A URL without user and password. Everything up to the last `@` goes: a password may hold any character.
fn without_userinfo(text: &str) -> String {
    match text.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://{HIDDEN}@{host}"),
        _ => text.to_owned(),
    }
}
