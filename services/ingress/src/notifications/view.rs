//! Notifications and deliveries as clients see them.

use std::collections::{BTreeMap, HashSet};

use domain::{DeliveryStatus, NotificationStatus, Reason, Selector, State, Step, Timestamp, state};
use store::NotificationView;
use utoipa::{
    ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, SchemaType, Type},
    },
};
use uuid::Uuid;

/// A notification, its deliveries and the whole trace.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Notification {
    id: Uuid,
    /// Derived from the deliveries.
    #[schema(schema_with = state_schema)]
    state: State,
    /// How many recipients the request has.
    recipients: u32,
    category: Option<String>,
    priority: u8,
    channels: Vec<String>,
    /// The version that it is rendered from, for instance `order-shipped@3`; `null` if it has content of its own.
    template: Option<String>,
    accepted_at: Timestamp,
    expires_at: Option<Timestamp>,
    metadata: BTreeMap<String, String>,
    deliveries: Vec<Delivery>,
}

/// One notification for one recipient, on one channel, to one address.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Delivery {
    id: Uuid,
    notification: Uuid,
    /// `null` for a raw address.
    user: Option<String>,
    channel: String,
    /// Masked.
    address: Option<String>,
    category: Option<String>,
    priority: u8,
    #[schema(schema_with = state_schema)]
    state: State,
    #[schema(schema_with = reason_schema)]
    reason: Option<Reason>,
    /// The version that it was rendered from, for instance `order-shipped@3`; `null` if the content came along.
    template: Option<String>,
    /// Who was asked to send it; `null` if nobody was yet.
    provider: Option<String>,
    accepted_at: Timestamp,
    /// When this state was reached.
    updated_at: Timestamp,
    metadata: BTreeMap<String, String>,
    /// Every step, oldest first.
    trace: Vec<TraceStep>,
}

/// One step: a state that was reached, or an attempt that was made.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct TraceStep {
    at: Timestamp,
    #[schema(schema_with = state_schema)]
    state: State,
    #[schema(schema_with = reason_schema)]
    reason: Option<Reason>,
    attempt: Option<Attempt>,
}

/// One request to a provider.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Attempt {
    /// 1 for the first.
    number: u32,
    /// `sent`, `transient`, `address_gone`, `rejected`, `misconfigured` or `unknown`.
    outcome: String,
    /// The provider's answer in its own words, at most 200 characters.
    answer: String,
    /// From the first byte out to the verdict.
    took_ms: u64,
}

impl From<NotificationView> for Notification {
    fn from(view: NotificationView) -> Self {
        let NotificationView { notification: n, deliveries } = view;
        let state = derived(&n, &deliveries);
        Self {
            id: n.id.0,
            state,
            recipients: n.recipients,
            category: n.category.map(String::from),
            priority: n.priority.get(),
            channels: n.channels.into_iter().map(Selector::into).collect(),
            template: n.template,
            accepted_at: n.accepted_at,
            expires_at: n.expires_at,
            metadata: n.metadata,
            deliveries: deliveries.into_iter().map(Delivery::from).collect(),
        }
    }
}

fn derived(n: &NotificationStatus, deliveries: &[DeliveryStatus]) -> State {
    let decided: HashSet<&str> = deliveries.iter().map(|d| d.recipient_key.as_str()).collect();
    state::derive(deliveries.iter().map(|d| d.state), decided.len() < n.recipients as usize)
}

impl From<DeliveryStatus> for Delivery {
    fn from(d: DeliveryStatus) -> Self {
        Self {
            id: d.id.0,
            notification: d.notification.0,
            user: d.user.map(String::from),
            channel: d.channel.to_string(),
            address: d.address,
            category: d.category.map(String::from),
            priority: d.priority.get(),
            state: d.state,
            reason: d.reason,
            template: d.template,
            provider: d.provider,
            accepted_at: d.accepted_at,
            updated_at: d.updated_at,
            metadata: d.metadata,
            trace: d.history.0.into_iter().map(TraceStep::from).collect(),
        }
    }
}

impl From<Step> for TraceStep {
    fn from(step: Step) -> Self {
        let attempt = step.attempt.map(|a| Attempt {
            number: a.number,
            outcome: a.outcome,
            answer: a.answer,
            took_ms: a.took_ms,
        });
        Self { at: step.at, state: step.state, reason: step.reason, attempt }
    }
}

fn state_schema() -> RefOr<Schema> {
    let codes = State::ALL.iter().map(|s| s.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).into()
}

fn reason_schema() -> RefOr<Schema> {
    let codes = Reason::ALL.iter().map(|r| Some(r.as_str())).chain([None]);
    let types = SchemaType::Array(vec![Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(types).enum_values(Some(codes)).into()
}
