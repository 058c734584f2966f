//! Renders a compiled template for one channel.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use domain::{Channel, Content, Locale, content::Text};
use minijinja::ErrorKind;
use serde_json::{Map, Value};

use crate::{
    Compiled,
    compile::{Node, Said},
    context::Context,
    guard::explain,
    language::HTML,
    merge::Merge,
    meter::{Limited, Meter},
};

/// What one rendering may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes and values handled: one for each byte of a text, 16 for each value, each time that something is made of it.
    pub work: u64,
    /// Bytes of all rendered texts together.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { work: 4_000_000, output: 256 * 1024 }
    }
}

/// Bytes of most texts.
pub(crate) const TYPICAL: usize = 128;

/// What a template says on a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Only the channel's own content if it has some, else only the default.
    pub content: Content,
    /// What it is written in.
    pub locale: Locale,
}

/// Why a template could not be rendered. It quotes the template, never the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct RenderError {
    /// JSON pointer into the template.
    pub pointer: String,
    /// What is wrong, with the line.
    pub detail: String,
}

impl Compiled {
    /// Renders for `channel` in the first of the `wanted` locales that has something to say there ([`Compiled::locale`]).
    /// Data that the template does not declare is not seen by it. The content is not yet checked by the channel's rules.
    pub fn render(
        &self,
        channel: Channel,
        wanted: &[&Locale],
        data: &Map<String, Value>,
        limits: Limits,
    ) -> Result<Rendered, RenderError> {
        let nothing = || RenderError {
            pointer: "/contents".into(),
            detail: format!("no content for {channel}, neither in a wanted locale nor in {}", self.default_locale),
        };
        let (locale, said) = self.said(channel, wanted).ok_or_else(nothing)?;
        let mut run = Run::new(self, data, limits);
        // the engine runs programs of tenants: should one of them make it panic, then that message alone fails
        let content = catch_unwind(AssertUnwindSafe(|| run.content(channel, said)))
            .unwrap_or_else(|_| Err(RenderError { pointer: "/contents".into(), detail: "the engine failed".into() }))?;
        Ok(Rendered { content, locale: locale.clone() })
    }
}

struct Run<'c> {
    compiled: &'c Compiled,
    data: &'c Map<String, Value>,
    /// Of the engine, once it is needed.
    context: Option<minijinja::Value>,
    meter: Arc<Meter>,
    limits: Limits,
    written: usize,
}

impl<'c> Run<'c> {
    fn new(compiled: &'c Compiled, data: &'c Map<String, Value>, limits: Limits) -> Self {
        Self { compiled, data, context: None, meter: Arc::new(Meter::new(limits.work)), limits, written: 0 }
    }

    fn content(&mut self, channel: Channel, said: &Said) -> Result<Content, RenderError> {
        let mut content = Content::default();
        if let Some(own) = said.channels.get(channel.as_str()) {
            content.channels.insert(channel.as_str().to_owned(), self.object(own)?);
        } else if let Some([title, body]) = &said.default {
            content.default = Some(Text { title: self.text(title)?, body: self.text(body)? });
        }
        Ok(content)
    }

    fn object(&mut self, nodes: &[(String, Node)]) -> Result<Map<String, Value>, RenderError> {
        nodes.iter().map(|(key, node)| Ok((key.clone(), self.node(node)?))).collect()
    }

    fn text(&mut self, node: &Node) -> Result<String, RenderError> {
        Ok(match self.node(node)? {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    fn node(&mut self, node: &Node) -> Result<Value, RenderError> {
        match node {
            Node::Plain(value) => Ok(value.clone()),
            Node::List(nodes) => nodes.iter().map(|n| self.node(n)).collect(),
            Node::Object(nodes) => self.object(nodes).map(Value::Object),
            Node::Text { name, typed, merge } => match merge.as_ref().and_then(|merge| self.merged(merge)) {
                Some(text) => Ok(Value::String(text)),
                None => self.run(name, *typed).map_err(|detail| RenderError { pointer: pointer(name), detail }),
            },
        }
    }

    fn merged(&mut self, merge: &Merge) -> Option<String> {
        let (text, work) = merge.text(&self.compiled.variables, self.data, self.limits.output - self.written)?;
        self.meter.spend(work).ok()?;
        self.written += text.len();
        Some(text)
    }

    fn run(&mut self, name: &str, typed: bool) -> Result<Value, String> {
        let limit = self.limits.output - self.written;
        let mut out = Limited { bytes: Vec::with_capacity(TYPICAL), limit, full: false };
        let template = self.compiled.engine.get_template(name).map_err(|e| explain(&e))?;
        let context = self.context.get_or_insert_with(|| {
            minijinja::Value::from_object(Context::new(&self.compiled.variables, self.data, &self.meter))
        });
        let rendered = template.render_captured_to(context.clone(), &mut out).map(drop);
        if out.full {
            return Err(self.too_long());
        }
        rendered.map_err(|e| match (e.kind(), e.detail()) {
            (ErrorKind::OutOfFuel, None) => {
                format!("line {}: it takes more steps than a text may", e.line().unwrap_or(1))
            }
            _ => explain(&e),
        })?;
        let value = match self.meter.take_kept().filter(|_| typed) {
            Some(value) => json(&value)?,
            None => Value::String(String::from_utf8(out.bytes).map_err(|e| e.utf8_error().to_string())?),
        };
        let size = value.as_str().map_or_else(|| value.to_string().len(), str::len);
        self.written =
            self.written.checked_add(size).filter(|w| *w <= self.limits.output).ok_or_else(|| self.too_long())?;
        Ok(value)
    }

    fn too_long(&self) -> String {
        format!("the rendered texts have more than {} bytes", self.limits.output)
    }
}

fn json(value: &minijinja::Value) -> Result<Value, String> {
    let json = serde_json::to_value(value).map_err(|_| "line 1: the value cannot be written as JSON")?;
    // an infinite number has no JSON and would become null
    if json.is_null() && !value.is_none() { Err("line 1: the number is too large".into()) } else { Ok(json) }
}

/// The pointer in the name of a text.
fn pointer(name: &str) -> String {
    let name = name.strip_prefix(HTML).unwrap_or(name);
    name.split_once(':').map_or(name, |(_, pointer)| pointer).to_owned()
}
