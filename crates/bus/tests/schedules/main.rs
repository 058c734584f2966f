//! The consume loop over a thousand schedules: a simulated log with every fault, members that crash and come back, a stage that
//! is slow, fails, forgets and panics. What is held against it is outside evidence: the log's own trace and contents.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dead_letters;
mod play;

use std::time::{Duration, Instant};

use bus::sim::Faults;
use play::{Play, Told};

/// Seeds of a run; CI stays in seconds, `SCHEDULES=100000` is for a long night.
#[expect(clippy::disallowed_methods, reason = "how long to search is the caller's choice")]
fn seeds() -> u64 {
    std::env::var("SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

/// Faults and their strength follow from the seed too: some runs are calm, some wild, some never lose a partition.
fn faults(chance: &mut fastrand::Rng) -> Faults {
    let strength = [0.0, 0.01, 0.05, 0.15][chance.usize(0..4)];
    let mut faults = Faults::all(strength);
    faults.longest = Duration::from_millis(chance.u64(1..1500));
    if chance.bool() {
        faults.rebalance_lost = 0.0;
        faults.next_fails = 0.0;
    }
    faults
}

fn run(seed: u64) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut chance = fastrand::Rng::with_seed(seed);
        let faults = faults(&mut chance);
        Play::new(seed, faults, chance).run().await
    })
}

#[test]
fn nothing_is_lost_skipped_or_overtaken() {
    // a stage that panics on purpose would fill the screen
    std::panic::set_hook(Box::new(|info| {
        let on_purpose = info.payload().downcast_ref::<&str>() == Some(&play::POISON);
        if !on_purpose {
            eprintln!("{info}");
        }
    }));
    let begun = Instant::now();
    let (mut crashes, mut redone) = (0, 0);
    for seed in 0..seeds() {
        let told = std::panic::catch_unwind(|| {
            let told = run(seed);
            told.check();
            told
        });
        let told = told.unwrap_or_else(|_| panic!("seed {seed} fails; `run({seed})` repeats it"));
        crashes += told.crashes;
        redone += told.redone();
    }
    println!("{} schedules, {crashes} crashes, {redone} records done again, in {:?}", seeds(), begun.elapsed());
    assert!(crashes > seeds() / 2 && redone > 0, "the schedules are too tame to prove anything");
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    for seed in [3, 4, 5] {
        assert_eq!(run(seed).trace, run(seed).trace, "seed {seed}");
    }
}
