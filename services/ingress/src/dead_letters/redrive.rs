//! `POST /v1/dead-letters/redrive`: the records as they were, on the topics that they came from. Doing it twice is harmless:
//! whoever reads them knows by their ids, and by the time of the request, what was done already.

use std::collections::{HashMap, HashSet};

use axum::{Extension, Json, body::Body, extract, http::HeaderMap};
use bus::{
    Outgoing,
    dead::{Letter, LetterId, parse_stage},
    topic::Stage,
};
use domain::{Delivery, FieldErrors, Reason, State, Timestamp, config::Scope};
use futures::{StreamExt as _, stream};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wire::Record as _;

use super::{
    parse_reason, parse_time,
    scan::{self, Filter, From, Place, Scan, subject},
    view::{self, AT_ONCE},
};
use crate::{
    Ingress,
    auth::Caller,
    body, now,
    problem::{Document, Kind, Problem},
};

/// Most letters of one request.
const MOST: usize = 1000;
/// Bytes that are on their way to the log at the same time.
const CHUNK: usize = 4 * 1024 * 1024;
const KNOWN: [&str; 7] = ["ids", "stage", "reason", "since", "until", "cursor", "dry_run"];

/// Which letters: either `ids`, or a filter with at least one of `stage`, `reason`, `since` and `until`.
#[derive(Debug, serde::Deserialize, ToSchema)]
pub struct RedriveRequest {
    /// 1 to 1,000.
    ids: Option<Vec<String>>,
    /// Given up by this service: ingress, router, gateway or indexer.
    stage: Option<String>,
    /// For this reason.
    reason: Option<String>,
    /// Given up then or later (RFC 3339).
    since: Option<String>,
    /// Given up before (RFC 3339).
    until: Option<String>,
    /// `next_cursor` of the answer before, with the same filter: one request re-drives at most 1,000 letters, the oldest first.
    cursor: Option<String>,
    /// Only says what would be done.
    #[serde(default)]
    dry_run: bool,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

/// What was done, letter by letter.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct RedriveAnswer {
    /// The time of this request: traces show it as the step `queued`, reason `redriven`.
    redriven_at: Timestamp,
    dry_run: bool,
    results: Vec<Redriven>,
    /// For the next request with the same filter; `null` if there are no more.
    next_cursor: Option<String>,
}

/// What was done with one letter.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Redriven {
    id: String,
    /// `redriven`, `would_be_redriven`, `not_found`, `not_possible`, or `failed`: then it can be asked for again.
    outcome: &'static str,
    /// Why not.
    detail: Option<String>,
}

/// What is asked, checked.
enum Which {
    These(Vec<LetterId>),
    Those(Filter, Option<Place>),
}

/// Sends dead letters on their way again. Repeating it is harmless.
#[utoipa::path(
    post, path = "/v1/dead-letters/redrive", operation_id = "redriveDeadLetters", tag = "dead letters", request_body = RedriveRequest,
    responses(
        (status = 200, description = "One result per letter", body = RedriveAnswer),
        (status = "4XX", description = "Refused; nothing was done", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "The outcome may be open; it may be sent again", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn redrive(
    extract::State(ingress): extract::State<Ingress>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RedriveAnswer>, Problem> {
    caller.has(Scope::Operator)?;
    let bytes = body::read(&ingress, &headers, body).await?;
    let request: RedriveRequest = body::parse(&bytes, "")?;
    let dry_run = request.dry_run;
    let own = Filter { tenant: caller.tenant.clone(), ..Filter::default() };
    let (ids, next) = match parse(request)? {
        Which::These(ids) => (ids, None),
        Which::Those(filter, after) => {
            let filter = Filter { tenant: caller.tenant.clone(), ..filter };
            let (found, next) = scan::page(&ingress, &filter, From::Oldest, after, MOST).await?;
            (found.into_iter().map(|f| f.letter.id).collect(), next)
        }
    };
    let at = now();
    let mut run = Run { ingress: &ingress, own, at, dry_run, done: HashMap::new(), batch: Vec::new(), bytes: 0 };
    for stage in Stage::ALL {
        run.stage(stage, &ids).await?;
    }
    let results = run.results(&ids);
    let count = results.iter().filter(|r| r.outcome == "redriven").count();
    tracing::info!(by = &*caller.name, asked = ids.len(), redriven = count, dry_run, "dead letters re-driven");
    Ok(Json(RedriveAnswer { redriven_at: at, dry_run, results, next_cursor: next.map(Place::cursor) }))
}

fn parse(request: RedriveRequest) -> Result<Which, FieldErrors> {
    let RedriveRequest { ids, stage, reason, since, until, cursor, dry_run: _, extra } = request;
    let mut errors = FieldErrors::default();
    body::check_names(&extra, &KNOWN, &[], "", &mut errors);
    let has_filter = stage.is_some() || reason.is_some() || since.is_some() || until.is_some();
    if ids.is_some() == has_filter || (ids.is_some() && cursor.is_some()) {
        errors.add("", "give either `ids`, or at least one of `stage`, `reason`, `since` and `until`");
    }
    let filter = Filter {
        tenant: None,
        stage: field(&mut errors, "/stage", stage, parse_stage),
        reason: field(&mut errors, "/reason", reason, parse_reason),
        since: field(&mut errors, "/since", since, parse_time),
        until: field(&mut errors, "/until", until, parse_time),
    };
    let after = field(&mut errors, "/cursor", cursor, Place::parse);
    let Some(ids) = ids else { return errors.into_result().map(|()| Which::Those(filter, after)) };
    if !(1..=MOST).contains(&ids.len()) {
        errors.add("/ids", format!("give 1 to 1,000 ids, not {}", ids.len()));
        return Err(errors);
    }
    let mut asked: Vec<LetterId> = Vec::with_capacity(ids.len());
    let mut seen = HashSet::new();
    for (i, id) in ids.iter().enumerate() {
        let parsed = errors.take(&format!("/ids/{i}"), LetterId::parse(id));
        asked.extend(parsed.filter(|_| seen.insert(id)));
    }
    errors.into_result().map(|()| Which::These(asked))
}

fn field<T>(
    errors: &mut FieldErrors,
    pointer: &str,
    text: Option<String>,
    parse: fn(&str) -> Result<T, String>,
) -> Option<T> {
    errors.take(pointer, parse(&text?))
}

/// The record that sends a letter on its way again. A delivery goes on from where it ended: with its whole trace, and the
/// operator's word as a step of it. Else why not.
async fn onward(ingress: &Ingress, letter: &Letter, at: Timestamp) -> Result<Outgoing, (&'static str, String)> {
    let mut record = letter.redrive(&ingress.topics, at).map_err(|detail| ("not_possible", detail))?;
    let delivery = match letter.id.stage {
        Stage::Gateway => wire::decode::<Delivery>(letter.value.as_ref()).ok(),
        Stage::Ingress | Stage::Router | Stage::Indexer => None,
    };
    let Some(mut delivery) = delivery else { return Ok(record) };
    let now = view::delivery(ingress, &delivery).await.map_err(|error| {
        tracing::warn!(%error, dead_letter = %letter.id, "cannot ask the index how it stands");
        ("failed", "the index does not answer; ask again".to_owned())
    })?;
    if let Some(now) = now {
        match now.state {
            state if state.may_become(State::Queued) => delivery.history = now.history,
            state if state.is_settled() => return Err(("not_possible", format!("it has ended meanwhile: {state}"))),
            state => return Err(("not_possible", format!("it is still on its way: {state}"))),
        }
    }
    delivery.history.reached(at, State::Queued, Some(Reason::Redriven));
    record.value = Some(delivery.encode());
    Ok(record)
}

/// One request at work.
struct Run<'a> {
    ingress: &'a Ingress,
    own: Filter,
    at: Timestamp,
    dry_run: bool,
    /// Outcome and detail, by the id as text.
    done: HashMap<String, (&'static str, Option<String>)>,
    batch: Vec<Letter>,
    bytes: usize,
}

impl Run<'_> {
    /// Finds what is asked of a stage and sends it on its way, in the order in which it was given up: records of one key lie
    /// in one partition, so their order holds.
    async fn stage(&mut self, stage: Stage, ids: &[LetterId]) -> Result<(), Problem> {
        let asked = ids.iter().filter(|id| id.stage == stage);
        let mut asked: HashSet<(i32, i64)> = asked.map(|id| (id.partition, id.offset)).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut scan = Scan::of(self.ingress, stage).await?;
        while !asked.is_empty() {
            let Some(letters) = scan.next().await? else { break };
            for letter in letters {
                if asked.remove(&(letter.id.partition, letter.id.offset)) {
                    self.take(letter);
                }
                if self.bytes >= CHUNK {
                    self.publish().await?;
                }
            }
        }
        self.publish().await
    }

    fn take(&mut self, letter: Letter) {
        if !self.own.owns(subject(&letter).as_ref()) {
            // another tenant's is not there
            return;
        }
        self.bytes += 1024 + letter.value.as_ref().map_or(0, bytes::Bytes::len);
        self.batch.push(letter);
    }

    async fn publish(&mut self) -> Result<(), Problem> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let kib = u32::try_from(self.bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.ingress.publishing_kib);
        let closed = |_| Problem::new(Kind::Unavailable, "shutting down; what is not re-driven can be asked for again");
        let _room = self.ingress.publishing.acquire_many(kib).await.map_err(closed)?;
        self.bytes = 0;
        let (ingress, at) = (self.ingress, self.at);
        let letters = stream::iter(std::mem::take(&mut self.batch));
        let made = letters.map(async |letter: Letter| (letter.id, onward(ingress, &letter, at).await));
        let made: Vec<_> = made.buffered(AT_ONCE).collect().await;
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        for (id, record) in made {
            match record {
                Err((outcome, detail)) => self.note(id, outcome, Some(detail)),
                Ok(_) if self.dry_run => self.note(id, "would_be_redriven", None),
                Ok(record) => {
                    ids.push(id);
                    records.push(record);
                }
            }
        }
        let mut results = self.ingress.log.publish(records).await.into_iter();
        for id in ids {
            match results.next() {
                Some(Ok(_)) => self.note(id, "redriven", None),
                Some(Err(error)) => {
                    tracing::warn!(%error, dead_letter = %id, "cannot re-drive a dead letter");
                    self.note(id, "failed", Some(Problem::from(error).detail));
                }
                None => self.note(id, "failed", Some("the log did not answer; ask again".to_owned())),
            }
        }
        Ok(())
    }

    fn note(&mut self, id: LetterId, outcome: &'static str, detail: Option<String>) {
        self.done.insert(id.to_string(), (outcome, detail));
    }

    fn results(mut self, ids: &[LetterId]) -> Vec<Redriven> {
        let gone = || ("not_found", Some("there is no such dead letter (any more)".to_owned()));
        let result = |id: &LetterId| {
            let id = id.to_string();
            let (outcome, detail) = self.done.remove(&id).unwrap_or_else(gone);
            Redriven { id, outcome, detail }
        };
        ids.iter().map(result).collect()
    }
}
