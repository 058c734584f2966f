//! Records as every log has them.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;

use crate::trace::{self, TraceContext};

/// Headers in order; a name may repeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(Cow<'static, str>, Bytes)>);

/// What almost every record has, kept without a copy of its name.
const USUAL: [&str; 2] = [TraceContext::HEADER, "content-type"];

impl Headers {
    /// Adds a header as it was read.
    pub fn push(&mut self, name: &str, value: Bytes) {
        let usual = USUAL.iter().find(|usual| **usual == name);
        self.0.push((usual.map_or_else(|| name.to_owned().into(), |usual| Cow::Borrowed(*usual)), value));
    }

    /// The last value of a header.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The trace that they belong to.
    pub fn trace(&self) -> Option<TraceContext> {
        self.get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h))
    }

    pub(crate) fn set_trace(&mut self, context: TraceContext) {
        self.0.retain(|(name, _)| name != TraceContext::HEADER);
        self.0.push((TraceContext::HEADER.into(), Bytes::copy_from_slice(&context.header())));
    }

    /// What goes on with the records that come of this one: the same trace, and the same span of it. Where spans are collected,
    /// that is the one in which this record is processed, and each record gets one of its own when it is published.
    pub fn handed_on(&self) -> Self {
        let valid = |header: &&Bytes| TraceContext::parse(header).is_some();
        let trace = self.get(TraceContext::HEADER).filter(valid).cloned();
        let begin = || Bytes::copy_from_slice(&trace::context(None).header());
        Self::default().with(TraceContext::HEADER, trace.unwrap_or_else(begin))
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// The full topic name, prefix included.
    pub topic: Arc<str>,
    /// From 0.
    pub index: i32,
}

/// Of two names that are one and the same piece of memory nothing has to be read.
impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && (Arc::ptr_eq(&self.topic, &other.topic) || self.topic == other.topic)
    }
}

/// Names are long, and a record's partition is looked up a few times; the topics that one loop reads mostly differ in length.
impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.topic.len(), self.index).hash(state);
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

/// Where a record lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// From 0, in the order of appending; gaps are allowed.
    pub offset: i64,
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub at: Position,
    /// When it was appended, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Decides the partition, and the order among records of the same key.
    pub key: Option<Bytes>,
    /// As published.
    pub headers: Headers,
    /// `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The full topic name.
    pub topic: Arc<str>,
    /// Decides the partition; without one any partition is taken.
    pub key: Option<Bytes>,
    /// Carried as they are.
    pub headers: Headers,
    /// `None` deletes the key on a compacted topic.
    pub value: Option<Bytes>,
}

/// The partition of a key among `count`, as Kafka's own Java clients choose it (murmur2), so that a topic keeps its
/// order whichever client writes to it.
pub fn partition_of(key: &[u8], count: i32) -> i32 {
    let hash = murmur2(key) & 0x7fff_ffff;
    i32::try_from(hash % count.max(1).unsigned_abs()).unwrap_or(0)
}

/// `MurmurHash2` with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (i, byte) in rest.iter().enumerate().rev() {
        h ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafka_s_own_test_vectors() {
        // org.apache.kafka.common.utils.UtilsTest#testMurmur2
        let expected: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, hash) in expected {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }
}
