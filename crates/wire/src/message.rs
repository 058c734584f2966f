//! Protobuf, written where the values lie.
//!
//! A generated message owns all its texts: to write one record, each of them would be copied and thrown away. Records are read
//! by the generated messages, which hold what is written here to `envelope.proto`.

use std::{cell::RefCell, collections::BTreeMap, io::Write as _};

use bytes::Bytes;
use prost::encoding::{WireType, encode_varint, encoded_len_varint};
use uuid::Uuid;

thread_local! {
    static DRAFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What larger messages take is given back.
const LARGE: usize = 64 * 1024;

/// A message that is written. As proto3 has it, a field with its default value is left out.
pub(crate) struct Message<'b>(&'b mut Vec<u8>);

/// What is written as a message.
pub(crate) trait Fields {
    /// Writes all fields.
    fn write(&self, to: &mut Message<'_>);

    /// The whole message. It is put together where the last one was, and takes no more memory than it has bytes.
    fn to_bytes(&self) -> Bytes {
        DRAFT.with_borrow_mut(|draft| {
            // also what a panic may have left of the last one
            draft.clear();
            self.write(&mut Message(draft));
            let bytes = Bytes::copy_from_slice(draft);
            draft.clear();
            draft.shrink_to(LARGE);
            bytes
        })
    }
}

impl Message<'_> {
    pub(crate) fn uint(&mut self, tag: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            key(self.0, tag, WireType::Varint);
            varint(self.0, value);
        }
    }

    /// An `int64`.
    pub(crate) fn int(&mut self, tag: u32, value: i64) {
        self.uint(tag, value.cast_unsigned());
    }

    pub(crate) fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            key(self.0, tag, WireType::LengthDelimited);
            varint(self.0, text.len() as u64);
            self.0.extend_from_slice(text.as_bytes());
        }
    }

    pub(crate) fn maybe(&mut self, tag: u32, text: Option<&str>) {
        self.text(tag, text.unwrap_or_default());
    }

    pub(crate) fn id(&mut self, tag: u32, id: Uuid) {
        self.text(tag, id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    }

    /// A text as `Display` has it.
    pub(crate) fn shown(&mut self, tag: u32, value: impl std::fmt::Display) {
        // a vector takes everything
        self.delimited(tag, |bytes| drop(write!(bytes, "{value}")));
    }

    /// A text that is JSON.
    pub(crate) fn json(&mut self, tag: u32, value: &impl serde::Serialize) {
        // a map with string keys always serialises
        self.delimited(tag, |bytes| drop(serde_json::to_writer(bytes, value)));
    }

    pub(crate) fn map(&mut self, tag: u32, map: &BTreeMap<String, String>) {
        for (key, value) in map {
            self.nested(tag, |entry| {
                entry.text(1, key);
                entry.text(2, value);
            });
        }
    }

    /// A message in this one; it is there also if nothing is in it.
    pub(crate) fn nested(&mut self, tag: u32, write: impl FnOnce(&mut Message<'_>)) {
        self.delimited(tag, |bytes| write(&mut Message(bytes)));
    }

    /// The length goes before what is written, and is not known yet: a byte is left for it, which mostly suffices.
    fn delimited(&mut self, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
        key(self.0, tag, WireType::LengthDelimited);
        let at = self.0.len();
        self.0.push(0);
        write(self.0);
        let length = self.0.len() - at - 1;
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => self.0[at] = short,
            _ => {
                let mut prefix = Vec::with_capacity(10);
                encode_varint(length as u64, &mut prefix);
                self.0.splice(at..=at, prefix);
            }
        }
    }
}

fn key(to: &mut Vec<u8>, tag: u32, kind: WireType) {
    varint(to, u64::from(tag << 3 | kind as u32));
}

/// Most lengths, tags and numbers take one byte.
#[inline]
fn varint(to: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(short) if short < 0x80 => to.push(short),
        _ => {
            // into a vector it would go byte by byte, each with a check for room
            let mut bytes = [0; 10];
            encode_varint(value, &mut bytes.as_mut_slice());
            to.extend_from_slice(&bytes[..encoded_len_varint(value)]);
        }
    }
}
