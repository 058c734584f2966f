//! A batch of events: each is taken over for its tenant, or dead-lettered with its own bytes and the reason.

use std::time::Duration;

use async_trait::async_trait;
use bus::{
    LogError, Record,
    config::Snapshot,
    consume::{Stage, Work},
    dead::DeadLetters,
};
use domain::{NotificationId, Timestamp};
use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::SignedDuration;
use wire::TraceContext;

use super::cloudevent;
use crate::{
    Ingress, body,
    notifications::{
        publish::{Accepting, publish},
        request,
    },
    now,
    problem::Kind,
};

/// How long records wait when the log is down or the configuration is not read yet.
const DOWN: Duration = Duration::from_secs(1);
/// A record's own time counts as the time of acceptance if it is not older.
const CREDIBLE: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) struct Events {
    pub(super) ingress: Ingress,
    pub(super) dead: DeadLetters,
}

/// Why an event becomes a dead letter: a code, and words that name the field.
type Refusal = (&'static str, String);

#[async_trait]
impl Stage for Events {
    async fn handle(&self, batch: Vec<Work>) {
        if !self.ingress.config.is_ready() {
            // a source that is not known yet is not unknown
            return batch.into_iter().for_each(|work| work.ack.retry(DOWN));
        }
        let snapshot = self.ingress.config.snapshot();
        let mut events: FuturesUnordered<_> = batch.into_iter().map(|work| self.take_over(&snapshot, work)).collect();
        while events.next().await.is_some() {}
    }
}

impl Events {
    async fn take_over(&self, config: &Snapshot, work: Work) {
        let accepting = match accept(config, &work.record, now()) {
            Ok(accepting) => accepting,
            Err((reason, detail)) => return self.dead.bury_or_wait(vec![(work, detail)], reason).await,
        };
        let published = match publish(&self.ingress, vec![accepting]).await {
            Ok(published) => published.into_iter().next(),
            Err(problem) if problem.kind == Kind::TooLarge => {
                return self.dead.bury_or_wait(vec![(work, problem.detail)], "too_large").await;
            }
            // too much is on its way already
            Err(_) => return work.ack.retry(Duration::from_millis(100)),
        };
        match published {
            Some(Ok(_)) => work.ack.done(),
            Some(Err(LogError::TooLarge(detail))) => {
                self.dead.bury_or_wait(vec![(work, detail)], "too_large").await;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot publish what an event asks for, it waits");
                work.ack.retry(DOWN);
            }
            None => work.ack.retry(DOWN),
        }
    }
}

/// Everything here depends on the record and the configuration only, so that a record that is read again comes out the same.
fn accept(config: &Snapshot, record: &Record, now: Timestamp) -> Result<Accepting, Refusal> {
    let event = cloudevent::parse(record).map_err(|detail| ("bad_cloudevent", detail))?;
    let Some(tenant) = config.source(&event.source).map(|at| at.tenant.clone()) else {
        let detail = "source: it is bound to no tenant; an operator binds it in config/sources, then the letter can be sent again";
        return Err(("unknown_source", detail.into()));
    };
    let at = accepted_at(record, now);
    if body::has_nul(event.data) {
        return Err(("invalid_notification", "the data holds the character NUL, which no field takes".into()));
    }
    // whoever published it may have waited for the log, or an operator sends it again: one that has expired meanwhile ends so, as
    // nobody is there to be told
    let mut draft = request::parse(event.data, "/data", &tenant, config, Timestamp::MIN)
        .map_err(|errors| ("invalid_notification", errors.to_string()))?;
    draft.expires_at = draft.expires_at.or(event.expires_at);
    let trace = record.headers.get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h));
    let id = NotificationId::of_event(&tenant, &event.source, &event.id);
    Ok(Accepting { id, tenant, draft, trace, at })
}

/// When the log got the event, unless the producer's clock says something odd.
fn accepted_at(record: &Record, now: Timestamp) -> Timestamp {
    let at = Timestamp::from_millisecond(record.timestamp_ms).unwrap_or(now);
    if at <= now && now.duration_since(at) <= CREDIBLE { at } else { now }
}
