//! `/v1/users/{user}`: where a person can be reached.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use domain::{Contacts, FieldErrors, Locale, Preferences, TenantId, Timestamp, User, UserId, config::Scope};
use jiff::{SignedDuration, tz::TimeZone};
use serde_json::{Map, Value};
use store::UserKey;
use utoipa::ToSchema;

use crate::{
    Ingress,
    auth::Caller,
    body, now,
    problem::{Document, Kind, Problem},
};

const KNOWN: [&str; 3] = ["locale", "time_zone", "contacts"];

/// A user as written.
#[derive(serde::Deserialize, ToSchema)]
pub struct UserRequest {
    /// BCP 47, for instance `de-CH`.
    locale: Option<String>,
    /// IANA, for instance `Europe/Zurich`.
    time_zone: Option<String>,
    /// At most 5 addresses by channel.
    #[serde(default)]
    contacts: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

/// A user as read; addresses are masked.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct UserAnswer {
    id: String,
    locale: Option<String>,
    time_zone: Option<String>,
    contacts: BTreeMap<String, Vec<String>>,
    updated_at: Timestamp,
}

impl From<&User> for UserAnswer {
    fn from(user: &User) -> Self {
        let mut contacts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (channel, contact) in user.contacts.iter() {
            contacts.entry(channel.to_string()).or_default().push(contact.address.masked(channel));
        }
        Self {
            id: user.id.to_string(),
            locale: user.locale.clone().map(String::from),
            time_zone: user.time_zone.clone(),
            contacts,
            updated_at: user.updated_at,
        }
    }
}

/// Writes a user; their devices and preferences stay as they are.
#[utoipa::path(
    put, path = "/v1/users/{user}", operation_id = "putUser", tag = "users", params(("user" = String, Path)), request_body = UserRequest,
    responses(
        (status = 200, body = UserAnswer),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UserAnswer>, Problem> {
    let tenant = caller.may(Scope::UsersWrite)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let mut user = parse(&bytes, tenant, &id)?;
    let key = UserKey { tenant: tenant.clone(), user: user.id.clone() };
    let before = ingress.users.get(&key).await?;
    user.updated_at = next_version(before.as_ref());
    ingress.users.put(&user, &caller.change(user.updated_at)).await?;
    Ok(Json(UserAnswer::from(&user)))
}

/// Reads a user.
#[utoipa::path(
    get, path = "/v1/users/{user}", operation_id = "getUser", tag = "users", params(("user" = String, Path)),
    responses(
        (status = 200, body = UserAnswer),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<UserAnswer>, Problem> {
    let user = load(&ingress, caller.may(Scope::UsersRead)?, &id).await?;
    Ok(Json(UserAnswer::from(&user)))
}

/// Removes a user with their contacts, devices and preferences.
#[utoipa::path(
    delete, path = "/v1/users/{user}", operation_id = "deleteUser", tag = "users", params(("user" = String, Path)),
    responses(
        (status = 204, description = "Removed"),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = load(&ingress, caller.may(Scope::UsersWrite)?, &id).await?;
    let change = caller.change(next_version(Some(&user)));
    let key = UserKey { tenant: user.tenant, user: user.id };
    if ingress.users.delete(&key, &change).await? { Ok(StatusCode::NO_CONTENT) } else { Err(no_such_user()) }
}

/// The user, or the problem that there is none.
pub(crate) async fn load(ingress: &Ingress, tenant: &TenantId, id: &str) -> Result<User, Problem> {
    let user = UserId::parse(id).map_err(|_| no_such_user())?;
    ingress.users.get(&UserKey { tenant: tenant.clone(), user }).await?.ok_or_else(no_such_user)
}

pub(crate) fn no_such_user() -> Problem {
    Problem::new(Kind::NotFound, "there is no such user; PUT /v1/users/{user} makes one")
}

/// The time of a change. Of two writes the later one wins, so a clock that lags behind the last writer's must not make this
/// one lose.
pub(crate) fn next_version(before: Option<&User>) -> Timestamp {
    let now = now();
    let devices = before.iter().flat_map(|user| &user.devices).map(|device| device.last_active_at);
    let last = devices.chain(before.map(|user| user.updated_at)).max();
    let least = last.and_then(|last| last.checked_add(SignedDuration::from_micros(1)).ok());
    least.map_or(now, |least| now.max(least))
}

fn parse(json: &[u8], tenant: &TenantId, id: &str) -> Result<User, FieldErrors> {
    let request: UserRequest = body::parse(json, "")?;
    let mut errors = FieldErrors::default();
    body::check_names(&request.extra, &KNOWN, &[], "", &mut errors);
    let id = errors.take("", UserId::parse(id));
    let locale = request.locale.and_then(|l| errors.take("/locale", Locale::parse(&l)));
    let time_zone = request.time_zone.and_then(|t| errors.take("/time_zone", time_zone(&t)));
    let contacts =
        Contacts::parse(request.contacts, "/contacts", now()).map_err(|e| errors.0.extend(e.0)).unwrap_or_default();
    let Some(id) = id else { return Err(errors) };
    errors.into_result()?;
    let (tenant, preferences, updated_at) = (tenant.clone(), Preferences::default(), Timestamp::MIN);
    Ok(User { tenant, id, locale, time_zone, contacts, devices: Vec::new(), preferences, updated_at })
}

/// The zone's name as its database writes it.
pub(crate) fn time_zone(text: &str) -> Result<String, String> {
    let zone = TimeZone::get(text).ok();
    zone.as_ref().and_then(TimeZone::iana_name).map(str::to_owned).ok_or_else(|| {
        if jiff::tz::db().is_definitively_empty() {
            return "no time zone can be checked here: an operator has to install the tz database (tzdata)".into();
        }
        "not a time zone of the IANA database, like Europe/Zurich".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_user_is_checked() {
        let tenant = TenantId::parse("acme").expect("valid");
        let json = br#"{"locale": "german", "time_zone": "Mars/Base", "contacts": {"pigeon": ["x"], "apns": ["c0ff"],
            "email": ["a@b.example", "a@b"], "webhook": ["https://a.example/", "nope"]}, "preferences": {}, "time-zone": "x"}"#;
        let errors = parse(json, &tenant, "a b").expect_err("bad");
        let mut pointers: Vec<_> = errors.0.iter().map(|e| e.pointer.as_str()).collect();
        pointers.sort_unstable();
        let all = [
            "",
            "/contacts/apns",
            "/contacts/email/1",
            "/contacts/pigeon",
            "/contacts/webhook/1",
            "/locale",
            "/preferences",
            "/time-zone",
            "/time_zone",
        ];
        assert_eq!(pointers, all);
        assert!(errors.to_string().contains("did you mean `time_zone`"), "{errors}");
        let json = br#"{"locale": "zh-Hant-TW", "time_zone": "europe/zurich"}"#;
        assert_eq!(parse(json, &tenant, "ana").expect("valid").time_zone.as_deref(), Some("Europe/Zurich"));
    }

    #[test]
    fn a_version_never_goes_back() {
        let mut user = parse(b"{}", &TenantId::parse("acme").expect("valid"), "ana").expect("valid");
        user.updated_at = now().checked_add(SignedDuration::from_hours(1)).expect("time");
        assert!(next_version(Some(&user)) > user.updated_at, "the last writer's clock was ahead");
    }
}
