//! Whether everything that was accepted is accounted for, now and then, as a metric.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use store::{Balance, Deliveries};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// What is younger may still be on its way through the log and into the index.
const GRACE: Duration = Duration::from_secs(60);
/// Between two counts, which read the whole index.
const EVERY: Duration = Duration::from_secs(60);

/// Counts until `shutdown`.
pub(crate) async fn watch(deliveries: Arc<dyn Deliveries>, shutdown: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = 0;
    let counting = async {
        loop {
            ticks.tick().await;
            match deliveries.balance(None, Timestamp::now() - GRACE).await {
                Ok(balances) => {
                    let count = unaccounted(&balances);
                    metrics::missing(count);
                    if count != before {
                        tracing::warn!(count, "recipients that are not accounted for (0: they are again)");
                    }
                    before = count;
                }
                Err(error) => tracing::warn!(%error, "cannot count what was accepted"),
            }
        }
    };
    shutdown.run_until_cancelled(counting).await;
}

/// Recipients without a decision, and decisions without a recipient: of one tenant they must not make up for another's.
fn unaccounted(balances: &[Balance]) -> u64 {
    balances.iter().map(|b| b.recipients.abs_diff(b.decided)).sum()
}

#[cfg(test)]
mod tests {
    use domain::TenantId;

    use super::*;

    #[test]
    fn tenants_do_not_make_up_for_each_other() {
        let balance = |tenant: &str, recipients, decided| Balance {
            tenant: TenantId::parse(tenant).expect("valid"),
            recipients,
            decided,
            channels: [].into(),
        };
        assert_eq!(unaccounted(&[balance("a", 3, 3), balance("b", 0, 0)]), 0);
        assert_eq!(unaccounted(&[balance("a", 3, 1), balance("b", 1, 3)]), 4);
    }
}
