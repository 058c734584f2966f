//! The short form of `make chaos`: processes are broken, seeded, and the five claims held against outside evidence. Engines stay
//! as they are, because the other tests use them; the long forms are `make chaos` and its README.

use chaos::{Addresses, Mode, Options};

use crate::world::{binary, engine};

/// One after the other: what is measured against the clock needs the machine.
async fn chaos(mode: Mode) {
    for seed in [7, 11, fastrand::u64(..1_000_000)] {
        play(mode, seed).await;
    }
}

async fn play(mode: Mode, seed: u64) {
    let engines = match mode {
        Mode::Cluster => Addresses {
            kafka: engine("KAFKA"),
            redis: engine("REDIS"),
            cassandra: engine("CASSANDRA"),
            elasticsearch: engine("ELASTICSEARCH"),
        },
        Mode::Standalone | Mode::Sim => Addresses::default(),
    };
    let report = Box::pin(chaos::run(Options::short(seed, mode, binary(), engines))).await.unwrap();
    assert!(report.is_green(), "{report}");
    println!("{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_keeps_its_promises_while_it_is_killed() {
    chaos(Mode::Standalone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_its_promises_while_its_services_are_killed() {
    chaos(Mode::Cluster).await;
}

/// Crashes at every await over the deterministic log; `make chaos MODE=sim SEEDS=100000` is the long form.
#[test]
fn no_schedule_of_the_sim_breaks_a_promise() {
    let first = fastrand::u64(..1_000_000_000);
    let told = chaos::sim::run_many(first, 1000, |_| {});
    assert!(told.red.is_empty(), "make chaos MODE=sim SEED={first} SEEDS=1000: {:?}", told.red);
    println!("1000 seeds from {first} on: {} deaths, {} accepted", told.deaths, told.accepted);
}
