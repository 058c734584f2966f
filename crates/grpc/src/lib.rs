#![doc = include_str!("../README.md")]

mod client;
mod items;
mod json;

pub use client::{BadEndpoint, Client, connect};
pub use items::{SendBatchRequest, SendStreamRequest};
pub use json::NotJson;
pub use tonic_types::{FieldViolation, RpcStatusExt, StatusExt};

/// Generated from `proto/carillon/v1/notification_service.proto`.
#[expect(clippy::doc_markdown, clippy::too_many_lines, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("carillon.v1");
}

/// How a call ended, as a message: what a batch and a stream answer for one item.
pub use tonic_types::Status as ItemStatus;

/// The service and all that it uses, encoded: for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/carillon.v1.fds"));

/// The status of one item, with all its details, as the message that travels in an answer.
pub fn item_status(status: &tonic::Status) -> ItemStatus {
    // the details of a status are this very message
    match prost::Message::decode(status.details()) {
        Ok(message) if !status.details().is_empty() => message,
        _ => ItemStatus { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() },
    }
}
