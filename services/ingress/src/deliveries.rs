//! `/v1/deliveries`: the search.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::{Query, State},
};
use domain::{
    CategoryKey, Channel, FieldErrors, NotificationId, Reason, State as DeliveryState, TemplateKey, TemplateRef,
    Timestamp, UserId, config::Scope,
};
use store::DeliveryQuery;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Ingress,
    auth::Caller,
    body,
    notifications::view,
    problem::{Document, Problem},
};

/// Items of a page, unless the client says.
pub const DEFAULT_LIMIT: usize = 50;
/// Most items of a page.
pub const MAX_LIMIT: usize = 1000;

const KNOWN: [&str; 13] = [
    "user",
    "notification",
    "channel",
    "provider",
    "state",
    "reason",
    "template",
    "category",
    "since",
    "until",
    "q",
    "cursor",
    "limit",
];
/// Most characters of a provider's name, and of a search for words.
const MAX_TEXT: usize = 200;

/// A page of deliveries, newest first.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct DeliveryPage {
    items: Vec<view::Delivery>,
    /// For the next page; `null` on the last one.
    next_cursor: Option<String>,
}

/// For the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters; they are parsed by name, so that all errors are told at once")]
pub(crate) struct Search {
    /// Of this user.
    user: Option<String>,
    /// Of this notification.
    notification: Option<uuid::Uuid>,
    /// On this channel.
    channel: Option<String>,
    /// Sent by this provider.
    provider: Option<String>,
    /// In this state.
    state: Option<String>,
    /// For this reason.
    reason: Option<String>,
    /// Made from this template: `order-shipped` for every version, or `order-shipped@3`.
    template: Option<String>,
    /// Of this category.
    category: Option<String>,
    /// Accepted then or later.
    since: Option<Timestamp>,
    /// Accepted before.
    until: Option<Timestamp>,
    /// All of these words, each whole, in any order and case: in values of metadata, answers of providers that say more than
    /// `HTTP 200`, ids, user, template or category.
    q: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 50 if left out.
    limit: Option<u16>,
}

/// Searches a tenant's deliveries; everything that is given must hold.
#[utoipa::path(
    get, path = "/v1/deliveries", operation_id = "searchDeliveries", tag = "deliveries", params(Search),
    responses(
        (status = 200, body = DeliveryPage),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn search(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<DeliveryPage>, Problem> {
    let tenant = caller.may(Scope::NotificationsRead)?;
    let mut parameters = Parameters::read(pairs, &KNOWN, &[]);
    let query = DeliveryQuery {
        user: parameters.take("user", UserId::parse),
        notification: parameters.take("notification", |t| t.parse::<NotificationId>()),
        channel: parameters.take("channel", Channel::parse),
        state: parameters.take("state", DeliveryState::parse),
        reason: parameters.take("reason", Reason::parse),
        category: parameters.take("category", CategoryKey::parse),
        provider: parameters.take("provider", text),
        template: parameters.take("template", template),
        q: parameters.take("q", text),
        since: parameters.take("since", time),
        until: parameters.take("until", time),
    };
    let limit = parameters.limit();
    let cursor = parameters.take("cursor", |t| Ok(t.to_owned()));
    parameters.finish()?;
    let page = ingress.deliveries.search(tenant, &query, cursor.as_deref(), limit).await?;
    let page = page.ok_or_else(|| Problem::field("/cursor", "not a cursor of this search; begin without one"))?;
    let items = page.items.into_iter().map(view::Delivery::from).collect();
    Ok(Json(DeliveryPage { items, next_cursor: page.next_cursor }))
}

/// `key` or `key@3`.
fn template(text: &str) -> Result<String, String> {
    match text.contains('@') {
        true => TemplateRef::parse(text).map(|version| version.to_string()),
        false => TemplateKey::parse(text).map(String::from),
    }
}

fn text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(format!("give 1 to {MAX_TEXT} characters, none of them a control character"));
    }
    Ok(text.to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "not a time; write it as RFC 3339 has it, like 2026-12-01T09:00:00Z".to_owned())
}

/// Query parameters by name, and what is wrong with them.
pub(crate) struct Parameters {
    given: BTreeMap<String, String>,
    errors: FieldErrors,
}

impl Parameters {
    /// Refuses the names that are unknown or planned, and those that are given twice.
    pub(crate) fn read(pairs: Vec<(String, String)>, known: &[&str], planned: &[&str]) -> Self {
        let mut errors = FieldErrors::default();
        let mut given = BTreeMap::new();
        for (name, value) in pairs {
            let pointer = format!("/{}", domain::content::escape(&name));
            if planned.contains(&name.as_str()) {
                errors.add(pointer, format!("the parameter `{name}` is not yet built in this version"));
            } else if !known.contains(&name.as_str()) {
                errors.add(pointer, format!("the parameter {}", body::unknown(&name, known)));
            } else if given.insert(name, value).is_some() {
                errors.add(pointer, "given more than once");
            }
        }
        Self { given, errors }
    }

    /// The parsed value of a parameter that was given.
    pub(crate) fn take<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.given.remove(name)?;
        self.errors.take(&format!("/{name}"), parse(&value))
    }

    pub(crate) fn limit(&mut self) -> usize {
        let parse = |t: &str| {
            let limit = t.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
            limit.ok_or_else(|| format!("a limit is 1 to 1,000; {DEFAULT_LIMIT} if left out"))
        };
        self.take("limit", parse).unwrap_or(DEFAULT_LIMIT)
    }

    pub(crate) fn finish(self) -> Result<(), FieldErrors> {
        self.errors.into_result()
    }
}
