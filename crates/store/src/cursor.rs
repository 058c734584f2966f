//! Where a page of deliveries ends, as the opaque text that clients hand back; the same for every index.

use domain::{DeliveryId, DeliveryStatus};
use uuid::Uuid;

/// The latest time that an index holds, in microseconds: what `date_nanos` of Elasticsearch can hold, in the year 2262.
pub(crate) const LAST: i64 = i64::MAX / 1_000;

/// The last delivery of a page.
#[derive(Debug, PartialEq)]
pub(crate) struct Cursor {
    /// In microseconds since the epoch.
    pub(crate) accepted_at: i64,
    pub(crate) id: DeliveryId,
}

impl Cursor {
    pub(crate) fn of(delivery: &DeliveryStatus) -> Self {
        Self { accepted_at: delivery.accepted_at.as_microsecond(), id: delivery.id }
    }

    pub(crate) fn text(&self) -> String {
        let Self { accepted_at, id } = self;
        format!("{accepted_at:016x}{}", id.0.simple())
    }

    /// `None` for a text that [`Cursor::text`] does not make.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 48 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let (at, id) = text.split_at_checked(16).filter(|_| hex)?;
        let accepted_at = i64::from_str_radix(at, 16).ok().filter(|at| *at <= LAST)?;
        Some(Self { accepted_at, id: DeliveryId(Uuid::try_parse(id).ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_or_refused() {
        for accepted_at in [0, 1_790_000_000_000_000, LAST] {
            let cursor = Cursor { accepted_at, id: DeliveryId(Uuid::from_u128(7)) };
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        }
        for bad in ["", "7", "+".repeat(48).as_str(), "é".repeat(24).as_str(), "f".repeat(48).as_str()] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
