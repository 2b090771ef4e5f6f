//! Requests that accept the result of a recent call, and which calls satisfy them.

use jiff::Timestamp;

use super::support::*;
use crate::model::{CredentialFingerprint, LoginInfo, Snapshot, UsageReport};
use crate::provider::FetchError;
use crate::record::{LeaseDecision, LeaseRequest, MaxStaleness, Record, Seed};

/// A refresh at `now` with this fingerprint, unless the credential was used for a call in the ten seconds before.
fn ask_again(number: u128, now: Timestamp, fingerprint: u64) -> LeaseRequest {
    LeaseRequest::new(attempt(number), MaxStaleness::CalledAfter(now - SECOND * 10)).login(login(fingerprint))
}

fn login(fingerprint: u64) -> LoginInfo {
    LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint))
}

/// A record whose only call started at second 0 with credential 1 and ended a second later.
fn called(outcome: Result<UsageReport, FetchError>) -> Record {
    let mut record = Record::default();
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &explicit_request(1).login(login(1)))
    else {
        panic!("nothing prevents a call");
    };
    match outcome {
        Ok(usage) => drop(record.commit(at(1), &lease, &usage)),
        Err(error) => drop(record.fail(at(1), &lease, &error, &policy())),
    }
    record
}

fn succeeded() -> Record {
    called(Ok(UsageReport::polled([five_hour(10)])))
}

/// The start of the call that satisfies such a request at `second`; `None` if another call is granted.
fn satisfied_by(record: &mut Record, second: i64, fingerprint: u64) -> Option<Timestamp> {
    match begin(record, at(second), &ask_again(9, at(second), fingerprint)) {
        LeaseDecision::CalledRecently(call) => Some(call.at),
        LeaseDecision::Granted(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_success_satisfies_for_ten_seconds_from_its_start() {
    assert_eq!(satisfied_by(&mut succeeded(), 10, 1), Some(at(0)));
    assert_eq!(satisfied_by(&mut succeeded(), 11, 1), None);
}

#[test]
fn a_failure_satisfies_and_is_reported() {
    for error in [FetchError::Unauthorized, FetchError::forbidden("by policy")] {
        let mut record = called(Err(error));
        let failure = record.last_failure().cloned();

        let LeaseDecision::CalledRecently(call) = begin(&mut record, at(5), &ask_again(9, at(5), 1)) else {
            panic!("the call at second 0 is recent");
        };

        assert!(call.failure.is_some());
        assert_eq!((call.at, call.failure), (at(0), failure));
    }
}

#[test]
fn a_failure_that_armed_a_hold_is_reported_as_the_hold() {
    for error in [FetchError::TimedOut, FetchError::throttled(None)] {
        let mut record = called(Err(error));

        assert!(matches!(begin(&mut record, at(5), &ask_again(9, at(5), 1)), LeaseDecision::OnHold(_)));
    }
}

#[test]
fn a_failure_does_not_satisfy_after_its_hold_was_cleared() {
    let mut record = called(Err(FetchError::throttled(None)));
    let _ = record.clear_hold(at(4));

    assert_eq!(satisfied_by(&mut record, 5, 1), None);
}

#[test]
fn a_recent_success_satisfies_during_a_cooldown() {
    let cooldown = rate_limited(at(0), at(60));
    let request = ask_again(9, at(5), 1).cooldown(Some(cooldown));

    assert!(matches!(begin(&mut succeeded(), at(5), &request), LeaseDecision::CalledRecently(_)));
}

#[test]
fn a_call_with_another_credential_does_not_satisfy() {
    assert_eq!(satisfied_by(&mut succeeded(), 5, 2), None);
    assert_eq!(satisfied_by(&mut called(Err(FetchError::Unauthorized)), 5, 2), None);
}

#[test]
fn readings_without_a_call_do_not_satisfy() {
    let mut record = Record::default();
    let _ = merge_headers(&mut record, at(4), [five_hour(10)]);
    let _ = record.seed(at(4), &Seed::new(Snapshot::of(&UsageReport::polled([seven_day(10)]), at(4))));

    assert_eq!(satisfied_by(&mut record, 5, 1), None);
}

#[test]
fn the_later_of_two_calls_satisfies() {
    let mut record = succeeded();
    let lease = match begin(&mut record, at(4), &explicit_request(2).login(login(1))) {
        LeaseDecision::Granted(lease) => lease,
        other => panic!("{other:?}"),
    };
    let _ = record.fail(at(5), &lease, &FetchError::Unauthorized, &policy());

    let last = record.last_call(Some(CredentialFingerprint::from_hash(1))).unwrap();

    assert_eq!((last.at, last.failure.is_some()), (at(4), true));
}

#[test]
fn a_caller_without_a_recent_call_uses_the_reserve_of_the_budget() {
    let mut record = Record::default();
    let background = policy().budget.per_hour - policy().budget.interactive_reserve;
    for call in 0..i64::from(background) {
        poll(&mut record, at(call * 60), &UsageReport::polled([five_hour(10)]));
    }

    assert_eq!(satisfied_by(&mut record, 3000, 1), None);
}

#[test]
fn a_caller_without_a_recent_call_is_held_by_a_hold() {
    let mut record = called(Err(FetchError::throttled(None)));

    assert!(matches!(begin(&mut record, at(30), &ask_again(9, at(30), 1)), LeaseDecision::OnHold(_)));
}

#[test]
fn a_stored_record_keeps_the_credential_of_its_last_success() {
    let mut stored = Record::decode(&succeeded().encode()).unwrap();

    assert_eq!(satisfied_by(&mut stored, 5, 1), Some(at(0)));
}

#[test]
fn a_success_without_the_store_satisfies_after_it_is_back() {
    let mut shared = Record::default();

    let _ = shared.merge_standalone(at(5), &succeeded(), None);

    assert_eq!(satisfied_by(&mut shared, 5, 1), Some(at(0)));
}

#[test]
fn of_two_successes_at_one_time_the_one_in_the_record_stays() {
    let mut shared = succeeded();
    let mut alone = Record::default();
    let LeaseDecision::Granted(lease) = begin(&mut alone, at(0), &explicit_request(1).login(login(2))) else {
        panic!("nothing prevents a call");
    };
    let _ = alone.commit(at(1), &lease, &UsageReport::polled([five_hour(10)]));

    let _ = shared.merge_standalone(at(5), &alone, None);

    assert_eq!((satisfied_by(&mut shared, 5, 1), satisfied_by(&mut shared, 5, 2)), (Some(at(0)), None));
}

#[test]
fn a_failure_after_a_clear_from_the_future_is_a_recent_call() {
    let mut record = Record::default();
    let _ = record.clear_hold(at(86_400));
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &explicit_request(1).login(login(1)))
    else {
        panic!("nothing prevents a call");
    };
    drop(record.fail(at(1), &lease, &FetchError::Unauthorized, &policy()));

    assert_eq!(satisfied_by(&mut record, 5, 1), Some(at(0)));
}
