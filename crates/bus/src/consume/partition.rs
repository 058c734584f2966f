//! One assigned partition: its window of offsets, and one in-flight slot per key.

use std::{
    collections::{VecDeque, hash_map},
    hash::BuildHasher as _,
    sync::Arc,
};

use foldhash::{HashMap, HashMapExt as _};

use super::{Pace, tracker::Tracker};
use crate::Record;

/// A record that was taken in.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<Record>,
    /// Of its key, where order has an effect.
    key_hash: Option<u64>,
    /// How often a stage has panicked over it.
    pub(super) panics: u8,
}

#[derive(Debug)]
pub(super) struct Assigned {
    /// Tells acknowledgements of this assignment from those of an earlier one.
    pub(super) generation: u64,
    pub(super) tracker: Tracker,
    /// Given to the stage and not yet answered.
    pub(super) in_flight: usize,
    /// A key is present while one of its records is in flight, ready or waits for a retry; the rest queue behind it. `None`
    /// where order has no effect. It is the key's hash, so that a record that ends does not have its bytes read once more: two
    /// keys of one hash, of 2^64, would only wait for one another.
    keys: Option<HashMap<u64, VecDeque<Entry>>>,
    pub(super) paused: bool,
    pub(super) draining: bool,
}

impl Assigned {
    pub(super) fn new(generation: u64, pace: Pace) -> Self {
        Self {
            generation,
            tracker: Tracker::new(),
            in_flight: 0,
            keys: (pace == Pace::InOrder).then(HashMap::new),
            paused: false,
            draining: false,
        }
    }

    /// Takes a record in; gives it back if its key is free, so that it may go ahead.
    pub(super) fn admit(&mut self, record: Record) -> Option<Entry> {
        if !self.tracker.take_in(record.at.offset, record.timestamp_ms) {
            return None;
        }
        let key_hash = self.keys.as_ref().zip(record.key.as_ref()).map(|(keys, key)| keys.hasher().hash_one(key));
        let entry = Entry { record: Arc::new(record), key_hash, panics: 0 };
        let (Some(keys), Some(key_hash)) = (&mut self.keys, key_hash) else { return Some(entry) };
        match keys.entry(key_hash) {
            hash_map::Entry::Occupied(mut queue) => {
                queue.get_mut().push_back(entry);
                None
            }
            hash_map::Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(entry)
            }
        }
    }

    /// A record is finished; gives the next one of its key.
    pub(super) fn finish(&mut self, entry: &Entry) -> Option<Entry> {
        self.tracker.finish(entry.record.at.offset);
        let hash_map::Entry::Occupied(mut queue) = self.keys.as_mut()?.entry(entry.key_hash?) else { return None };
        let next = queue.get_mut().pop_front();
        if next.is_none() {
            queue.remove();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Headers, Partition, Position};

    fn record(offset: i64, key: Option<u8>) -> Record {
        let at = Position { partition: Partition { topic: Arc::from("t"), index: 0 }, offset };
        let key = key.map(|key| Bytes::from(vec![key]));
        Record { at, key, value: None, headers: Headers::default(), timestamp_ms: 0 }
    }

    proptest! {
        /// However records come in and end: of a key one is out at a time, in the order of the offsets, and none stays behind.
        #[test]
        fn one_of_a_key_is_out_at_a_time_and_in_order(
            keys in prop::collection::vec(prop::option::of(0_u8..4), 1..60),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 200),
            ahead in prop::collection::vec(0_usize..4, 200),
        ) {
            let mut partition = Assigned::new(1, Pace::InOrder);
            let mut incoming = keys.iter().enumerate().map(|(i, key)| record(i as i64, *key));
            let (mut out, mut last, mut ended): (Vec<Entry>, HashMap<Bytes, i64>, usize) = (Vec::new(), HashMap::default(), 0);
            for (pick, ahead) in picks.iter().zip(ahead) {
                let mut fresh: Vec<_> = incoming.by_ref().take(ahead).filter_map(|r| partition.admit(r)).collect();
                if !out.is_empty() {
                    let done = out.swap_remove(pick.index(out.len()));
                    prop_assert!(partition.admit(Record::clone(&done.record)).is_none(), "delivered again while it is out");
                    fresh.extend(partition.finish(&done));
                    ended += 1;
                }
                for entry in fresh {
                    if let Some(key) = &entry.record.key {
                        prop_assert!(out.iter().all(|e| e.record.key.as_ref() != Some(key)), "two of a key");
                        let before = last.insert(key.clone(), entry.record.at.offset);
                        prop_assert!(before.is_none_or(|before| before < entry.record.at.offset), "overtaken");
                    }
                    out.push(entry);
                }
            }
            let (mut rest, mut left): (Vec<_>, usize) = (incoming.filter_map(|r| partition.admit(r)).collect(), keys.len());
            rest.extend(out);
            left -= ended;
            while let Some(entry) = rest.pop() {
                rest.extend(partition.finish(&entry));
                left -= 1;
            }
            prop_assert_eq!((left, partition.tracker.pending()), (0, Some(keys.len() as i64)));
            prop_assert!(partition.keys.is_some_and(|keys| keys.is_empty()), "a key that is over is forgotten");
        }
    }
}
