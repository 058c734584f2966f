//! Everything in one process: the same services, on the embedded log and stores.

use std::process::ExitCode;

use domain::Channel;
use sandbox::{Sandbox, SandboxSettings};
use service_kit::{Kit, settings::Settings, signal, telemetry};

use crate::{cli::Standalone, demo, run};

/// Runs until a signal, then drains.
pub(crate) async fn run(mut settings: Settings, options: Standalone) -> anyhow::Result<ExitCode> {
    telemetry::init(&settings)?;
    run::register_metrics();
    if options.sandbox {
        // the fake providers are on loopback, where a gateway does not send unless it is told to
        for channel in Channel::ALL {
            settings.set(&format!("gateway.{channel}.open_networks"), vec!["127.0.0.0/8", "::1/128"]);
        }
    }
    let kit = Kit::embedded(settings, &options.data).await?;
    signal::cancel_on_signal(kit.shutdown.clone())?;
    kit.spawn_config();
    tokio::select! {
        () = kit.config.ready() => {}
        () = kit.shutdown.cancelled() => return run::finish(kit).await,
    }
    let sandbox = if options.sandbox {
        Some(start_sandbox(&kit.settings, Some(options.data.join("sandbox"))).await?)
    } else {
        None
    };
    if let (true, Some(sandbox)) = (options.demo, &sandbox) {
        demo::seed(&kit, sandbox).await?;
    }
    router::run(&kit)?;
    for channel in Channel::ALL {
        gateway::run(&kit, *channel)?;
    }
    indexer::run(&kit)?;
    let kafka = match options.kafka_listen {
        Some(address) => Some(kafka_listener::run(&kit, address).await?),
        None => None,
    };
    let api = ingress::run(&kit).await?;
    if let (true, Some(sandbox)) = (options.demo, &sandbox) {
        demo::welcome(api, kafka, sandbox);
    }
    let code = run::finish(kit).await;
    if let Some(sandbox) = sandbox {
        sandbox.shutdown().await;
    }
    code
}

/// Starts the fake providers.
pub(crate) async fn start_sandbox(
    settings: &Settings,
    record_dir: Option<std::path::PathBuf>,
) -> anyhow::Result<sandbox::Running> {
    let settings = settings.read(SandboxSettings::read)?;
    Sandbox::start(SandboxSettings { record_dir, ..settings }).await
}

/// The fake providers alone, until a signal.
pub(crate) async fn sandbox_alone(settings: Settings) -> anyhow::Result<ExitCode> {
    telemetry::init(&settings)?;
    let shutdown = tokio_util::sync::CancellationToken::new();
    signal::cancel_on_signal(shutdown.clone())?;
    let sandbox = start_sandbox(&settings, None).await?;
    shutdown.cancelled().await;
    sandbox.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
