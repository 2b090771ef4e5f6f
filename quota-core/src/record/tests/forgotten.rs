//! Removed accounts. Their earlier state is dropped and not merged again, while limits on the next call stay.

use super::support::*;
use crate::model::{Percent, Snapshot, UsageReport, WindowId};
use crate::provider::FetchError;
use crate::record::{CommitOutcome, FailOutcome, LeaseDecision, MergeOutcome, Record, Seed};

/// A record of a login with a reading, a failure after it, and a hold until an hour after second 300.
fn known() -> Record {
    let mut record = Record::default();
    let mine = login_id("a");
    let lease =
        match begin(&mut record, at(0), &explicit_request(1).login(crate::model::LoginInfo::new(mine))) {
            LeaseDecision::Granted(lease) => lease,
            other => panic!("{other:?}"),
        };
    let usage = UsageReport::polled([five_hour(40)]).owner_id(owner_id("org"));
    assert_eq!(record.commit(at(1), &lease, &usage), CommitOutcome::Stored);
    fail(&mut record, at(300), &FetchError::throttled(Some(HOUR)));
    record
}

fn forgotten(second: i64) -> Record {
    let mut record = known();
    assert_eq!(record.forget(at(second)), MergeOutcome::Merged);
    record
}

#[test]
fn the_readings_the_owner_and_the_failure_are_removed() {
    let record = forgotten(400);

    assert!(record.snapshot().is_empty());
    assert_eq!((record.login_id(), record.owner_id()), (None, None));
    assert_eq!((record.last_failure(), record.complete_at()), (None, None));
}

#[test]
fn a_live_hold_the_calls_of_the_hour_and_the_fence_stay() {
    let (before, after) = (known(), forgotten(400));

    assert_eq!((after.hold(), after.consecutive_failures()), (before.hold(), before.consecutive_failures()));
    assert_eq!((after.calls(), after.fence()), (before.calls(), before.fence()));
}

#[test]
fn an_expired_hold_and_its_streak_are_removed() {
    let record = forgotten(2 * 3600);

    assert_eq!((record.hold(), record.consecutive_failures(), record.calls().len()), (None, 0, 0));
}

#[test]
fn earlier_state_of_another_process_is_not_restored() {
    let mut record = forgotten(400);

    let joined = [
        merge_headers(&mut record, at(399), [five_hour(40)]),
        record.seed(at(500), &Seed::new(headers(at(300), [seven_day(40)])).login_id(login_id("a"))),
        record.merge_standalone(at(500), &known(), None),
    ];

    assert_eq!(joined, [MergeOutcome::Merged; 3]);
    assert!(record.snapshot().is_empty());
    assert_eq!((record.login_id(), record.last_failure()), (None, None));
}

#[test]
fn later_readings_are_stored() {
    let mut record = forgotten(400);

    let _ = merge_headers(&mut record, at(401), [five_hour(50)]);
    let _ = record.merge_standalone(at(402), &known(), None);

    assert_eq!(record.snapshot().windows().len(), 1);
}

#[test]
fn a_standalone_removal_applies_to_the_store() {
    let mut shared = known();

    assert_eq!(shared.merge_standalone(at(500), &forgotten(400), None), MergeOutcome::Merged);

    assert!(shared.snapshot().is_empty());
    assert_eq!((shared.login_id(), shared.last_failure()), (None, None));
}

#[test]
fn a_call_in_flight_stores_no_response_and_no_failure() {
    let mut record = polled(at(0), [five_hour(40)]);
    let lease = grant(&mut record, at(600));
    let _ = record.forget(at(601));

    let committed = record.commit(at(602), &lease, &UsageReport::polled([five_hour(50)]));
    let failed = record.fail(at(602), &lease, &FetchError::Unauthorized, &policy());

    assert_eq!((committed, failed), (CommitOutcome::Forgotten, FailOutcome::TooLate));
    assert!(record.snapshot().is_empty());
}

#[test]
fn a_call_that_started_at_the_moment_of_the_removal_stores_nothing() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(600));
    let _ = record.forget(at(600));

    let committed = record.commit(at(602), &lease, &UsageReport::polled([five_hour(50)]));

    assert_eq!(committed, CommitOutcome::Forgotten);
}

#[test]
fn state_of_the_moment_of_the_removal_is_not_restored() {
    let just_after = at(600) + jiff::SignedDuration::from_millis(1);
    let removed = |alone: &Record| {
        let mut record = Record::default();
        let _ = record.forget(at(600));
        let _ = record.merge_standalone(at(602), alone, None);
        record
    };
    let read = |now| polled(now, [five_hour(50)]);
    let failed = |now| {
        let mut record = Record::default();
        fail(&mut record, now, &FetchError::missing_scope("user:profile"));
        record
    };
    let called = |now| {
        let mut record = Record::default();
        let _ = grant(&mut record, now);
        record
    };

    assert_eq!(
        (removed(&read(at(600))).complete_at(), removed(&read(just_after)).complete_at()),
        (None, Some(just_after))
    );
    assert!(removed(&failed(at(600))).last_failure().is_none());
    assert!(removed(&failed(just_after)).last_failure().is_some());
    assert!(removed(&called(at(600))).lease().is_none());
    assert!(removed(&called(just_after)).lease().is_some());
}

#[test]
fn a_call_that_starts_at_the_same_time_stores_its_response() {
    let mut record = forgotten(2 * 3600);

    let lease = grant(&mut record, at(2 * 3600));

    assert_eq!(
        record.commit(at(2 * 3600), &lease, &UsageReport::polled([five_hour(50)])),
        CommitOutcome::Stored
    );
    assert_eq!(record.snapshot().windows().len(), 1);
}

#[test]
fn removing_and_adding_resets_no_budget() {
    let mut record = Record::default();
    for call in 0..i64::from(policy().budget.per_hour) {
        poll(&mut record, at(call * 10), &UsageReport::polled([five_hour(10)]));
    }

    let _ = record.forget(at(600));

    assert!(matches!(begin(&mut record, at(601), &explicit_request(99)), LeaseDecision::OnHold(_)));
}

#[test]
fn readings_of_a_slightly_fast_clock_are_removed() {
    let mut record = polled(at(20), [five_hour(40)]);

    let _ = record.forget(at(0));

    assert!(record.snapshot().is_empty());
}

#[test]
fn a_removal_survives_the_store() {
    let mut stored = Record::decode(&forgotten(400).encode()).unwrap();

    let _ = stored.merge_standalone(at(500), &known(), None);

    assert!(stored.snapshot().is_empty());
}

/// A record that was removed at second 400 and that no hold blocks.
fn added_again() -> Record {
    let mut record = polled(at(0), [five_hour(40)]);
    let _ = record.forget(at(400));
    record
}

/// The same record after a poll lowered the five-hour window from 42 % to 3 %.
fn lowered() -> Record {
    let mut record = added_again();
    for (second, used) in [(500, 42), (510, 3)] {
        poll(
            &mut record,
            at(second),
            &UsageReport::polled([five_hour(used).length(HOUR * 5).resets_at(at(3600))]),
        );
    }
    record
}

/// The shown use after a session repeated the earlier 42 %.
fn shown_after_a_repeated_line(record: &mut Record) -> Option<Percent> {
    let line = UsageReport::from_statusline([five_hour(42).length(HOUR * 5).resets_at(at(3600))], at(600));
    let _ = record.observe(at(600), &Snapshot::of(&line, at(600)), None, None);
    used(record, &WindowId::five_hour())
}

#[test]
fn a_removed_record_merged_with_itself_keeps_its_peak() {
    let mut record = lowered();

    let _ = record.merge_standalone(at(520), &lowered(), None);

    assert_eq!(record, lowered());
    assert_eq!(shown_after_a_repeated_line(&mut record), Some(percent(3)));
}

#[test]
fn later_readings_merge_their_peak() {
    let mut record = added_again();

    let _ = record.observe(at(520), lowered().snapshot(), None, None);

    assert_eq!(shown_after_a_repeated_line(&mut record), Some(percent(3)));
}

#[test]
fn a_later_response_merges_the_peak_of_a_window_it_removed() {
    let mut alone = lowered();
    poll(&mut alone, at(520), &UsageReport::polled([seven_day(1)]));
    let mut record = added_again();

    let _ = record.observe(at(530), alone.snapshot(), None, None);

    assert_eq!(shown_after_a_repeated_line(&mut record), None);
}

#[test]
fn a_peak_of_an_earlier_reading_is_not_restored() {
    let mut before = polled(at(0), [five_hour(42)]);
    poll(&mut before, at(10), &UsageReport::polled([five_hour(3)]));
    let mut record = added_again();

    let _ = record.observe(at(500), before.snapshot(), None, None);

    assert_eq!(record.snapshot(), &Snapshot::default());
}

/// A day after everything else in these tests: the time of a fast clock.
const AHEAD: i64 = 86_400;

#[test]
fn a_removal_from_the_future_hides_no_later_reading() {
    let mut record = forgotten(AHEAD);

    let _ = merge_headers(&mut record, at(500), [five_hour(7)]);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(7)));
}

#[test]
fn a_removal_from_the_future_drops_earlier_readings() {
    let mut record = forgotten(AHEAD);

    let _ = record.seed(at(500), &Seed::new(headers(at(300), [seven_day(40)])));

    assert!(record.snapshot().is_empty());
}

#[test]
fn a_merged_removal_from_the_future_hides_no_later_reading() {
    let mut record = Record::default();
    let _ = merge_headers(&mut record, at(500), [five_hour(7)]);

    let _ = record.merge_standalone(at(510), &forgotten(AHEAD), None);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(7)));
}

#[test]
fn a_record_with_a_removal_from_the_future_accepts_readings() {
    let mut record = forgotten(AHEAD);
    let mut alone = Record::default();
    let _ = merge_headers(&mut alone, at(500), [five_hour(7)]);

    let _ = record.merge_standalone(at(510), &alone, None);

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(7)));
}
