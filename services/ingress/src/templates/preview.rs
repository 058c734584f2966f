//! `/v1/templates/{key}/preview`: what a template would say, and what would keep it from saying it.

use ::templates::{Compiled, Limits};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::HeaderMap,
};
use bus::config::Snapshot;
use domain::{Channel, Content, FieldErrors, Locale, template::Template};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{place::Place, view::TemplateSchema};
use crate::{
    Ingress,
    auth::Caller,
    body,
    config::Whose,
    problem::{Document, Problem},
};

const KNOWN: [&str; 5] = ["channel", "data", "locale", "version", "template"];

/// What to render.
#[derive(serde::Deserialize, ToSchema)]
pub struct PreviewRequest {
    /// For which channel.
    #[schema(required, value_type = String)]
    channel: Option<String>,
    /// Values of the variables.
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, Value>,
    /// In which language, for instance `de-CH`; left out, the template's own.
    locale: Option<String>,
    /// A published version; left out, the draft, or else the version that is published.
    version: Option<u32>,
    /// One that is not kept anywhere, instead.
    #[schema(value_type = Option<TemplateSchema>)]
    template: Option<Template>,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

/// What a template says.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Preview {
    /// The channel's own content if it has some, else the default.
    #[schema(value_type = Object)]
    content: Content,
    /// What it is written in.
    locale: String,
}

/// A rendering that can be made.
struct Job {
    template: Template,
    /// The template's own pointer.
    at: &'static str,
    channel: Channel,
    locale: Option<Locale>,
    data: Map<String, Value>,
}

/// Renders the draft, a version, or a template that is not kept anywhere. What fails is told by its place in the template.
#[utoipa::path(
    post, path = "/v1/templates/{key}/preview", operation_id = "previewTemplate", tag = "templates",
    params(("key" = String, Path), Whose), request_body = PreviewRequest,
    responses(
        (status = 200, body = Preview),
        (status = "4XX", description = "Refused, or it cannot be rendered", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn post(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Preview>, Problem> {
    let place = Place::new(&caller, &key, pairs)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let job = job(body::parse(&bytes, "")?, &place, &ingress.config.snapshot())?;
    super::aside(move || render(&job)).await
}

fn job(request: PreviewRequest, place: &Place, config: &Snapshot) -> Result<Job, Problem> {
    let mut errors = FieldErrors::default();
    body::check_names(&request.extra, &KNOWN, &[], "", &mut errors);
    let channel = request.channel.ok_or_else(|| "is missing".to_owned()).and_then(|text| Channel::parse(&text));
    let channel = errors.take("/channel", channel);
    let locale = request.locale.and_then(|l| errors.take("/locale", Locale::parse(&l)));
    if request.version.is_some() && request.template.is_some() {
        errors.add("/version", "give one of `version` and `template`, not both");
    }
    let (Some(channel), true) = (channel, errors.0.is_empty()) else { return Err(errors.into()) };
    let at = if request.template.is_some() { "/template" } else { "" };
    let template = match request.template {
        Some(template) => template,
        None => kept(request.version, place, config)?,
    };
    Ok(Job { template, at, channel, locale, data: request.data })
}

fn kept(version: Option<u32>, place: &Place, config: &Snapshot) -> Result<Template, Problem> {
    let head = config.template(&place.tenant, &place.key).ok_or_else(|| place.not_found())?;
    let Some(version) = version else {
        let published = || head.published.and_then(|version| place.says(config, version));
        return head.draft.as_ref().or_else(published).cloned().ok_or_else(|| place.not_found());
    };
    let says = place.says(config, version).cloned();
    says.ok_or_else(|| {
        Problem::field("/version", format!("there is no version {version}; the latest is {}", head.latest))
    })
}

/// As the router does it.
fn render(job: &Job) -> Result<Json<Preview>, Problem> {
    ::templates::check(&job.template, job.at)?;
    ::templates::check_data(&job.template, &job.data, "/data")?;
    let compiled = Compiled::new(&job.template)?;
    let wanted: Vec<_> = job.locale.iter().collect();
    let rendered = compiled
        .render(job.channel, &wanted, &job.data, Limits::default())
        .map_err(|e| Problem::field(&format!("{}{}", job.at, e.pointer), e.detail))?;
    rendered.content.check(&format!("{}/contents/{}", job.at, rendered.locale))?;
    Ok(Json(Preview { content: rendered.content, locale: rendered.locale.into() }))
}
