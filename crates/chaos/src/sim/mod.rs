//! The long form: the consume loop, the router, the gateway and the indexer over the deterministic log, with stores in memory,
//! and a death wherever one of them waits for the world. The same checker reads the same evidence.
//!
//! Time is Tokio's and paused, so that a minute takes milliseconds. What goes wrong follows from the seed; what the code on top
//! decides by chance (`select!`, the order of a hash map) does not, so a schedule may need a few runs to come back.

mod life;
mod log;
mod play;
mod provider;
mod stores;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::check::Violation;

/// What came of some seeds.
#[derive(Debug, Default)]
pub struct Told {
    /// How many were played.
    pub seeds: u64,
    /// Processes that died.
    pub deaths: u64,
    /// Notifications that were taken over.
    pub accepted: u64,
    /// Deliveries that had an outcome that was not known.
    pub unknown: u64,
    /// By seed; at most a hundred seeds.
    pub red: Vec<(u64, Vec<Violation>)>,
}

/// Plays one seed.
pub fn run(seed: u64) -> Told {
    play::run(seed)
}

/// Plays `count` seeds from `first` on, on all processors. `progress` hears of the number so far, now and then.
pub fn run_many(first: u64, count: u64, progress: impl Fn(u64) + Sync) -> Told {
    let next = AtomicU64::new(0);
    let all = Mutex::new(Told::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Relaxed);
                    if i >= count {
                        return;
                    }
                    let told = run(first + i);
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.add(told);
                    if all.seeds.is_multiple_of(500) {
                        progress(all.seeds);
                    }
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.red.sort();
    all
}

impl Told {
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.deaths += other.deaths;
        self.accepted += other.accepted;
        self.unknown += other.unknown;
        if self.red.len() < 100 {
            self.red.extend(other.red);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schedules_are_wild_enough_to_prove_something() {
        let told = super::run_many(0, 20, |_| {});
        assert_eq!(told.seeds, 20);
        assert!(told.deaths >= 20 && told.unknown >= 10 && told.accepted >= 400, "{told:?}");
    }
}
