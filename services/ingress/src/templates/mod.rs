//! `/v1/templates`: what is said, in drafts and in versions that never change. For operators.

mod place;
pub mod preview;
pub mod view;

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    body::{Body, HttpBody as _},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
};
use bus::config::Snapshot;
use domain::{
    FieldErrors, TemplateKey, TemplateRef, TenantId,
    config::{EntryKey, Kind, Scope},
    content::escape,
    template::{Head, Template, Version},
};
use serde::{Serialize, de::IgnoredAny};
use serde_json::{Map, Value};

use self::{
    place::Place,
    view::{HeadAnswer, Summary, TemplatePage, TemplateSchema, VersionAnswer},
};
use crate::{
    Ingress,
    auth::Caller,
    body,
    config::{self, Whose},
    deliveries::Parameters,
    now,
    problem::{self, Document, Problem},
};

/// Writes the draft of a template. Notifications go on getting the version that is published.
#[utoipa::path(
    put, path = "/v1/templates/{key}", operation_id = "putTemplate", tag = "templates",
    params(("key" = String, Path), Whose), request_body = TemplateSchema,
    responses(
        (status = 200, body = HeadAnswer),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<HeadAnswer>, Problem> {
    let place = Place::new(&caller, &key, pairs)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let template = aside(move || parse(&bytes)).await?;
    let _turn = ingress.template_turns.of(&place.tenant, &key).await;
    let config = ingress.config.snapshot();
    config::check_tenant(&config, &place.tenant)?;
    let before = config.template(&place.tenant, &place.key);
    let head = Head {
        published: before.and_then(|head| head.published),
        // versions whose head was removed keep their numbers
        latest: before.map_or_else(|| highest(&place, &config), |head| head.latest),
        draft: Some(template),
        updated_at: now(),
        updated_by: caller.name.to_string(),
    };
    write(&ingress, &place.head(), &head).await?;
    tracing::info!(by = &*caller.name, tenant = %place.tenant, template = key, "template drafted");
    Ok(Json(answer(&place, &head, &ingress.config.snapshot())))
}

/// Reads where a template stands: its draft, and what is published.
#[utoipa::path(
    get, path = "/v1/templates/{key}", operation_id = "getTemplate", tag = "templates", params(("key" = String, Path), Whose),
    responses(
        (status = 200, body = HeadAnswer),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<HeadAnswer>, Problem> {
    let place = Place::new(&caller, &key, pairs)?;
    let config = ingress.config.snapshot();
    let head = config.template(&place.tenant, &place.key).ok_or_else(|| place.not_found())?;
    Ok(Json(answer(&place, head, &config)))
}

/// Lists the templates.
#[utoipa::path(
    get, path = "/v1/templates", operation_id = "listTemplates", tag = "templates",
    params(
        Whose,
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u16>, Query, description = "1 to 1,000; 50 if left out"),
    ),
    responses(
        (status = 200, body = TemplatePage),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<TemplatePage>, Problem> {
    caller.has(Scope::Operator)?;
    let mut parameters = Parameters::read(pairs, &["tenant", "cursor", "limit"], &[]);
    let limit = parameters.limit();
    let after = parameters.take("cursor", TemplateKey::parse);
    let tenant = parameters.take("tenant", TenantId::parse);
    parameters.finish()?;
    let tenant = config::whose(&caller, tenant)?;
    let after = after.map_or_else(String::new, String::from);
    let config = ingress.config.snapshot();
    let from = EntryKey { tenant: tenant.clone(), kind: Kind::Templates, name: after.clone() };
    let entries = config.entries.range(from..).map(|(at, _)| at);
    let entries = entries.take_while(|at| at.tenant == tenant && at.kind == Kind::Templates);
    let mut heads = entries.filter(|at| at.name != after).filter_map(|at| TemplateKey::parse(&at.name).ok());
    let summary = |key: TemplateKey| {
        let head = config.template(&tenant, &key)?;
        let place = Place { tenant: tenant.clone(), key };
        Some(Summary::new(place.key.as_str(), head, published(&place, head, &config)))
    };
    let keys: Vec<_> = heads.by_ref().take(limit).collect();
    let next_cursor = heads.next().and_then(|_| keys.last()).map(TemplateKey::to_string);
    Ok(Json(TemplatePage { items: keys.into_iter().filter_map(summary).collect(), next_cursor }))
}

/// Reads a published version.
#[utoipa::path(
    get, path = "/v1/templates/{key}/versions/{version}", operation_id = "getTemplateVersion", tag = "templates",
    params(("key" = String, Path), ("version" = u32, Path), Whose),
    responses(
        (status = 200, body = VersionAnswer),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn version(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path((key, version)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<VersionAnswer>, Problem> {
    let place = Place::new(&caller, &key, pairs)?;
    let nothing = || Problem::new(problem::Kind::NotFound, "the template has no such version");
    let of = TemplateRef::parse(&format!("{key}@{version}")).map_err(|_| nothing())?;
    let found = place.read(&ingress.config.snapshot(), of.version).ok_or_else(nothing)?;
    Ok(Json(VersionAnswer::new(&of, found)))
}

/// Publishes the draft as the next version, which never changes; notifications get it from then on. To publish what is
/// published already changes nothing.
#[utoipa::path(
    post, path = "/v1/templates/{key}/publish", operation_id = "publishTemplate", tag = "templates",
    params(("key" = String, Path), Whose),
    responses(
        (status = 200, description = "The version that notifications get now", body = VersionAnswer),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn publish(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<VersionAnswer>, Problem> {
    let place = Place::new(&caller, &key, pairs)?;
    if !body.is_end_stream() {
        no_fields(&body::read(&ingress, &headers, body).await?)?;
    }
    let _turn = ingress.template_turns.of(&place.tenant, &key).await;
    let config = ingress.config.snapshot();
    let head = config.template(&place.tenant, &place.key).ok_or_else(|| place.not_found())?;
    let current = head.published.and_then(|version| Some((place.version(version), place.read(&config, version)?)));
    let (of, version) = match (&head.draft, current) {
        (None, Some((of, version))) => return Ok(Json(VersionAnswer::new(&of, version))),
        (None, None) => {
            let detail = format!("there is no draft to publish; PUT /v1/templates/{key} writes one");
            return Err(Problem::new(problem::Kind::Conflict, detail));
        }
        (Some(draft), Some((of, version))) if version.template == *draft => (of, version),
        (Some(draft), _) => keep(&ingress, &caller, &place, head, draft, &config).await?,
    };
    let head = Head {
        published: Some(of.version),
        latest: of.version.max(head.latest),
        draft: None,
        updated_at: now(),
        updated_by: caller.name.to_string(),
    };
    write(&ingress, &place.head(), &head).await?;
    tracing::info!(by = &*caller.name, tenant = %place.tenant, template = %of, "template published");
    Ok(Json(VersionAnswer::new(&of, version)))
}

/// Writes the draft as a version, before anything says that there is one. If the process dies then, publishing the same draft
/// again finds it, and another draft gets the number after it.
async fn keep(
    ingress: &Ingress,
    caller: &Caller,
    place: &Place,
    head: &Head,
    draft: &Template,
    config: &Snapshot,
) -> Result<(TemplateRef, Version), Problem> {
    let highest = highest(place, config);
    let untold = place.read(config, highest).filter(|v| highest > head.latest && v.template == *draft);
    if let Some(version) = untold {
        return Ok((place.version(highest), version));
    }
    let of = place.version(highest.max(head.latest) + 1);
    let version = Version { template: draft.clone(), published_at: now(), published_by: caller.name.to_string() };
    write(ingress, &place.entry(&of), &version).await?;
    Ok((of, version))
}

/// Removes a template with its versions. What was accepted with it and is not rendered yet fails.
#[utoipa::path(
    delete, path = "/v1/templates/{key}", operation_id = "deleteTemplate", tag = "templates",
    params(("key" = String, Path), Whose),
    responses(
        (status = 204, description = "Removed"),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<StatusCode, Problem> {
    let place = Place::new(&caller, &key, pairs)?;
    let _turn = ingress.template_turns.of(&place.tenant, &key).await;
    let config = ingress.config.snapshot();
    let head = place.head();
    // without a head nothing more is accepted; if the process dies then, what is left can be removed the same way
    let entries = [&head].into_iter().filter(|at| config.entries.contains_key(*at));
    let entries: Vec<_> = entries.chain(place.versions(&config).map(|(_, at)| at)).collect();
    if entries.is_empty() {
        return Err(place.not_found());
    }
    for at in entries {
        ingress.config.put(at, None).await?;
    }
    tracing::info!(by = &*caller.name, tenant = %place.tenant, template = key, "template removed");
    Ok(StatusCode::NO_CONTENT)
}

fn no_fields(json: &[u8]) -> Result<(), FieldErrors> {
    let given: Map<String, Value> = body::parse(json, "")?;
    let mut errors = FieldErrors::default();
    for name in given.keys() {
        errors.add(format!("/{}", escape(name)), "publishing takes no fields: it publishes the draft");
    }
    errors.into_result()
}

fn parse(json: &[u8]) -> Result<Template, Problem> {
    #[derive(serde::Deserialize)]
    struct Written {
        contents: BTreeMap<String, IgnoredAny>,
    }
    let template: Template = body::parse(json, "")?;
    let written: Written = body::parse(json, "")?;
    let mut errors = ::templates::check(&template, "").err().unwrap_or_default();
    if written.contents.len() > template.contents.len() {
        errors.add("/contents", "two of the locales are the same one, such as de-CH and de_ch");
    }
    errors.into_result()?;
    Ok(template)
}

/// The highest version that is there, or 0.
fn highest(place: &Place, config: &Snapshot) -> u32 {
    place.versions(config).map(|(of, _)| of.version).max().unwrap_or(0)
}

fn published<'a>(place: &Place, head: &Head, config: &'a Snapshot) -> Option<&'a Template> {
    place.says(config, head.published?)
}

fn answer(place: &Place, head: &Head, config: &Snapshot) -> HeadAnswer {
    HeadAnswer::new(place.key.as_str(), head, published(place, head, config))
}

async fn write(ingress: &Ingress, at: &EntryKey, entry: &impl Serialize) -> Result<(), Problem> {
    let value = serde_json::to_value(entry).map_err(Problem::internal)?;
    bus::config::check(at, &value).map_err(Problem::internal)?;
    Ok(ingress.config.put(at, Some(&value)).await?)
}

/// Runs what may take long where it keeps nobody waiting.
async fn aside<T: Send + 'static>(job: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(job).await.map_err(Problem::internal)?
}
