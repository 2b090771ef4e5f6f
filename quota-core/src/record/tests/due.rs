//! When readings become stale: by age, by a reset, or by the interval of complete refreshes. The tests in `laws` check that
//! no reading causes a busy loop.

use std::time::Duration;

use jiff::Timestamp;

use super::support::*;
use crate::model::{Coverage, Snapshot, UsageReport, WindowId, WindowReading};
use crate::record::{Counted, LeaseDecision, LeaseRequest, MaxStaleness, Record, Seed};

/// When the record is due for readings of at most five minutes.
fn due(record: &Record) -> Option<Timestamp> {
    due_for(record, Counted::Account)
}

fn due_for(record: &Record, counted: Counted<'_>) -> Option<Timestamp> {
    record.due_at(FRESH, counted, &policy())
}

#[test]
fn an_empty_record_has_no_due_time_and_is_never_fresh() {
    let mut record = Record::default();

    assert_eq!(due(&record), None);
    assert!(matches!(begin(&mut record, at(0), &request(1)), LeaseDecision::Granted(_)));
}

#[test]
fn readings_are_due_at_the_requested_age() {
    let record = polled(at(0), [five_hour(10), seven_day(20)]);

    assert_eq!(due(&record), Some(at(300)));
    assert_eq!(record.due_at(MINUTE, Counted::Account, &policy()), Some(at(60)));
}

#[test]
fn a_reading_is_as_old_as_the_start_of_its_call() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.commit(at(29), &lease, &UsageReport::polled([five_hour(10)]));

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn headers_for_one_window_do_not_refresh_the_others() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20)]);

    let _ = merge_headers(&mut record, at(200), [five_hour(11)]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn headers_for_all_windows_keep_them_fresh() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20)]);

    let _ = merge_headers(&mut record, at(200), [five_hour(11), seven_day(21)]);

    assert_eq!(due(&record), Some(at(500)));
}

#[test]
fn a_complete_refresh_is_due_hourly_despite_headers() {
    let mut record = polled(at(0), [five_hour(10)]);

    let _ = merge_headers(&mut record, at(3500), [five_hour(11)]);

    assert_eq!(due(&record), Some(at(3600)));
}

#[test]
fn headers_alone_never_make_an_account_fresh() {
    let mut record = Record::default();

    let _ = merge_headers(&mut record, at(0), [five_hour(10), seven_day(20)]);

    assert_eq!(due(&record), None);
    assert!(matches!(begin(&mut record, at(1), &request(1)), LeaseDecision::Granted(_)));
}

#[test]
fn persisted_readings_keep_their_age() {
    let mut record = Record::default();
    let poll = Snapshot::of(&UsageReport::polled([five_hour(10)]), at(0));

    let _ = record.seed(at(299), &Seed::new(poll));

    assert_eq!(begin(&mut record, at(299), &request(1)), LeaseDecision::NotNeeded);
    assert!(matches!(begin(&mut record, at(300), &request(1)), LeaseDecision::Granted(_)));
}

#[test]
fn a_response_with_only_a_models_window_has_a_due_time() {
    let record = polled(at(0), [opus(10)]);

    assert_eq!((record.snapshot().newest(), due(&record)), (Some(at(0)), Some(at(300))));
}

#[test]
fn a_response_without_windows_has_a_due_time() {
    let mut record = Record::default();
    poll(&mut record, at(0), &UsageReport::polled([]).plan("free".to_owned()));

    assert_eq!((record.snapshot().newest(), due(&record)), (Some(at(0)), Some(at(300))));
}

// Each interval ends at its own time or shortly after the reset, whichever is first.
#[test]
fn an_exhausted_window_is_refreshed_at_every_interval() {
    let record = polled(at(0), [five_hour(100).resets_at(at(4 * 3600))]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn a_window_is_refreshed_shortly_after_an_early_reset() {
    let record = polled(at(0), [five_hour(100).resets_at(at(120)), seven_day(20)]);

    assert_eq!(due(&record), Some(at(135)));
}

#[test]
fn the_earliest_reset_counts() {
    let record = polled(at(0), [five_hour(1).resets_at(at(200)), seven_day(2).resets_at(at(120))]);

    assert_eq!(due(&record), Some(at(135)));
}

#[test]
fn a_reset_in_a_second_causes_no_call_within_a_minute() {
    let record = polled(at(0), [five_hour(100).resets_at(at(1))]);

    assert_eq!(due(&record), Some(at(60)));
}

#[test]
fn a_past_reset_causes_no_early_call() {
    let record = polled(at(0), [five_hour(100).resets_at(at(-50))]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn the_latest_reset_does_not_overflow() {
    let record = polled(at(0), [five_hour(100).resets_at(Timestamp::MAX)]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn a_max_age_below_the_reset_floor_is_obeyed() {
    let record = polled(at(0), [five_hour(100).resets_at(at(1))]);

    assert_eq!(record.due_at(SECOND * 5, Counted::Account, &policy()), Some(at(5)));
}

#[test]
fn an_old_model_window_is_due_for_requests_of_that_model_only() {
    let mut record = polled(at(0), [five_hour(10), opus(20)]);
    let _ = merge_headers(&mut record, at(200), [five_hour(11)]);

    assert_eq!(due(&record), Some(at(500)));
    assert_eq!(due_for(&record, Counted::Model("claude-opus-4-5")), Some(at(300)));
    assert_eq!(due_for(&record, Counted::Model("claude-sonnet-4-5")), Some(at(500)));
    assert_eq!(due_for(&record, Counted::All), Some(at(300)));
}

#[test]
fn the_reset_of_a_model_window_counts_for_that_model_only() {
    let record = polled(at(0), [five_hour(10), opus(20).resets_at(at(100))]);

    assert_eq!(due(&record), Some(at(300)));
    assert_eq!(due_for(&record, Counted::Model("claude-opus-4-5")), Some(at(115)));
}

#[test]
fn headers_keep_an_account_with_a_models_window_fresh_for_an_hour() {
    let mut record = polled(at(0), [five_hour(10), opus(20)]);
    let mut calls = 0;
    for minute in 1..60 {
        let now = at(minute * 60);
        let _ = merge_headers(&mut record, now, [five_hour(11)]);
        calls += u32::from(begin(&mut record, now, &request(1)) != LeaseDecision::NotNeeded);
    }

    assert_eq!(calls, 0);
    assert!(matches!(begin(&mut record, at(3600), &request(2)), LeaseDecision::Granted(_)));
}

#[test]
fn a_request_of_a_model_with_an_old_window_may_call() {
    let mut record = polled(at(0), [five_hour(10), opus(20)]);
    let _ = merge_headers(&mut record, at(200), [five_hour(11)]);
    let of_a_model = LeaseRequest::new(attempt(1), MaxStaleness::CompleteAge(FRESH));

    assert!(matches!(begin(&mut record, at(300), &of_a_model), LeaseDecision::Granted(_)));
}

#[test]
fn an_unreadable_window_causes_no_immediate_second_call() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20).resets_at(at(500))]);
    let lame =
        UsageReport::polled([five_hour(11)]).coverage(Coverage::complete_except([WindowId::seven_day()]));

    poll(&mut record, at(1000), &lame);

    assert_eq!(due(&record), Some(at(1300)));
}

#[test]
fn a_response_with_an_old_time_causes_no_immediate_second_call() {
    let mut record = Record::default();

    poll(&mut record, at(0), &UsageReport::from_local([five_hour(10)], at(-9999)));

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn complete_refreshes_are_no_more_frequent_than_the_max_age() {
    let record = polled(at(0), [five_hour(10)]);
    let hasty = policy().full_refresh_interval(Duration::ZERO);

    assert_eq!(record.due_at(FRESH, Counted::Account, &hasty), Some(at(300)));
}

#[test]
fn the_longest_max_age_does_not_overflow() {
    let record = polled(at(0), [WindowReading::new(WindowId::monthly(), percent(1))]);

    assert!(
        record.due_at(Duration::MAX, Counted::Account, &policy()).unwrap() > at(0) + HOUR * 24 * 365 * 1000
    );
}
