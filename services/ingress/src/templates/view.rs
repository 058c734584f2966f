//! Templates as clients see them.

use std::collections::BTreeMap;

use domain::{
    TemplateRef, Timestamp,
    template::{Head, Template, Version},
};
use serde_json::Value;
use utoipa::ToSchema;

/// What is said, by language and channel. Its texts are minijinja sources: `{{ name }}`, `{% if … %}`, `{% for … %}`.
#[derive(ToSchema)]
#[schema(as = Template)]
#[expect(dead_code, reason = "documents domain::template::Template")]
pub(crate) struct TemplateSchema {
    /// For people.
    description: Option<String>,
    /// For whoever has none of the others' languages, for instance `en`.
    default_locale: String,
    /// What its texts may use, by name.
    variables: Option<BTreeMap<String, VariableSchema>>,
    /// By language, as the `content` of a notification.
    #[schema(example = json!({"en": {"default": {"title": "Shipped", "body": "Order {{ order }} is on its way."}}}))]
    contents: BTreeMap<String, Object>,
}

/// For the OpenAPI document: any object.
type Object = serde_json::Map<String, Value>;

/// A declared variable.
#[derive(ToSchema)]
#[schema(as = TemplateVariable)]
#[expect(dead_code, reason = "documents domain::template::Variable")]
pub(crate) struct VariableSchema {
    /// Taken when the data has none; without it the data must have one.
    default: Option<Value>,
    /// For people.
    description: Option<String>,
}

/// Where a template stands.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(as = TemplateHead)]
pub struct HeadAnswer {
    key: String,
    /// The version that notifications get; `null` until the first is published.
    published: Option<u32>,
    /// The highest version there has been; 0: none.
    latest: u32,
    /// What that version says.
    #[schema(value_type = Option<TemplateSchema>)]
    template: Option<Template>,
    /// What was put and not yet published.
    #[schema(value_type = Option<TemplateSchema>)]
    draft: Option<Template>,
    updated_at: Timestamp,
    /// By which key.
    updated_by: String,
}

impl HeadAnswer {
    pub(super) fn new(key: &str, head: &Head, published: Option<&Template>) -> Self {
        let Head { published: version, latest, draft, updated_at, updated_by } = head.clone();
        let (key, template) = (key.to_owned(), published.cloned());
        Self { key, published: version, latest, template, draft, updated_at, updated_by }
    }
}

/// A template in a list.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(as = TemplateSummary)]
pub struct Summary {
    key: String,
    /// Of the draft, or else of what is published.
    description: String,
    /// The version that notifications get; `null` until the first is published.
    published: Option<u32>,
    /// The highest version there has been; 0: none.
    latest: u32,
    /// Something was put and not yet published.
    has_draft: bool,
    updated_at: Timestamp,
    /// By which key.
    updated_by: String,
}

impl Summary {
    pub(super) fn new(key: &str, head: &Head, published: Option<&Template>) -> Self {
        Self {
            key: key.to_owned(),
            description: head.draft.as_ref().or(published).map(|t| t.description.clone()).unwrap_or_default(),
            published: head.published,
            latest: head.latest,
            has_draft: head.draft.is_some(),
            updated_at: head.updated_at,
            updated_by: head.updated_by.clone(),
        }
    }
}

/// Templates, by key.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct TemplatePage {
    pub(super) items: Vec<Summary>,
    /// For the next page; `null` on the last one.
    pub(super) next_cursor: Option<String>,
}

/// A published version. It never changes.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(as = TemplateVersion)]
pub struct VersionAnswer {
    key: String,
    /// From 1.
    version: u32,
    #[schema(value_type = TemplateSchema)]
    template: Template,
    published_at: Timestamp,
    /// By which key.
    published_by: String,
}

impl VersionAnswer {
    pub(super) fn new(of: &TemplateRef, version: Version) -> Self {
        let Version { template, published_at, published_by } = version;
        Self { key: of.key.to_string(), version: of.version, template, published_at, published_by }
    }
}
