//! What every log does. Names are unique, since adapters may share a broker with other tests.

use std::{any::Any, sync::Arc};

use bus::Log;

pub mod groups;
pub mod publishing;
pub mod waiting;

/// A log to test, and what has to live as long.
pub struct Fixture {
    pub log: Arc<dyn Log>,
    pub _keep: Box<dyn Any>,
}

/// One test per clause, for an adapter: `contract!(tokio::test, fixture)` with
/// `async fn fixture() -> Fixture`.
macro_rules! contract {
    ($test:meta, $fixture:path) => {
        contract!($test, $fixture, publishing:
            positions_rise_per_partition, a_key_keeps_its_partition_and_order, every_byte_survives,
            records_without_a_key_are_spread, a_thousand_records_in_one_call, topics_are_created_once,
            what_cannot_be_written_is_said_per_record);
        contract!($test, $fixture, groups:
            a_group_begins_at_the_oldest_record, a_group_goes_on_where_it_committed, groups_do_not_disturb_each_other,
            members_share_the_partitions, a_revoked_partition_waits_for_its_release, a_member_that_goes_is_replaced,
            a_paused_partition_is_silent, only_the_owner_commits);
        contract!($test, $fixture, waiting:
            a_follower_catches_up_once_and_goes_on, impatient_callers_lose_nothing, appends_wake_whoever_waits);
    };
    ($test:meta, $fixture:path, $room:ident: $($name:ident),*) => {
        $(
            #[$test]
            async fn $name() {
                let fixture = $fixture().await;
                $crate::suite::$room::$name(fixture.log.as_ref()).await;
            }
        )*
    };
}
