//! The suite on the simulated log, and its determinism.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bus::{
    Event, Log, LogError, Outgoing, Partition,
    sim::{Faults, Sim, Step},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    member::{outgoing, spec},
    suite::Fixture,
};

async fn fixture() -> Fixture {
    Fixture { log: Arc::new(Sim::new(7, Faults::default())), _keep: Box::new(()) }
}

contract!(tokio::test(start_paused = true), fixture);

const GROUP: &str = "group";
const RECORDS: usize = 120;

/// Publishes each record until it is told that it was written.
async fn stubborn(log: Sim, records: Vec<Outgoing>) {
    for record in records {
        while log.publish(vec![record.clone()]).await.iter().any(Result::is_err) {}
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reads and commits until that succeeds, and dies now and then: it drops its membership and joins again.
async fn mortal(log: Sim, topic: Arc<str>, seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    loop {
        let mut member = log.subscribe(GROUP, std::slice::from_ref(&topic), Duration::ZERO).await.expect("joined");
        let mut finished = BTreeMap::new();
        while chance.u8(..) != 0 {
            match timeout(Duration::from_secs(1), member.next()).await {
                Ok(Ok(Event::Records(records))) => {
                    finished.extend(records.iter().map(|r| (r.at.partition.clone(), r.at.offset + 1)));
                }
                Ok(Ok(Event::Revoked(revoked))) => {
                    sleep(Duration::from_secs(chance.u64(..15) * chance.u64(..2))).await;
                    finished.retain(|p, _| !revoked.partitions.contains(p));
                    revoked.release();
                }
                Ok(Ok(Event::Assigned(_))) | Err(_) => {}
                Ok(Err(LogError::Unavailable(_))) => break,
                Ok(Err(other)) => panic!("{other}"),
            }
            if member.commit(&finished).await.is_ok() {
                finished.clear();
            }
        }
    }
}

/// A run with every fault, until all is committed.
async fn run(seed: u64) -> (Sim, Arc<str>) {
    let log = Sim::new(seed, Faults::all(0.1));
    let topic: Arc<str> = "t".into();
    log.ensure_topics(&[spec(&topic, 4)]).await.expect("created");
    let mut tasks = JoinSet::new();
    (0..3).for_each(|member| drop(tasks.spawn(mortal(log.clone(), topic.clone(), seed + member))));
    let records = (0..RECORDS).map(|i| outgoing(&topic, &format!("key-{i}"), &i.to_string())).collect();
    stubborn(log.clone(), records).await;
    let all = |log: &Sim| log.records(&topic).iter().all(|r| log.committed(GROUP, &r.at.partition) > Some(r.at.offset));
    let start = Instant::now();
    while !all(&log) {
        assert!(start.elapsed() < Duration::from_secs(3600), "seed {seed}: stuck");
        assert!(tasks.try_join_next().is_none(), "seed {seed}: a member has panicked");
        sleep(Duration::from_millis(100)).await;
    }
    (log, topic)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_before_it_was_delivered_whatever_fails() {
    let mut kinds = BTreeSet::new();
    for seed in 0..20 {
        let (log, topic) = run(seed).await;
        let written = log.records(&topic);
        assert!(written.len() > RECORDS, "some were published twice, since their publish had seemed to fail");
        let mut delivered: BTreeMap<Partition, i64> = BTreeMap::new();
        for (_, step) in log.trace() {
            match step {
                Step::Published { doubtful, .. } => drop(kinds.insert(if doubtful { "doubtful" } else { "written" })),
                Step::Refused { .. } => drop(kinds.insert("refused")),
                Step::Assigned { from, .. } => from.iter().for_each(|at| {
                    let seen = delivered.get(&at.partition).copied().unwrap_or(0);
                    assert!(at.offset <= seen, "seed {seed}: {} begins beyond what was read", at.partition);
                    kinds.insert("assigned");
                }),
                Step::Revoked { lost, .. } => drop(kinds.insert(if lost { "lost" } else { "revoked" })),
                Step::Delivered { from, count, .. } => {
                    let seen = delivered.entry(from.partition).or_default();
                    assert!(from.offset <= *seen, "seed {seed}: records left out");
                    *seen = (*seen).max(from.offset + i64::try_from(count).unwrap());
                }
                Step::Committed { stands, failed, .. } => drop(kinds.insert(match (stands, failed) {
                    (true, true) => "committed in doubt",
                    (true, false) => "committed",
                    (false, _) => "not committed",
                })),
                Step::Left { .. } => drop(kinds.insert("left")),
            }
        }
        let heads: i64 = delivered.values().sum();
        assert_eq!(usize::try_from(heads).unwrap(), written.len(), "seed {seed}: all was delivered");
    }
    assert_eq!(kinds.len(), 10, "every fault has happened: {kinds:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { run(seed).await.0.trace() })
    };
    let first = trace(42);
    assert!(first.len() > 300, "{}", first.len());
    assert!(first == trace(42), "the same seed");
    assert!(first != trace(43), "another seed");
}
