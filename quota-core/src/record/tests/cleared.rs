//! Holds that a user cleared. No process with an older copy restores them, and the next failure arms a new hold.

use proptest::prelude::*;

use super::random::{World, ops};
use super::support::*;
use crate::model::UsageReport;
use crate::provider::FetchError;
use crate::record::{Cleared, FailOutcome, Hold, LeaseDecision, Record};

const THROTTLED: FetchError = FetchError::Throttled { retry_after: Some(HOUR) };

/// A record whose call at 0 was throttled, with a hold of an hour.
fn throttled() -> Record {
    let mut record = Record::default();
    fail(&mut record, at(0), &THROTTLED);
    record
}

/// The same record, cleared at 60.
fn cleared() -> Record {
    let mut record = throttled();
    let _ = record.clear_hold(at(60));
    record
}

fn is_free(record: &Record, second: i64) -> bool {
    matches!(begin(&mut record.clone(), at(second), &explicit_request(99)), LeaseDecision::Granted(_))
}

#[test]
fn a_cleared_hold_is_removed_and_reported() {
    let mut record = throttled();
    let hold = record.hold().cloned().unwrap();

    let lifted = record.clear_hold(at(60));

    assert_eq!(lifted, Cleared::Lifted(hold));
    assert!(is_free(&record, 60));
}

#[test]
fn a_clear_resets_the_failure_streak() {
    let mut record = cleared();

    let hold = fail(&mut record, at(61), &FetchError::throttled(None)).unwrap();

    assert_eq!(hold.until, at(61 + 60));
}

#[test]
fn without_a_hold_there_is_nothing_to_clear() {
    let mut over = throttled();

    assert_eq!(Record::default().clear_hold(at(0)), Cleared::NoHold);
    assert_eq!(over.clear_hold(at(3600)), Cleared::NoHold);
    assert_eq!((over.hold(), over.consecutive_failures()), (None, 0));
}

#[test]
fn a_hold_from_the_future_is_cleared() {
    let mut record = Record::default();
    fail(&mut record, at(0) + DAY * 1000, &THROTTLED);

    let lifted = record.clear_hold(at(0));

    assert!(matches!(lifted, Cleared::Lifted(_)), "{lifted:?}");
    assert!(is_free(&record, 1));
}

#[test]
fn a_record_of_a_newer_program_is_not_cleared() {
    let mut newer = Record::decode(br#"{"format":4,"fence":7}"#).unwrap();
    let before = newer.clone();

    assert_eq!(newer.clear_hold(at(0)), Cleared::UnsupportedFormat);
    assert_eq!(newer, before);
}

#[test]
fn a_standalone_process_does_not_restore_a_cleared_hold() {
    let mut record = cleared();

    let _ = record.merge_standalone(at(61), &throttled(), None);

    assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
}

#[test]
fn a_standalone_clear_removes_the_hold_in_the_store() {
    let mut record = throttled();

    let _ = record.merge_standalone(at(61), &cleared(), None);

    assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
}

#[test]
fn a_persisted_hold_from_before_the_clear_is_not_seeded() {
    let mut record = cleared();
    let exported = throttled().hold().cloned().unwrap();

    let _ = record.seed(at(61), &held(exported));
    let _ = record.seed(at(61), &held(rate_limited(at(59), at(3600))));

    assert_eq!(record.hold(), None);
}

#[test]
fn a_persisted_hold_from_after_the_clear_is_seeded() {
    let mut record = cleared();

    let _ = record.seed(at(62), &held(rate_limited(at(61), at(3600))));

    assert_eq!(record.hold().unwrap().until, at(3600));
}

#[test]
fn a_persisted_hold_from_the_moment_of_the_clear_is_not_seeded() {
    let mut record = cleared();
    let just_after = at(60) + jiff::SignedDuration::from_millis(1);

    let _ = record.seed(at(62), &held(rate_limited(at(60), at(3600))));
    assert_eq!(record.hold(), None);

    let _ = record.seed(at(62), &held(rate_limited(just_after, at(3600))));
    assert_eq!(record.hold().unwrap().since, just_after);
}

#[test]
fn a_hold_armed_at_the_moment_of_the_clear_is_not_restored() {
    let mut record = throttled();
    let _ = record.clear_hold(at(0));

    let _ = record.merge_standalone(at(1), &throttled(), None);

    assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
}

#[test]
fn a_clear_at_the_moment_of_a_standalone_failure_removes_it() {
    let mut record = throttled();
    let mut alone = throttled();
    let _ = alone.clear_hold(at(0));

    let _ = record.merge_standalone(at(1), &alone, None);

    assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
}

#[test]
fn a_failure_after_the_clear_arms_a_hold() {
    let mut record = cleared();
    let hold = fail(&mut record, at(61), &THROTTLED).unwrap();

    let _ = record.merge_standalone(at(62), &throttled(), None);

    assert_eq!(record.hold(), Some(&hold));
}

#[test]
fn an_earlier_call_that_fails_after_the_clear_arms_a_hold() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let _ = record.clear_hold(at(1));
    let failed = record.fail(at(2), &lease, &THROTTLED, &policy());
    let FailOutcome::Stored { hold: Some(hold), .. } = failed else { panic!("no other process has called") };

    let _ = record.merge_standalone(at(3), &throttled(), None);
    let _ = record.seed(at(3), &held(hold.clone()));

    assert_eq!(record.hold(), Some(&hold));
    assert!(matches!(record.clear_hold(at(4)), Cleared::Lifted(_)));
    let _ = record.seed(at(5), &held(hold));
    assert_eq!(record.hold(), None);
}

#[test]
fn the_lease_after_a_clear_has_a_higher_fence() {
    let mut record = Record::default();
    fail(&mut record, at(0) + DAY, &THROTTLED);
    let fence = record.fence();
    let _ = record.clear_hold(at(0));

    let lease = grant(&mut record, at(0));

    assert!(lease.fence > fence.max(record.cleared_fence), "{}", lease.fence);
}

#[test]
fn a_response_after_a_clear_does_not_undo_it() {
    let mut record = cleared();
    poll(&mut record, at(61), &UsageReport::polled([five_hour(10)]));

    let _ = record.merge_standalone(at(120), &throttled(), None);

    assert_eq!(record.hold(), None);
}

#[test]
fn a_clear_is_stored() {
    let mut record = stored(&cleared());

    let _ = record.merge_standalone(at(61), &throttled(), None);

    assert_eq!(record.hold(), None);
}

/// The cleared fence, and whether the record has a hold or a failure streak that it covers.
fn state(record: &Record) -> (u64, bool, bool) {
    let cleared = record.cleared_fence;
    let held = record.hold().is_some_and(|hold| cleared > 0 && hold.order() <= cleared);
    let streak = record.consecutive_failures() > 0 && cleared > 0 && record.streak_fence <= cleared;
    (cleared, held, streak)
}

fn joined(into: &Record, from: &Record, second: i64) -> Record {
    let mut record = into.clone();
    let _ = record.merge_standalone(at(second), from, None);
    record
}

proptest! {
    #[test]
    fn a_clear_survives_any_order_of_rejoining_processes(
        base in ops(), one in ops(), two in ops(), three in ops(),
    ) {
        let base = World::after(&base, at(0));
        let fork = |ops: &[super::random::Op]| {
            let mut world = base.clone();
            for op in ops {
                let _ = world.apply(op);
            }
            world.record
        };
        let (one, two, three) = (fork(&one), fork(&two), fork(&three));
        let later = 200_000;

        let left = joined(&joined(&one, &two, later), &three, later);
        let right = joined(&one, &joined(&two, &three, later), later);
        let back = joined(&joined(&three, &two, later), &one, later);
        let twice = joined(&joined(&left, &two, later), &left, later);

        let highest = [&one, &two, &three].map(|record| record.cleared_fence).into_iter().max();
        for record in [&left, &right, &back, &twice] {
            prop_assert_eq!(state(record), (highest.unwrap_or(0), false, false));
        }
    }

    #[test]
    fn a_cleared_hold_is_never_restored(before in ops(), after in ops()) {
        let mut world = World::after(&before, at(0));
        let known = world.record.clone();
        let cleared: Option<Hold> = known.hold().cloned();
        let _ = world.record.clear_hold(world.now);

        for op in &after {
            let _ = world.apply(op);
            let now = world.now;
            let _ = world.record.merge_standalone(now, &known, None);

            prop_assert!(!state(&world.record).1 && !state(&world.record).2);
            prop_assert!(cleared.is_none() || world.record.hold() != cleared.as_ref());
        }
    }
}
