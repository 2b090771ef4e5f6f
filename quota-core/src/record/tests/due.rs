//! When readings stop being fresh: by age, by reset, by how long ago everything was asked for.
//! That no reading whatever makes a hot loop is in `laws`.

use std::time::Duration;

use jiff::Timestamp;

use super::support::*;
use crate::model::{Coverage, Snapshot, UsageReport, WindowId, WindowReading};
use crate::record::{Counted, LeaseDecision, LeaseRequest, MaxStaleness, Record, Seed};

/// When the record is due, for those who want readings of five minutes.
fn due(record: &Record) -> Option<Timestamp> {
    due_for(record, Counted::Account)
}

fn due_for(record: &Record, counted: Counted<'_>) -> Option<Timestamp> {
    record.due_at(FRESH, counted, &policy())
}

#[test]
fn a_record_that_knows_nothing_is_due_at_no_moment_and_never_fresh() {
    let mut record = Record::default();

    assert_eq!(due(&record), None);
    assert!(matches!(begin(&mut record, at(0), &ask(1)), LeaseDecision::Granted(_)));
}

#[test]
fn readings_are_due_when_they_have_the_age_that_was_asked_for() {
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
fn headers_on_one_window_do_not_make_the_others_younger() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20)]);

    let _ = see(&mut record, at(200), [five_hour(11)]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn headers_on_every_window_keep_them_fresh() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20)]);

    let _ = see(&mut record, at(200), [five_hour(11), seven_day(21)]);

    assert_eq!(due(&record), Some(at(500)));
}

#[test]
fn whatever_headers_say_everything_is_asked_for_once_an_hour() {
    let mut record = polled(at(0), [five_hour(10)]);

    let _ = see(&mut record, at(3500), [five_hour(11)]);

    assert_eq!(due(&record), Some(at(3600)));
}

#[test]
fn headers_alone_never_make_an_account_known() {
    let mut record = Record::default();

    let _ = see(&mut record, at(0), [five_hour(10), seven_day(20)]);

    assert_eq!(due(&record), None);
    assert!(matches!(begin(&mut record, at(1), &ask(1)), LeaseDecision::Granted(_)));
}

#[test]
fn what_was_persisted_is_fresh_at_its_own_age() {
    let mut record = Record::default();
    let poll = Snapshot::of(&UsageReport::polled([five_hour(10)]), at(0));

    let _ = record.seed(at(299), &Seed::new(poll));

    assert_eq!(begin(&mut record, at(299), &ask(1)), LeaseDecision::NotNeeded);
    assert!(matches!(begin(&mut record, at(300), &ask(1)), LeaseDecision::Granted(_)));
}

#[test]
fn an_answer_with_only_a_models_window_has_an_age_and_a_due_time() {
    let record = polled(at(0), [opus(10)]);

    assert_eq!((record.snapshot().newest(), due(&record)), (Some(at(0)), Some(at(300))));
}

#[test]
fn an_answer_without_windows_has_an_age_and_a_due_time() {
    let mut record = Record::default();
    poll(&mut record, at(0), &UsageReport::polled([]).plan("free".to_owned()));

    assert_eq!((record.snapshot().newest(), due(&record)), (Some(at(0)), Some(at(300))));
}

// Every interval, or a little after the reset, whichever is first.
#[test]
fn an_exhausted_window_that_resets_in_four_hours_is_asked_for_at_every_interval() {
    let record = polled(at(0), [five_hour(100).resets_at(at(4 * 3600))]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn a_window_that_resets_before_the_interval_is_over_is_asked_for_a_little_after() {
    let record = polled(at(0), [five_hour(100).resets_at(at(120)), seven_day(20)]);

    assert_eq!(due(&record), Some(at(135)));
}

#[test]
fn the_first_of_several_resets_counts() {
    let record = polled(at(0), [five_hour(1).resets_at(at(200)), seven_day(2).resets_at(at(120))]);

    assert_eq!(due(&record), Some(at(135)));
}

#[test]
fn a_reset_a_second_ahead_is_not_asked_for_within_the_minute() {
    let record = polled(at(0), [five_hour(100).resets_at(at(1))]);

    assert_eq!(due(&record), Some(at(60)));
}

#[test]
fn a_reset_that_has_passed_when_it_is_told_brings_nothing_forward() {
    let record = polled(at(0), [five_hour(100).resets_at(at(-50))]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn a_reset_at_the_end_of_time_is_far_away() {
    let record = polled(at(0), [five_hour(100).resets_at(Timestamp::MAX)]);

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn a_freshness_below_the_floor_for_resets_is_kept() {
    let record = polled(at(0), [five_hour(100).resets_at(at(1))]);

    assert_eq!(record.due_at(SECOND * 5, Counted::Account, &policy()), Some(at(5)));
}

#[test]
fn an_old_model_window_is_due_for_requests_of_that_model_only() {
    let mut record = polled(at(0), [five_hour(10), opus(20)]);
    let _ = see(&mut record, at(200), [five_hour(11)]);

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
fn headers_keep_an_account_with_a_model_window_fresh_for_an_hour() {
    let mut record = polled(at(0), [five_hour(10), opus(20)]);
    let mut calls = 0;
    for minute in 1..60 {
        let now = at(minute * 60);
        let _ = see(&mut record, now, [five_hour(11)]);
        calls += u32::from(begin(&mut record, now, &ask(1)) != LeaseDecision::NotNeeded);
    }

    assert_eq!(calls, 0);
    assert!(matches!(begin(&mut record, at(3600), &ask(2)), LeaseDecision::Granted(_)));
}

#[test]
fn a_request_of_a_model_with_an_old_window_may_call() {
    let mut record = polled(at(0), [five_hour(10), opus(20)]);
    let _ = see(&mut record, at(200), [five_hour(11)]);
    let of_a_model = LeaseRequest::new(attempt(1), MaxStaleness::CompleteAge(FRESH));

    assert!(matches!(begin(&mut record, at(300), &of_a_model), LeaseDecision::Granted(_)));
}

#[test]
fn a_window_that_could_not_be_read_is_not_asked_for_again_at_once() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20).resets_at(at(500))]);
    let lame =
        UsageReport::polled([five_hour(11)]).coverage(Coverage::complete_except([WindowId::seven_day()]));

    poll(&mut record, at(1000), &lame);

    assert_eq!(due(&record), Some(at(1300)));
}

#[test]
fn an_answer_about_the_past_is_not_asked_for_again_at_once() {
    let mut record = Record::default();

    poll(&mut record, at(0), &UsageReport::from_local([five_hour(10)], at(-9999)));

    assert_eq!(due(&record), Some(at(300)));
}

#[test]
fn everything_is_asked_for_no_more_often_than_readings_grow_old() {
    let record = polled(at(0), [five_hour(10)]);
    let hasty = policy().full_refresh_interval(Duration::ZERO);

    assert_eq!(record.due_at(FRESH, Counted::Account, &hasty), Some(at(300)));
}

#[test]
fn a_freshness_longer_than_all_time_does_not_overflow() {
    let record = polled(at(0), [WindowReading::new(WindowId::monthly(), percent(1))]);

    assert!(
        record.due_at(Duration::MAX, Counted::Account, &policy()).unwrap() > at(0) + HOUR * 24 * 365 * 1000
    );
}
