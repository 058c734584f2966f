//! Compiles a template once, for any number of renderings.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Channel, Content, FieldErrors, Locale, content::escape, template::Template};
use minijinja::Environment;
use serde_json::Value;

use crate::{
    MAX_ALL_LEAVES, MAX_DEPTH, MAX_ERRORS, MAX_LEAF_BYTES, MAX_LEAVES,
    context::Variables,
    guard::{Guarded, explain, guard},
    language::{self, HTML},
    merge::Merge,
};

/// Texts of a channel's own fields; any other text that is one expression keeps the expression's type.
const TEXTS: [&str; 13] = [
    "body",
    "category",
    "from_name",
    "html",
    "interruption_level",
    "push_type",
    "reply_to",
    "subject",
    "subtitle",
    "target_content_id",
    "text",
    "thread_id",
    "title",
];

/// A version of a template, ready to be rendered.
#[derive(Debug)]
pub struct Compiled {
    pub(crate) engine: Environment<'static>,
    pub(crate) default_locale: Locale,
    pub(crate) contents: BTreeMap<Locale, Said>,
    pub(crate) variables: Variables,
}

/// A content whose texts are compiled.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Title and body.
    pub(crate) default: Option<[Node; 2]>,
    pub(crate) channels: BTreeMap<String, Vec<(String, Node)>>,
}

#[derive(Debug)]
pub(crate) enum Node {
    /// As it is.
    Plain(Value),
    /// A text with tags, under its name in the engine; it keeps the value's type if it is only one expression.
    Text {
        name: String,
        typed: bool,
        /// Tried first.
        merge: Option<Merge>,
    },
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// What a text is for.
#[derive(Clone, Copy)]
enum Use {
    Text,
    Html,
    Value,
}

impl Compiled {
    /// Compiles every text. The errors point into the template, for instance `/contents/de/email/html`.
    pub fn new(template: &Template) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let compiled = compile(template, "", &mut errors);
        errors.into_result().map(|()| compiled)
    }

    /// The locale that the channel is spoken to in: the first of `wanted`, each followed by its fallbacks, and then the
    /// template's own, that has something to say there.
    pub fn locale(&self, channel: Channel, wanted: &[&Locale]) -> Option<&Locale> {
        self.said(channel, wanted).map(|(locale, _)| locale)
    }

    /// What is said in [`Self::locale`].
    pub(crate) fn said(&self, channel: Channel, wanted: &[&Locale]) -> Option<(&Locale, &Said)> {
        let mut chain = wanted.iter().flat_map(|w| w.fallbacks()).chain([self.default_locale.clone()]);
        chain.find_map(|l| self.contents.get_key_value(&l).filter(|(_, said)| said.covers(channel)))
    }
}

impl Said {
    fn covers(&self, channel: Channel) -> bool {
        self.default.is_some() || self.channels.contains_key(channel.as_str())
    }
}

/// Compiles what can be compiled and notes the rest; pointers start with `at`.
pub(crate) fn compile(template: &Template, at: &str, errors: &mut FieldErrors) -> Compiled {
    let declared = template.variables.keys().map(String::as_str).collect();
    let mut compiler = Compiler { engine: language::environment(), declared, at, leaves: 0, all_leaves: 0, errors };
    let contents = template.contents.iter().map(|(l, c)| (l.clone(), compiler.content(l, c))).collect();
    Compiled {
        contents,
        engine: compiler.engine,
        default_locale: template.default_locale.clone(),
        variables: Variables::of(template),
    }
}

struct Compiler<'t, 'e> {
    engine: Environment<'static>,
    declared: BTreeSet<&'t str>,
    at: &'t str,
    /// Texts with tags in this content.
    leaves: usize,
    /// In all contents.
    all_leaves: usize,
    errors: &'e mut FieldErrors,
}

impl Compiler<'_, '_> {
    fn content(&mut self, locale: &Locale, content: &Content) -> Said {
        let pointer = format!("/contents/{}", escape(&locale.to_string()));
        self.leaves = 0;
        let default = content.default.as_ref().map(|text| {
            [("title", &text.title), ("body", &text.body)]
                .map(|(key, source)| self.text(source, &format!("{pointer}/default/{key}"), Use::Text))
        });
        let channels = content.channels.iter().map(|(name, own)| {
            let pointer = format!("{pointer}/{}", escape(name));
            let closed = Channel::parse(name).is_ok_and(|c| !c.content_keys().is_empty());
            let nodes = own.iter().map(|(key, value)| {
                let purpose = match key.as_str() {
                    "html" if closed => Use::Html,
                    key if closed && TEXTS.contains(&key) => Use::Text,
                    _ => Use::Value,
                };
                (key.clone(), self.node(value, &format!("{pointer}/{}", escape(key)), purpose, 1))
            });
            (name.clone(), nodes.collect())
        });
        let said = Said { default, channels: channels.collect() };
        if self.leaves > MAX_LEAVES || self.all_leaves > MAX_ALL_LEAVES {
            let detail =
                format!("has more than {MAX_LEAVES} texts with tags, or the template more than {MAX_ALL_LEAVES}");
            self.errors.add(format!("{}{pointer}", self.at), detail);
        }
        said
    }

    fn node(&mut self, value: &Value, pointer: &str, purpose: Use, depth: usize) -> Node {
        if depth > MAX_DEPTH && (value.is_array() || value.is_object()) {
            self.errors.add(format!("{}{pointer}", self.at), format!("is nested deeper than {MAX_DEPTH}"));
            return Node::Plain(Value::Null);
        }
        match value {
            Value::String(source) => self.text(source, pointer, purpose),
            Value::Array(items) => Node::List(
                (0..).zip(items).map(|(i, v)| self.node(v, &format!("{pointer}/{i}"), Use::Value, depth + 1)).collect(),
            ),
            Value::Object(map) => Node::Object(
                map.iter()
                    .map(|(k, v)| (k.clone(), self.node(v, &format!("{pointer}/{}", escape(k)), Use::Value, depth + 1)))
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => Node::Plain(value.clone()),
        }
    }

    fn text(&mut self, source: &str, pointer: &str, purpose: Use) -> Node {
        let at = format!("{}{pointer}", self.at);
        if source.len() > MAX_LEAF_BYTES {
            self.errors.add(at, format!("the text has {} bytes; {MAX_LEAF_BYTES} at most", source.len()));
        } else if has_tags(source) {
            self.leaves += 1;
            self.all_leaves += 1;
            if self.leaves > MAX_LEAVES || self.all_leaves > MAX_ALL_LEAVES || self.errors.0.len() >= MAX_ERRORS {
                // there are errors already, or will be when the content ends
                return Node::Plain(Value::Null);
            }
            match guard(source, &self.declared, matches!(purpose, Use::Value)) {
                Ok(Guarded { source, keeps, merge }) => {
                    // pointers cut long keys short, so two of them can be the same
                    let number = self.all_leaves;
                    let (kind, merge) = if matches!(purpose, Use::Html) { (HTML, None) } else { ("", merge) };
                    let name = format!("{kind}{number}:{pointer}");
                    match self.engine.add_template_owned(name.clone(), source) {
                        Ok(()) => return Node::Text { name, typed: keeps, merge },
                        Err(e) => self.errors.add(at, explain(&e)),
                    }
                }
                Err(problems) => problems.into_iter().for_each(|problem| self.errors.add(at.clone(), problem)),
            }
        }
        Node::Plain(Value::String(source.to_owned()))
    }
}

/// A JSON value as the engine has it.
pub(crate) fn of_json(json: &Value) -> minijinja::Value {
    match json {
        Value::String(text) => text.as_str().into(),
        other => minijinja::value::Serde(other).into(),
    }
}

/// Whether a text is more than itself.
pub(crate) fn has_tags(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|tag| source.contains(tag))
}
