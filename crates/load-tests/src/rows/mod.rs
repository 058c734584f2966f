//! The rows, in the order in which they are run.

mod embedded_log;
mod gateway;
mod indexer;
mod ingress;
mod push;
mod router;
mod scale;
mod smtp;
mod standalone;
mod webhook;

use std::sync::Arc;

use ::gateway::channels::Provider;
use anyhow::ensure;
use domain::{Delivery, Outcome, config::Account};
use tokio::task::JoinSet;

use crate::{
    harness::{Bench, Effort, Meter, Sample, Side},
    plot::Curve,
    report::Figure,
};

/// What came of a row: its figures, and all measurements by the name of what was compared.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// For the report.
    pub figures: Vec<Figure>,
    /// For those who want to know more.
    pub sides: Vec<(String, Vec<Side>)>,
    /// How cost grows.
    pub curves: Vec<Curve>,
}

/// One row, or a few that are measured together.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The names in the report.
    pub names: &'static [&'static str],
    /// Whether it needs Kafka, Redis, Cassandra and Elasticsearch.
    pub engines: bool,
    /// Measures it.
    pub run: fn(&Bench) -> anyhow::Result<Outcomes>,
}

/// Every row.
pub const ROWS: &[Row] = &[
    Row { names: &["embedded_log", "embedded_log_p99"], engines: false, run: embedded_log::run },
    Row { names: &["webhook"], engines: false, run: webhook::run },
    Row { names: &["push_engine_1"], engines: false, run: |bench| push::run(bench, "push_engine_1", 1) },
    Row { names: &["push_engine_100"], engines: false, run: |bench| push::run(bench, "push_engine_100", 100) },
    Row { names: &["push_engine_500"], engines: false, run: |bench| push::run(bench, "push_engine_500", 500) },
    Row { names: &["push_engine_rtt50"], engines: false, run: push::run_rtt50 },
    Row { names: &["smtp"], engines: false, run: smtp::run },
    Row { names: &["standalone_rest_mb"], engines: false, run: standalone::rest },
    Row { names: &["gateway", "gateway_vs_obvious"], engines: true, run: gateway::run },
    Row { names: &["router"], engines: true, run: router::run },
    Row { names: &["ingress_http"], engines: true, run: ingress::http },
    Row { names: &["ingress_grpc"], engines: true, run: ingress::grpc },
    Row { names: &["indexer"], engines: true, run: indexer::run },
    Row { names: &["whole_path_cpu"], engines: false, run: standalone::whole_path_cpu },
    Row { names: &["standalone"], engines: true, run: standalone::throughput },
    Row { names: &["end_to_end_p99"], engines: true, run: standalone::end_to_end_p99 },
    Row { names: &["scale"], engines: true, run: scale::run },
];

/// Sends the deliveries in turns, so many at a time; each has to be taken.
async fn send(
    provider: Arc<dyn Provider>,
    account: Account,
    deliveries: Vec<Delivery>,
    in_flight: usize,
    effort: Effort,
) -> anyhow::Result<Sample> {
    let (meter, mut tasks) = (Meter::default(), JoinSet::new());
    let work = Arc::new((account, deliveries));
    for _ in 0..in_flight {
        let (meter, provider, work) = (meter.clone(), provider.clone(), work.clone());
        tasks.spawn(async move {
            let (account, deliveries) = work.as_ref();
            while let Some(n) = meter.next() {
                let delivery = &deliveries[(n % deliveries.len() as u64) as usize];
                let answer = provider.send(delivery, Some(account)).await;
                ensure!(answer.outcome == Outcome::Sent, "{}: {}", answer.outcome.code(), answer.detail);
                meter.done(1);
            }
            Ok(())
        });
    }
    meter.measure(effort, tasks).await
}
