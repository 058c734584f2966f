//! Dead letters as operators see them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bus::{Headers, topic};
use bytes::Bytes;
use domain::{Delivery, DeliveryStatus, Reason, State, Timestamp, state};
use futures::{StreamExt as _, stream};
use store::{DeliveryQuery, StoreError};
use utoipa::ToSchema;
use uuid::Uuid;

use super::scan::{Found, Subject};
use crate::Ingress;

/// Questions to the index at the same time.
pub(super) const AT_ONCE: usize = 8;
/// Deliveries of one recipient that are looked at: more than any plan has, and those of 1,000 raw addresses.
const MOST: usize = 1000;

/// A page of dead letters.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct DeadLetterPage {
    pub(super) items: Vec<DeadLetter>,
    /// For the next page; `null` on the last one.
    pub(super) next_cursor: Option<String>,
}

/// A record that a service gave up.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct DeadLetter {
    /// Stage, partition and offset.
    id: String,
    /// Which service gave it up.
    stage: String,
    /// Why: a code.
    reason: String,
    /// The same in words.
    error: String,
    /// When.
    at: Timestamp,
    /// Where the record lay.
    origin: Option<Origin>,
    /// How large its value is.
    bytes: usize,
    /// When it had been re-driven before it died again.
    redriven_at: Option<String>,
    /// This and the following: `null` if the record cannot be read.
    tenant: Option<String>,
    notification: Option<Uuid>,
    /// `null` if nothing was decided yet.
    delivery: Option<Uuid>,
    /// `null` for a raw address.
    user: Option<String>,
    channel: Option<String>,
    /// How the delivery (or, before there is one, the recipient's part of the notification) stands now. `null` if the index
    /// does not know or does not answer.
    #[schema(value_type = Option<String>)]
    state: Option<State>,
    /// Why it stands so.
    #[schema(value_type = Option<String>)]
    state_reason: Option<Reason>,
}

/// Where a record lay.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(as = DeadLetterOrigin)]
pub struct Origin {
    topic: String,
    partition: i32,
    offset: i64,
}

/// A dead letter with everything that it holds.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct WholeDeadLetter {
    #[serde(flatten)]
    letter: DeadLetter,
    /// The record's key, in base64.
    key_base64: Option<String>,
    /// The record's own headers, in order.
    headers: Vec<Header>,
    /// The record's value, in base64.
    value_base64: Option<String>,
}

/// A header of a record.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(as = DeadLetterHeader)]
pub struct Header {
    name: String,
    /// If it is UTF-8.
    value: Option<String>,
    /// If it is not.
    value_base64: Option<String>,
}

impl DeadLetter {
    pub(super) fn new(found: &Found, now: Option<(State, Option<Reason>)>) -> Self {
        let Found { letter, subject, bytes } = found;
        let redriven = letter.headers.get(topic::REDRIVEN_AT);
        Self {
            id: letter.id.to_string(),
            stage: letter.id.stage.as_str().to_owned(),
            reason: letter.reason.clone(),
            error: letter.error.clone(),
            at: letter.at,
            origin: letter.origin.as_ref().map(|at| Origin {
                topic: at.partition.topic.to_string(),
                partition: at.partition.index,
                offset: at.offset,
            }),
            bytes: *bytes,
            redriven_at: redriven.map(|at| String::from_utf8_lossy(at).into_owned()),
            tenant: subject.as_ref().map(|s| s.tenant.to_string()),
            notification: subject.as_ref().map(|s| s.notification.0),
            delivery: subject.as_ref().and_then(|s| s.delivery).map(|d| d.0),
            user: subject.as_ref().and_then(|s| s.user.as_ref()).map(ToString::to_string),
            channel: subject.as_ref().and_then(|s| s.channel).map(|c| c.to_string()),
            state: now.map(|(state, _)| state),
            state_reason: now.and_then(|(_, reason)| reason),
        }
    }
}

impl WholeDeadLetter {
    pub(super) fn new(letter: DeadLetter, key: Option<&Bytes>, headers: &Headers, value: Option<&Bytes>) -> Self {
        let base64 = |bytes: &Bytes| BASE64_STANDARD.encode(bytes);
        let headers = headers.0.iter().map(|(name, value)| {
            let text = std::str::from_utf8(value).ok().map(str::to_owned);
            let value_base64 = text.is_none().then(|| base64(value));
            Header { name: name.to_string(), value: text, value_base64 }
        });
        Self { letter, key_base64: key.map(base64), headers: headers.collect(), value_base64: value.map(base64) }
    }
}

/// The letters as they are shown, in their order.
pub(super) async fn with_states(ingress: &Ingress, found: Vec<Found>) -> Vec<DeadLetter> {
    let shown = stream::iter(found).map(async |f| DeadLetter::new(&f, state_of(ingress, &f).await));
    shown.buffered(AT_ONCE).collect().await
}

/// How it stands now. The letters can be read without the index, so its silence is only logged.
pub(super) async fn state_of(ingress: &Ingress, found: &Found) -> Option<(State, Option<Reason>)> {
    let subject = found.subject.as_ref()?;
    match now(ingress, subject).await {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(%error, dead_letter = %found.letter.id, "cannot ask the index how it stands");
            None
        }
    }
}

/// A delivery as the index knows it.
pub(super) async fn delivery(ingress: &Ingress, delivery: &Delivery) -> Result<Option<DeliveryStatus>, StoreError> {
    let query = DeliveryQuery {
        notification: Some(delivery.notification),
        channel: Some(delivery.channel),
        q: Some(delivery.id.to_string()),
        ..DeliveryQuery::default()
    };
    let page = ingress.deliveries.search(&delivery.tenant, &query, None, MOST).await?;
    Ok(page.and_then(|page| page.items.into_iter().find(|d| d.id == delivery.id)))
}

async fn now(ingress: &Ingress, s: &Subject) -> Result<Option<(State, Option<Reason>)>, StoreError> {
    let Some(recipient) = &s.recipient else { return Ok(None) };
    let query = DeliveryQuery {
        notification: Some(s.notification),
        user: s.user.clone(),
        channel: s.channel,
        q: s.delivery.map(|id| id.to_string()),
        ..DeliveryQuery::default()
    };
    let page = ingress.deliveries.search(&s.tenant, &query, None, MOST).await?;
    let items = page.map(|p| p.items).unwrap_or_default();
    let of_recipient: Vec<&DeliveryStatus> = items.iter().filter(|d| d.recipient_key == *recipient).collect();
    Ok(match s.delivery {
        Some(id) => of_recipient.iter().find(|d| d.id == id).map(|d| (d.state, d.reason)),
        None => Some((state::derive(of_recipient.iter().map(|d| d.state), of_recipient.is_empty()), None)),
    })
}
