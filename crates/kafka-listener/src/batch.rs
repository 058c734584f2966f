//! Record batches. The codec's own would reserve as much memory as a batch announces, and know each header name once only.

use std::sync::Arc;

use bus::{Headers, Outgoing, Record};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError::{CorruptMessage, InvalidRecord, MessageTooLarge, UnsupportedForMessageFormat},
    records::{
        BatchDecodeInfo, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, RecordBatchDecoder,
    },
};

use crate::{Refused, groups::NO_TRANSACTIONS, unpack::unpack};

/// Bytes before the records.
const HEAD: usize = 61;
/// Bytes before those that the length counts.
const LENGTH_END: usize = 12;
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;
/// The checksum is over what comes after it.
const CRC_AT: usize = 17;
/// Records and headers of one batch together: the smallest take far more room in memory than in a batch.
const ITEMS: usize = 100_000;

const TORN: Refused = Refused(CorruptMessage, "the batch is torn");
const TOO_MANY: Refused = Refused(MessageTooLarge, "the batch has too many records and headers");

/// A batch as produced.
pub(crate) struct Batch {
    pub(crate) records: Vec<Outgoing>,
    /// Id and epoch of a producer that numbers its records, and the number of the first one.
    pub(crate) producer: Option<(i64, i16, i32)>,
}

/// The one batch of a produce request for a partition; unpacked it may have `limit` bytes.
pub(crate) fn decode(data: &Bytes, topic: &Arc<str>, limit: usize) -> Result<Batch, Refused> {
    let info = head(data)?;
    let mut packed = unpack(info.compression, data.slice(HEAD..), limit)?;
    let count = usize::try_from(info.record_count).map_err(|_| TORN)?;
    let mut items = 0;
    let mut records = Vec::with_capacity(count.min(ITEMS).min(packed.len()));
    for _ in 0..count {
        let length = varint(&mut packed)?;
        let mut record = take(&mut packed, length)?.ok_or(TORN)?;
        records.push(outgoing(&mut record, topic, &mut items)?);
    }
    if records.is_empty() || packed.has_remaining() {
        return Err(Refused(InvalidRecord, "the batch has not the number of records that it announces"));
    }
    let numbered = info.producer_id >= 0;
    if numbered && (info.producer_epoch < 0 || info.base_sequence < 0) {
        return Err(Refused(InvalidRecord, "the batch has a producer, and no epoch or sequence"));
    }
    Ok(Batch { records, producer: numbered.then_some((info.producer_id, info.producer_epoch, info.base_sequence)) })
}

fn head(data: &Bytes) -> Result<BatchDecodeInfo, Refused> {
    if data.get(MAGIC_AT).is_some_and(|magic| *magic != MAGIC) {
        return Err(Refused(UnsupportedForMessageFormat, "batches are taken in format 2, of Kafka 0.11 and later"));
    }
    let length = data.get(8..LENGTH_END).map(|mut length| length.get_i32()).ok_or(TORN)?;
    if data.len() < HEAD || usize::try_from(length).ok() != Some(data.len() - LENGTH_END) {
        return Err(Refused(InvalidRecord, "exactly one batch per partition is taken"));
    }
    let infos = RecordBatchDecoder::decode_batch_info(&mut data.clone());
    let info = infos.ok().and_then(|mut infos| infos.pop()).ok_or(TORN)?;
    if info.transactional {
        return Err(NO_TRANSACTIONS);
    }
    if info.control {
        return Err(Refused(InvalidRecord, "control records are the log's own"));
    }
    Ok(info)
}

/// The record's own time and offset are left: the log has its own.
fn outgoing(record: &mut Bytes, topic: &Arc<str>, items: &mut usize) -> Result<Outgoing, Refused> {
    let mut count = |more: usize| {
        *items = items.saturating_add(more);
        if *items > ITEMS { Err(TOO_MANY) } else { Ok(()) }
    };
    count(1)?;
    record.try_get_u8().map_err(|_| TORN)?;
    varint(record)?;
    varint(record)?;
    let key = blob(record)?;
    let value = blob(record)?;
    let headers = usize::try_from(varint(record)?).map_err(|_| TORN)?;
    count(headers)?;
    let mut read = Headers::default();
    for _ in 0..headers {
        let name = blob(record)?.ok_or(TORN)?;
        read.push(std::str::from_utf8(&name).map_err(|_| TORN)?, blob(record)?.unwrap_or_default());
    }
    Ok(Outgoing { topic: Arc::clone(topic), key, headers: read, value })
}

fn blob(buf: &mut Bytes) -> Result<Option<Bytes>, Refused> {
    let length = varint(buf)?;
    take(buf, length)
}

/// So many bytes; none for -1.
fn take(buf: &mut Bytes, length: i64) -> Result<Option<Bytes>, Refused> {
    match usize::try_from(length) {
        Ok(length) if length <= buf.len() => Ok(Some(buf.split_to(length))),
        Err(_) if length == -1 => Ok(None),
        _ => Err(TORN),
    }
}

fn varint(buf: &mut Bytes) -> Result<i64, Refused> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = buf.try_get_u8().map_err(|_| TORN)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(TORN)
}

/// The first of these records as one batch, uncompressed, with the times at which they were appended: as many as fit into
/// `limit` bytes. `always`: at least one.
pub(crate) fn encode(records: &[Record], limit: usize, always: bool) -> Bytes {
    let Some(first) = records.first() else { return Bytes::new() };
    let (base, base_time) = (first.at.offset, first.timestamp_ms);
    let mut batch = BytesMut::with_capacity(HEAD);
    batch.put_bytes(0, HEAD);
    let (mut count, mut last, mut newest) = (0_i32, 0_i32, base_time);
    for record in records {
        let Ok(delta) = i32::try_from(record.at.offset - base) else { break };
        let size = body_size(record, delta, record.timestamp_ms - base_time);
        let fits = batch.len() + length_of(size) + size <= limit;
        if !fits && (count > 0 || !always) {
            break;
        }
        put(&mut batch, record, size, delta, record.timestamp_ms - base_time);
        (count, last, newest) = (count + 1, delta, newest.max(record.timestamp_ms));
    }
    if count == 0 {
        return Bytes::new();
    }
    let length = i32::try_from(batch.len() - LENGTH_END).unwrap_or(i32::MAX);
    let mut head = &mut batch[..HEAD];
    head.put_i64(base);
    head.put_i32(length);
    head.put_i32(NO_PARTITION_LEADER_EPOCH);
    head.put_u8(MAGIC);
    head.put_u32(0);
    head.put_i16(0);
    head.put_i32(last);
    head.put_i64(base_time);
    head.put_i64(newest);
    head.put_i64(NO_PRODUCER_ID);
    head.put_i16(NO_PRODUCER_EPOCH);
    head.put_i32(NO_SEQUENCE);
    head.put_i32(count);
    let crc = crc32c(&batch[CRC_AT + 4..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn put(batch: &mut BytesMut, record: &Record, size: usize, delta: i32, time: i64) {
    put_varint(batch, signed(size));
    batch.put_u8(0);
    put_varint(batch, time);
    put_varint(batch, delta.into());
    for part in [&record.key, &record.value] {
        match part {
            Some(part) => put_blob(batch, part),
            None => put_varint(batch, -1),
        }
    }
    put_varint(batch, signed(record.headers.0.len()));
    for (name, value) in &record.headers.0 {
        put_blob(batch, name.as_bytes());
        put_blob(batch, value);
    }
}

fn body_size(record: &Record, delta: i32, time: i64) -> usize {
    let blob = |length: usize| length_of(length) + length;
    let parts = [&record.key, &record.value].map(|part| part.as_ref().map_or(1, |part| blob(part.len())));
    let headers: usize = record.headers.0.iter().map(|(name, value)| blob(name.len()) + blob(value.len())).sum();
    1 + varint_size(time)
        + varint_size(delta.into())
        + parts[0]
        + parts[1]
        + length_of(record.headers.0.len())
        + headers
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The bytes that a length takes.
fn length_of(length: usize) -> usize {
    varint_size(signed(length))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_varint(buf: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buf.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    buf.put_u8(rest as u8);
}

fn put_blob(buf: &mut BytesMut, bytes: &[u8]) {
    put_varint(buf, signed(bytes.len()));
    buf.put_slice(bytes);
}

/// The checksum of batches.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !data.iter().fold(u32::MAX, |crc, byte| TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use bus::{Partition, Position};

    use super::*;

    const LIMIT: usize = 1024 * 1024;

    fn record(offset: i64, key: Option<&'static str>, value: Option<&'static str>, headers: Headers) -> Record {
        let at = Position { partition: Partition { topic: "t".into(), index: 0 }, offset };
        Record {
            at,
            timestamp_ms: 1_000_000 + offset * 100,
            key: key.map(Into::into),
            headers,
            value: value.map(Into::into),
        }
    }

    fn records() -> Vec<Record> {
        vec![
            record(7, Some("k"), Some("v"), Headers::default().with("a", "1").with("a", "2").with("", &b"\xff\0"[..])),
            record(8, None, None, Headers::default()),
            // a gap that compaction left
            record(300, Some(""), Some(""), Headers::default().with("b", "")),
        ]
    }

    /// Sets the checksum right after a change.
    fn signed(mut batch: Vec<u8>) -> Bytes {
        let crc = crc32c(&batch[CRC_AT + 4..]);
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        batch.into()
    }

    #[test]
    fn what_is_encoded_is_what_the_codec_and_we_decode() {
        let (records, topic) = (records(), "t".into());
        let batch = encode(&records, LIMIT, false);
        let theirs = RecordBatchDecoder::decode(&mut batch.clone()).expect("a batch with a right checksum").records;
        let shown = |r: &kafka_protocol::records::Record| (r.offset, r.timestamp, r.key.clone(), r.value.clone());
        let ours = |r: &Record| (r.at.offset, r.timestamp_ms, r.key.clone(), r.value.clone());
        assert_eq!(theirs.iter().map(shown).collect::<Vec<_>>(), records.iter().map(ours).collect::<Vec<_>>());
        let back = decode(&batch, &topic, LIMIT).expect("a batch");
        let same = back.records.iter().zip(&records);
        assert!(same.clone().count() == 3 && back.producer.is_none());
        same.for_each(|(b, r)| assert_eq!((&b.key, &b.headers, &b.value), (&r.key, &r.headers, &r.value)));
    }

    #[test]
    fn a_limit_cuts_between_records_and_the_first_may_be_forced() {
        let records = records();
        let (one, two) = (encode(&records[..1], LIMIT, false).len(), encode(&records[..2], LIMIT, false).len());
        assert_eq!(encode(&records, two, false).len(), two);
        assert_eq!(encode(&records, two - 1, false).len(), one);
        assert_eq!(encode(&records, one - 1, false).len(), 0);
        assert_eq!(encode(&records, 0, true).len(), one);
    }

    #[test]
    fn hostile_batches_are_refused_and_nothing_is_reserved_for_them() {
        let topic: Arc<str> = "t".into();
        let good = encode(&records(), LIMIT, false).to_vec();
        for cut in 0..good.len() {
            assert!(decode(&Bytes::copy_from_slice(&good[..cut]), &topic, LIMIT).is_err(), "{cut}");
        }
        let mut announces = good.clone();
        announces[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(decode(&signed(announces), &topic, LIMIT).err(), Some(TORN));
        // 7 bytes of head and the number of headers
        let mut record = vec![0, 0, 0, 1, 1];
        record.extend([0xfe, 0xff, 0xff, 0xff, 0x0f]);
        let mut headers = good[..HEAD].to_vec();
        headers.push(u8::try_from(record.len() * 2).unwrap());
        headers.extend(record);
        let length = i32::try_from(headers.len() - LENGTH_END).unwrap();
        headers[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(decode(&signed(headers), &topic, LIMIT).err(), Some(TOO_MANY));
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(MAGIC_AT..bad.len());
                bad[at] = random.u8(..);
            }
            // it may still be a batch; it must be an answer
            let _any = decode(&signed(bad), &topic, LIMIT).map(|batch| batch.records.len());
        }
    }
}
