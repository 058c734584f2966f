//! The contract of `Users`, `Ledger` and `Deliveries`: one suite, run on every adapter.
//!
//! Tests share an engine: each makes up its own tenant and ids. The index may lag, so what it holds is polled for.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use domain::{TenantId, Timestamp};
use store::Stores;
use uuid::Uuid;

/// Declares the tests of an adapter. The module that calls it has `async fn open() -> Opened`.
macro_rules! contract {
    () => {
        contract!(users:
            a_user_comes_back_whole
            a_later_write_wins_in_whatever_order_they_arrive
            of_two_writes_at_the_same_time_the_later_call_wins
            put_leaves_the_preferences_of_a_known_user_alone
            a_change_of_one_half_never_hides_a_change_of_the_other
            preferences_of_a_stranger_are_not_written
            a_deleted_user_is_gone_and_the_history_stays
            history_is_latest_first_and_limited
            lookup_answers_every_key_in_order
            lookup_sees_every_write_that_was_answered
            tenants_and_odd_ids_stay_apart
            concurrent_writes_leave_record_and_read_model_alike
            a_device_is_registered_and_refreshed
            the_least_recently_active_devices_make_room
            a_device_takes_the_place_of_another
            a_removed_device_does_not_come_back_with_an_old_write
            devices_go_with_their_user
            a_token_belongs_to_whoever_registered_it_last
            many_registrations_at_once_leave_as_many_as_may_be
            of_many_who_register_one_token_at_once_the_last_has_it
            an_address_that_is_gone_is_taken_out_unless_it_is_newer
            a_contact_that_is_put_again_keeps_its_date_until_it_is_removed
            a_contact_that_goes_while_it_is_put_ends_in_one_order_or_the_other
            ping
        );
        contract!(ledger:
            the_first_decision_stands
            one_of_many_concurrent_decisions_stands
            one_of_many_concurrent_claims_is_granted
            a_batch_is_answered_in_order_also_with_repeats
            an_open_claim_is_taken_over_from_its_owner_only
            one_of_many_concurrent_take_overs_wins
            a_released_claim_can_be_claimed_anew
            only_the_owner_releases_and_never_what_ended
            the_first_end_stays
            one_of_many_concurrent_ends_stays
            an_end_is_opened_again_by_one_who_knows_it
            every_history_of_claims_is_the_one_of_the_rules
            the_latest_time_at_which_an_address_was_gone_is_known
            what_is_gone_for_one_is_not_for_another
            ping
        );
        contract!(deliveries:
            a_document_comes_back_whole
            deliveries_are_oldest_first_and_wait_for_their_notification
            an_older_version_never_replaces_a_newer_one
            a_tenant_sees_nothing_of_another
            a_view_and_a_page_are_limited
            every_filter_filters
            times_filter_from_inclusive_until_exclusive
            words_find_what_people_may_know_and_nothing_else
            words_follow_what_happens
            a_balance_counts_everything_once
            a_balance_counts_every_tenant
            pages_have_no_gap_and_no_repeat
            the_last_page_has_no_cursor
            an_unreadable_cursor_is_said_to_be_one
            ping
        );
    };
    ($store:ident: $($clause:ident)*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $clause() {
                    let opened = super::open().await;
                    crate::$store::$clause(&*opened.stores.$store).await;
                }
            )*
        }
    };
}

mod cluster;
mod deliveries;
mod embedded;
mod ledger;
mod made;
mod users;

/// An adapter's stores, and what must live as long as they do.
pub struct Opened {
    /// What is tested.
    pub stores: Stores,
    /// The directory of files, if it has one.
    pub dir: Option<tempfile::TempDir>,
}

/// A tenant that no other test has.
pub fn tenant() -> TenantId {
    TenantId::parse(&format!("t-{}", Uuid::new_v4().simple())).expect("a name")
}

/// A time near now, `step` milliseconds later, in whole microseconds.
pub fn at(step: i64) -> Timestamp {
    static START: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    let start = START.get_or_init(|| Timestamp::now().as_microsecond());
    Timestamp::from_microsecond(start + step * 1_000).expect("a time")
}

/// Polls until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = poll().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
