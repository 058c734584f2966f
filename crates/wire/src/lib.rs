#![doc = include_str!("../README.md")]

mod decode;
mod encode;
mod message;
pub mod trace;

pub use trace::TraceContext;

/// Generated from `proto/carillon/v1`.
#[expect(clippy::doc_markdown, reason = "generated code")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/carillon.v1.rs"));
}

use bytes::Bytes;
use prost::Message as _;

/// Bytes that are no valid record, and why.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf of the expected message.
    #[error("not a {message} message: {source}")]
    Protobuf {
        /// The expected message.
        message: &'static str,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// Protobuf, but a field holds what the domain does not allow.
    #[error("field {field}: {detail}")]
    Field {
        /// The field's name in the protobuf file.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The record has no value.
    #[error("the record has no value")]
    Empty,
}

/// A domain type that travels as one record.
pub trait Record: Sized {
    /// As bytes.
    fn encode(&self) -> Bytes;
    /// From bytes; checks everything that `domain` checks.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Implements [`Record`] over what is written of the type, and the generated message that reads it.
macro_rules! record {
    ($domain:ty, $message:ident) => {
        impl Record for $domain {
            fn encode(&self) -> Bytes {
                message::Fields::to_bytes(self)
            }
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                proto::$message::decode(bytes)
                    .map_err(|source| DecodeError::Protobuf { message: stringify!($message), source })?
                    .try_into()
            }
        }
    };
}
record!(domain::Notification, Notification);
record!(domain::Delivery, Delivery);
record!(domain::Status, StatusEvent);
record!(domain::Plan, Decision);

/// For what is large and goes from hand to hand.
impl<T: Record> Record for Box<T> {
    fn encode(&self) -> Bytes {
        T::encode(self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        T::decode(bytes).map(Self::new)
    }
}

/// Decodes an optional record value; a tombstone where none belongs is an error.
pub fn decode<T: Record>(value: Option<&Bytes>) -> Result<T, DecodeError> {
    T::decode(value.ok_or(DecodeError::Empty)?)
}

#[cfg(test)]
mod tests;
