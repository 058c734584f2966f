//! The embedded log against bare SQLite with the same schema, settings and batch: records of 512 bytes, each durable, while a
//! reader follows; and how long one append takes when 2,000 come in a second.

mod latency;

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use bus::{
    Cleanup, FollowEvent, Headers, Log as _, LogError, Outgoing, Position, TopicSpec,
    embedded::{Embedded, EmbeddedSettings},
};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet};

use super::Outcomes;
use crate::{
    bare::sqlite::{self, Row},
    harness::{Bench, Effort, Meter, Sample, threads},
    report::{Better, Figure},
};

pub(super) const PARTITIONS: u8 = 4;
const TOPIC: &str = "bench";
/// Publishers at a time, and records in one call: a commit takes in what all of them have handed over.
const PUBLISHERS: u64 = 4;
const BATCH: u64 = 500;
const VALUE: usize = 512;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Outcomes> {
    let place = || TempDir::new_in(&bench.dir).context("no room for the log");
    let names = ["embedded log", "bare rusqlite"];
    let rate = bench.compare("embedded_log", &names, |side| {
        let dir = place()?;
        threads()?.block_on(async {
            if side == 0 { ours(dir.path(), bench.effort).await } else { baseline(dir.path(), bench.effort).await }
        })
    })?;
    let p99 = bench.compare("embedded_log_p99", &names, |side| {
        let dir = place()?;
        if side == 0 { latency::ours(dir.path(), bench.effort) } else { latency::baseline(dir.path(), bench.effort) }
    })?;
    let figures = vec![
        Figure::of("embedded_log", "records/s", Better::More, 0.7, &rate[0], &rate[1]),
        Figure::of("embedded_log_p99", "µs at 2,000/s", Better::Less, 0.7, &p99[0], &p99[1]),
    ];
    Ok(Outcomes {
        figures,
        sides: vec![("embedded_log".to_owned(), rate), ("embedded_log_p99".to_owned(), p99)],
        ..Outcomes::default()
    })
}

async fn open(dir: &Path) -> anyhow::Result<Embedded> {
    let log = Embedded::open(dir, EmbeddedSettings::default())?;
    let spec = TopicSpec {
        name: TOPIC.into(),
        partitions: PARTITIONS.into(),
        replication: 1,
        cleanup: Cleanup::Delete,
        retention_ms: 3_600_000,
        max_message_bytes: 1024 * 1024,
    };
    log.ensure_topics(&[spec]).await?;
    Ok(log)
}

/// The keys of one batch after the other, and the value that all records have.
fn records(from: u64) -> Vec<Row> {
    let value = Bytes::from(vec![b'x'; VALUE]);
    let row = |n: u64| Row { key: Bytes::from(format!("bench/user:{:06}", n % 10_000)), value: value.clone() };
    (from * BATCH..(from + 1) * BATCH).map(row).collect()
}

fn outgoing(row: Row, topic: &Arc<str>) -> Outgoing {
    Outgoing { topic: topic.clone(), key: Some(row.key), headers: Headers::default(), value: Some(row.value) }
}

fn durable(results: Vec<Result<Position, LogError>>) -> anyhow::Result<()> {
    results.into_iter().try_for_each(|result| result.map(drop).context("a record was not taken"))
}

async fn ours(dir: &Path, effort: Effort) -> anyhow::Result<Sample> {
    let log = open(dir).await?;
    let topic: Arc<str> = TOPIC.into();
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    for _ in 0..PUBLISHERS {
        let (meter, log, topic) = (meter.clone(), log.clone(), topic.clone());
        tasks.spawn(async move {
            while let Some(n) = meter.next() {
                let batch = records(n).into_iter().map(|row| outgoing(row, &topic)).collect();
                durable(log.publish(batch).await)?;
                meter.done(BATCH);
            }
            Ok(())
        });
    }
    let mut follow = log.follow(TOPIC).await?;
    let reader = tokio::spawn(async move {
        let mut read = 0;
        while let Ok(event) = follow.next().await {
            if let FollowEvent::Records(records) = event {
                read += records.len();
                if read > 0 {
                    std::hint::black_box(&records);
                }
            }
        }
    });
    let sample = meter.measure(effort, tasks).await;
    reader.abort();
    sample
}

async fn baseline(dir: &Path, effort: Effort) -> anyhow::Result<Sample> {
    let mut log = sqlite::Log::open(dir)?;
    let (wake, woken) = std::sync::mpsc::sync_channel(1);
    let path = dir.to_owned();
    let reader = std::thread::spawn(move || sqlite::follow(&path, &woken));
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    // records are made while the commit before runs, as ours does it
    let (make, mut made) = mpsc::channel::<Vec<Row>>(2);
    let maker = tokio::spawn(async move {
        let mut n = 0;
        loop {
            let batch = (n..n + PUBLISHERS).flat_map(records).collect();
            if make.send(batch).await.is_err() {
                return;
            }
            n += PUBLISHERS;
        }
    });
    let counted = meter.clone();
    tasks.spawn_blocking(move || {
        while counted.next().is_some() {
            let batch = made.blocking_recv().context("no more records")?;
            log.append(&batch)?;
            // one word is enough: it reads all that is there
            let _awake = wake.try_send(());
            counted.done(batch.len() as u64);
        }
        Ok(())
    });
    let sample = meter.measure(effort, tasks).await;
    maker.abort();
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))??;
    ensure!(read > 0, "nothing was read");
    sample
}
