//! The exact boundaries of the rules: the last moment at which a timestamp counts, equal ends, equal fences.

use super::support::*;
use crate::model::{Coverage, CredentialFingerprint, LoginInfo, UsageReport, WindowId};
use crate::provider::{FetchError, LONGEST_WAIT};
use crate::record::{CallRecord, CommitOutcome, Counted, LastFailure, LeaseDecision, Record};
use crate::time::EARLIEST_RECORD;

fn credential(number: u64) -> Option<CredentialFingerprint> {
    Some(CredentialFingerprint::from_hash(number))
}

/// A rejection of this credential for a missing scope.
fn unscoped(second: i64, number: u64) -> LastFailure {
    LastFailure::of(&FetchError::missing_scope("user:profile"), at(second), credential(number))
}

/// The seconds and the credentials of the rejections for a missing scope.
fn unscoped_of(record: &Record) -> Vec<(i64, Option<CredentialFingerprint>)> {
    let seconds = |rejection: &LastFailure| rejection.at.as_second() - at(0).as_second();
    record.unscoped().iter().map(|rejection| (seconds(rejection), rejection.fingerprint)).collect()
}

#[test]
fn the_revision_counts_stored_changes() {
    let mut record = Record::default();
    assert_eq!(record.revision(), 0);

    record.bump_revision();
    record.bump_revision();

    assert_eq!(record.revision(), 2);
}

#[test]
fn only_a_higher_revision_is_newer() {
    let of_revision = |revision| Record { revision, ..Record::default() };
    let is_newer = |revision| of_revision(revision).is_newer_than(&of_revision(2));

    assert_eq!([1, 2, 3].map(is_newer), [Some(false), Some(false), Some(true)]);
}

#[test]
fn records_without_a_revision_or_of_a_newer_format_are_not_comparable() {
    let counted = Record { revision: 2, ..Record::default() };
    let newer = Record::decode(br#"{"format":4,"revision":3}"#).unwrap();

    assert_eq!(Record::default().is_newer_than(&counted), None);
    assert_eq!(newer.is_newer_than(&counted), None);
    assert_eq!(counted.is_newer_than(&newer), None);
}

#[test]
fn records_of_two_stated_logins_are_of_another_login() {
    let [a, b] = [Record::of_login(&login_id("a")), Record::of_login(&login_id("b"))];

    assert!(a.is_of_another_login(&b));
    assert!(!a.is_of_another_login(&a.clone()));
    assert!(!a.is_of_another_login(&Record::default()));
}

#[test]
fn spare_capacity_is_released() {
    let mut record = full();
    record.calls.reserve(100);

    record.shrink();

    assert_eq!(record.calls.capacity(), record.calls.len());
}

#[test]
fn a_failure_at_the_fence_of_the_clear_is_cleared() {
    let mut record = Record::default();
    fail(&mut record, at(0), &FetchError::Unauthorized);

    let _ = record.clear_hold(at(0));

    assert_eq!(record.last_call(None), None);
}

#[test]
fn the_first_time_of_a_set_clock_repairs() {
    let mut record = Record::default();
    fail(&mut record, at(0), &FetchError::throttled(None));

    record.repair_clock(EARLIEST_RECORD);

    assert_eq!(record.hold().unwrap().since, EARLIEST_RECORD);
}

#[test]
fn timestamps_at_the_end_of_the_clock_slack_are_kept() {
    let mut record = polled(at(30), [five_hour(10)]);
    record.last_failure = Some(Box::new(unscoped(30, 1)));
    record.unscoped = Some(Box::new(vec![unscoped(30, 1)]));
    record.forgotten_at = Some(at(30).into());
    let before = record.clone();

    record.repair_clock(at(0));

    assert_eq!(record, before);
}

#[test]
fn rejections_from_the_future_and_expired_ones_are_dropped() {
    let mut record =
        Record { unscoped: Some(Box::new(vec![unscoped(0, 1), unscoped(1, 2)])), ..Record::default() };
    record.repair_clock(at(0) + DAY);
    assert_eq!(unscoped_of(&record), [(1, credential(2))]);

    let mut record =
        Record { unscoped: Some(Box::new(vec![unscoped(30, 1), unscoped(31, 2)])), ..Record::default() };
    record.repair_clock(at(0));
    assert_eq!(unscoped_of(&record), [(30, credential(1))]);
}

#[test]
fn a_lease_is_repaired_by_the_time_of_its_own_call() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    record.calls.push(CallRecord { at: at(100), fence: lease.fence + 1, by: "other".into() });

    record.repair_clock(at(0));

    assert_eq!(record.lease(), Some(&lease));
}

#[test]
fn only_timestamps_from_the_future_need_a_repair() {
    let record = polled(at(31), [five_hour(10)]);

    assert!(record.needs_clock_repair(at(0)));
    assert!(!record.needs_clock_repair(at(1)));
}

#[test]
fn a_removal_drops_rejections_up_to_its_time() {
    let unscoped = Some(Box::new(vec![unscoped(9, 1), unscoped(10, 2), unscoped(11, 3)]));
    let mut record = Record { unscoped, ..Record::default() };

    record.forget_until(at(10).into());

    assert_eq!(unscoped_of(&record), [(11, credential(3))]);
}

#[test]
fn a_removal_keeps_the_owner_of_later_readings() {
    let mut record = polled(at(0), [five_hour(10)]);
    let _ = record.observe(at(20), &headers(at(20), [five_hour(20)]), None, Some(&owner_id("org-1")));

    record.forget_until(at(10).into());

    assert_eq!((record.refreshed_at, record.owner_id()), (None, Some(&owner_id("org-1"))));
}

#[test]
fn a_rejection_at_the_time_of_a_success_is_kept() {
    let mut record =
        Record { unscoped: Some(Box::new(vec![unscoped(0, 1), unscoped(1, 1)])), ..Record::default() };
    (record.refreshed_at, record.refreshed_with) = (Some(at(1).into()), credential(1));

    record.apply_lists();

    assert_eq!(unscoped_of(&record), [(1, credential(1))]);
}

#[test]
fn no_wait_is_left_at_the_end_of_a_hold() {
    let mut record = Record::default();
    let until = fail(&mut record, at(0), &FetchError::throttled(None)).unwrap().until;
    let next = |now| record.next_attempt_at(now, &request(1), &policy());

    assert_eq!((next(until - SECOND), next(until)), (Some(until), None));
}

#[test]
fn only_a_missing_scope_of_a_known_credential_is_listed() {
    let list_after = |error: &FetchError, fingerprint: Option<CredentialFingerprint>| {
        let mut record = Record::default();
        let login =
            fingerprint.map_or_else(LoginInfo::unknown, |known| LoginInfo::unknown().fingerprint(known));
        let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &explicit_request(1).login(login))
        else {
            panic!("no other process calls")
        };
        let _ = record.fail(at(0), &lease, error, &policy());
        unscoped_of(&record)
    };

    assert_eq!(list_after(&FetchError::missing_scope("s"), credential(1)), [(0, credential(1))]);
    assert_eq!(list_after(&FetchError::missing_scope("s"), None), []);
    assert_eq!(list_after(&FetchError::Unauthorized, credential(1)), []);
}

#[test]
fn a_withdrawn_call_releases_its_lease_and_does_not_count() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    record.withdraw(&lease);

    assert_eq!((record.lease(), record.calls()), (None, &[][..]));
}

#[test]
fn a_repeated_commit_is_not_stored_after_another_lease() {
    let mut record = Record::default();
    let first = grant(&mut record, at(0));
    let usage = UsageReport::polled([five_hour(10)]);
    assert_eq!(record.commit(at(1), &first, &usage), CommitOutcome::Stored);
    assert_eq!(record.commit(at(1), &first, &usage), CommitOutcome::Stored);

    let second = grant(&mut record, at(2));
    assert_eq!(record.commit(at(3), &first, &usage), CommitOutcome::TooLate);
    record.release(&second);
    assert_eq!(record.commit(at(3), &first, &usage), CommitOutcome::TooLate);
}

#[test]
fn a_repeated_commit_to_a_newer_format_is_too_late() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let usage = UsageReport::polled([five_hour(10)]);
    let _ = record.commit(at(1), &lease, &usage);
    let mut newer = document(&record);
    newer["format"] = 4.into();

    assert_eq!(decode(&newer).commit(at(1), &lease, &usage), CommitOutcome::TooLate);
}

#[test]
fn a_call_satisfies_only_requests_with_a_lower_fence() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let mut failed = record.clone();
    let _ = record.commit(at(1), &lease, &UsageReport::polled([five_hour(10)]));
    let _ = failed.fail(at(1), &lease, &FetchError::Unauthorized, &policy());

    for record in [&record, &failed] {
        assert!(record.call_after(lease.fence - 1, None).is_some());
        assert_eq!(record.call_after(lease.fence, None), None);
    }
}

#[test]
fn a_call_that_ended_counts_although_the_fence_is_lower() {
    // A store that loses writes can return an earlier fence.
    let record =
        |ended: &str| Record::decode(format!(r#"{{"format":3,"fence":5,{ended}}}"#).as_bytes()).unwrap();
    let failed = r#""failed":{"at_ms":1800000000000,"kind":"failing","fence":10}"#;

    assert_eq!(record(r#""succeeded":{"fence":10}"#).ended_fence(at(0)), 10);
    assert_eq!(record(failed).ended_fence(at(0)), 10);
}

#[test]
fn a_reset_at_the_time_of_the_last_call_causes_no_other_call() {
    let mut record = polled(at(0), [five_hour(10).resets_at(at(600)), seven_day(10)]);
    let unreadable = Coverage::complete_except([WindowId::five_hour()]);
    poll(&mut record, at(600), &UsageReport::polled([seven_day(11)]).coverage(unreadable));

    assert_eq!(record.due_at(FRESH, Counted::Account, &policy()), Some(at(600) + FRESH));
}

#[test]
fn a_hold_of_the_longest_wait_is_not_shortened() {
    let mut hold = rate_limited(at(0), at(0) + LONGEST_WAIT);

    hold.shorten();

    assert_eq!(hold, rate_limited(at(0), at(0) + LONGEST_WAIT));
}

#[test]
fn the_only_credential_that_met_a_hold_stays() {
    let mut hold = rate_limited(at(0), at(60));
    hold.met_by(credential(1));

    hold.unmet_by(credential(1));

    assert_eq!(hold.fingerprints(), credential(1).as_slice());
}

#[test]
fn a_fence_is_stored_only_if_it_differs_from_the_time() {
    let fence_of = |fence: u64| {
        let failure = LastFailure::of(&FetchError::Unauthorized, at(0), None).of_call(fence);
        let record = Record { last_failure: Some(Box::new(failure)), ..Record::default() };
        assert_eq!(stored(&record), record);
        document(&record)["last_failure"].get("fence").cloned()
    };
    let time = crate::time::as_fence(at(0));

    assert_eq!((fence_of(time), fence_of(time + 1)), (None, Some((time + 1).into())));
}

#[test]
fn fields_with_their_default_are_not_stored() {
    let stored = document(&Record::default());

    assert_eq!(stored.as_object().unwrap().keys().collect::<Vec<_>>(), ["fence", "format", "snapshot"]);
}

#[test]
fn names_of_older_formats_are_read() {
    let older = br#"{"format":2,"fence":7,"lineage":"a","hold":{"since_ms":1800000000000,"until_ms":1800000060000,"why":"budget_spent"},
        "trouble":{"at_ms":1800000000000,"kind":"login_refused","note":"rejected"},"attempts_ms":{"host":[1800000000000]}}"#;
    let newer = br#"{"format":3,"fence":7,"login_id":"a","hold":{"since_ms":1800000000000,"until_ms":1800000060000,"reason":"budget_exhausted"},
        "last_failure":{"at_ms":1800000000000,"kind":"unauthorized","message":"rejected"},"calls_ms":{"host":[1800000000000]}}"#;

    assert_eq!(Record::decode(older).unwrap(), Record::decode(newer).unwrap());
}

#[test]
fn an_older_record_without_a_hold_is_read_by_its_names() {
    let older = Record::decode(br#"{"format":2,"fence":7,"lineage":"a","strikes":2}"#).unwrap();

    assert_eq!((older.login_id(), older.consecutive_failures()), (Some(&login_id("a")), 2));
}

#[test]
fn a_hold_with_the_names_of_an_older_format_is_damaged_in_the_current_one() {
    let body = br#"{"format":3,"hold":{"since_ms":0,"until_ms":60000,"why":"rate_limited"}}"#;

    assert!(Record::decode(body).is_err());
}

#[test]
fn names_of_older_formats_mean_nothing_in_the_current_one() {
    let record = Record::decode(br#"{"format":3,"fence":7,"strikes":5}"#).unwrap();

    assert_eq!(record.consecutive_failures(), 0);
    assert_eq!(document(&record)["strikes"], 5);
}

#[test]
fn of_two_copies_after_the_same_call_a_later_seed_is_merged() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut local = shared.clone();
    let hold = rate_limited(at(-10), at(600));
    let _ = local.seed(at(1), &held(hold.clone()));

    let _ = shared.merge_standalone(at(2), &local, None);

    assert_eq!(shared.hold(), Some(&hold));
}

#[test]
fn a_merge_keeps_the_newest_rejection_of_each_credential() {
    let mut shared = Record { unscoped: Some(Box::new(vec![unscoped(100, 1)])), ..Record::default() };
    let local =
        Record { unscoped: Some(Box::new(vec![unscoped(50, 1), unscoped(60, 2)])), ..Record::default() };

    let _ = shared.merge_standalone(at(200), &local, None);

    assert_eq!(unscoped_of(&shared), [(60, credential(2)), (100, credential(1))]);
}

#[test]
fn copies_of_one_hold_join_the_credentials_that_met_it() {
    let of = |credentials: [u64; 2]| {
        let mut hold = rate_limited(at(0), at(600));
        hold.met_by(credentials.map(CredentialFingerprint::from_hash));
        Record { hold: Some(Box::new(hold)), ..Record::default() }
    };
    for (mine, theirs) in [([1, 1], [1, 2]), ([1, 2], [1, 1])] {
        let mut shared = of(mine);

        let _ = shared.merge_standalone(at(1), &of(theirs), None);

        assert_eq!(shared.hold().unwrap().fingerprints().len(), 2);
    }
}
