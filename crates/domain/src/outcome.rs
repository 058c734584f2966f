//! What a provider's answer means (four decisions and an honest fifth), and when to try again.

use std::time::Duration;

use jiff::Timestamp;

use crate::Reason;

/// The verdict on one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Sent,
    /// Try again later; the provider may have said when.
    Transient {
        /// The provider's own wish.
        retry_after: Option<Duration>,
    },
    /// The address does not exist any more.
    AddressGone {
        /// When the provider knew it; a registration after that is a new address.
        since: Option<Timestamp>,
    },
    /// This message will never be taken.
    Rejected(Reason),
    /// Our account or its credentials are wrong.
    Misconfigured,
    /// The request left and no answer came.
    Unknown,
}

impl Outcome {
    /// The code in traces and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Transient { .. } => "transient",
            Self::AddressGone { .. } => "address_gone",
            Self::Rejected(_) => "rejected",
            Self::Misconfigured => "misconfigured",
            Self::Unknown => "unknown",
        }
    }
}

/// When to try again: exponential, capped, jittered; a provider's `retry_after` lengthens a wait, up to the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Before the second attempt.
    pub base: Duration,
    /// The longest wait, also for a `retry_after`.
    pub cap: Duration,
}

impl RetryPolicy {
    /// The wait after attempt `number` (1 for the first), or `None` when it was the last. `jitter` is 0.0 to 1.0 and
    /// spreads the wait over its upper half, so that many failures together do not come back together.
    pub fn wait(&self, number: u32, retry_after: Option<Duration>, jitter: f64) -> Option<Duration> {
        if number >= self.attempts {
            return None;
        }
        let doubled = self.base.saturating_mul(1_u32.checked_shl(number.saturating_sub(1).min(31)).unwrap_or(u32::MAX));
        let full = doubled.min(self.cap);
        let own = full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        // a provider may ask for more patience than we have by ourselves, not for less
        Some(own.max(retry_after.unwrap_or_default()).min(self.cap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_end() {
        let policy = RetryPolicy { attempts: 5, base: Duration::from_millis(200), cap: Duration::from_secs(1) };
        let waits: Vec<_> = (1..=5).map(|n| policy.wait(n, None, 1.0).map(|d| d.as_millis())).collect();
        assert_eq!(waits, [Some(200), Some(400), Some(800), Some(1000), None]);
        assert_eq!(policy.wait(1, None, 0.0), Some(Duration::from_millis(100)));
        assert_eq!(policy.wait(1, Some(Duration::from_secs(1_000_000_000)), 0.3), Some(Duration::from_secs(1)));
        assert_eq!(policy.wait(1, Some(Duration::ZERO), 1.0), Some(Duration::from_millis(200)), "not shorter");
        assert_eq!(policy.wait(5, Some(Duration::ZERO), 0.3), None);
        let eager = RetryPolicy { attempts: u32::MAX, ..policy };
        assert_eq!(eager.wait(u32::MAX - 1, None, f64::NAN.max(1.0)), Some(Duration::from_secs(1)));
    }
}
