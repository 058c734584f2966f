//! Redis alone: what has to be asked about a delivery, in as few calls as it takes.

use anyhow::{Context as _, ensure};
use redis::{AsyncCommands as _, Pipeline, Value, aio::MultiplexedConnection};
use tokio::task::JoinSet;

use super::kafka::BURST;
use crate::harness::{Effort, Meter, Sample};

/// Of the copy of a user, in bytes.
const COPY: usize = 400;
const PEOPLE: usize = 2000;

/// Keys in one step of a walk through all of them.
const STEP: usize = 10_000;

/// Deletes all keys that begin with `prefix`: with those of a few rows Redis would be busy rewriting its file, for seconds and
/// on a core of its own, while the next one is measured.
pub async fn forget(url: &str, prefix: &str) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(STEP);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        if !keys.is_empty() {
            connection.unlink::<_, ()>(keys).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// A connection, and copies of people as long as those that the product keeps.
#[derive(Clone)]
pub struct Store {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Store {
    /// Connects; what it writes begins with `prefix` and goes by itself.
    pub async fn open(url: &str, prefix: &str) -> anyhow::Result<Self> {
        let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let mut store = Self { connection, prefix: format!("{prefix}bare:") };
        let mut pipeline = Pipeline::with_capacity(PEOPLE);
        for number in 0..PEOPLE {
            pipeline.pset_ex(store.name(number), vec![b'x'; COPY], 3_600_000).ignore();
        }
        pipeline.query_async::<()>(&mut store.connection).await?;
        Ok(store)
    }

    fn name(&self, number: usize) -> String {
        format!("{}user:user-{:07}", self.prefix, number % PEOPLE)
    }

    /// One person.
    pub async fn user(&mut self, number: usize) -> anyhow::Result<Vec<u8>> {
        let name = self.name(number);
        self.connection.get::<_, Option<Vec<u8>>>(name).await?.context("a copy is gone")
    }

    /// Asks for people, and claims deliveries if that is wanted, `BURST` of both in one pipelined call; an operation is one of each.
    pub async fn ask(self, claim: bool, effort: Effort) -> anyhow::Result<Sample> {
        let (meter, mut tasks) = (Meter::default(), JoinSet::new());
        let (counted, mut store) = (meter.clone(), self);
        tasks.spawn(async move {
            while let Some(n) = counted.next() {
                store.burst(usize::try_from(n)? * BURST, BURST, claim).await?;
                counted.done(BURST as u64);
            }
            Ok(())
        });
        meter.measure(effort, tasks).await
    }

    /// One call, for `count` people from the number `first` on.
    pub(super) async fn burst(&mut self, first: usize, count: usize, claim: bool) -> anyhow::Result<()> {
        let mut pipeline = Pipeline::with_capacity(count + 1);
        let names: Vec<_> = (first..first + count).map(|number| self.name(number)).collect();
        pipeline.cmd("MGET").arg(names);
        for _ in 0..if claim { count } else { 0 } {
            let key = format!("{}claim:{}", self.prefix, uuid::Uuid::new_v4());
            let value = "c:0123456789abcdef0123456789abcdef:1795251600000000";
            pipeline.cmd("SET").arg(key).arg(value).arg("NX").arg("GET").arg("PX").arg(60_000);
        }
        let answers: Vec<Value> = pipeline.query_async(&mut self.connection).await?;
        let Some(Value::Array(people)) = answers.first() else { anyhow::bail!("no people") };
        ensure!(people.iter().all(|copy| *copy != Value::Nil), "a copy is gone");
        std::hint::black_box(&answers);
        Ok(())
    }
}
