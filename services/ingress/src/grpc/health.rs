//! `grpc.health.v1`: serving while this process is ready.

use std::time::Duration;

use service_kit::Health;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

/// The process, and the service.
const NAMES: [&str; 2] = ["", "carillon.v1.NotificationService"];
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Tells what `/readyz` tells, until `shutdown`; then those who watch are told, and let go.
pub(super) async fn follow(mut reporter: HealthReporter, health: Health, shutdown: CancellationToken) {
    let mut told = None;
    loop {
        // not ready any more once the shutdown has begun
        let status = if health.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        // who watches is told of changes only
        if told.replace(status) != Some(status) {
            for name in NAMES {
                reporter.set_service_status(name, status).await;
            }
        }
        if shutdown.is_cancelled() {
            break;
        }
        shutdown.run_until_cancelled(sleep(LOOK_EVERY)).await;
    }
    // a stream of who watches would hold up the drain
    for name in NAMES {
        reporter.clear_service_status(name).await;
    }
}
