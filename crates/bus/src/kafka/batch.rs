//! What became of the records of one publish: told by librdkafka's thread, awaited by ours.

#[cfg(not(test))]
use std::sync::{Mutex, atomic::AtomicUsize};
use std::sync::{PoisonError, atomic::Ordering};

// so that the test below tries every order in which the threads may meet
#[cfg(test)]
use loom::sync::{Mutex, atomic::AtomicUsize};
use tokio::sync::Notify;

use crate::{LogError, Position};

type Told = Result<Position, LogError>;

/// The results of one publish.
pub(super) struct Batch {
    results: Mutex<Vec<Option<Told>>>,
    open: AtomicUsize,
    settled: Notify,
}

impl Batch {
    /// Of so many records.
    pub(super) fn new(count: usize) -> Self {
        let results = Mutex::new(vec![None; count]);
        Self { results, open: AtomicUsize::new(count), settled: Notify::new() }
    }

    /// Notes what became of a record; once for each.
    pub(super) fn settle(&self, index: usize, result: Told) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_one();
        }
    }

    /// Waits, alone, until all are settled.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// What is known by now, in order.
    pub(super) fn results(&self) -> Vec<Told> {
        let silent = || Err(LogError::Unavailable("the producer did not report on the record".to_owned()));
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.iter_mut().map(|r| r.take().unwrap_or_else(silent)).collect()
    }
}

#[cfg(test)]
mod tests {
    use loom::{future::block_on, model, thread};

    use super::*;
    use crate::Partition;

    #[test]
    fn who_waits_finds_every_result_in_whatever_order_they_come() {
        model(|| {
            let batch = loom::sync::Arc::new(Batch::new(3));
            let position =
                |index| Position { partition: Partition { topic: "t".into(), index: 0 }, offset: index as i64 };
            let reports = [0, 1].map(|index| {
                let batch = batch.clone();
                thread::spawn(move || batch.settle(index, Ok(position(index))))
            });
            // one that librdkafka did not even take is settled here
            batch.settle(2, Err(LogError::NotAssigned));
            block_on(batch.settled());
            let results = batch.results();
            assert!(
                matches!(&results[..], [Ok(a), Ok(b), Err(LogError::NotAssigned)] if (a.offset, b.offset) == (0, 1))
            );
            for report in reports {
                report.join().expect("reported");
            }
        });
    }
}
