//! The newest records of a partition as they were committed: who follows closely need not ask the file.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::Record;

/// Bytes of records that a partition keeps; a larger one is kept alone.
const BYTES: usize = 256 * 1024;

/// Records without a gap between them. Cleaning lets go of them, so that partitions that have become quiet keep nothing, and
/// what has expired is not read.
#[derive(Default)]
pub(super) struct Tail(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    /// Takes records that are on disk, in the order of their offsets.
    pub(super) fn push(&self, record: Record) {
        let mut kept = self.kept();
        if kept.records.back().is_some_and(|last| last.at.offset + 1 != record.at.offset) {
            *kept = Kept::default();
        }
        kept.bytes += size(&record);
        kept.records.push_back(record);
        while kept.bytes > BYTES && kept.records.len() > 1 {
            kept.bytes -= kept.records.pop_front().as_ref().map_or(0, size);
        }
    }

    /// The records from an offset on, at least one; `None` if that one is not here.
    pub(super) fn read(&self, from: i64, most: usize, max_bytes: usize) -> Option<Vec<Record>> {
        let kept = self.kept();
        let skip = usize::try_from(from - kept.records.front()?.at.offset).ok()?;
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let fits = bytes < max_bytes;
            bytes += size(record);
            fits
        };
        let records: Vec<_> = kept.records.iter().skip(skip).take(most).take_while(fits).cloned().collect();
        Some(records).filter(|records| !records.is_empty())
    }

    pub(super) fn clear(&self) {
        *self.kept() = Kept::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Headers, Partition, Position};

    fn record(offset: i64, bytes: usize) -> Record {
        let at = Position { partition: Partition { topic: Arc::from("t"), index: 0 }, offset };
        let value = Some(Bytes::from(vec![0; bytes]));
        Record { at, key: None, value, headers: Headers::default(), timestamp_ms: 0 }
    }

    #[test]
    fn it_says_nothing_of_what_it_has_not() {
        let tail = Tail::default();
        let read = |from| tail.read(from, 3, 25).map(|r| r.iter().map(|r| r.at.offset).collect::<Vec<_>>());
        assert_eq!(read(0), None);
        (5..10).for_each(|offset| tail.push(record(offset, 10)));
        assert_eq!((read(4), read(5), read(8), read(10)), (None, Some(vec![5, 6, 7]), Some(vec![8, 9]), None));
        tail.push(record(12, 10));
        assert_eq!((read(9), read(11), read(12)), (None, None, Some(vec![12])), "a gap");
        tail.push(record(13, BYTES));
        tail.push(record(14, 30));
        assert_eq!((read(13), read(14)), (None, Some(vec![14])), "no more than it may keep");
        tail.push(record(15, 2 * BYTES));
        assert_eq!((read(14), read(15)), (None, Some(vec![15])), "one is always there");
        tail.clear();
        assert_eq!(read(15), None);
    }
}
