//! `/v1/dead-letters`: what was given up, why, how it stands now, and the way back. For operators.

mod redrive;
mod scan;
mod view;

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
};
use bus::dead::{Letter, LetterId, parse_stage};
use domain::{Timestamp, config::Scope};
use utoipa::IntoParams;

pub(crate) use redrive::{__path_redrive, redrive};
use scan::{Filter, Found, From, Place, Scan, subject};
use view::{DeadLetter, DeadLetterPage, WholeDeadLetter};

use crate::{
    Ingress,
    auth::Caller,
    deliveries::Parameters,
    problem::{Document, Kind, Problem},
};

const KNOWN: [&str; 6] = ["stage", "reason", "since", "until", "cursor", "limit"];

/// For the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters; they are parsed by name, so that all errors are told at once")]
pub(crate) struct Which {
    /// Given up by this service: ingress, router, gateway or indexer.
    stage: Option<String>,
    /// For this reason, for instance `retries_exhausted`.
    reason: Option<String>,
    /// Given up then or later.
    since: Option<Timestamp>,
    /// Given up before.
    until: Option<Timestamp>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 50 if left out.
    limit: Option<u16>,
}

/// Lists dead letters, the newest first, each with the present state of what it is about; everything that is given must hold.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "listDeadLetters", tag = "dead letters", params(Which),
    responses(
        (status = 200, body = DeadLetterPage),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<DeadLetterPage>, Problem> {
    caller.has(Scope::Operator)?;
    let mut parameters = Parameters::read(pairs, &KNOWN, &[]);
    let filter = Filter {
        tenant: caller.tenant,
        stage: parameters.take("stage", parse_stage),
        reason: parameters.take("reason", parse_reason),
        since: parameters.take("since", parse_time),
        until: parameters.take("until", parse_time),
    };
    let limit = parameters.limit();
    let after = parameters.take("cursor", Place::parse);
    parameters.finish()?;
    let page = scan::page(&ingress, &filter, From::Newest, after, limit);
    let (found, next) = in_time(&ingress, page).await?;
    let items = view::with_states(&ingress, found).await;
    Ok(Json(DeadLetterPage { items, next_cursor: next.map(Place::cursor) }))
}

/// Reads one dead letter with all that it holds. The value is the record as it was: it may have addresses and content.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", operation_id = "getDeadLetter", tag = "dead letters",
    params(("id" = String, Path, description = "For instance gateway-3-42")),
    responses(
        (status = 200, body = WholeDeadLetter),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<WholeDeadLetter>, Problem> {
    caller.has(Scope::Operator)?;
    let filter = Filter { tenant: caller.tenant.clone(), ..Filter::default() };
    let id = LetterId::parse(&id).map_err(|detail| Problem::new(Kind::NotFound, detail))?;
    let letter = in_time(&ingress, find(&ingress, id)).await?.ok_or_else(no_such_letter)?;
    let subject = subject(&letter);
    if !filter.owns(subject.as_ref()) {
        return Err(no_such_letter());
    }
    tracing::info!(by = &*caller.name, dead_letter = %id, "dead letter read");
    let (key, headers, value) = (letter.key.clone(), letter.headers.clone(), letter.value.clone());
    let found = Found::new(letter, subject);
    let letter = DeadLetter::new(&found, view::state_of(&ingress, &found).await);
    Ok(Json(WholeDeadLetter::new(letter, key.as_ref(), &headers, value.as_ref())))
}

fn no_such_letter() -> Problem {
    Problem::new(Kind::NotFound, "there is no such dead letter; they go when the retention time of their topic is over")
}

async fn find(ingress: &Ingress, id: LetterId) -> Result<Option<Letter>, Problem> {
    let mut scan = Scan::of(ingress, id.stage).await?;
    while let Some(mut letters) = scan.next().await? {
        if let Some(letter) = letters.find(|l| l.id == id) {
            return Ok(Some(letter));
        }
    }
    Ok(None)
}

/// A topic can hold more than can be read while somebody waits.
async fn in_time<T>(ingress: &Ingress, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let slow = || Problem::new(Kind::Unavailable, "there are too many dead letters to read in time; name a `stage`");
    tokio::time::timeout(ingress.request_timeout, read).await.unwrap_or_else(|_| Err(slow()))
}

fn parse_reason(text: &str) -> Result<String, String> {
    let ok = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if ok { Ok(text.to_owned()) } else { Err("a reason is a code like retries_exhausted".to_owned()) }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "not a time; write it as RFC 3339 has it, like 2026-12-01T09:00:00Z".to_owned())
}
