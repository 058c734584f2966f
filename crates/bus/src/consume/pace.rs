//! When a loop hands out what is ready.

use std::time::Duration;

use tokio::time::Instant;

use super::ConsumeSettings;

/// How a loop hands records out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once, and those of a key one after the other, each when the one before it is finished.
    InOrder,
    /// In whole batches as they come; a smaller one only while nothing is in hand, and when its first record has waited so
    /// long. For a stage on which order has no effect.
    Gathered(Duration),
}

impl Pace {
    /// How long records may be kept back for more to come.
    pub(super) const fn gather(self) -> Duration {
        match self {
            Self::InOrder => Duration::ZERO,
            Self::Gathered(time) => time,
        }
    }
}

/// A batch that is gathered: since when.
#[derive(Debug, Default)]
pub(super) struct Gathering(Option<Instant>);

impl Gathering {
    /// Whether to hand out of so many that are `ready`, with so many in hand.
    pub(super) fn due(&mut self, settings: &ConsumeSettings, ready: usize, in_flight: usize) -> bool {
        let Pace::Gathered(time) = settings.pace else { return true };
        let whole = settings.max_batch.min(settings.permits);
        let since = *self.0.get_or_insert_with(Instant::now);
        let due = ready >= whole && settings.permits - in_flight >= whole || in_flight == 0 && since.elapsed() >= time;
        if due {
            self.0 = None;
        }
        due
    }

    /// When what is ready has waited for long enough.
    pub(super) fn until(&self, pace: Pace) -> Option<Instant> {
        match pace {
            Pace::InOrder => None,
            Pace::Gathered(time) => self.0.map(|since| since + time),
        }
    }
}
