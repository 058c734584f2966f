//! Merges the layers, and finds what is unknown or of the wrong type.

use std::{collections::BTreeMap, path::Path};

use toml::{Table, Value};

use super::{DEFAULTS, Entry, Origin, Settings};

/// Variables that begin so are settings; `CARILLON_…` with one underscore belongs to the CLI, the tests and Kubernetes.
const PREFIX: &str = "CARILLON__";

/// What was merged, with the defaults in place of what is wrong, and all that is wrong.
pub(super) fn merge<'a>(
    defaults: impl Iterator<Item = &'a str>,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> (Settings, Vec<String>) {
    let mut merge = Merge::default();
    for text in std::iter::once(DEFAULTS).chain(defaults) {
        merge.defaults(text);
    }
    if let Some(path) = file {
        merge.file(path);
    }
    for (name, value) in env {
        if let Some(key) = name.strip_prefix(PREFIX) {
            merge.variable(&name, &key.to_lowercase().replace("__", "."), &value);
        }
    }
    (Settings { entries: merge.entries }, merge.problems)
}

#[derive(Default)]
struct Merge {
    entries: BTreeMap<String, Entry>,
    problems: Vec<String>,
}

impl Merge {
    fn defaults(&mut self, text: &str) {
        for (key, value) in self.parse(text, &Origin::Default) {
            if self.entries.insert(key.clone(), Entry { value, origin: Origin::Default }).is_some() {
                self.problem(&key, "has two defaults", &Origin::Default);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let origin = Origin::File(path.display().to_string());
        match std::fs::read_to_string(path) {
            Ok(text) => {
                for (key, value) in self.parse(&text, &origin) {
                    self.put(&key, value, origin.clone());
                }
            }
            Err(e) => self.problems.push(format!("{origin}: cannot be read: {e}")),
        }
    }

    fn variable(&mut self, name: &str, key: &str, text: &str) {
        let origin = Origin::Environment(name.to_owned());
        let Some(known) = self.entries.get(key) else { return self.unknown(key, &origin) };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return self.problem(key, "is not UTF-8", &origin);
        }
        match from_text(text, &known.value) {
            Some(value) => self.put(key, value, origin),
            None => {
                let wrong = format!("must be {}", kind(&known.value));
                self.problem(key, &wrong, &origin);
            }
        }
    }

    fn put(&mut self, key: &str, value: Value, origin: Origin) {
        match self.entries.get_mut(key) {
            Some(known) if fits(&value, &known.value) => *known = Entry { value, origin },
            Some(known) => {
                let wrong = format!("must be {}, not {}", kind(&known.value), kind(&value));
                self.problem(key, &wrong, &origin);
            }
            None => {
                let section = format!("{key}.");
                let is_section =
                    self.entries.range(section.clone()..).next().is_some_and(|(k, _)| k.starts_with(&section));
                match value {
                    Value::Table(_) if is_section => {} // an empty section changes nothing
                    _ if is_section => self.problem(key, "is a section, not a value", &origin),
                    _ => self.unknown(key, &origin),
                }
            }
        }
    }

    /// The leaves of a TOML text by dotted key.
    fn parse(&mut self, text: &str, origin: &Origin) -> Vec<(String, Value)> {
        match text.parse::<Table>() {
            Ok(table) => {
                let mut leaves = Vec::new();
                flatten("", table, &mut leaves);
                leaves
            }
            Err(e) => {
                let (line, column) = position(text, e.span().map_or(0, |s| s.start));
                let wrong = e.message().trim().replace('\n', ", ");
                self.problems.push(format!("{origin}: line {line}, column {column}: {wrong}"));
                Vec::new()
            }
        }
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let with_section = |known: &String| [known.len(), known.rfind('.').unwrap_or(known.len())];
        let known = self.entries.keys().flat_map(|k| with_section(k).map(|end| &k[..end]));
        let nearest = known.min_by_key(|known| distance(key, known));
        let wrong = match nearest {
            Some(nearest) => format!("is not a setting; the nearest is `{nearest}`"),
            None => "is not a setting".to_owned(),
        };
        self.problem(key, &wrong, origin);
    }

    fn problem(&mut self, key: &str, wrong: &str, origin: &Origin) {
        self.problems.push(format!("{key}: {wrong} (from {origin})"));
    }
}

fn flatten(prefix: &str, table: Table, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, leaves),
            leaf => leaves.push((key, leaf)),
        }
    }
}

fn fits(value: &Value, default: &Value) -> bool {
    match (value, default) {
        (Value::Array(items), Value::Array(_)) => items.iter().all(Value::is_str),
        _ => value.same_type(default),
    }
}

/// The text of a variable as a value of the default's type.
fn from_text(text: &str, default: &Value) -> Option<Value> {
    Some(match default {
        Value::String(_) => text.into(),
        Value::Integer(_) => text.trim().parse::<i64>().ok()?.into(),
        Value::Float(_) => text.trim().parse::<f64>().ok()?.into(),
        Value::Boolean(_) => text.trim().parse::<bool>().ok()?.into(),
        Value::Array(_) => text.split(',').map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>().into(),
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number with a decimal point",
        Value::Boolean(_) => "true or false",
        Value::Array(items) if items.iter().all(Value::is_str) => "a list of strings",
        Value::Array(_) => "a list of something else",
        Value::Datetime(_) => "a date",
        Value::Table(_) => "a section",
    }
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Levenshtein's distance: how many letters have to change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(ca != *cb)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
