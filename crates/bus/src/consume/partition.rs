//! One assigned partition: its window of offsets, and one in-flight slot per key.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::tracker::Tracker;
use crate::Record;

/// A record that was taken in.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// How often a stage has panicked over it.
    pub(super) panics: u8,
}

#[derive(Debug)]
pub(super) struct Assigned {
    /// Tells acknowledgements of this assignment from those of an earlier one.
    pub(super) generation: u64,
    pub(super) tracker: Tracker,
    /// Given to the stage and not yet answered.
    pub(super) in_flight: HashMap<i64, Entry>,
    /// A key is present while one of its records is in flight, ready or waits for a retry; the rest queue behind it.
    keys: HashMap<Bytes, VecDeque<Entry>>,
    pub(super) paused: bool,
    pub(super) draining: bool,
}

impl Assigned {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            generation,
            tracker: Tracker::new(),
            in_flight: HashMap::new(),
            keys: HashMap::new(),
            paused: false,
            draining: false,
        }
    }

    /// Takes a record in; gives it back if its key is free, so that it may go ahead.
    pub(super) fn admit(&mut self, record: Record) -> Option<Entry> {
        if !self.tracker.take_in(record.at.offset, record.timestamp_ms) {
            return None;
        }
        let entry = Entry { record, panics: 0 };
        let Some(key) = entry.record.key.clone() else { return Some(entry) };
        if let Some(queue) = self.keys.get_mut(&key) {
            queue.push_back(entry);
            return None;
        }
        self.keys.insert(key, VecDeque::new());
        Some(entry)
    }

    /// A record is finished; gives the next one of its key.
    pub(super) fn finish(&mut self, record: &Record) -> Option<Entry> {
        self.tracker.finish(record.at.offset);
        let key = record.key.as_ref()?;
        let next = self.keys.get_mut(key)?.pop_front();
        if next.is_none() {
            self.keys.remove(key);
        }
        next
    }
}
