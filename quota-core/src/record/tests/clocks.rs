//! Wrong and corrected clocks. Their timestamps must neither block calls for years nor override correct readings. The tests
//! in `laws` check that the fence rises with any clock.

use jiff::Timestamp;

use super::support::*;
use crate::model::{Snapshot, UsageReport, WindowId};
use crate::provider::FetchError;
use crate::record::{LeaseDecision, Record, Seed};

/// A time long after everything else in these tests, from a wrong clock.
fn year_2100() -> Timestamp {
    "2100-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn a_hold_from_the_future_keeps_its_length_from_now_on() {
    let mut record = Record::default();
    fail(&mut record, year_2100(), &FetchError::throttled(Some(HOUR)));

    let LeaseDecision::OnHold(hold) = begin(&mut record, at(0), &request(9)) else {
        panic!("the provider asked for an hour")
    };

    assert_eq!((hold.since, hold.until), (at(0), at(3600)));
    assert!(matches!(begin(&mut record, at(3599), &request(9)), LeaseDecision::OnHold(_)));
    assert!(matches!(begin(&mut record, at(3600), &request(9)), LeaseDecision::Granted(_)));
}

#[test]
fn a_hold_within_the_clock_slack_is_not_changed() {
    let mut record = Record::default();
    let armed = fail(&mut record, at(30), &FetchError::throttled(None));

    let _ = begin(&mut record, at(0), &request(9));

    assert_eq!(record.hold().cloned(), armed);
}

#[test]
fn a_persisted_hold_from_the_future_keeps_its_length() {
    let mut record = Record::default();

    let _ = record.seed(at(0), &held(rate_limited(year_2100(), year_2100() + MINUTE)));

    assert_eq!(record.hold().unwrap().until, at(60));
}

#[test]
fn a_repaired_hold_is_stored() {
    let mut record = Record::default();
    let between_milliseconds = at(0) + jiff::SignedDuration::from_nanos(123_456);

    let _ = record.seed(between_milliseconds, &held(rate_limited(year_2100(), year_2100() + MINUTE)));

    assert_eq!(stored(&record), record);
}

#[test]
fn a_repaired_lease_is_stored() {
    let mut record = Record::default();
    let _ = grant(&mut record, year_2100());
    let between_milliseconds = at(0) + jiff::SignedDuration::from_nanos(123_456);

    let _ = record.seed(between_milliseconds, &Seed::new(Snapshot::default()));

    assert_eq!(stored(&record), record);
}

#[test]
fn a_removal_during_a_lease_from_the_future_has_the_present_time() {
    let mut record = Record::default();
    let _ = grant(&mut record, year_2100());
    let _ = record.forget(at(10));

    let _ = record.seed(at(11), &Seed::new(headers(at(5), [five_hour(50)])));

    assert!(record.snapshot().is_empty(), "the reading is older than the removal");
}

#[test]
fn a_later_call_with_a_slow_clock_counts() {
    let mut record = polled(at(10), [five_hour(40)]);
    let LeaseDecision::Granted(lease) = begin(&mut record, at(9), &explicit_request(9)) else {
        panic!("no other process is calling")
    };

    let _ = record.commit(at(9), &lease, &UsageReport::polled([five_hour(20)]));

    assert_eq!(record.snapshot().window(&WindowId::five_hour()).unwrap().used(), percent(20));
}

#[test]
fn readings_from_the_future_are_dropped_and_refreshed() {
    let mut record = polled(year_2100(), [five_hour(10)]);

    let begun = begin(&mut record, at(0), &request(9));

    assert!(matches!(begun, LeaseDecision::Granted(_)));
    assert!(record.snapshot().is_empty());
    assert_eq!(record.complete_at(), None);
}

#[test]
fn calls_from_the_future_use_no_budget() {
    let mut record = Record::default();
    for _ in 0..28 {
        let lease = grant(&mut record, year_2100());
        record.release(&lease);
    }

    assert!(matches!(begin(&mut record, at(0), &request(99)), LeaseDecision::Granted(_)));
    assert_eq!(record.calls().len(), 1);
}

#[test]
fn a_rejection_from_the_future_blocks_no_call() {
    let mut record = Record::default();
    fail(&mut record, year_2100(), &FetchError::Unauthorized);

    assert!(matches!(begin(&mut record, at(0), &request(9)), LeaseDecision::Granted(_)));
}

#[test]
fn a_lease_from_the_future_is_taken_over() {
    let mut record = Record::default();
    let lease = grant(&mut record, year_2100());

    let LeaseDecision::Granted(heir) = begin(&mut record, at(0), &request(9)) else {
        panic!("2100 has not come")
    };

    assert!(heir.fence > lease.fence);
}

#[test]
fn a_lease_within_the_clock_slack_is_not_taken_over() {
    let mut record = Record::default();
    let _ = grant(&mut record, at(30));

    assert!(matches!(begin(&mut record, at(0), &request(9)), LeaseDecision::InProgress { .. }));
}

#[test]
fn a_lease_with_later_readings_than_its_grant_is_not_taken_over() {
    let mut record = polled(at(0), [five_hour(10)]);
    let granted = begin(&mut record, at(-17), &explicit_request(8));
    assert!(matches!(granted, LeaseDecision::Granted(_)), "{granted:?}");

    let second = begin(&mut record, at(-30), &explicit_request(9));

    assert!(matches!(second, LeaseDecision::InProgress { .. }), "{second:?}");
}

#[test]
fn a_response_after_a_clock_change_is_not_from_the_future() {
    let mut record = polled(at(0), [five_hour(10), seven_day(20)]);
    let lease = grant(&mut record, year_2100());

    let _ = record.commit(at(600), &lease, &UsageReport::polled([five_hour(11), seven_day(21)]));

    assert_eq!(record.snapshot().newest(), Some(at(600)));
    assert_eq!(record.complete_at(), Some(at(600)));
    assert!(matches!(begin(&mut record, at(601), &request(9)), LeaseDecision::NotNeeded));
}

#[test]
fn a_rejection_after_a_clock_change_blocks() {
    let mut record = Record::default();
    let lease = grant(&mut record, year_2100());

    let _ = record.fail(at(600), &lease, &FetchError::Unauthorized, &policy());

    assert!(matches!(begin(&mut record, at(601), &request(9)), LeaseDecision::CredentialRejected(_)));
}

#[test]
fn headers_replace_readings_of_a_wrong_clock() {
    let mut record = polled(year_2100(), [five_hour(99)]);

    let _ = merge_headers(&mut record, at(0), [five_hour(10)]);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(10)));
}

#[test]
fn an_unset_clock_drops_no_hold_and_no_call() {
    let mut record = Record::default();
    let hold = fail(&mut record, at(0), &FetchError::throttled(Some(MINUTE * 10))).unwrap();
    let calls = record.calls().to_vec();

    let held = begin(&mut record, Timestamp::UNIX_EPOCH, &request(9));

    assert!(matches!(held, LeaseDecision::OnHold(_)), "{held:?}");
    assert_eq!((record.hold(), record.calls()), (Some(&hold), &calls[..]));
}

#[test]
fn an_unset_clock_keeps_the_removal_of_an_account() {
    let before = polled(at(0), [five_hour(40)]);
    let mut record = before.clone();
    let _ = record.forget(at(10));

    let _ = record.merge_standalone(Timestamp::UNIX_EPOCH, &Record::default(), None);
    let _ = record.observe(Timestamp::UNIX_EPOCH, &Snapshot::default(), None, None);
    let _ = record.merge_standalone(at(20), &before, None);

    assert!(record.snapshot().is_empty());
}

#[test]
fn an_unset_clock_drops_no_reading() {
    let mut record = polled(at(0), [five_hour(40)]);
    let seven_day = headers(at(1), [seven_day(7)]);

    let _ = record.observe(Timestamp::UNIX_EPOCH, &seven_day, None, None);

    assert_eq!(record.snapshot().windows().len(), 2);
}

#[test]
fn an_unset_clock_does_not_shorten_a_merged_hold() {
    let mut alone = Record::default();
    let hold = fail(&mut alone, at(0), &FetchError::throttled(Some(HOUR)));
    let mut record = Record::default();

    let _ = record.merge_standalone(Timestamp::UNIX_EPOCH, &alone, None);

    assert_eq!(record.hold().cloned(), hold);
}

#[test]
fn a_lease_is_shifted_with_its_call() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    record.shift_limits(3_600_000);

    let shifted = record.lease().unwrap();
    assert_eq!(shifted.granted_at, lease.granted_at + HOUR);
    assert_eq!(shifted.until, lease.until + HOUR);
}
