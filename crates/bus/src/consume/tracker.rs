//! Which offset may be committed: the one after the contiguous prefix of finished records.

use std::collections::VecDeque;

/// The open window of one partition.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Records taken in and not yet behind the commit point.
    window: VecDeque<Taken>,
    /// The offset after the contiguous prefix, once there is one.
    commit: Option<i64>,
    /// What was last told to be committed.
    told: Option<i64>,
    /// The highest offset ever taken in.
    highest: i64,
}

#[derive(Debug)]
struct Taken {
    offset: i64,
    timestamp_ms: i64,
    finished: bool,
}

impl Tracker {
    pub(super) fn new() -> Self {
        Self { highest: -1, ..Self::default() }
    }

    /// Takes in a record. `false`: it was taken in before (a log may deliver again), and is to be dropped.
    pub(super) fn take_in(&mut self, offset: i64, timestamp_ms: i64) -> bool {
        if offset <= self.highest {
            return false;
        }
        self.highest = offset;
        self.window.push_back(Taken { offset, timestamp_ms, finished: false });
        true
    }

    /// A record is finished.
    pub(super) fn finish(&mut self, offset: i64) {
        if let Some(taken) = self.find(offset) {
            taken.finished = true;
        }
        while let Some(Taken { offset, finished: true, .. }) = self.window.front() {
            self.commit = Some(offset + 1);
            self.window.pop_front();
        }
    }

    fn find(&mut self, offset: i64) -> Option<&mut Taken> {
        // where nothing was compacted or left out, offsets follow one another
        let ahead = usize::try_from(offset - self.window.front()?.offset).ok()?;
        let at = match self.window.get(ahead) {
            Some(taken) if taken.offset == offset => ahead,
            _ => self.window.binary_search_by_key(&offset, |taken| taken.offset).ok()?,
        };
        self.window.get_mut(at)
    }

    /// The offset to commit, if it has moved since the last commit that succeeded.
    pub(super) fn pending(&self) -> Option<i64> {
        self.commit.filter(|c| self.told != Some(*c))
    }

    /// This offset is committed.
    pub(super) fn committed(&mut self, offset: i64) {
        self.told = Some(offset);
    }

    /// When the first record that is not finished was appended, in milliseconds since the epoch.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.window.front().map(|taken| taken.timestamp_ms)
    }

    /// Records that are taken in and hold the commit point back, finished or not: bounds the memory.
    pub(super) fn len(&self) -> usize {
        self.window.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stuck_record_holds_the_commit_back() {
        let mut t = Tracker::new();
        (0..=50).for_each(|o| assert!(t.take_in(o, 10 * o)));
        (0..=3).chain(5..=50).for_each(|o| t.finish(o));
        assert_eq!((t.pending(), t.oldest()), (Some(4), Some(40)), "4 is not finished");
        t.committed(4);
        assert_eq!(t.pending(), None);
        t.finish(4);
        assert_eq!(t.pending(), Some(51));
        assert_eq!((t.len(), t.oldest()), (0, None));
        assert!(!t.take_in(50, 500), "delivered again");
    }

    proptest! {
        /// Whatever the order of finishing and the gaps between offsets: never past an unfinished record, always as far as
        /// the finished ones reach.
        #[test]
        fn commits_the_contiguous_prefix(gaps in prop::collection::vec(1_i64..4, 1..60), order in prop::collection::vec(any::<prop::sample::Index>(), 0..120)) {
            let offsets: Vec<i64> = gaps.iter().scan(-1, |o, g| { *o += g; Some(*o) }).collect();
            let mut t = Tracker::new();
            for o in &offsets { prop_assert!(t.take_in(*o, 0)); }
            let mut done = BTreeSet::new();
            for pick in order {
                let o = offsets[pick.index(offsets.len())];
                t.finish(o);
                done.insert(o);
                let prefix = offsets.iter().take_while(|o| done.contains(o)).last().map(|o| o + 1);
                prop_assert_eq!(t.commit, prefix);
                prop_assert_eq!(t.len(), offsets.len() - offsets.iter().take_while(|o| done.contains(o)).count());
            }
        }
    }
}
