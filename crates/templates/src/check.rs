//! Checks a template when it is put, and the data of a notification when it is accepted.

use domain::{Channel, FieldErrors, content::escape, template::Template};
use serde_json::{Map, Value};

use crate::{
    MAX_DATA_BYTES, MAX_DEPTH, MAX_ERRORS, MAX_TEMPLATE_BYTES,
    compile::{compile, has_tags},
    language::some,
};

/// Most variables that a template may declare.
const MAX_VARIABLES: usize = 256;

/// Words of the language.
const RESERVED: [&str; 16] = [
    "False", "None", "True", "and", "else", "elif", "false", "if", "in", "is", "loop", "none", "not", "or", "self",
    "true",
];

/// Checks all that can be known of a template before it is rendered; pointers start with `at`.
pub fn check(template: &Template, at: &str) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::default();
    let size = serde_json::to_vec(template).map_or(usize::MAX, |b| b.len());
    if size > MAX_TEMPLATE_BYTES {
        errors.add(at, format!("the template has {size} bytes as JSON; {MAX_TEMPLATE_BYTES} at most"));
        return Err(errors);
    }
    if !template.contents.contains_key(&template.default_locale) {
        let detail = format!("`contents` has none for the default locale, {}", template.default_locale);
        errors.add(format!("{at}/default_locale"), detail);
    }
    variables(template, at, &mut errors);
    for (locale, content) in &template.contents {
        let pointer = format!("{at}/contents/{}", escape(&locale.to_string()));
        if content.default.is_none() && content.channels.is_empty() {
            errors.add(pointer.clone(), "the content is empty; give it `default` with a `body`");
        }
        for (name, own) in &content.channels {
            channel(name, own, &format!("{pointer}/{}", escape(name)), &mut errors);
        }
    }
    compile(template, at, &mut errors);
    errors.0.truncate(MAX_ERRORS);
    errors.into_result()
}

fn variables(template: &Template, at: &str, errors: &mut FieldErrors) {
    if template.variables.len() > MAX_VARIABLES {
        errors.add(format!("{at}/variables"), format!("at most {MAX_VARIABLES} variables"));
    }
    for (name, variable) in &template.variables {
        let pointer = format!("{at}/variables/{}", escape(name));
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            errors.add(
                &pointer,
                "a variable's name has 1 to 64 letters, digits and `_`, and does not begin with a digit",
            );
        } else if RESERVED.contains(&name.as_str()) {
            errors.add(&pointer, format!("`{name}` is a word of the language"));
        }
        if variable.default.as_ref().is_some_and(|d| depth(d) > MAX_DEPTH) {
            errors.add(format!("{pointer}/default"), format!("is nested deeper than {MAX_DEPTH}"));
        }
    }
}

/// Checks a channel's own content by the channel's rules, as far as it is not written by tags.
fn channel(name: &str, own: &Map<String, Value>, at: &str, errors: &mut FieldErrors) {
    let channel = match Channel::parse(name) {
        Ok(channel) => channel,
        Err(detail) => return errors.add(at, detail),
    };
    let mut found = FieldErrors::default();
    channel.check_content(own, at, &mut found);
    let keys = channel.content_keys();
    errors.0.extend(found.0.into_iter().filter(|error| {
        let field = error.pointer.strip_prefix(at).and_then(|p| p.split('/').nth(1)).unwrap_or_default();
        let rendered = own.get(field).is_some_and(any_tags);
        !rendered || !(keys.is_empty() || keys.contains(&field))
    }));
}

fn any_tags(value: &Value) -> bool {
    match value {
        Value::String(text) => has_tags(text),
        Value::Array(items) => items.iter().any(any_tags),
        Value::Object(map) => map.values().any(any_tags),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Checks the data of a notification against what the template declares; pointers start with `at`.
pub fn check_data(template: &Template, data: &Map<String, Value>, at: &str) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::default();
    let size = serde_json::to_vec(data).map_or(usize::MAX, |b| b.len());
    if size > MAX_DATA_BYTES {
        errors.add(at, format!("the data has {size} bytes as JSON; {MAX_DATA_BYTES} at most"));
        return Err(errors);
    }
    let declared: Vec<_> = template.variables.keys().map(String::as_str).collect();
    for (name, value) in data {
        let pointer = format!("{at}/{}", escape(name));
        if !template.variables.contains_key(name) {
            errors.add(pointer, format!("not declared by the template; it declares {}", some(&declared)));
        } else if depth(value) > MAX_DEPTH {
            errors.add(pointer, format!("is nested deeper than {MAX_DEPTH}"));
        }
    }
    for (name, _) in template.variables.iter().filter(|(n, v)| v.default.is_none() && !data.contains_key(*n)) {
        errors.add(format!("{at}/{}", escape(name)), "missing; the template declares it without a default");
    }
    errors.0.truncate(MAX_ERRORS);
    errors.into_result()
}
