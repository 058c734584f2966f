//! What is down is asked again: for what must not be lost, until it answers.

use std::{fmt::Display, time::Duration};

/// Between two attempts to reach a store or the log, and how long records wait meanwhile.
pub(crate) const DOWN: Duration = Duration::from_secs(1);

/// Asks until there is an answer: what is known about a delivery by now is only here.
pub(crate) async fn until_answered<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(%error, "cannot {what}, trying again"),
        }
        tokio::time::sleep(DOWN).await;
    }
}
