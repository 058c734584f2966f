//! `/v1/notifications`: taking them over, and telling what became of them.

mod message;
pub mod publish;
pub mod request;
pub mod view;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bus::LogError;
use domain::{FieldErrors, NotificationId, TenantId, Timestamp, config::Scope};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;
use wire::TraceContext;

use self::{
    publish::{Accepting, publish},
    request::Draft,
};
use crate::{
    Ingress,
    auth::Caller,
    body,
    edge::RequestId,
    now,
    problem::{Document, Kind, Problem},
};

/// Most notifications of one batch.
pub const MAX_BATCH: usize = 1000;

/// A request that was taken over.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Accepted {
    id: Uuid,
    /// `accepted`
    state: &'static str,
}

impl Accepted {
    const fn new(id: NotificationId) -> Self {
        Self { id: id.0, state: "accepted" }
    }
}

/// Many requests in one.
#[derive(Debug, serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchRequest)]
pub struct Batch<'a> {
    /// 1 to 1,000.
    #[serde(borrow)]
    #[schema(value_type = Vec<request::Request>, min_items = 1, max_items = 1000)]
    notifications: Vec<&'a RawValue>,
}

/// What became of a batch, in its order.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct BatchAnswer {
    results: Vec<BatchResult>,
}

/// What became of one notification of a batch.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "snake_case", untagged)]
pub enum BatchResult {
    /// It was taken over.
    Accepted {
        /// The notification.
        id: Uuid,
    },
    /// It was not, and why.
    Refused {
        /// As for a single notification.
        error: Document,
    },
}

/// Takes a notification over. The answer comes after everything is durable on the log.
#[utoipa::path(
    post, path = "/v1/notifications", operation_id = "sendNotification", tag = "notifications", request_body = request::Request,
    responses(
        (status = 202, description = "Taken over; every recipient will reach a recorded final state", body = Accepted,
            headers(("Location" = String, description = "Where the notification can be read"))),
        (status = "4XX", description = "Refused; nothing was done", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "The outcome may be open; it may be sent again", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn send(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let tenant = caller.may(Scope::NotificationsWrite)?;
    // not the extractor `HeaderMap`, which copies all of them
    let (Parts { headers, .. }, body) = request.into_parts();
    let bytes = body::read(&ingress, &headers, body).await?;
    let now = now();
    let mut errors = planned_headers(&headers);
    let draft = request::parse(&bytes, "", tenant, &ingress.config.snapshot(), now);
    drop(bytes);
    let draft = draft.map_err(|e| errors.0.extend(e.0));
    errors.into_result()?;
    let accepting = draft.into_iter().map(|draft| accepting(tenant, draft, &headers, now)).collect();
    let published = publish(&ingress, accepting).await?;
    let nothing = || LogError::Unavailable("no answer".into());
    let id = published.into_iter().next().ok_or_else(nothing).flatten()?;
    let location = [(header::LOCATION, format!("/v1/notifications/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(Accepted::new(id))).into_response())
}

/// Takes many notifications over, each for itself: one that is refused spoils no other.
#[utoipa::path(
    post, path = "/v1/notifications/batch", operation_id = "sendNotifications", tag = "notifications", request_body = Batch,
    responses(
        (status = 202, description = "One result per notification, in order", body = BatchAnswer),
        (status = "4XX", description = "Refused as a whole; nothing was done", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "None was confirmed; the outcome may be open", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn send_batch(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = caller.may(Scope::NotificationsWrite)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    planned_headers(&headers).into_result()?;
    let batch: Batch<'_> = body::parse(&bytes, "")?;
    let count = batch.notifications.len();
    if !(1..=MAX_BATCH).contains(&count) {
        return Err(Problem::field("/notifications", format!("give 1 to 1,000 notifications, not {count}")));
    }
    let (now, config) = (now(), ingress.config.snapshot());
    let mut drafts = Vec::with_capacity(count);
    let parsed: Vec<Result<(), FieldErrors>> = (batch.notifications.iter().enumerate())
        .map(|(i, item)| {
            let draft = request::parse(item.get().as_bytes(), &format!("/notifications/{i}"), tenant, &config, now);
            draft.map(|draft| drafts.push(accepting(tenant, draft, &headers, now)))
        })
        .collect();
    let mut published = publish(&ingress, drafts).await?.into_iter();
    let results: Vec<Result<NotificationId, Problem>> = parsed
        .into_iter()
        .map(|item| {
            item?;
            Ok(published.next().ok_or_else(|| LogError::Unavailable("no answer".into())).flatten()?)
        })
        .collect();
    answer(results, &request_id)
}

/// Not a 202 when nothing was taken over because of the log.
fn answer(results: Vec<Result<NotificationId, Problem>>, request_id: &RequestId) -> Result<Response, Problem> {
    let ours = |r: &Result<_, Problem>| r.as_ref().is_err_and(|p| p.kind != Kind::Invalid);
    if results.iter().all(Result::is_err)
        && let Some(Err(problem)) = results.iter().find(|r| ours(r))
    {
        return Err(problem.clone());
    }
    for problem in results.iter().filter(|r| ours(r)).filter_map(|r| r.as_ref().err()) {
        tracing::warn!(request_id = %request_id.0, cause = problem.cause, "one of a batch was not published");
    }
    let results = results.into_iter().map(|result| match result {
        Ok(id) => BatchResult::Accepted { id: id.0 },
        Err(problem) => BatchResult::Refused { error: problem.document(&request_id.0) },
    });
    Ok((StatusCode::ACCEPTED, Json(BatchAnswer { results: results.collect() })).into_response())
}

/// A notification, its deliveries and the whole trace. It can be read about a second after it was taken over.
#[utoipa::path(
    get, path = "/v1/notifications/{id}", operation_id = "getNotification", tag = "notifications", params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = view::Notification),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<view::Notification>, Problem> {
    let tenant = caller.may(Scope::NotificationsRead)?;
    // what is no id at all names nothing either
    let id = id.parse::<NotificationId>().ok();
    let found = match id {
        Some(id) => ingress.deliveries.notification(tenant, id).await?,
        None => None,
    };
    found.map(|view| Json(view.into())).ok_or_else(|| {
        Problem::new(
            Kind::NotFound,
            "there is no such notification; one that was just accepted shows up within seconds",
        )
    })
}

/// Headers of the contract that would change what a request means.
fn planned_headers(headers: &HeaderMap) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if headers.contains_key("idempotency-key") {
        errors.add("", "the header `Idempotency-Key` is not yet built in this version; send the request without it");
    }
    errors
}

/// A request of this moment, with an id of its own.
fn accepting(tenant: &TenantId, draft: Draft, headers: &HeaderMap, now: Timestamp) -> Accepting {
    let trace = headers.get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h.as_bytes()));
    Accepting { id: NotificationId::new(now), tenant: tenant.clone(), draft, trace, at: now }
}
