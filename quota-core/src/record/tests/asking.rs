//! Which requests get a lease. How a failure changes that is in `backoff` and `refusals`.

use super::support::*;
use crate::provider::FetchError;
use crate::record::{Counted, HoldReason, LeaseDecision, MaxStaleness, Priority, Record};

#[test]
fn a_reading_of_four_minutes_is_fresh_for_five() {
    let mut record = polled(at(0), [five_hour(10)]);

    assert_eq!(begin(&mut record, at(240), &request(1)), LeaseDecision::NotNeeded);
}

#[test]
fn at_the_very_moment_it_is_due_a_reading_is_stale() {
    let mut record = polled(at(0), [five_hour(10)]);
    let due = record.due_at(FRESH, Counted::Account, &policy()).unwrap();

    assert_eq!(
        begin(&mut record.clone(), due - jiff::SignedDuration::from_millis(1), &request(1)),
        LeaseDecision::NotNeeded
    );
    assert!(matches!(begin(&mut record, due, &request(1)), LeaseDecision::Granted(_)));
}

#[test]
fn a_lease_is_as_old_as_its_grant_and_lasts_two_seconds_longer_than_a_call() {
    let lease = grant(&mut Record::default(), at(0));

    assert_eq!((lease.granted_at, lease.until), (at(0), at(12)));
}

#[test]
fn a_second_request_gets_the_fence_and_the_end_of_the_lease() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let second = begin(&mut record, at(5), &request(2));

    assert_eq!(second, LeaseDecision::InProgress { until: at(12), fence: lease.fence });
}

#[test]
fn a_request_during_a_live_lease_changes_nothing() {
    let mut record = polled(at(0), [five_hour(10)]);
    let _ = grant(&mut record, at(600));
    let before = record.clone();

    let _ = begin(&mut record, at(601), &request(99));

    assert_eq!(record, before);
}

#[test]
fn a_lost_lease_does_not_count_as_a_failure() {
    let mut record = Record::default();
    let late = grant(&mut record, at(0));
    let _ = grant(&mut record, at(31));

    let _ = record.fail(at(32), &late, &FetchError::TimedOut, &policy());

    assert_eq!((record.consecutive_failures(), record.hold(), record.last_failure()), (0, None, None));
}

#[test]
fn the_same_attempt_gets_the_same_lease() {
    let mut record = Record::default();
    let first = begin(&mut record, at(0), &request(1));

    let again = begin(&mut record, at(3), &request(1));

    assert_eq!(again, first);
}

#[test]
fn an_attempt_with_an_expired_lease_gets_another() {
    let mut record = Record::default();
    let LeaseDecision::Granted(first) = begin(&mut record, at(0), &request(1)) else {
        panic!("no other process calls")
    };

    let again = begin(&mut record, first.until, &request(1));

    assert!(matches!(again, LeaseDecision::Granted(second) if second.fence > first.fence));
}

#[test]
fn a_repeated_attempt_counts_once() {
    let mut record = Record::default();
    let _ = begin(&mut record, at(0), &request(1));
    let _ = begin(&mut record, at(3), &request(1));

    assert_eq!(record.calls().len(), 1);
}

#[test]
fn a_live_lease_is_not_taken_over() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let last_moment = lease.until - jiff::SignedDuration::from_millis(1);

    let other = begin(&mut record, last_moment, &request(99));

    assert!(matches!(other, LeaseDecision::InProgress { .. }));
}

#[test]
fn an_expired_lease_is_taken_over_once() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let heir = begin(&mut record, lease.until, &request(98));
    let third = begin(&mut record, lease.until, &request(99));

    assert!(matches!(heir, LeaseDecision::Granted(heir) if heir.fence > lease.fence));
    assert!(matches!(third, LeaseDecision::InProgress { .. }));
}

#[test]
fn a_released_lease_is_free_at_once() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    record.release(&lease);

    assert!(matches!(begin(&mut record, at(1), &request(99)), LeaseDecision::Granted(_)));
}

#[test]
fn headers_do_not_satisfy_an_explicit_refresh() {
    let mut record = polled(at(0), [five_hour(10)]);
    let _ = merge_headers(&mut record, at(60), [five_hour(11)]);

    assert!(matches!(begin(&mut record, at(61), &explicit_request(1)), LeaseDecision::Granted(_)));
}

#[test]
fn a_max_age_of_zero_always_calls() {
    let mut record = polled(at(0), [five_hour(10)]);
    let mut demanding = request(1);
    demanding.max_staleness = MaxStaleness::Age(std::time::Duration::ZERO);

    assert!(matches!(begin(&mut record, at(0), &demanding), LeaseDecision::Granted(_)));
}

/// A record with `calls` calls, one per minute.
fn record_with_calls(calls: i64) -> Record {
    let mut record = Record::default();
    for call in 0..calls {
        let lease = grant(&mut record, at(call * 60));
        record.release(&lease);
    }
    record
}

#[test]
fn a_call_beyond_the_budget_waits_until_the_first_is_an_hour_old() {
    let mut record = record_with_calls(28);

    let LeaseDecision::OnHold(hold) = begin(&mut record, at(28 * 60), &request(99)) else {
        panic!("28 calls are allowed")
    };

    assert_eq!((hold.reason, hold.until), (HoldReason::BudgetExhausted, at(3600)));
    assert!(matches!(begin(&mut record, at(3600), &request(99)), LeaseDecision::Granted(_)));
}

#[test]
fn the_last_call_of_the_budget_is_granted() {
    let mut record = record_with_calls(27);

    assert!(matches!(begin(&mut record, at(28 * 60), &request(99)), LeaseDecision::Granted(_)));
}

#[test]
fn calls_leave_the_record_after_an_hour() {
    let mut record = record_with_calls(3);

    let _ = begin(&mut record, at(60 + 3600), &request(99));

    let kept: Vec<_> = record.calls().iter().map(|attempt| attempt.at).collect();
    assert_eq!(kept, [at(120), at(60 + 3600)]);
}

#[test]
fn the_reserve_is_for_interactive_callers() {
    let mut record = record_with_calls(22);
    let background = request(98).priority(Priority::Background);

    let LeaseDecision::OnHold(hold) = begin(&mut record, at(22 * 60), &background) else {
        panic!("6 are in reserve")
    };

    assert_eq!((hold.reason, hold.until), (HoldReason::BudgetExhausted, at(3600)));
    assert!(matches!(begin(&mut record, at(22 * 60), &request(99)), LeaseDecision::Granted(_)));
}

#[test]
fn a_lowered_budget_waits_until_enough_calls_are_an_hour_old() {
    let mut record = record_with_calls(10);
    let frugal = policy().budget(crate::policy::Budget::new(4, 1));

    let LeaseDecision::OnHold(hold) = record.begin(at(600), &request(99), &frugal) else {
        panic!("10 calls are over 4")
    };

    // The calls of minutes 6 to 9 are four, so the call of minute 6 must expire first.
    assert_eq!(hold.until, at(6 * 60 + 3600));
}

#[test]
fn the_provider_cooldown_holds_an_account_without_calls() {
    let mut record = Record::default();
    let cooldown = crate::record::Hold::new(at(0), at(60), HoldReason::ProviderRateLimited);

    let held = begin(&mut record, at(59), &request(1).cooldown(Some(cooldown.clone())));

    assert_eq!(held, LeaseDecision::OnHold(cooldown.clone()));
    assert!(matches!(
        begin(&mut record, at(60), &request(2).cooldown(Some(cooldown))),
        LeaseDecision::Granted(_)
    ));
}

#[test]
fn the_hold_that_ends_last_is_reported() {
    let mut record = Record::default();
    let own = fail(&mut record, at(0), &FetchError::throttled(None)).unwrap();
    let shorter = crate::record::Hold::new(at(0), at(30), HoldReason::ProviderRateLimited);
    let longer = crate::record::Hold::new(at(0), at(90), HoldReason::ProviderRateLimited);

    assert_eq!(begin(&mut record, at(1), &request(8).cooldown(Some(shorter))), LeaseDecision::OnHold(own));
    assert_eq!(
        begin(&mut record, at(1), &request(9).cooldown(Some(longer.clone()))),
        LeaseDecision::OnHold(longer)
    );
}

#[test]
fn fresh_readings_are_reported_even_during_a_hold() {
    let mut record = polled(at(0), [five_hour(10)]);
    let _ = record.seed(at(1), &held(rate_limited(at(1), at(3600))));

    assert_eq!(begin(&mut record, at(2), &request(1)), LeaseDecision::NotNeeded);
}
