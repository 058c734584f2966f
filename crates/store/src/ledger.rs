//! The ledger: what was decided over each recipient, who claimed a delivery, how it ended, and which addresses are gone.

use async_trait::async_trait;
use domain::{Address, Channel, DeliveryId, NotificationId, TenantId, Timestamp};

use crate::StoreError;

/// How long an address is remembered as gone.
pub(crate) const GONE: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// Asks to send a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The process that asks; new at every start.
    pub owner: u128,
    /// Now.
    pub at: Timestamp,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody had claimed it: send.
    Granted,
    /// Claimed before and not settled: whether it was sent is unknown.
    Open {
        /// By this process itself, or by another one, which may be gone or still be sending.
        owner: u128,
        /// When.
        at: Timestamp,
    },
    /// It ended; do not send again.
    Settled(Settled),
}

/// How a delivery ended: the final event with its whole history, as it is published, and again if need be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled(pub bytes::Bytes);

/// A decision over one recipient of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The notification.
    pub notification: NotificationId,
    /// The recipient within its tenant: [`domain::Recipient::key`].
    pub recipient: String,
    /// The encoded plan.
    pub plan: Decided,
}

/// What was decided: the encoded plan, so that whoever comes to the notification again makes the same of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided(pub bytes::Bytes);

/// Decisions and claims, kept for the claim window, and dead addresses, kept for seven days.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Records decisions, many in one round trip; for each one, in order, the decision that stood already and stays, if there
    /// was one. Of concurrent calls one is the first. Durable when it resolves.
    async fn decide(&self, decisions: &[Decision]) -> Result<Vec<Option<Decided>>, StoreError>;

    /// Claims many deliveries in one round trip; one answer per request, in order. Granted to one only, also among
    /// concurrent calls. Durable when it resolves.
    async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError>;

    /// Takes over an open claim from a process that is gone: the claim is the caller's from now on. `false`: it was not
    /// open under `from` any more (settled, or taken over by another).
    async fn take_over(&self, request: &ClaimRequest, from: u128) -> Result<bool, StoreError>;

    /// Gives a claim back without a send, so that it can be claimed anew. Only the owner's own open claim is given back.
    async fn release(&self, delivery: DeliveryId, owner: u128) -> Result<(), StoreError>;

    /// Records ends, many in one round trip; for each, in order, `None` or what stands instead: the end that was recorded first
    /// (the same one, when the call is repeated), or the open claim of another who has taken over, and whose end will count. An
    /// end without a claim is recorded: the claim may have been pruned or lost, and the delivery must still not be sent again.
    async fn settle(&self, owner: u128, ends: &[(DeliveryId, Settled)]) -> Result<Vec<Option<Claim>>, StoreError>;

    /// Opens an ended claim again, for the caller, who has an operator's word for it: only if it still ends with exactly these
    /// bytes, so that of two operators one gets it. A repeated call answers `false`: the claim is open by then.
    async fn reopen(&self, request: &ClaimRequest, settled: &Settled) -> Result<bool, StoreError>;

    /// Remembers that an address of a tenant was gone at that time. Of several such times the latest stays.
    async fn mark_gone(
        &self,
        tenant: &TenantId,
        channel: Channel,
        address: &Address,
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// When addresses were last known to be gone, in one round trip; `None` for one that is not. One answer for each, in
    /// order. An address that was registered after that time is alive again.
    async fn gone(&self, addresses: &[(TenantId, Channel, Address)]) -> Result<Vec<Option<Timestamp>>, StoreError>;

    /// Answers when the store can be reached.
    async fn ping(&self) -> Result<(), StoreError>;
}
