//! What a stage gets and gives back: a record, and the handle that says what became of it.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::partition::Entry;
use crate::{Record, trace::Processing};

/// One record in flight.
#[derive(Debug)]
pub struct Work {
    /// The record. Its handle has it as well, for the case that it has to be handed out again.
    pub record: Arc<Record>,
    /// To be used exactly once. Dropped unused, the record is handed out again.
    pub ack: Ack,
}

/// Says what became of a record.
#[derive(Debug)]
pub struct Ack {
    slot: Option<(Slot, mpsc::Sender<Finished>)>,
    span: Option<Box<Processing>>,
}

/// Which record of which assignment. The loop gets it back with the verdict and looks nothing up.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) entry: Entry,
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) struct Finished {
    pub(super) slot: Slot,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Retry(Duration),
    Panicked,
}

impl Verdict {
    /// A code, if nothing became of the record.
    fn error(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::Retry(_) => Some("retry"),
            Self::Panicked => Some("panic"),
        }
    }
}

/// How long a record waits that a stage has dropped without a word.
const DROPPED: Duration = Duration::from_millis(100);

impl Ack {
    pub(super) fn new(slot: Slot, finished: mpsc::Sender<Finished>, span: Option<Box<Processing>>) -> Self {
        Self { slot: Some((slot, finished)), span }
    }

    /// The record has reached its end, and that is durable: its offset may be committed.
    pub fn done(mut self) {
        self.say(Verdict::Done);
    }

    /// Nothing became of it, because something is down: hand it out again after a while. Until then its key waits.
    pub fn retry(mut self, after: Duration) {
        self.say(Verdict::Retry(after));
    }

    fn say(&mut self, verdict: Verdict) {
        if let Some((slot, finished)) = self.slot.take() {
            if let Some(span) = self.span.take() {
                span.end(&slot.entry.record.at, verdict.error());
            }
            // there is a place for every permit; a loop that has ended does not need to know
            let _ended = finished.try_send(Finished { slot, verdict });
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.say(if std::thread::panicking() { Verdict::Panicked } else { Verdict::Retry(DROPPED) });
    }
}
