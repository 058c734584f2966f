//! What this process has begun to send: one at a time, and nothing that broke off is taken for never sent.

use std::sync::{Arc, Mutex, PoisonError};

use domain::DeliveryId;
use foldhash::HashMap;

/// What this process has begun to send, and whether somebody is at it.
pub(crate) type Begun = Arc<Mutex<HashMap<DeliveryId, bool>>>;

/// Marks a delivery as being sent by this process. Dropped before it is `over`, by a panic for instance, it is remembered as
/// begun: its outcome is unknown.
pub(crate) struct Sending {
    begun: Begun,
    id: DeliveryId,
    /// This process has begun it before, and broke off.
    pub(crate) again: bool,
    /// Nothing of it is open any more.
    pub(crate) over: bool,
}

impl Sending {
    /// `None` while somebody is at it.
    pub(crate) fn begin(begun: &Begun, id: DeliveryId) -> Option<Self> {
        let before = begun.lock().unwrap_or_else(PoisonError::into_inner).insert(id, true);
        // made only if it is ours: dropping another's would take its mark away
        (before != Some(true)).then(|| Self { begun: begun.clone(), id, again: before.is_some(), over: false })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if self.over {
            begun.remove(&self.id);
        } else {
            begun.insert(self.id, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_however_often_it_is_tried() {
        let (begun, id) = (Begun::default(), DeliveryId(uuid::Uuid::nil()));
        let mut first = Sending::begin(&begun, id).expect("nobody is at it");
        for _ in 0..3 {
            assert!(Sending::begin(&begun, id).is_none(), "somebody is at it");
        }
        first.over = true;
        drop(first);
        let broken_off = Sending::begin(&begun, id).expect("nobody is at it any more");
        assert!(!broken_off.again);
        drop(broken_off);
        assert!(Sending::begin(&begun, id).expect("nobody is at it").again, "it broke off");
    }
}
