//! The ledger of sends: who claimed a delivery, and how it ended, for as long as the claim window.

use async_trait::async_trait;
use domain::{DeliveryId, Timestamp};

use crate::StoreError;

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

/// How a delivery ended: the encoded delivery with its whole history, so that the final event can be published again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled(pub bytes::Bytes);

/// Claims, kept for the claim window.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Claims many deliveries in one round trip; one answer per request, in order. Granted to one only, also among
    /// concurrent calls. Durable when it resolves.
    async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError>;

    /// Takes over an open claim from a process that is gone: the claim is the caller's from now on. `false`: it was not
    /// open under `from` any more (settled, or taken over by another).
    async fn take_over(&self, request: &ClaimRequest, from: u128) -> Result<bool, StoreError>;

    /// Gives a claim back without a send, so that it can be claimed anew. Only the owner's own open claim is given back.
    async fn release(&self, delivery: DeliveryId, owner: u128) -> Result<(), StoreError>;

    /// Records ends, many in one round trip. The first end stays; a later one for the same delivery is ignored.
    async fn settle(&self, ends: &[(DeliveryId, Settled)]) -> Result<(), StoreError>;

    /// Answers when the store can be reached.
    async fn ping(&self) -> Result<(), StoreError>;
}
