//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` at the first signal; a second one ends the process at once with code 1. Must be called within the
/// runtime; the signals are caught from then on.
pub fn cancel_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // not tracked: it waits for the second signal for as long as the drain takes
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!("asked to stop: finishing what is in flight; a second signal ends at once");
        shutdown.cancel();
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::error!("second signal: ended without finishing");
        #[expect(clippy::disallowed_methods, reason = "who asks twice does not want to wait for drains")]
        std::process::exit(1);
    });
    Ok(())
}
