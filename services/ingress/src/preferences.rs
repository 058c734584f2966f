//! `/v1/users/{user}/preferences`: what a person wants, and who changed it.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::HeaderMap,
};
use domain::{FieldErrors, Preferences, Timestamp, User, UserId, config::Scope};
use serde_json::{Map, Value};
use store::{HistoryEntry, UserKey};
use utoipa::ToSchema;

use crate::{
    Ingress,
    auth::Caller,
    body,
    deliveries::Parameters,
    problem::{Document, Problem},
    users::{load, next_version, no_such_user},
};

const KNOWN: [&str; 3] = ["all", "channels", "categories"];
const PLANNED: [&str; 2] = ["quiet_hours", "caps"];

/// The rules of a person: the narrowest wins; what is not said is allowed, unless the category is opt-in.
#[derive(ToSchema)]
#[schema(as = Preferences)]
#[expect(dead_code, reason = "documents domain::Preferences")]
pub(crate) struct PreferencesSchema {
    /// For everything that no other rule speaks of.
    all: Option<bool>,
    /// By channel or type.
    channels: Option<BTreeMap<String, bool>>,
    /// By category.
    categories: Option<BTreeMap<String, CategoryRuleSchema>>,
}

/// The rules of one category.
#[derive(ToSchema)]
#[schema(as = CategoryRule)]
#[expect(dead_code, reason = "documents domain::preferences::CategoryRule")]
pub(crate) struct CategoryRuleSchema {
    /// For the whole category.
    all: Option<bool>,
    /// By channel or type, in this category.
    channels: Option<BTreeMap<String, bool>>,
}

/// The changes of a person's preferences, the latest first.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct PreferenceHistory {
    items: Vec<PreferenceChange>,
    /// Always `null`: `limit` is all that narrows it.
    next_cursor: Option<String>,
}

/// One change.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct PreferenceChange {
    /// The name of the API key.
    by: String,
    /// The way it came in, with the client's IP address.
    from: String,
    at: Timestamp,
    /// After the change.
    #[schema(value_type = PreferencesSchema)]
    preferences: Preferences,
}

impl From<HistoryEntry> for PreferenceChange {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry { change, preferences } = entry;
        Self { by: change.by, from: change.from, at: change.at, preferences }
    }
}

/// Reads a user's preferences.
#[utoipa::path(
    get, path = "/v1/users/{user}/preferences", operation_id = "getPreferences", tag = "users", params(("user" = String, Path)),
    responses(
        (status = 200, body = PreferencesSchema),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Preferences>, Problem> {
    Ok(Json(load(&ingress, caller.may(Scope::UsersRead)?, &id).await?.preferences))
}

/// Replaces a user's preferences.
#[utoipa::path(
    put, path = "/v1/users/{user}/preferences", operation_id = "putPreferences", tag = "users", params(("user" = String, Path)),
    request_body = PreferencesSchema,
    responses(
        (status = 200, body = PreferencesSchema),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Preferences>, Problem> {
    let tenant = caller.may(Scope::UsersWrite)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let preferences = parse(body::parse(&bytes, "")?)?;
    let _turn = ingress.user_turns.of(tenant, &id).await;
    let user = load(&ingress, tenant, &id).await?;
    write(&ingress, &caller, user, preferences).await
}

/// Changes a user's preferences by a JSON merge patch (RFC 7396): what is not named stays, `null` removes.
#[utoipa::path(
    patch, path = "/v1/users/{user}/preferences", operation_id = "patchPreferences", tag = "users", params(("user" = String, Path)),
    request_body(content = PreferencesSchema, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, body = PreferencesSchema),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn patch(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Preferences>, Problem> {
    let tenant = caller.may(Scope::UsersWrite)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let patch: Map<String, Value> = body::parse(&bytes, "")?;
    let _turn = ingress.user_turns.of(tenant, &id).await;
    let user = load(&ingress, tenant, &id).await?;
    let mut merged = serde_json::to_value(&user.preferences).map_err(Problem::internal)?;
    merge(&mut merged, Value::Object(patch));
    let Value::Object(merged) = merged else { return Err(Problem::field("", "preferences are an object")) };
    let preferences = parse(merged)?;
    write(&ingress, &caller, user, preferences).await
}

async fn write(
    ingress: &Ingress,
    caller: &Caller,
    user: User,
    preferences: Preferences,
) -> Result<Json<Preferences>, Problem> {
    let change = caller.change(next_version(Some(&user)));
    let key = UserKey { tenant: user.tenant, user: user.id };
    let written = ingress.users.put_preferences(&key, &preferences, &change).await?;
    if written { Ok(Json(preferences)) } else { Err(no_such_user()) }
}

/// Who changed a user's preferences, when and from where.
#[utoipa::path(
    get, path = "/v1/users/{user}/preferences/history", operation_id = "getPreferenceHistory", tag = "users",
    params(("user" = String, Path), ("limit" = Option<u16>, Query, description = "1 to 1,000; 50 if left out")),
    responses(
        (status = 200, body = PreferenceHistory),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn history(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<PreferenceHistory>, Problem> {
    let tenant = caller.may(Scope::UsersRead)?.clone();
    let mut parameters = Parameters::read(pairs, &["limit"], &[]);
    let limit = parameters.limit();
    parameters.finish()?;
    let key = UserKey { tenant, user: UserId::parse(&id).map_err(|_| no_such_user())? };
    let entries = ingress.users.history(&key, limit).await?;
    // the history of somebody who was removed is still there
    if entries.is_empty() {
        load(&ingress, &key.tenant, &id).await?;
    }
    Ok(Json(PreferenceHistory { items: entries.into_iter().map(PreferenceChange::from).collect(), next_cursor: None }))
}

fn parse(mut raw: Map<String, Value>) -> Result<Preferences, FieldErrors> {
    let mut errors = FieldErrors::default();
    let (known, extra) = std::mem::take(&mut raw).into_iter().partition(|(k, _)| KNOWN.contains(&k.as_str()));
    body::check_names(&extra, &KNOWN, &PLANNED, "", &mut errors);
    let known = Value::Object(known);
    let parsed = body::shape::<Preferences>(&known, "").and_then(|p| p.check("").map(|()| p));
    let preferences = parsed.map_err(|e| errors.0.extend(e.0)).unwrap_or_default();
    errors.into_result().map(|()| preferences)
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_like_the_examples_of_rfc_7396() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, expected, "{target} + {patch}");
        }
    }

    #[test]
    fn all_problems_of_preferences_are_told() {
        let bad = json!({"quiet_hours": [], "caps": {}, "chanels": {}, "channels": {"pigeon": true},
            "categories": {"orders": {"channels": {"emial": false}}}});
        let Value::Object(bad) = bad else { panic!("an object") };
        let errors = parse(bad).expect_err("bad");
        let mut pointers: Vec<_> = errors.0.iter().map(|e| e.pointer.as_str()).collect();
        pointers.sort_unstable();
        let all = ["/caps", "/categories/orders/channels/emial", "/chanels", "/channels/pigeon", "/quiet_hours"];
        assert_eq!(pointers, all);
        assert!(errors.to_string().contains("`quiet_hours` is not yet built"), "{errors}");
    }
}
