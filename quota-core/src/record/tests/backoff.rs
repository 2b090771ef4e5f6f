//! How a rate limit or a failure delays the next calls. Rejected credentials, which arm no hold, are in `refusals`.

use std::time::Duration;

use serde_json::Value;

use super::support::*;
use crate::model::{RequestId, Snapshot, Throttled, UsageReport};
use crate::provider::FetchError;
use crate::record::{
    CommitOutcome, Counted, FailOutcome, Hold, HoldReason, LastFailure, LastFailureKind, LeaseDecision,
    LeaseRequest, MaxStaleness, Record, Seed,
};
use crate::time::elapsed;

const THROTTLED: FetchError = FetchError::Throttled { retry_after: None };

/// The lengths of the holds after this many failures in a row. Each call starts when the last hold ends.
fn delays(record: &mut Record, failures: usize, error: &FetchError) -> Vec<u64> {
    let mut now = record.hold().map_or(at(0), |hold| hold.until);
    let mut delays = Vec::new();
    for _ in 0..failures {
        let hold = fail(record, now, error).unwrap();
        delays.push(elapsed(now, hold.until).as_secs());
        now = hold.until;
    }
    delays
}

#[test]
fn each_429_in_a_row_doubles_the_hold_up_to_a_quarter_of_an_hour() {
    let delays = delays(&mut Record::default(), 6, &THROTTLED);

    assert_eq!(delays, [60, 120, 240, 480, 900, 900]);
}

/// Makes a call at `now` whose second request was rate limited. Returns the length of the hold that it arms.
fn throttled_poll(record: &mut Record, now: jiff::Timestamp, retry_after: Option<Duration>) -> u64 {
    let lease = grant(record, now);
    let usage = UsageReport::polled([five_hour(10)]).throttled(Throttled::new(retry_after));
    for _ in 0..2 {
        // The second commit is a repetition after a lost response.
        let committed = record.commit_throttled(now, &lease, &usage, &policy());
        assert_eq!(committed, CommitOutcome::Stored);
    }
    elapsed(now, record.hold().unwrap().until).as_secs()
}

#[test]
fn a_report_of_a_throttled_call_stores_readings_and_arms_a_hold() {
    let mut record = Record::default();

    let hold = throttled_poll(&mut record, at(0), Some(Duration::from_secs(600)));

    assert_eq!((hold, record.snapshot().windows().len()), (600, 1));
    assert_eq!((record.hold().unwrap().reason, record.complete_at()), (HoldReason::RateLimited, Some(at(0))));
}

#[test]
fn throttled_calls_in_a_row_back_off_though_they_have_readings() {
    let mut record = Record::default();

    let delays = [0, 1000, 2000].map(|second| throttled_poll(&mut record, at(second), None));

    assert_eq!(delays, [60, 120, 240]);
}

/// The lengths of the holds after panics at these seconds; 0 without a hold.
fn panics(record: &mut Record, seconds: &[i64]) -> Vec<u64> {
    let one = |second: &i64| {
        let lease = grant(record, at(*second));
        let outcomes = [(); 2].map(|()| {
            // The second one is a repetition after a lost response.
            let FailOutcome::Stored { hold, .. } = record.panicked(at(*second), &lease, &policy()) else {
                return 0;
            };
            hold.map_or(0, |hold| elapsed(at(*second), hold.until).as_secs())
        });
        outcomes[0]
    };
    seconds.iter().map(one).collect()
}

#[test]
fn panics_in_a_row_arm_a_hold_from_the_second_on() {
    assert_eq!(panics(&mut Record::default(), &[0, 1, 1000, 2000]), [0, 30, 60, 120]);
}

#[test]
fn a_panic_after_a_success_arms_no_hold() {
    let mut record = Record::default();
    panics(&mut record, &[0]);
    poll(&mut record, at(1), &UsageReport::polled([five_hour(10)]));

    assert_eq!(panics(&mut record, &[1000]), [0]);
}

#[test]
fn a_success_resets_the_backoff() {
    let mut record = Record::default();
    delays(&mut record, 3, &THROTTLED);
    let over = record.hold().unwrap().until;
    poll(&mut record, over, &UsageReport::polled([five_hour(10)]));

    let hold = fail(&mut record, over + MINUTE, &THROTTLED).unwrap();

    assert_eq!(elapsed(over + MINUTE, hold.until), MINUTE);
}

#[test]
fn every_other_failure_holds_for_15_seconds_doubling_to_5_minutes() {
    for error in [FetchError::TimedOut, FetchError::unavailable("500"), FetchError::malformed("html")] {
        let delays = delays(&mut Record::default(), 6, &error);

        assert_eq!(delays, [15, 30, 60, 120, 240, 300], "{error}");
    }
}

#[test]
fn the_retry_after_of_a_failing_provider_is_obeyed() {
    let error = FetchError::unavailable("503").with_retry_after(Some(MINUTE * 30));

    let hold = fail(&mut Record::default(), at(0), &error).unwrap();

    assert_eq!((elapsed(at(0), hold.until), hold.reason), (MINUTE * 30, HoldReason::Failing));
}

#[test]
fn failures_of_another_kind_do_not_lengthen_the_first_429s_hold() {
    let mut record = Record::default();
    delays(&mut record, 5, &FetchError::TimedOut);
    let over = record.hold().unwrap().until;

    let hold = fail(&mut record, over, &THROTTLED).unwrap();

    assert_eq!(elapsed(over, hold.until), MINUTE);
}

#[test]
fn a_hold_has_a_reason() {
    let reason = |error| fail(&mut Record::default(), at(0), &error).unwrap().reason;

    assert_eq!(reason(THROTTLED), HoldReason::RateLimited);
    assert_eq!(reason(FetchError::TimedOut), HoldReason::Failing);
}

#[test]
fn attempts_of_different_dice_come_back_at_different_moments_within_a_tenth() {
    let until = |bits: u128| {
        let mut record = Record::default();
        let request = LeaseRequest::new(RequestId::from(bits), MaxStaleness::Age(FRESH));
        let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &request) else {
            panic!("no other process calls")
        };
        let _ = record.fail(at(0), &lease, &THROTTLED, &policy());
        record.hold().unwrap().until
    };

    assert_eq!(until(0), at(60));
    assert_eq!(until(1 << 31), at(63));
    assert!(at(65) < until(u128::from(u32::MAX)) && until(u128::from(u32::MAX)) <= at(66));
}

#[test]
fn the_maximum_backoff_does_not_shorten_a_retry_after() {
    let mut record = Record::default();

    let hold = fail(&mut record, at(0), &FetchError::throttled(Some(Duration::from_secs(2974)))).unwrap();

    assert_eq!(hold.until, at(2974));
    assert!(matches!(begin(&mut record, at(2973), &request(9)), LeaseDecision::OnHold(_)));
    assert!(matches!(begin(&mut record, at(2974), &request(9)), LeaseDecision::Granted(_)));
}

#[test]
fn a_retry_after_is_reported_unchanged() {
    let asked_for = Some(Duration::from_secs(2974));

    let hold = fail(&mut Record::default(), at(0), &FetchError::throttled(asked_for)).unwrap();

    assert_eq!(hold.retry_after, asked_for);
}

#[test]
fn a_retry_after_of_zero_permits_no_call() {
    let delays = delays(&mut Record::default(), 4, &FetchError::throttled(Some(Duration::ZERO)));

    assert_eq!(delays, [60, 120, 240, 480]);
}

#[test]
fn a_short_retry_after_does_not_shorten_the_backoff() {
    let delays = delays(&mut Record::default(), 3, &FetchError::throttled(Some(MINUTE)));

    assert_eq!(delays, [60, 120, 240]);
}

#[test]
fn a_retry_after_of_18_days_holds_for_24_hours_and_is_stored() {
    let mut record = Record::default();

    let hold = fail(&mut record, at(0), &FetchError::throttled(Some(DAY * 18))).unwrap();

    assert_eq!((hold.until, hold.shortened_from()), (at(0) + DAY, Some(DAY * 18)));
    assert!(matches!(begin(&mut record, at(0) + DAY - SECOND, &request(9)), LeaseDecision::OnHold(_)));
    assert!(matches!(begin(&mut record, at(0) + DAY, &request(9)), LeaseDecision::Granted(_)));
}

#[test]
fn a_retry_after_of_a_day_is_obeyed_in_full() {
    let hold = fail(&mut Record::default(), at(0), &FetchError::throttled(Some(DAY))).unwrap();

    assert_eq!((hold.until, hold.shortened_from()), (at(0) + DAY, None));
}

#[test]
fn a_failing_provider_with_a_wait_of_18_days_holds_for_24_hours() {
    let error = FetchError::unavailable("503").with_retry_after(Some(DAY * 18));

    let hold = fail(&mut Record::default(), at(0), &error).unwrap();

    assert_eq!((hold.until, hold.shortened_from()), (at(0) + DAY, Some(DAY * 18)));
}

#[test]
fn a_configured_backoff_may_exceed_a_day() {
    let patient = policy().rate_limit_backoff(crate::policy::Backoff::doubling(DAY * 2, DAY * 2).jitter(0.0));
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let failed = record.fail(at(0), &lease, &FetchError::throttled(Some(DAY * 18)), &patient);

    let FailOutcome::Stored { hold: Some(hold), .. } = failed else { panic!("no other process has called") };
    assert_eq!(hold.until, at(0) + DAY * 2);
}

#[test]
fn a_persisted_hold_of_18_days_ends_24_hours_after_its_start() {
    let mut record = Record::default();
    let hold = rate_limited(at(0), at(0) + DAY * 18);

    let _ = record.seed(at(60), &held(hold.clone()));
    let _ = record.seed(at(120), &held(hold));

    let hold = record.hold().unwrap();
    assert_eq!((hold.until, hold.shortened_from()), (at(0) + DAY, Some(DAY * 18)));
}

/// A record as an older program stored it, which obeyed waits of any length: this hold without its call.
fn stored_by_an_older_program(hold: &Hold) -> Value {
    let mut stored = document(&Record::default());
    stored["hold"] = serde_json::to_value(hold).unwrap();
    stored
}

#[test]
fn a_stored_hold_of_an_older_program_ends_after_24_hours() {
    let until_2083 = at(0) + DAY * 365 * 57;
    for until in [at(0) + DAY * 18, until_2083] {
        let asked_for = Some(elapsed(at(0), until));
        let mut record =
            decode(&stored_by_an_older_program(&rate_limited(at(0), until).retry_after(asked_for)));

        let hold = record.hold().unwrap();
        assert_eq!((hold.until, hold.shortened_from()), (at(0) + DAY, asked_for));
        assert!(matches!(begin(&mut record, at(0) + DAY, &request(9)), LeaseDecision::Granted(_)));
    }
}

#[test]
fn an_old_programs_hold_from_the_future_lasts_at_most_24_hours() {
    let mut record = decode(&stored_by_an_older_program(&rate_limited(at(0) + DAY, at(0) + DAY * 19)));

    assert!(matches!(begin(&mut record, at(0), &request(8)), LeaseDecision::OnHold(_)));

    assert_eq!(record.hold().unwrap().until, at(0) + DAY);
}

#[test]
fn a_rejoining_process_merges_no_hold_longer_than_24_hours() {
    let hold = rate_limited(at(0), at(0) + DAY * 18);
    let alone = Record { hold: Some(Box::new(hold)), ..Record::default() };
    let mut record = Record::default();

    let _ = record.merge_standalone(at(60), &alone, None);

    assert_eq!(record.hold().unwrap().until, at(0) + DAY);
}

#[test]
fn a_stored_backoff_may_exceed_a_day() {
    let patient = policy().rate_limit_backoff(crate::policy::Backoff::doubling(DAY * 2, DAY * 2).jitter(0.0));
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.fail(at(0), &lease, &FetchError::throttled(None), &patient);

    assert_eq!(stored(&record), record);
    assert_eq!(record.hold().unwrap().until, at(0) + DAY * 2);
}

#[test]
fn the_maximum_retry_after_survives_the_store() {
    let mut record = Record::default();

    fail(&mut record, at(0), &FetchError::throttled(Some(Duration::MAX)));

    assert_eq!(stored(&record), record);
}

#[test]
fn a_429_starts_a_provider_cooldown_of_a_minute() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let failed = record.fail(at(5), &lease, &FetchError::throttled(Some(HOUR)), &policy());

    let FailOutcome::Stored { cooldown, .. } = failed else { panic!("no other process has called") };
    assert_eq!(cooldown, Some(Hold::new(at(5), at(65), HoldReason::ProviderRateLimited)));
}

#[test]
fn a_cooldown_holds_without_a_failure_of_the_account() {
    let mut main = Record::default();
    let cooldown = Hold::new(at(0), at(60), HoldReason::ProviderRateLimited);

    let _ = begin(&mut main, at(1), &request(1).cooldown(Some(cooldown)));

    assert_eq!((main.hold(), main.consecutive_failures(), main.last_failure()), (None, 0, None));
}

#[test]
fn other_failures_start_no_provider_cooldown() {
    for error in [FetchError::TimedOut, FetchError::Unauthorized, FetchError::malformed("html")] {
        let mut record = Record::default();
        let lease = grant(&mut record, at(0));

        let failed = record.fail(at(1), &lease, &error, &policy());

        assert!(matches!(failed, FailOutcome::Stored { cooldown: None, .. }), "{error}");
    }
}

#[test]
fn fifty_requests_during_a_hold_are_denied_and_do_not_extend_it() {
    let mut record = polled(at(0), [five_hour(10)]);
    let hold = fail(&mut record, at(600), &THROTTLED).unwrap();
    let before = record.clone();

    for number in 0..50 {
        assert_eq!(
            begin(&mut record, at(601), &explicit_request(100 + number)),
            LeaseDecision::OnHold(hold.clone())
        );
    }

    assert_eq!(record, before);
}

#[test]
fn a_failed_call_changes_no_reading_and_no_age() {
    let mut record = polled(at(0), [five_hour(10)]);
    let (snapshot, request_count, due) =
        (record.snapshot().clone(), record.complete_at(), record.due_at(FRESH, Counted::Account, &policy()));

    fail(&mut record, at(600), &THROTTLED);

    assert_eq!(record.snapshot(), &snapshot);
    assert_eq!(
        (record.complete_at(), record.due_at(FRESH, Counted::Account, &policy())),
        (request_count, due)
    );
}

#[test]
fn a_held_refresh_does_not_change_the_last_failure() {
    let mut record = Record::default();
    fail(&mut record, at(0), &THROTTLED);
    let failure = record.last_failure().cloned();

    let _ = begin(&mut record, at(30), &request(9));

    assert_eq!(record.last_failure().cloned(), failure);
}

#[test]
fn a_failure_has_the_time_of_its_call() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let _ = record.fail(at(9), &lease, &FetchError::TimedOut, &policy());

    let Some(LastFailure { at: failed_at, kind, .. }) = record.last_failure() else {
        panic!("the call failed")
    };
    assert_eq!((*failed_at, *kind), (at(0), LastFailureKind::TimedOut));
}

#[test]
fn a_success_clears_the_hold_the_streak_and_the_failure() {
    let mut record = Record::default();
    let over = fail(&mut record, at(0), &THROTTLED).unwrap().until;

    poll(&mut record, over, &UsageReport::polled([five_hour(10)]));

    assert_eq!((record.hold(), record.consecutive_failures(), record.last_failure()), (None, 0, None));
}

#[test]
fn headers_during_a_hold_update_windows_and_keep_the_hold() {
    let mut record = Record::default();
    fail(&mut record, at(0), &THROTTLED);
    let before = (record.hold().cloned(), record.consecutive_failures(), record.last_failure().cloned());

    let _ = merge_headers(&mut record, at(10), [five_hour(42)]);

    assert_eq!(used(&record, &crate::WindowId::five_hour()), Some(percent(42)));
    assert_eq!(
        (record.hold().cloned(), record.consecutive_failures(), record.last_failure().cloned()),
        before
    );
}

#[test]
fn headers_do_not_change_the_lease() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let _ = merge_headers(&mut record, at(1), [five_hour(42)]);

    assert_eq!(record.lease(), Some(&lease));
}

#[test]
fn an_expired_persisted_hold_is_ignored() {
    let mut record = Record::default();

    let _ = record.seed(at(60), &held(rate_limited(at(0), at(60))));

    assert_eq!(record.hold(), None);
}

#[test]
fn a_live_persisted_hold_is_merged() {
    let mut record = Record::default();
    let hold = rate_limited(at(0), at(60));

    let _ = record.seed(at(59), &held(hold.clone()));

    assert_eq!(begin(&mut record, at(59), &request(1)), LeaseDecision::OnHold(hold));
}

#[test]
fn the_later_end_of_a_hold_and_a_persisted_hold_wins() {
    let ends_of = |first, second| {
        let mut record = Record::default();
        let _ = record.seed(at(0), &held(rate_limited(at(0), first)));
        let _ = record.seed(at(0), &held(rate_limited(at(0), second)));
        record.hold().unwrap().until
    };

    assert_eq!(ends_of(at(60), at(90)), at(90));
    assert_eq!(ends_of(at(90), at(60)), at(90));
}

#[test]
fn of_two_holds_with_the_same_end_the_later_one_wins() {
    let since = |first, second| {
        let mut record = Record::default();
        let _ = record.seed(at(30), &held(rate_limited(first, at(60))));
        let _ = record.seed(at(30), &held(rate_limited(second, at(60))));
        record.hold().unwrap().since
    };

    assert_eq!(since(at(0), at(30)), at(30));
    assert_eq!(since(at(30), at(0)), at(30));
}

#[test]
fn a_failure_does_not_shorten_a_hold_armed_during_its_call() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.seed(at(4), &held(rate_limited(at(4), at(3604))));

    let _ = record.fail(at(8), &lease, &FetchError::TimedOut, &policy());

    assert_eq!(record.hold().unwrap().until, at(3604));
}

#[test]
fn a_success_does_not_clear_a_hold_armed_during_its_call() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.seed(at(4), &held(rate_limited(at(4), at(3604))));

    let _ = record.commit(at(8), &lease, &UsageReport::polled([five_hour(10)]));

    assert_eq!(record.hold().map(|hold| hold.until), Some(at(3604)));
}

#[test]
fn a_success_clears_a_hold_armed_when_its_call_started() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.seed(at(4), &held(rate_limited(at(0), at(3604))));

    let _ = record.commit(at(8), &lease, &UsageReport::polled([five_hour(10)]));

    assert_eq!(record.hold(), None);
}

#[test]
fn a_seed_without_a_hold_clears_no_hold() {
    let mut record = Record::default();
    let hold = fail(&mut record, at(0), &THROTTLED);

    let _ = record.seed(at(1), &Seed::new(Snapshot::default()));

    assert_eq!(record.hold().cloned(), hold);
}
