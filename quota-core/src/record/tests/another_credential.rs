//! A hold and a replaced credential: which credential may call despite the hold, and how often. The tests of stated logins
//! are in `logins`.

use super::support::*;
use crate::model::{CredentialFingerprint, LoginInfo, UsageReport};
use crate::provider::FetchError;
use crate::record::{Hold, Lease, LeaseDecision, Record};

const THROTTLED: FetchError = FetchError::Throttled { retry_after: Some(HOUR) };

fn of(credential: u64) -> LoginInfo {
    LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(credential))
}

fn ask_with(record: &mut Record, second: i64, login: LoginInfo) -> LeaseDecision {
    let number = u128::from(record.fence()) + 1;
    begin(record, at(second), &explicit_request(number).login(login))
}

fn lease_for(record: &mut Record, second: i64, login: LoginInfo) -> Lease {
    match ask_with(record, second, login) {
        LeaseDecision::Granted(lease) => lease,
        other => panic!("no lease at {second}: {other:?}"),
    }
}

/// A record with a hold of an hour from 0 on, which a call with this login met.
fn held_by(login: LoginInfo) -> Record {
    let mut record = Record::default();
    throttle(&mut record, 0, login);
    record
}

fn throttle(record: &mut Record, second: i64, login: LoginInfo) {
    let lease = lease_for(record, second, login);
    let _ = record.fail(at(second), &lease, &THROTTLED, &policy());
}

fn is_held(begin: &LeaseDecision) -> bool {
    matches!(begin, LeaseDecision::OnHold(_))
}

#[test]
fn a_throttled_credential_is_held() {
    let mut record = held_by(of(1));

    assert!(is_held(&ask_with(&mut record, 60, of(1))));
}

#[test]
fn another_credential_may_call_during_the_hold() {
    let mut record = held_by(of(1));

    assert!(matches!(ask_with(&mut record, 60, of(2)), LeaseDecision::Granted(_)));
}

#[test]
fn a_second_throttled_credential_is_held_too() {
    let mut record = held_by(of(1));

    throttle(&mut record, 60, of(2));

    assert!(is_held(&ask_with(&mut record, 3000, of(2))));
    assert_eq!(record.hold().unwrap().until, at(3660));
}

#[test]
fn a_constantly_rotating_token_calls_once_per_hold() {
    let mut record = held_by(of(0));
    let mut calls = 0;

    for credential in 1..60 {
        if let LeaseDecision::Granted(lease) =
            ask_with(&mut record, i64::try_from(credential).unwrap(), of(credential))
        {
            let _ = record.fail(lease.granted_at, &lease, &THROTTLED, &policy());
            calls += 1;
        }
    }

    assert_eq!(calls, 1);
}

#[test]
fn a_cancelled_call_counts_as_admitted() {
    let mut record = held_by(of(1));
    let lease = lease_for(&mut record, 60, of(2));

    record.release(&lease);

    assert!(is_held(&ask_with(&mut record, 61, of(2))));
}

#[test]
fn a_withdrawn_call_does_not_count_as_admitted() {
    let mut record = held_by(of(1));
    let lease = lease_for(&mut record, 60, of(2));

    let _ = record.fail(at(60), &lease, &FetchError::not_logged_in("no file"), &policy());

    assert!(matches!(ask_with(&mut record, 61, of(2)), LeaseDecision::Granted(_)));
}

#[test]
fn a_success_of_another_credential_ends_the_hold_for_all() {
    let mut record = held_by(of(1));
    let lease = lease_for(&mut record, 60, of(2));

    let _ = record.commit(at(61), &lease, &UsageReport::polled([five_hour(10)]));

    assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
}

#[test]
fn the_next_hold_admits_another_credential_again() {
    let mut record = held_by(of(1));
    throttle(&mut record, 60, of(2));

    throttle(&mut record, 3660, of(1));

    assert!(matches!(ask_with(&mut record, 3720, of(2)), LeaseDecision::Granted(_)));
}

#[test]
fn a_hold_of_a_stated_login_survives_the_rotation_of_its_token() {
    let login =
        |credential| LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(credential));
    let mut record = held_by(login(1));

    assert!(is_held(&ask_with(&mut record, 60, login(2))));
}

#[test]
fn a_login_stated_on_one_side_only_keeps_the_hold() {
    let stated =
        |credential| LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(credential));

    assert!(is_held(&ask_with(&mut held_by(of(1)), 60, stated(2))));
    assert!(is_held(&ask_with(&mut held_by(stated(1)), 60, of(2))));
}

#[test]
fn an_unknown_credential_is_held() {
    assert!(is_held(&ask_with(&mut held_by(of(1)), 60, LoginInfo::unknown())));
    assert!(is_held(&ask_with(&mut held_by(LoginInfo::unknown()), 60, of(2))));
}

#[test]
fn a_persisted_hold_admits_no_credential() {
    let mut record = Record::default();
    let _ = record.seed(at(0), &held(rate_limited(at(0), at(3600))));

    assert!(is_held(&ask_with(&mut record, 60, of(2))));
}

#[test]
fn the_provider_cooldown_holds_every_credential() {
    let mut record = held_by(of(1));
    let cooldown = Hold::new(at(0), at(60), crate::record::HoldReason::ProviderRateLimited);
    let request = explicit_request(9).login(of(2)).cooldown(Some(cooldown.clone()));

    assert_eq!(begin(&mut record, at(30), &request), LeaseDecision::OnHold(cooldown));
}

#[test]
fn the_admitted_credentials_are_stored() {
    let mut record = held_by(of(1));
    throttle(&mut record, 60, of(2));

    let mut record = stored(&record);

    assert!(is_held(&ask_with(&mut record, 120, of(3))));
}

#[test]
fn the_credentials_of_two_standalone_processes_admit_no_third() {
    let mut one = held_by(of(1));
    let mut other = one.clone();
    throttle(&mut one, 60, of(2));
    let _ = lease_for(&mut other, 60, of(3));

    let _ = one.merge_standalone(at(61), &other, None);

    assert!(is_held(&ask_with(&mut one, 120, of(4))));
}
