//! From checked requests to records on the log, in one call, and what became of each.

use bus::{Headers, LogError, Outgoing, Topics, topic};
use bytes::Bytes;
use domain::{
    Message, NotificationId, NotificationStatus, Status, TemplateRef, TenantId, Timestamp, content::json_size,
};
use tokio::sync::SemaphorePermit;
use wire::{Record as _, TraceContext};

use super::request::Draft;
use crate::{
    Ingress, metrics,
    problem::{Kind, Problem},
};

/// What becomes of one request: its id once all of its records are durable.
pub type Published = Result<NotificationId, LogError>;

/// A checked request on its way to the log.
#[derive(Debug)]
pub struct Accepting {
    /// Fresh, or derived from the event that asks.
    pub id: NotificationId,
    /// The owner.
    pub tenant: TenantId,
    /// What is asked.
    pub draft: Draft,
    /// The client's own trace, if it has one.
    pub trace: Option<TraceContext>,
    /// When it was taken over.
    pub at: Timestamp,
}

/// Publishes all of them in one call of the log; one answer for each, in order. Never `Ok` for one that is not durable.
pub async fn publish(ingress: &Ingress, accepting: Vec<Accepting>) -> Result<Vec<Published>, Problem> {
    let _room = make_room(ingress, &accepting)?;
    let mut batch = Vec::new();
    let mut parts = Vec::with_capacity(accepting.len());
    for accepting in accepting {
        let (id, before) = (accepting.id, batch.len());
        records(&ingress.topics, accepting, &mut batch);
        parts.push((id, batch.len() - before));
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut results = ingress.log.publish(batch).await.into_iter();
    Ok(parts.into_iter().map(|(id, records)| outcome(id, results.by_ref().take(records), records)).collect())
}

/// One failed record, or one without an answer, fails its request.
fn outcome<T>(id: NotificationId, results: impl Iterator<Item = Result<T, LogError>>, records: usize) -> Published {
    let mut durable = 0;
    let mut failed = None;
    for result in results {
        match result {
            Ok(_) => durable += 1,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        // what is durable will be delivered, so "nothing was written" would be wrong
        Some(error) if durable > 0 => {
            Err(LogError::Unavailable(format!("{durable} of {records} records taken: {error}")))
        }
        Some(error) => Err(error),
        None if durable < records => Err(LogError::Unavailable("the log did not answer for every record".into())),
        None => {
            metrics::accepted();
            Ok(id)
        }
    }
}

/// One record per recipient, which is what is acted upon, and one that says how many there are.
fn records(topics: &Topics, accepting: Accepting, batch: &mut Vec<Outgoing>) {
    let Accepting { id, tenant, mut draft, trace, at: now } = accepting;
    let trace = trace.unwrap_or_else(|| bus::trace::context(None));
    let trace = Bytes::copy_from_slice(&trace.header());
    let headers = Headers::default().with(TraceContext::HEADER, trace).with("content-type", "application/protobuf");
    let recipients = std::mem::take(&mut draft.recipients);
    let status = Status::Notification(NotificationStatus {
        id,
        tenant: tenant.clone(),
        recipients: u32::try_from(recipients.len()).unwrap_or(u32::MAX),
        category: draft.category.clone(),
        priority: draft.priority,
        channels: draft.channels.clone(),
        template: draft.message.template().map(TemplateRef::to_string),
        accepted_at: now,
        expires_at: draft.expires_at,
        metadata: draft.metadata.clone(),
    });
    batch.push(Outgoing {
        topic: topics.status(),
        key: Some(topic::status_key(&tenant, &format!("notification:{id}"))),
        headers: headers.clone(),
        value: Some(status.encode()),
    });
    let mut recipients = recipients.into_iter();
    let Some(first) = recipients.next() else { return };
    let mut notification = draft.notification(id, tenant, now, first);
    let to = topics.notifications(notification.leading_type(), notification.priority.lane());
    loop {
        batch.push(Outgoing {
            topic: to.clone(),
            key: Some(topic::recipient_key(&notification.tenant, &notification.recipient)),
            headers: headers.clone(),
            value: Some(notification.encode()),
        });
        let Some(next) = recipients.next() else { return };
        notification.recipient = next;
    }
}

/// Each recipient's record repeats the content, so a small request can become many megabytes of records: they are counted
/// before they are made, over all requests.
fn make_room<'a>(ingress: &'a Ingress, accepting: &[Accepting]) -> Result<SemaphorePermit<'a>, Problem> {
    let bytes: usize = accepting.iter().map(|a| a.draft.recipients.len().saturating_mul(record_bytes(&a.draft))).sum();
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    if kib > ingress.publishing_kib {
        return Err(Problem::new(
            Kind::TooLarge,
            format!(
                "content or data times recipients comes to {} MiB of records, and {} MiB is the most; send fewer recipients at a time",
                kib / 1024,
                ingress.publishing_kib / 1024
            ),
        ));
    }
    ingress.publishing.try_acquire_many(kib).map_err(|_| {
        Problem::new(Kind::Unavailable, "too much is on its way to the log; nothing was done, send it again")
    })
}

fn record_bytes(draft: &Draft) -> usize {
    let message = match &draft.message {
        Message::Content(content) => json_size(content),
        Message::Template { data, .. } => json_size(data),
    };
    let metadata: usize = draft.metadata.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
    message.saturating_add(512 + metadata)
}
