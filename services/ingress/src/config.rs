//! `/v1/config`: tenants, keys, categories, accounts and sources, for operators. Templates are only shown here.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
};
use bus::config::Snapshot;
use domain::{
    TenantId,
    config::{EntryKey, Kind, Scope, parse_name},
};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Ingress,
    auth::Caller,
    body,
    deliveries::Parameters,
    entries,
    problem::{self, Document, Problem},
};

/// Entries of one kind, by name.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct EntryPage {
    items: Vec<Entry>,
    /// For the next page; `null` on the last one.
    next_cursor: Option<String>,
}

/// One entry; secrets are hidden.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Entry {
    name: String,
    #[schema(value_type = Object)]
    value: Value,
}

/// For the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameter; it is parsed by name")]
pub(crate) struct Whose {
    /// For the installation's operator key: whose entries. A tenant's key has its own tenant.
    tenant: Option<String>,
}

/// Reads an entry.
#[utoipa::path(
    get, path = "/v1/config/{kind}/{name}", operation_id = "getConfig", tag = "config",
    params(("kind" = String, Path, description = "tenants, keys, categories, accounts, sources or templates"), ("name" = String, Path), Whose),
    responses(
        (status = 200, body = Object),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let at = place(&caller, &kind, &name, pairs)?;
    let config = ingress.config.snapshot();
    let value = config.entries.get(&at).ok_or_else(|| not_found(&at))?;
    Ok(Json(entries::shown(at.kind, value)))
}

/// Lists the entries of a kind.
#[utoipa::path(
    get, path = "/v1/config/{kind}", operation_id = "listConfig", tag = "config",
    params(
        ("kind" = String, Path, description = "tenants, keys, categories, accounts, sources or templates"), Whose,
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u16>, Query, description = "1 to 1,000; 50 if left out"),
    ),
    responses(
        (status = 200, body = EntryPage),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(kind): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<EntryPage>, Problem> {
    caller.has(Scope::Operator)?;
    let mut parameters = Parameters::read(pairs, &["tenant", "cursor", "limit"], &[]);
    let kind = parse_kind(&kind)?;
    let limit = parameters.limit();
    let after = parameters.take("cursor", |name| parse_name(kind, name));
    let tenant = parameters.take("tenant", TenantId::parse);
    parameters.finish()?;
    let tenant = match kind {
        // the operator sees all tenants, a tenant only itself
        Kind::Tenants if caller.tenant.is_none() => tenant,
        _ => Some(whose(&caller, tenant)?),
    };
    let config = ingress.config.snapshot();
    let mut found = config.entries.iter().filter(|(at, _)| {
        at.kind == kind
            && tenant.as_ref().is_none_or(|t| at.tenant == *t)
            && after.as_ref().is_none_or(|a| at.name > *a)
    });
    let items: Vec<Entry> = (found.by_ref().take(limit))
        .map(|(at, value)| Entry { name: at.name.clone(), value: entries::shown(kind, value) })
        .collect();
    let next_cursor = found.next().and_then(|_| items.last()).map(|last| last.name.clone());
    Ok(Json(EntryPage { items, next_cursor }))
}

/// Writes an entry; it replaces one of the same name. Every service sees it within moments.
#[utoipa::path(
    put, path = "/v1/config/{kind}/{name}", operation_id = "putConfig", tag = "config",
    params(("kind" = String, Path, description = "tenants, keys, categories, accounts, sources or templates"), ("name" = String, Path), Whose),
    request_body(content = Object, description = "A tenant: `title`. A key: `key` (kept only as its hash) or `sha256`, \
        `scopes`, `revoked`. A category: `channels`, `opt_in`. An account: `channel` and its secrets. A source: `source`, whose CloudEvents are the tenant's. \
        Templates are put at `/v1/templates/{key}` instead."),
    responses(
        (status = 200, description = "As it is kept now, secrets hidden", body = Object),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let at = place(&caller, &kind, &name, pairs)?;
    may_write(&caller, &at)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let value = entries::parse(at.kind, &bytes)?;
    bus::config::check(&at, &value).map_err(|detail| Problem::field("", detail))?;
    check_place(&ingress.config.snapshot(), &at, &value)?;
    ingress.config.put(&at, Some(&value)).await?;
    tracing::info!(by = &*caller.name, kind = %at.kind, tenant = %at.tenant, name = at.name, "configuration entry written");
    Ok(Json(entries::shown(at.kind, &value)))
}

/// Removes an entry.
#[utoipa::path(
    delete, path = "/v1/config/{kind}/{name}", operation_id = "deleteConfig", tag = "config",
    params(("kind" = String, Path, description = "tenants, keys, categories, accounts, sources or templates"), ("name" = String, Path), Whose),
    responses(
        (status = 204, description = "Removed"),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<StatusCode, Problem> {
    let at = place(&caller, &kind, &name, pairs)?;
    may_write(&caller, &at)?;
    if at.kind == Kind::Templates {
        return Err(Problem::field("", "templates are removed, with their versions, at DELETE /v1/templates/{key}"));
    }
    let config = ingress.config.snapshot();
    if !config.entries.contains_key(&at) {
        return Err(not_found(&at));
    }
    let rest =
        config.entries.keys().find(|e| at.kind == Kind::Tenants && e.kind != Kind::Tenants && e.tenant == at.tenant);
    if let Some(rest) = rest {
        let detail = format!("the tenant still has entries, such as {}/{}; remove these first", rest.kind, rest.name);
        return Err(Problem::new(problem::Kind::Conflict, detail));
    }
    ingress.config.put(&at, None).await?;
    tracing::info!(by = &*caller.name, kind = %at.kind, tenant = %at.tenant, name = at.name, "configuration entry removed");
    Ok(StatusCode::NO_CONTENT)
}

fn parse_kind(text: &str) -> Result<Kind, Problem> {
    Kind::parse(text).map_err(|detail| {
        let planned = detail.contains("not yet built");
        Problem::new(if planned { problem::Kind::NotYet } else { problem::Kind::NotFound }, detail)
    })
}

/// Where the request points, as far as the caller may look.
fn place(caller: &Caller, kind: &str, name: &str, pairs: Vec<(String, String)>) -> Result<EntryKey, Problem> {
    caller.has(Scope::Operator)?;
    let mut parameters = Parameters::read(pairs, &["tenant"], &[]);
    let named = parameters.take("tenant", TenantId::parse);
    parameters.finish()?;
    let kind = parse_kind(kind)?;
    let name = parse_name(kind, name).map_err(|detail| Problem::field("", detail))?;
    let tenant = if kind == Kind::Tenants {
        let own = TenantId::parse(&name).map_err(|detail| Problem::field("", detail))?;
        whose(caller, Some(named.unwrap_or(own)))?
    } else {
        whose(caller, named)?
    };
    let at = EntryKey { tenant, kind, name };
    if kind == Kind::Tenants && at.name != at.tenant.as_str() {
        return Err(not_found(&at));
    }
    Ok(at)
}

/// The tenant that the caller speaks of. Another tenant does not exist for a tenant's key.
pub(crate) fn whose(caller: &Caller, named: Option<TenantId>) -> Result<TenantId, Problem> {
    match (&caller.tenant, named) {
        (None, Some(named)) => Ok(named),
        (None, None) => {
            Err(Problem::field("/tenant", "the operator key has no tenant of its own: name one with ?tenant=…"))
        }
        (Some(own), None) => Ok(own.clone()),
        (Some(own), Some(named)) if *own == named => Ok(named),
        (Some(_), Some(_)) => Err(Problem::new(problem::Kind::NotFound, "there is no such tenant")),
    }
}

fn may_write(caller: &Caller, at: &EntryKey) -> Result<(), Problem> {
    if at.kind == Kind::Tenants && caller.tenant.is_some() {
        let detail = "only the installation's operator key (the setting ingress.operator_key) may change tenants";
        return Err(Problem::new(problem::Kind::Forbidden, detail));
    }
    Ok(())
}

/// What an entry needs around it.
fn check_place(config: &Snapshot, at: &EntryKey, value: &Value) -> Result<(), Problem> {
    if at.kind != Kind::Tenants {
        check_tenant(config, &at.tenant)?;
    }
    // a key decides the tenant, so it can only be in one place
    let sha256 = value.get("sha256").and_then(Value::as_str).filter(|_| at.kind == Kind::Keys);
    if sha256.and_then(|s| config.key(s)).is_some_and(|(holder, _)| holder != at) {
        return Err(Problem::new(problem::Kind::Conflict, "this key is in use already; choose another one"));
    }
    let source = value.get("source").and_then(Value::as_str).filter(|_| at.kind == Kind::Sources);
    if source.and_then(|s| config.source(s)).is_some_and(|holder| holder != at) {
        return Err(Problem::new(problem::Kind::Conflict, "this source is bound already; one source has one owner"));
    }
    Ok(())
}

/// Nothing is written for a tenant that does not exist.
pub(crate) fn check_tenant(config: &Snapshot, tenant: &TenantId) -> Result<(), Problem> {
    if config.tenant(tenant).is_some() {
        return Ok(());
    }
    let detail = format!("there is no tenant `{tenant}`; PUT /v1/config/tenants/{tenant} makes it");
    Err(Problem::new(problem::Kind::NotFound, detail))
}

fn not_found(at: &EntryKey) -> Problem {
    Problem::new(problem::Kind::NotFound, format!("there is no {}/{}", at.kind, at.name))
}
