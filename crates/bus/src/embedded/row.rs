//! Rows of the record table. Headers as bytes: per header the length and bytes of the name, then of the value.

use bytes::{Buf, BufMut, Bytes};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use crate::{Headers, Outgoing};

const OFFSET_BITS: u32 = 40;

/// Partition and offset as one number. A table without such a row id has a page of its own for what a record has beyond
/// a quarter of a page, so that records of 1 kB took 4.7 kB.
pub(super) fn id(part: i64, offset: i64) -> i64 {
    (part << OFFSET_BITS) | offset
}

/// The offset in an [`id`].
pub(super) fn offset(id: i64) -> i64 {
    id & ((1 << OFFSET_BITS) - 1)
}

/// What counts against the topic's largest record, in bytes.
pub(super) fn size(record: &Outgoing) -> usize {
    let headers: usize = record.headers.0.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + headers
}

/// The headers of a record that [`size`] has found small enough.
pub(super) fn encode(headers: &Headers) -> Vec<u8> {
    let mut row = Vec::new();
    for (name, value) in &headers.0 {
        for part in [name.as_bytes(), value] {
            row.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
            row.extend_from_slice(part);
        }
    }
    row
}

impl FromSql for Headers {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let mut row = Bytes::copy_from_slice(value.as_blob()?);
        let mut headers = Self::default();
        while !row.is_empty() {
            let name = part(&mut row)?;
            headers.push(std::str::from_utf8(&name).map_err(FromSqlError::other)?, part(&mut row)?);
        }
        Ok(headers)
    }
}

fn part(row: &mut Bytes) -> FromSqlResult<Bytes> {
    let len = row.try_get_u32().map_err(FromSqlError::other)?;
    let len = usize::try_from(len).ok().filter(|len| *len <= row.len()).ok_or(FromSqlError::InvalidType)?;
    Ok(row.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_a_torn_row_is_refused() {
        let headers = Headers::default().with("a", "1").with("", "").with("a", &b"\xff\x00"[..]);
        let row = encode(&headers);
        assert_eq!(Headers::column_result(ValueRef::Blob(&row)).unwrap(), headers);
        assert_eq!(Headers::column_result(ValueRef::Blob(&[])).unwrap(), Headers::default());
        for cut in [1, 4, row.len() - 1] {
            assert!(Headers::column_result(ValueRef::Blob(&row[..cut])).is_err(), "{cut}");
        }
    }
}
