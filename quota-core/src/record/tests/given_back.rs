//! Withdrawn calls, which were never made, and processes that still count them.

use super::support::*;
use crate::provider::FetchError;
use crate::record::{Lease, LeaseDecision, MergeOutcome, Record};

fn no_login() -> FetchError {
    FetchError::not_logged_in("no file")
}

/// A record with a running call that started at second 0.
fn calling() -> (Record, Lease) {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));
    (record, lease)
}

/// The same record after the call found no credential.
fn given_back() -> Record {
    let (mut record, lease) = calling();
    drop(record.fail(at(1), &lease, &no_login(), &policy()));
    record
}

#[test]
fn a_call_withdrawn_by_a_standalone_process_stays_withdrawn() {
    let (mut shared, _) = calling();

    assert_eq!(shared.merge_standalone(at(2), &given_back(), None), MergeOutcome::Merged);

    assert_eq!((shared.calls(), shared.lease()), (&[][..], None));
}

#[test]
fn a_standalone_process_does_not_restore_a_withdrawn_call() {
    let mut shared = given_back();

    assert_eq!(shared.merge_standalone(at(2), &calling().0, None), MergeOutcome::Merged);

    assert_eq!((shared.calls(), shared.lease()), (&[][..], None));
}

#[test]
fn two_processes_may_rejoin_in_any_order() {
    let mut shared = calling().0;
    let _ = shared.merge_standalone(at(2), &given_back(), None);
    let _ = shared.merge_standalone(at(3), &calling().0, None);

    assert_eq!(shared.calls(), []);
}

#[test]
fn withdrawn_calls_survive_a_round_trip_through_a_store() {
    let record = given_back();

    assert_eq!(stored(&record), record);
    assert!(document(&record).get("given_back_ms").is_some());
}

#[test]
fn withdrawn_calls_are_dropped_after_an_hour() {
    let mut record = given_back();

    record.repair_clock(at(3600));

    assert!(document(&record).get("given_back_ms").is_none());
}

#[test]
fn the_number_of_withdrawn_calls_is_limited() {
    let mut record = Record::default();
    for second in 0..200 {
        let lease = match begin(&mut record, at(second), &explicit_request(second.unsigned_abs().into())) {
            LeaseDecision::Granted(lease) => lease,
            other => panic!("{other:?}"),
        };
        drop(record.fail(at(second), &lease, &no_login(), &policy()));
    }

    assert_eq!(record.given_back().len(), 100);
}

#[test]
fn an_unused_credential_has_met_no_hold_after_a_rejoin() {
    let login = |fingerprint| {
        crate::model::LoginInfo::unknown()
            .fingerprint(crate::model::CredentialFingerprint::from_hash(fingerprint))
    };
    let mut shared = Record::default();
    let LeaseDecision::Granted(first) = begin(&mut shared, at(0), &explicit_request(1).login(login(1)))
    else {
        panic!("nothing prevents a call");
    };
    drop(shared.fail(at(1), &first, &FetchError::throttled(Some(HOUR)), &policy()));
    let LeaseDecision::Granted(second) = begin(&mut shared, at(2), &explicit_request(2).login(login(2)))
    else {
        panic!("another credential may call once");
    };
    let mut alone = shared.clone();
    drop(alone.fail(at(3), &second, &no_login(), &policy()));

    let _ = shared.merge_standalone(at(4), &alone, None);

    let again = begin(&mut shared, at(5), &explicit_request(3).login(login(2)));
    assert!(matches!(again, LeaseDecision::Granted(_)), "{again:?}");
}

/// A held record with a running call of credential 2, and the lease of that call.
fn admitted() -> (Record, Lease) {
    let mut record = Record::default();
    let login = |fingerprint| {
        crate::model::LoginInfo::unknown()
            .fingerprint(crate::model::CredentialFingerprint::from_hash(fingerprint))
    };
    let LeaseDecision::Granted(first) = begin(&mut record, at(0), &explicit_request(1).login(login(1)))
    else {
        panic!("nothing prevents a call");
    };
    drop(record.fail(at(1), &first, &FetchError::throttled(Some(HOUR)), &policy()));
    let LeaseDecision::Granted(second) = begin(&mut record, at(2), &explicit_request(2).login(login(2)))
    else {
        panic!("another credential may call once");
    };
    (record, second)
}

#[test]
fn a_standalone_copy_does_not_restore_that_a_credential_met_the_hold() {
    let (alone, lease) = admitted();
    let mut shared = alone.clone();
    drop(shared.fail(at(3), &lease, &no_login(), &policy()));

    let _ = shared.merge_standalone(at(4), &alone, None);

    let login =
        crate::model::LoginInfo::unknown().fingerprint(crate::model::CredentialFingerprint::from_hash(2));
    let again = begin(&mut shared, at(5), &explicit_request(3).login(login));
    assert!(matches!(again, LeaseDecision::Granted(_)), "{again:?}");
}

#[test]
fn a_call_that_an_older_program_restores_stays_withdrawn() {
    let mut older = document(&given_back());
    older["calls_ms"] = older["given_back_ms"].clone();

    assert_eq!(decode(&older).calls(), []);
}

#[test]
fn the_lists_of_a_decoded_record_are_limited() {
    let mut record = given_back();
    record.record_unscoped(&crate::record::LastFailure::of(&FetchError::missing_scope("x"), at(0), None));
    let mut many = document(&record);
    many["given_back_ms"][""] = (0..500).collect();
    many["unscoped"] = vec![many["unscoped"][0].clone(); 500].into();

    let decoded = decode(&many);

    assert_eq!((decoded.given_back().len(), decoded.unscoped().len()), (100, 64));
}
