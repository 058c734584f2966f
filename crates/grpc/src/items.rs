//! Requests of many items, each of which stays encoded until its turn. On the wire they are what the proto file says: a nested
//! message and its bytes are the same there.

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::v1::SendRequest;

/// Many requests in one.
#[derive(Clone, PartialEq, Message)]
pub struct SendBatchRequest {
    /// Each a [`SendRequest`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub notifications: Vec<Bytes>,
}

/// One item of a stream.
#[derive(Clone, PartialEq, Message)]
pub struct SendStreamRequest {
    /// A [`SendRequest`].
    #[prost(bytes = "bytes", tag = "1")]
    pub notification: Bytes,
}

impl FromIterator<SendRequest> for SendBatchRequest {
    fn from_iter<I: IntoIterator<Item = SendRequest>>(items: I) -> Self {
        Self { notifications: items.into_iter().map(|item| item.encode_to_vec().into()).collect() }
    }
}

impl From<SendRequest> for SendStreamRequest {
    fn from(item: SendRequest) -> Self {
        Self { notification: item.encode_to_vec().into() }
    }
}

impl SendRequest {
    /// One item.
    ///
    /// # Errors
    /// It is not protobuf of this message, or nested too deeply.
    pub fn from_item(bytes: Bytes) -> Result<Self, DecodeError> {
        Self::decode(bytes)
    }
}
