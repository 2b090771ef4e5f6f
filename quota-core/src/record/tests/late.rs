//! Late or repeated commits: an expired lease that another process took over, or a lost response. Random interleavings of
//! many holders are in `holders`.

use super::support::*;
use crate::model::UsageReport;
use crate::provider::FetchError;
use crate::record::{CommitOutcome, FailOutcome, LeaseDecision, LeaseRequest, MaxStaleness, Record};

/// A record whose lease the second holder took over from the first.
fn taken_over() -> (Record, crate::record::Lease, crate::record::Lease) {
    let mut record = Record::default();
    let first = grant(&mut record, at(0));
    let second = grant(&mut record, at(30));
    (record, first, second)
}

#[test]
fn a_late_holder_commits_no_readings() {
    let (mut record, first, _) = taken_over();
    let before = record.clone();

    let committed = record.commit(at(31), &first, &UsageReport::polled([five_hour(10)]));

    assert_eq!(committed, CommitOutcome::TooLate);
    assert_eq!(record, before);
}

#[test]
fn a_late_holder_arms_no_hold() {
    let (mut record, first, _) = taken_over();
    let before = record.clone();

    let failed = record.fail(at(31), &first, &FetchError::throttled(None), &policy());

    assert_eq!(failed, FailOutcome::TooLate);
    assert_eq!(record, before);
}

#[test]
fn a_late_holder_cannot_release_anothers_lease() {
    let (mut record, first, second) = taken_over();

    record.release(&first);

    assert_eq!(record.lease(), Some(&second));
}

#[test]
fn a_late_holder_cannot_clear_a_newer_hold() {
    let (mut record, first, second) = taken_over();
    let _ = record.fail(at(31), &second, &FetchError::throttled(None), &policy());
    let before = record.clone();

    let committed = record.commit(at(32), &first, &UsageReport::polled([five_hour(10)]));

    assert_eq!(committed, CommitOutcome::TooLate);
    assert_eq!(record, before);
}

#[test]
fn an_expired_holder_may_commit_until_another_takes_over() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let committed = record.commit(at(300), &lease, &UsageReport::polled([five_hour(10)]));

    assert_eq!(committed, CommitOutcome::Stored);
    assert_eq!(record.snapshot().windows()[0].observed_at(), at(0));
}

#[test]
fn readings_committed_twice_are_stored_once() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let usage = UsageReport::polled([five_hour(10)]);
    let _ = record.commit(at(1), &lease, &usage);
    let before = record.clone();

    let again = record.commit(at(2), &lease, &usage);

    assert_eq!(again, CommitOutcome::Stored);
    assert_eq!(record, before);
}

#[test]
fn a_failure_recorded_twice_counts_once() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    let first = record.fail(at(1), &lease, &FetchError::TimedOut, &policy());

    let again = record.fail(at(2), &lease, &FetchError::TimedOut, &policy());

    assert_eq!(again, first);
    assert_eq!(record.consecutive_failures(), 1);
}

#[test]
fn a_lease_of_equal_fence_and_another_attempt_is_rejected() {
    let mut record = Record::default();
    let mine = grant(&mut record, at(0));
    // The store lost the record, and another host requested a lease in the same millisecond.
    let mut lost = Record::default();
    let theirs = begin(&mut lost, at(0), &request(77));

    let committed = lost.commit(at(1), &mine, &UsageReport::polled([five_hour(10)]));

    assert!(matches!(theirs, LeaseDecision::Granted(theirs) if theirs.fence == mine.fence));
    assert_eq!(committed, CommitOutcome::TooLate);
}

#[test]
fn an_attempt_with_a_second_lease_cannot_use_the_first() {
    let mut record = Record::default();
    let LeaseDecision::Granted(first) = begin(&mut record, at(0), &request(1)) else {
        panic!("no other process calls")
    };
    let _ = begin(&mut record, first.until, &request(1));

    let committed = record.commit(at(31), &first, &UsageReport::polled([five_hour(10)]));

    assert_eq!(committed, CommitOutcome::TooLate);
}

#[test]
fn the_fence_rises_even_if_the_clock_stops() {
    let mut record = Record::default();
    let first = grant(&mut record, at(0));
    record.release(&first);

    let second = grant(&mut record, at(0));

    assert_eq!(second.fence, first.fence + 1);
}

#[test]
fn the_fence_rises_even_if_the_store_lost_the_record() {
    let mut record = Record::default();
    for _ in 0..5 {
        let lease = grant(&mut record, at(0));
        record.release(&lease);
    }

    let after_the_loss = grant(&mut Record::default(), at(1));

    assert!(after_the_loss.fence > record.fence());
}

#[test]
fn a_time_before_1970_yields_a_fence() {
    let mut record = Record::default();
    let request = LeaseRequest::new(attempt(1), MaxStaleness::Age(FRESH));

    let LeaseDecision::Granted(lease) = begin(&mut record, jiff::Timestamp::MIN, &request) else {
        panic!("no process calls")
    };

    assert_eq!(lease.fence, 1);
}
