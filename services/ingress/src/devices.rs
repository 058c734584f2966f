//! `/v1/users/{user}/devices`: where pushes go.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use domain::{
    Address, Channel, Device, DeviceId, Environment, FieldErrors, Locale, TenantId, Timestamp, config::Scope, device,
};
use serde_json::{Map, Value};
use store::UserKey;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Ingress,
    auth::Caller,
    body, now,
    problem::{Document, Kind, Problem},
    users::{load, next_version, no_such_user, time_zone},
};

const KNOWN: [&str; 7] = ["platform", "app", "token", "locale", "time_zone", "environment", "replaces"];
const PLANNED: [&str; 1] = ["subscription"];
/// Platforms of the contract that cannot be reached yet.
const PLANNED_PLATFORMS: [&str; 2] = ["fcm", "webpush"];

// without `Debug`: the token is personal
/// A device as it registers.
#[derive(serde::Deserialize, ToSchema)]
pub struct DeviceRequest {
    /// `apns`.
    #[schema(required, value_type = String)]
    platform: Option<String>,
    /// The app on it: a bundle id.
    #[schema(required, value_type = String, example = "com.example.app")]
    app: Option<String>,
    /// What the platform knows it by: hexadecimal, at most 200 digits.
    #[schema(required, value_type = String)]
    token: Option<String>,
    /// What its owner reads on it, for instance `de-CH`.
    locale: Option<String>,
    /// IANA, for instance `Europe/Zurich`.
    time_zone: Option<String>,
    /// `production`, or `sandbox` for an app in development.
    #[schema(default = "production")]
    environment: Option<String>,
    /// The id of the device that this one takes the place of: the same app had another token before.
    #[schema(value_type = Option<Uuid>)]
    replaces: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

/// A device as read; its token is masked.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct DeviceAnswer {
    /// The same for the same platform, app and token.
    id: Uuid,
    platform: String,
    app: String,
    /// Its last four digits.
    token: String,
    /// `production` or `sandbox`.
    #[schema(value_type = String)]
    environment: Environment,
    locale: Option<String>,
    time_zone: Option<String>,
    registered_at: Timestamp,
    last_active_at: Timestamp,
}

/// A device that was registered.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Registered {
    #[serde(flatten)]
    device: DeviceAnswer,
    /// The devices that had to make room, the least recently active first.
    evicted: Vec<Uuid>,
}

/// A user's devices.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct DeviceList {
    items: Vec<DeviceAnswer>,
    /// Always `null`: there are few.
    next_cursor: Option<String>,
}

impl From<&Device> for DeviceAnswer {
    fn from(device: &Device) -> Self {
        Self {
            id: device.id.0,
            platform: device.channel.to_string(),
            app: device.app.clone(),
            token: device.token.masked(device.channel),
            environment: device.environment,
            locale: device.locale.clone().map(String::from),
            time_zone: device.time_zone.clone(),
            registered_at: device.registered_at,
            last_active_at: device.last_active_at,
        }
    }
}

/// Registers a device, or once more with what is new about it. Of more devices than a user may have the least recently
/// active make room; another user of the tenant who had this one loses it.
#[utoipa::path(
    post, path = "/v1/users/{user}/devices", operation_id = "registerDevice", tag = "users", params(("user" = String, Path)),
    request_body = DeviceRequest,
    responses(
        (status = 201, description = "It is new", body = Registered),
        (status = 200, description = "It was there and is refreshed", body = Registered),
        (status = "4XX", description = "Refused; nothing was changed", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn post(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Registered>), Problem> {
    let tenant = caller.may(Scope::UsersWrite)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let (device, replaces) = parse(&bytes, tenant)?;
    let user = load(&ingress, tenant, &id).await?;
    let change = caller.change(next_version(Some(&user)));
    let key = UserKey { tenant: user.tenant, user: user.id };
    let evicted = ingress.users.put_device(&key, &device, replaces, ingress.devices_per_user, &change).await?;
    let evicted = evicted.ok_or_else(no_such_user)?.iter().map(|device| device.id.0).collect();
    // another change of a later time may have won, and what is not kept must not be confirmed
    let kept = ingress.users.get(&key).await?.and_then(|user| user.devices.into_iter().find(|d| d.id == device.id));
    let kept = kept.ok_or_else(|| {
        Problem::new(
            Kind::Conflict,
            "the device was removed, or registered for somebody else, meanwhile; send it again",
        )
    })?;
    let known = user.devices.iter().any(|d| d.id == device.id);
    let status = if known { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Registered { device: DeviceAnswer::from(&kept), evicted })))
}

/// Lists a user's devices, the most recently active first.
#[utoipa::path(
    get, path = "/v1/users/{user}/devices", operation_id = "listDevices", tag = "users", params(("user" = String, Path)),
    responses(
        (status = 200, body = DeviceList),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<DeviceList>, Problem> {
    let mut user = load(&ingress, caller.may(Scope::UsersRead)?, &id).await?;
    user.devices.sort_by_key(|device| std::cmp::Reverse((device.last_active_at, device.id)));
    Ok(Json(DeviceList { items: user.devices.iter().map(DeviceAnswer::from).collect(), next_cursor: None }))
}

/// Removes a device.
#[utoipa::path(
    delete, path = "/v1/users/{user}/devices/{device}", operation_id = "removeDevice", tag = "users",
    params(("user" = String, Path), ("device" = Uuid, Path)),
    responses(
        (status = 204, description = "Removed"),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path((id, device)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = load(&ingress, caller.may(Scope::UsersWrite)?, &id).await?;
    let nothing = || Problem::new(Kind::NotFound, "the user has no such device");
    let device = device.parse::<DeviceId>().map_err(|_| nothing())?;
    let change = caller.change(next_version(Some(&user)));
    let key = UserKey { tenant: user.tenant, user: user.id };
    if ingress.users.delete_device(&key, device, &change).await? { Ok(StatusCode::NO_CONTENT) } else { Err(nothing()) }
}

fn parse(json: &[u8], tenant: &TenantId) -> Result<(Device, Option<DeviceId>), FieldErrors> {
    let request: DeviceRequest = body::parse(json, "")?;
    let mut errors = FieldErrors::default();
    body::check_names(&request.extra, &KNOWN, &PLANNED, "", &mut errors);
    let channel = required(request.platform, "/platform", &mut errors, |text| platform(&text));
    let app = required(request.app, "/app", &mut errors, app);
    // what a token is depends on the platform
    let token = |channel| required(request.token, "/token", &mut errors, |text| Address::parse(channel, &text));
    let token = channel.and_then(token);
    let locale = request.locale.and_then(|l| errors.take("/locale", Locale::parse(&l)));
    let time_zone = request.time_zone.and_then(|t| errors.take("/time_zone", time_zone(&t)));
    let environment = request.environment.map(|text| errors.take("/environment", environment(&text)));
    let replaces = request.replaces.and_then(|id| errors.take("/replaces", id.parse::<DeviceId>()));
    let (Some(channel), Some(app), Some(token)) = (channel, app, token) else { return Err(errors) };
    errors.into_result()?;
    let at = now();
    let device = Device {
        id: DeviceId::derive(tenant, channel, &app, &token),
        channel,
        app,
        token,
        environment: environment.flatten().unwrap_or_default(),
        locale,
        time_zone,
        registered_at: at,
        last_active_at: at,
    };
    Ok((device, replaces))
}

fn required<T>(
    given: Option<String>,
    at: &str,
    errors: &mut FieldErrors,
    parse: impl FnOnce(String) -> Result<T, String>,
) -> Option<T> {
    errors.take(at, given.ok_or_else(|| "is missing".to_owned()).and_then(parse))
}

fn platform(text: &str) -> Result<Channel, String> {
    let platforms = || Channel::ALL.iter().filter(|channel| channel.has_devices());
    platforms().find(|channel| channel.as_str() == text).copied().ok_or_else(|| {
        let built: Vec<_> = platforms().map(|channel| channel.as_str()).collect();
        if PLANNED_PLATFORMS.contains(&text) {
            format!("`{text}` is not yet built in this version; use {}", built.join(", "))
        } else {
            body::unknown(text, &built)
        }
    })
}

fn app(text: String) -> Result<String, String> {
    if device::is_app(&text) { Ok(text) } else { Err("a bundle id like com.example.app: A-Z a-z 0-9 . _ -".into()) }
}

fn environment(text: &str) -> Result<Environment, String> {
    match text {
        "production" => Ok(Environment::Production),
        "sandbox" => Ok(Environment::Sandbox),
        other => Err(body::unknown(other, &["production", "sandbox"])),
    }
}
