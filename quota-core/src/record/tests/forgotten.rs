//! Accounts that were removed: what was known is gone and does not come back, and what binds the next call stays.

use super::support::*;
use crate::{Begin, Committed, Failed, FetchError, Joined, Record, Seed, Usage};

/// A record of a login with a reading, a failure after it, and a hold until an hour after second 300.
fn known() -> Record {
    let mut record = Record::default();
    let mine = lineage("a");
    let lease = match begin(&mut record, at(0), &insist(1, at(0)).login(crate::Login::of(mine))) {
        Begin::Granted(lease) => lease,
        other => panic!("{other:?}"),
    };
    let usage = Usage::polled([five_hour(40)]).identity(identity("org"));
    assert_eq!(record.commit(at(1), &lease, &usage), Committed::Stored);
    fail(&mut record, at(300), &FetchError::throttled(Some(HOUR)));
    record
}

fn forgotten(second: i64) -> Record {
    let mut record = known();
    assert_eq!(record.forget(at(second)), Joined::Yes);
    record
}

#[test]
fn readings_owner_and_failure_are_gone() {
    let record = forgotten(400);

    assert!(record.snapshot().is_empty());
    assert_eq!((record.lineage(), record.identity()), (None, None));
    assert_eq!((record.trouble(), record.asked_at()), (None, None));
}

#[test]
fn a_live_hold_the_calls_of_the_hour_and_the_fence_stay() {
    let (before, after) = (known(), forgotten(400));

    assert_eq!((after.hold(), after.strikes()), (before.hold(), before.strikes()));
    assert_eq!((after.attempts(), after.fence()), (before.attempts(), before.fence()));
}

#[test]
fn a_hold_that_is_over_and_its_streak_are_gone() {
    let record = forgotten(2 * 3600);

    assert_eq!((record.hold(), record.strikes(), record.attempts().len()), (None, 0, 0));
}

#[test]
fn what_a_process_knows_from_before_does_not_come_back() {
    let mut record = forgotten(400);

    let joined = [
        see(&mut record, at(399), [five_hour(40)]),
        record.seed(at(500), &Seed::new(headers(at(300), [seven_day(40)])).lineage(lineage("a"))),
        record.rejoin(at(500), &known(), None),
    ];

    assert_eq!(joined, [Joined::Yes; 3]);
    assert!(record.snapshot().is_empty());
    assert_eq!((record.lineage(), record.trouble()), (None, None));
}

#[test]
fn what_is_read_afterwards_is_kept() {
    let mut record = forgotten(400);

    let _ = see(&mut record, at(401), [five_hour(50)]);
    let _ = record.rejoin(at(402), &known(), None);

    assert_eq!(record.snapshot().windows().len(), 1);
}

#[test]
fn a_process_that_forgot_without_the_store_removes_what_the_store_has() {
    let mut shared = known();

    assert_eq!(shared.rejoin(at(500), &forgotten(400), None), Joined::Yes);

    assert!(shared.snapshot().is_empty());
    assert_eq!((shared.lineage(), shared.trouble()), (None, None));
}

#[test]
fn a_call_in_flight_stores_neither_its_answer_nor_its_failure() {
    let mut record = polled(at(0), [five_hour(40)]);
    let lease = grant(&mut record, at(600));
    let _ = record.forget(at(601));

    let committed = record.commit(at(602), &lease, &Usage::polled([five_hour(50)]));
    let failed = record.fail(at(602), &lease, &FetchError::Unauthorized, &policy());

    assert_eq!((committed, failed), (Committed::Forgotten, Failed::TooLate));
    assert!(record.snapshot().is_empty());
}

#[test]
fn a_call_that_begins_in_the_same_moment_stores_its_answer() {
    let mut record = forgotten(2 * 3600);

    let lease = grant(&mut record, at(2 * 3600));

    assert_eq!(record.commit(at(2 * 3600), &lease, &Usage::polled([five_hour(50)])), Committed::Stored);
    assert_eq!(record.snapshot().windows().len(), 1);
}

#[test]
fn removing_and_adding_resets_no_budget() {
    let mut record = Record::default();
    for call in 0..i64::from(policy().budget.per_hour) {
        poll(&mut record, at(call * 10), &Usage::polled([five_hour(10)]));
    }

    let _ = record.forget(at(600));

    assert!(matches!(begin(&mut record, at(601), &insist(99, at(601))), Begin::Held(_)));
}

#[test]
fn readings_of_a_clock_a_moment_ahead_are_forgotten_too() {
    let mut record = polled(at(20), [five_hour(40)]);

    let _ = record.forget(at(0));

    assert!(record.snapshot().is_empty());
}

#[test]
fn a_stored_record_stays_forgotten() {
    let mut stored = Record::decode(&forgotten(400).encode()).unwrap();

    let _ = stored.rejoin(at(500), &known(), None);

    assert!(stored.snapshot().is_empty());
}
