//! One service per process, on the cluster engines.

use std::process::ExitCode;

use anyhow::Context as _;
use domain::Channel;
use service_kit::{Kit, Uses, settings::Settings, signal, telemetry};

/// Which service this process is.
pub(crate) enum Service {
    Ingress,
    Router,
    Gateway(Vec<Channel>),
    Indexer,
}

impl Service {
    const fn uses(&self) -> Uses<'static> {
        match self {
            Self::Ingress => ingress::USES,
            Self::Router => router::USES,
            Self::Gateway(_) => gateway::USES,
            Self::Indexer => indexer::USES,
        }
    }
}

/// Runs one service until a signal, then drains. A straight line: telemetry, connections, run, drain.
pub(crate) async fn run(settings: Settings, service: Service) -> anyhow::Result<ExitCode> {
    telemetry::init(&settings)?;
    register_metrics();
    let kit = Kit::cluster_using(service.uses(), settings).await?;
    signal::cancel_on_signal(kit.shutdown.clone())?;
    kit.spawn_admin().await?;
    kit.spawn_config();
    // without it a gateway has no account and a router no category: what they read would end wrongly
    tokio::select! {
        () = kit.config.ready() => {}
        () = kit.shutdown.cancelled() => return finish(kit).await,
    }
    match service {
        Service::Ingress => drop(ingress::run(&kit).await?),
        Service::Router => router::run(&kit)?,
        Service::Gateway(channels) => channels.into_iter().try_for_each(|c| gateway::run(&kit, c))?,
        Service::Indexer => indexer::run(&kit)?,
    }
    finish(kit).await
}

/// Waits for the shutdown, then for what is in flight; fails if the deadline came first.
pub(crate) async fn finish(kit: Kit) -> anyhow::Result<ExitCode> {
    if kit.finish().await {
        tracing::info!("drained");
        Ok(ExitCode::SUCCESS)
    } else {
        Err(anyhow::anyhow!("stopped with work in flight: the drain deadline passed; it will be read again"))
    }
}

/// Every crate's metrics, in the one registry.
pub(crate) fn register_metrics() {
    let mut registry = telemetry::registry();
    ingress::metrics::register(&mut registry);
    gateway::metrics::register(&mut registry);
    indexer::metrics::register(&mut registry);
}

/// Parses the channels of `gateway --channel`.
pub(crate) fn channels(names: &[String]) -> anyhow::Result<Vec<Channel>> {
    names.iter().map(|n| Channel::parse(n).map_err(anyhow::Error::msg)).collect::<Result<_, _>>().context("--channel")
}
