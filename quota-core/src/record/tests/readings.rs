//! How readings of any source merge: a call, headers, a persisted state, or a standalone process. Which reading of one window
//! wins is in the tests of `snapshot`.

use jiff::Timestamp;

use super::support::*;
use crate::model::{Coverage, Credits, Snapshot, Source, UsageReport, WindowId};
use crate::provider::FetchError;
use crate::record::{CommitOutcome, LeaseDecision, MergeOutcome, Record, Seed};

fn observed_at(record: &Record, id: &WindowId) -> Timestamp {
    record.snapshot().window(id).unwrap().observed_at()
}

#[test]
fn an_empty_response_replaces_nothing() {
    let mut record = polled(at(0), [five_hour(10)]);
    let lease = grant(&mut record, at(600));
    let before = record.clone();

    let committed = record.commit(at(601), &lease, &UsageReport::polled([]));

    assert_eq!(committed, CommitOutcome::Empty);
    assert_eq!(record, before);
}

#[test]
fn a_response_with_a_blank_plan_and_credits_is_empty() {
    let mut record = polled(at(0), [five_hour(10)]);
    let lease = grant(&mut record, at(600));

    let blank = UsageReport::polled([]).plan(String::new()).credits(Credits::default());
    let committed = record.commit(at(601), &lease, &blank);

    assert_eq!(committed, CommitOutcome::Empty);
}

#[test]
fn an_unreadable_response_is_empty() {
    let mut record = polled(at(0), [five_hour(10)]);
    let lease = grant(&mut record, at(600));

    let usage = UsageReport::polled([]).coverage(Coverage::complete_except([WindowId::five_hour()]));

    assert_eq!(record.commit(at(601), &lease, &usage), CommitOutcome::Empty);
}

#[test]
fn a_call_with_an_empty_response_can_be_recorded_as_failed() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.commit(at(1), &lease, &UsageReport::polled([]));

    let _ = record.fail(at(1), &lease, &FetchError::malformed("it is empty"), &policy());

    assert_eq!(record.consecutive_failures(), 1);
}

#[test]
fn a_models_window_that_a_later_response_omits_stays_removed() {
    let mut record = polled(at(0), [five_hour(10), opus(100)]);
    let old = record.snapshot().clone();

    poll(&mut record, at(600), &UsageReport::polled([five_hour(11)]));
    let mut reloaded = stored(&record);
    let _ = reloaded.seed(at(601), &Seed::new(old));

    assert_eq!(used(&record, &opus_id()), None);
    assert_eq!(used(&reloaded, &opus_id()), None);
}

#[test]
fn an_unreadable_window_keeps_its_value_and_its_age() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20)]);
    let lame =
        UsageReport::polled([five_hour(11)]).coverage(Coverage::complete_except([WindowId::seven_day()]));

    poll(&mut record, at(600), &lame);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(11)));
    assert_eq!(used(&record, &WindowId::seven_day()), Some(percent(20)));
    assert_eq!(observed_at(&record, &WindowId::seven_day()), at(0));
}

#[test]
fn headers_that_arrive_during_a_call_win_over_its_response() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(100));
    let _ = merge_headers(&mut record, at(110), [five_hour(50)]);

    let _ = record.commit(at(120), &lease, &UsageReport::polled([five_hour(40), seven_day(20)]));

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(50)));
    assert_eq!(used(&record, &WindowId::seven_day()), Some(percent(20)));
}

#[test]
fn a_delayed_message_does_not_replace_newer_readings() {
    let mut record = Record::default();
    let _ = merge_headers(&mut record, at(100), [five_hour(50)]);

    let late = headers(at(40), [five_hour(40), seven_day(20)]);
    let joined = record.observe(at(110), &late, None, None);

    assert_eq!(joined, MergeOutcome::Merged);
    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(50)));
    assert_eq!(observed_at(&record, &WindowId::five_hour()), at(100));
    assert_eq!(used(&record, &WindowId::seven_day()), Some(percent(20)));
}

#[test]
fn a_delayed_message_does_not_change_the_due_time() {
    let mut record = polled(at(0), [five_hour(10)]);
    let before = record.clone();

    let _ = record.observe(at(200), &headers(at(-100), [five_hour(5)]), None, None);

    assert_eq!(record, before);
}

#[test]
fn the_earlier_time_of_a_response_is_used() {
    let mut record = Record::default();

    poll(&mut record, at(0), &UsageReport::from_local([five_hour(10)], at(-500)));

    assert_eq!(observed_at(&record, &WindowId::five_hour()), at(-500));
}

#[test]
fn a_response_time_after_the_start_of_its_call_is_ignored() {
    let mut record = Record::default();

    poll(&mut record, at(0), &UsageReport::polled([five_hour(10)]).observed_at(at(1)));

    assert_eq!(observed_at(&record, &WindowId::five_hour()), at(0));
}

#[test]
fn persisted_readings_are_merged_at_their_own_age() {
    let mut record = Record::default();

    let _ = record.seed(at(9999), &Seed::new(headers(at(0), [five_hour(10)])));

    assert_eq!(observed_at(&record, &WindowId::five_hour()), at(0));
}

#[test]
fn a_reading_from_the_future_is_dropped() {
    let mut record = polled(at(0), [five_hour(10)]);

    let _ = record.observe(at(100), &headers(at(131), [five_hour(99)]), None, None);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(10)));
}

#[test]
fn a_reading_within_the_clock_slack_is_merged() {
    let mut record = polled(at(0), [five_hour(10)]);

    let _ = record.observe(at(100), &headers(at(130), [five_hour(11)]), None, None);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(11)));
}

#[test]
fn headers_never_change_a_models_window_or_credits() {
    let mut record = Record::default();
    let spent = spending();
    poll(&mut record, at(0), &UsageReport::polled([five_hour(10), opus(90)]).credits(spent.clone()));
    let usage = UsageReport::from_headers([five_hour(11), opus(5)]).credits(Credits::default());

    let _ = record.observe(at(60), &Snapshot::of(&usage, at(60)), None, None);

    assert_eq!(used(&record, &opus_id()), Some(percent(90)));
    assert_eq!(record.snapshot().credits(), Some(&spent));
    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(11)));
}

#[test]
fn a_standalone_process_merges_its_readings_calls_and_hold() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    poll(&mut alone, at(400), &UsageReport::polled([five_hour(30)]));
    let hold = fail(&mut alone, at(800), &FetchError::throttled(Some(HOUR))).unwrap();

    let joined = shared.merge_standalone(at(900), &alone, None);

    assert_eq!(joined, MergeOutcome::Merged);
    assert_eq!(used(&shared, &WindowId::five_hour()), Some(percent(30)));
    assert_eq!(shared.calls(), alone.calls());
    assert_eq!((shared.hold(), shared.consecutive_failures()), (Some(&hold), 1));
    assert_eq!((shared.fence(), shared.complete_at()), (alone.fence(), Some(at(400))));
}

#[test]
fn the_calls_of_a_standalone_process_are_not_repeated() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    poll(&mut alone, at(400), &UsageReport::polled([five_hour(30)]).coverage(Coverage::Reported));

    let _ = shared.merge_standalone(at(401), &alone, None);

    assert_eq!(shared.complete_at(), Some(at(400)));
}

#[test]
fn a_second_rejoin_changes_nothing() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    fail(&mut alone, at(400), &FetchError::throttled(None));
    let _ = shared.merge_standalone(at(401), &alone, None);
    let before = shared.clone();

    let _ = shared.merge_standalone(at(402), &alone, None);

    assert_eq!(shared, before);
}

#[test]
fn a_rejoining_process_keeps_the_lease_of_another() {
    let mut shared = Record::default();
    let lease = grant(&mut shared, at(0));
    let alone = polled(at(5), [five_hour(30)]);

    let _ = shared.merge_standalone(at(10), &alone, None);

    assert_eq!(shared.commit(at(11), &lease, &UsageReport::polled([five_hour(31)])), CommitOutcome::Stored);
}

#[test]
fn a_standalone_call_continues_in_the_shared_record() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    let lease = grant(&mut alone, at(400));
    let _ = shared.merge_standalone(at(401), &alone, None);

    let other = begin(&mut shared, at(402), &request(99));
    let committed = shared.commit(at(403), &lease, &UsageReport::polled([five_hour(30)]));

    assert!(matches!(other, LeaseDecision::InProgress { .. }));
    assert_eq!(committed, CommitOutcome::Stored);
}

#[test]
fn an_expired_standalone_call_blocks_no_request() {
    let mut shared = Record::default();
    let mut alone = Record::default();
    let lease = grant(&mut alone, at(0));

    let _ = shared.merge_standalone(lease.until, &alone, None);

    assert_eq!(shared.lease(), None);
}

#[test]
fn a_standalone_call_yields_to_a_later_one() {
    let mut shared = Record::default();
    let mut alone = Record::default();
    let early = grant(&mut alone, at(0));
    let late = grant(&mut shared, at(5));
    shared.release(&late);

    let _ = shared.merge_standalone(at(6), &alone, None);

    assert_eq!(shared.lease(), None);
    assert_eq!(shared.commit(at(7), &early, &UsageReport::polled([five_hour(30)])), CommitOutcome::TooLate);
}

#[test]
fn a_standalone_call_does_not_end_a_running_one() {
    let mut shared = Record::default();
    let mut alone = Record::default();
    let first = grant(&mut shared, at(0));
    let _ = begin(&mut alone, at(5), &explicit_request(77));

    let _ = shared.merge_standalone(at(6), &alone, None);

    assert_eq!(shared.lease(), Some(&first));
}

#[test]
fn a_late_grant_of_the_same_attempt_yields_to_the_used_lease() {
    let mut shared = Record::default();
    let mut alone = Record::default();
    let _ = begin(&mut shared, at(0), &explicit_request(77));
    let LeaseDecision::Granted(lease) = begin(&mut alone, at(1), &explicit_request(77)) else {
        panic!("no other process calls")
    };

    let _ = shared.merge_standalone(at(2), &alone, None);

    assert_eq!(shared.commit(at(3), &lease, &UsageReport::polled([five_hour(30)])), CommitOutcome::Stored);
}

#[test]
fn a_finished_call_is_not_restarted_by_a_second_rejoin() {
    let mut shared = Record::default();
    let mut alone = Record::default();
    let lease = grant(&mut alone, at(0));
    let _ = shared.merge_standalone(at(1), &alone, None);
    let _ = shared.commit(at(2), &lease, &UsageReport::polled([five_hour(30)]));

    let _ = shared.merge_standalone(at(3), &alone, None);

    assert_eq!(shared.lease(), None);
}

#[test]
fn a_standalone_process_with_another_login_merges_only_its_calls() {
    let mut shared = Record::default();
    poll(&mut shared, at(0), &UsageReport::polled([five_hour(10)]).login_id(login_id("b")));
    let mut alone = Record::default();
    poll(&mut alone, at(5), &UsageReport::polled([five_hour(30)]).login_id(login_id("a")));
    let before = shared.snapshot().clone();

    assert_eq!(shared.merge_standalone(at(10), &alone, None), MergeOutcome::OtherLogin);
    assert_eq!((shared.snapshot(), shared.calls().len()), (&before, 2));
}

#[test]
fn a_standalone_process_merges_its_new_login() {
    let mut shared = Record::default();
    poll(&mut shared, at(0), &UsageReport::polled([five_hour(10)]).login_id(login_id("a")));
    let mut alone = shared.clone();
    let _ = alone.new_login(&login_id("b"));

    let joined = shared.merge_standalone(at(10), &alone, Some(&login_id("a")));

    assert_eq!((joined, shared.login_id()), (MergeOutcome::Merged, Some(&login_id("b"))));
    assert!(shared.snapshot().is_empty());
}

#[test]
fn a_concurrent_login_change_is_not_reverted() {
    let mut alone = Record::default();
    poll(&mut alone, at(0), &UsageReport::polled([five_hour(10)]).login_id(login_id("a")));
    let mut shared = alone.clone();
    let _ = shared.new_login(&login_id("b"));

    let joined = shared.merge_standalone(at(10), &alone, Some(&login_id("a")));

    assert_eq!((joined, shared.login_id()), (MergeOutcome::OtherLogin, Some(&login_id("b"))));
}

#[test]
fn a_standalone_success_clears_an_earlier_rejection() {
    let mut shared = polled(at(0), [five_hour(10)]);
    fail(&mut shared, at(400), &FetchError::Unauthorized);
    let mut alone = shared.clone();
    poll(&mut alone, at(420), &UsageReport::polled([five_hour(30)]));

    let _ = shared.merge_standalone(at(430), &alone, None);

    assert_eq!(shared.last_failure(), None);
}

#[test]
fn standalone_calls_of_another_login_count() {
    let mut shared = Record::default();
    let _ = shared.new_login(&login_id("b"));
    let mut alone = Record::default();
    poll(&mut alone, at(5), &UsageReport::polled([five_hour(30)]).login_id(login_id("a")));

    let _ = shared.merge_standalone(at(10), &alone, None);

    assert_eq!(shared.calls(), alone.calls());
}

#[test]
fn lost_state_is_not_restored_over_another_login() {
    let mut shared = Record::default();
    let _ = shared.new_login(&login_id("b"));
    let mut lost = Record::default();
    poll(&mut lost, at(5), &UsageReport::polled([five_hour(30)]).login_id(login_id("a")));

    assert_eq!(shared.merge_standalone(at(10), &lost, None), MergeOutcome::OtherLogin);
}

#[test]
fn a_standalone_rejection_is_merged() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    fail(&mut alone, at(400), &FetchError::Unauthorized);

    let _ = shared.merge_standalone(at(401), &alone, None);

    assert_eq!(shared.last_failure(), alone.last_failure());
}

#[test]
fn a_later_success_clears_a_standalone_rejection() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    fail(&mut alone, at(400), &FetchError::Unauthorized);
    poll(&mut shared, at(410), &UsageReport::polled([five_hour(30)]));

    let _ = shared.merge_standalone(at(420), &alone, None);

    assert_eq!(shared.last_failure(), None);
}

#[test]
fn of_a_success_and_a_failure_at_one_time_the_one_in_the_record_stays() {
    let succeeded = polled(at(0), [five_hour(10)]);
    let mut failed = Record::default();
    fail(&mut failed, at(0), &FetchError::Unauthorized);
    let merged = |into: &Record, from: &Record| {
        let mut record = into.clone();
        let _ = record.merge_standalone(at(1), from, None);
        record.last_failure().is_some()
    };

    assert!(!merged(&succeeded, &failed));
    assert!(merged(&failed, &succeeded));
}

#[test]
fn of_two_failures_at_one_time_the_one_in_the_record_stays() {
    let failed = |error| {
        let mut record = Record::default();
        fail(&mut record, at(0), &error);
        record
    };
    let mut record = failed(FetchError::Unauthorized);

    let _ = record.merge_standalone(at(1), &failed(FetchError::forbidden("by policy")), None);

    assert_eq!(record.last_failure(), failed(FetchError::Unauthorized).last_failure());
}

#[test]
fn a_lease_released_while_standalone_blocks_no_call() {
    let mut shared = Record::default();
    let lease = grant(&mut shared, at(0));
    let mut alone = shared.clone();
    let _ = alone.commit(at(2), &lease, &UsageReport::polled([five_hour(30)]));

    let _ = shared.merge_standalone(at(3), &alone, None);

    assert_eq!(shared.lease(), None);
}

#[test]
fn a_standalone_process_with_a_wrong_clock_changes_nothing() {
    let mut shared = Record::default();
    let alone = polled(at(1_000_000), [five_hour(30)]);

    let _ = shared.merge_standalone(at(0), &alone, None);

    assert_eq!((shared.complete_at(), shared.calls()), (None, &[][..]));
    assert!(shared.snapshot().is_empty());
}

#[test]
fn committed_headers_count_as_headers() {
    let mut record = polled(at(0), [five_hour(10), opus(90)]);
    let lease = grant(&mut record, at(600));

    let _ = record.commit(at(601), &lease, &UsageReport::from_headers([five_hour(11)]));

    assert_eq!(record.snapshot().window(&WindowId::five_hour()).unwrap().source(), Source::Headers);
    assert_eq!(used(&record, &opus_id()), Some(percent(90)));
    assert!(matches!(begin(&mut record, at(602), &request(9)), LeaseDecision::NotNeeded));
}
