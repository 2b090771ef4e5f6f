//! What survives a rotation of tokens, and what another login clears. The tests of rejected credentials are in `refusals`.

use super::support::*;
use crate::model::{CredentialFingerprint, LoginInfo, UsageReport, WindowId};
use crate::provider::FetchError;
use crate::record::{CommitOutcome, LeaseDecision, LeaseRequest, MergeOutcome, Record, Seed};

fn of(request: LeaseRequest, name: &str) -> LeaseRequest {
    request.login(LoginInfo::new(login_id(name)))
}

/// A record of that login with one call at 0, after `begin` and `commit`.
fn record_of(name: &str) -> Record {
    let mut record = Record::default();
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &of(request(1), name)) else {
        panic!("no process calls")
    };
    let _ = record.commit(at(1), &lease, &UsageReport::polled([five_hour(10)]));
    record
}

/// The same record with a hold of an hour, armed at 600.
fn held_record_of(name: &str) -> Record {
    let mut record = record_of(name);
    fail(&mut record, at(600), &FetchError::throttled(Some(HOUR)));
    record
}

#[test]
fn readings_stay_fresh_when_only_the_token_rotates() {
    let mut record = record_of("a");
    let rotated =
        request(2).login(LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(7)));

    assert_eq!(begin(&mut record, at(10), &rotated), LeaseDecision::NotNeeded);
}

#[test]
fn a_hold_stays_when_only_the_token_rotates() {
    let mut record = held_record_of("a");
    let rotated =
        request(9).login(LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(7)));

    assert!(matches!(begin(&mut record, at(700), &rotated), LeaseDecision::OnHold(_)));
}

#[test]
fn a_new_login_sees_no_readings_of_the_old_one() {
    let mut record = record_of("a");

    let begun = begin(&mut record, at(10), &of(request(2), "b"));

    assert!(matches!(begun, LeaseDecision::Granted(_)));
    assert!(record.snapshot().is_empty());
    assert_eq!((record.complete_at(), record.login_id()), (None, Some(&login_id("b"))));
}

#[test]
fn a_new_login_clears_the_owner() {
    let mut record = record_of("a");
    poll(&mut record, at(600), &UsageReport::polled([five_hour(10)]).owner_id(owner_id("org-1")));

    let _ = begin(&mut record, at(700), &of(request(9), "b"));

    assert_eq!(record.owner_id(), None);
}

#[test]
fn only_a_contradicting_login_is_new() {
    let new = |mut record: Record, name| record.new_login(&login_id(name));

    assert!(!new(Record::default(), "a"));
    assert!(!new(record_of("a"), "a"));
    assert!(new(record_of("a"), "b"));
}

#[test]
fn a_new_login_clears_the_hold_of_the_old_one() {
    let mut record = held_record_of("a");

    let begun = begin(&mut record, at(700), &of(request(9), "b"));

    assert!(matches!(begun, LeaseDecision::Granted(_)));
    assert_eq!((record.hold(), record.consecutive_failures(), record.last_failure()), (None, 0, None));
}

#[test]
fn a_new_login_clears_the_rejection_of_the_old_one() {
    let mut record = record_of("a");
    fail(&mut record, at(600), &FetchError::Unauthorized);

    assert!(matches!(begin(&mut record, at(601), &of(request(9), "b")), LeaseDecision::Granted(_)));
}

#[test]
fn a_new_login_supersedes_the_running_call_of_the_old_one() {
    let mut record = record_of("a");
    let LeaseDecision::Granted(old) = begin(&mut record, at(600), &of(request(2), "a")) else {
        panic!("it is stale")
    };

    let new = begin(&mut record, at(601), &of(request(3), "b"));
    let late = record.commit(at(602), &old, &UsageReport::polled([five_hour(99)]));

    assert!(matches!(new, LeaseDecision::Granted(_)));
    assert_eq!(late, CommitOutcome::TooLate);
    assert!(record.snapshot().is_empty());
}

#[test]
fn persisted_state_of_the_old_login_is_not_merged() {
    let mut record = record_of("b");
    let seed = Seed::new(headers(at(5), [five_hour(99)]))
        .hold(rate_limited(at(5), at(3600)))
        .login_id(login_id("a"));
    let before = record.clone();

    assert_eq!(record.seed(at(6), &seed), MergeOutcome::OtherLogin);
    assert_eq!(record, before);
}

#[test]
fn a_late_header_of_another_login_is_dropped() {
    let mut record = record_of("b");
    let before = record.clone();

    let joined = record.observe(at(6), &headers(at(5), [five_hour(99)]), Some(&login_id("a")), None);

    assert_eq!(joined, MergeOutcome::OtherLogin);
    assert_eq!(record, before);
}

#[test]
fn readings_of_another_owner_are_rejected() {
    let mut record = Record::default();
    poll(&mut record, at(0), &UsageReport::polled([five_hour(10)]).owner_id(owner_id("org-1")));
    let before = record.clone();

    let joined = record.observe(at(6), &headers(at(5), [five_hour(99)]), None, Some(&owner_id("org-2")));

    assert_eq!(joined, MergeOutcome::OtherLogin);
    assert_eq!(record, before);
}

#[test]
fn the_first_stated_login_adopts_state_without_a_login() {
    let mut record = polled(at(0), [five_hour(10)]);

    let begun = begin(&mut record, at(10), &of(request(9), "a"));

    assert_eq!(begun, LeaseDecision::NotNeeded);
    assert_eq!(record.login_id(), Some(&login_id("a")));
}

#[test]
fn the_login_of_headers_adopts_state_without_a_login() {
    let mut record = polled(at(0), [five_hour(10)]);

    let _ = record.observe(at(6), &headers(at(5), []), Some(&login_id("a")), Some(&owner_id("org-1")));

    assert_eq!((record.login_id(), record.owner_id()), (Some(&login_id("a")), Some(&owner_id("org-1"))));
}

#[test]
fn state_is_adopted_once() {
    let mut record = polled(at(0), [five_hour(10)]);
    let _ = begin(&mut record, at(10), &of(request(8), "a"));

    let _ = begin(&mut record, at(11), &of(request(9), "b"));

    assert!(record.snapshot().is_empty());
}

#[test]
fn an_adopted_hold_survives_a_rotation_of_the_token() {
    let mut record = Record::default();
    let _ = record.seed(at(0), &held(rate_limited(at(0), at(3600))));
    let named = of(request(8), "a");
    let rotated =
        request(9).login(LoginInfo::new(login_id("a")).fingerprint(CredentialFingerprint::from_hash(7)));

    assert!(matches!(begin(&mut record, at(1), &named), LeaseDecision::OnHold(_)));
    assert!(matches!(begin(&mut record, at(2), &rotated), LeaseDecision::OnHold(_)));
}

#[test]
fn a_stated_login_keeps_seeded_state_without_a_login() {
    let mut record = Record::default();
    let _ = record.seed(at(0), &Seed::new(headers(at(0), [five_hour(10)])));

    let _ = begin(&mut record, at(1), &of(request(1), "a"));

    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(10)));
}

#[test]
fn a_response_to_a_rotated_token_belongs_to_the_same_login() {
    let mut record = record_of("a");
    let lease = grant(&mut record, at(600));

    let committed =
        record.commit(at(601), &lease, &UsageReport::polled([five_hour(20)]).login_id(login_id("a")));

    assert_eq!(committed, CommitOutcome::Stored);
    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(20)));
}

#[test]
fn a_response_to_another_login_replaces_all_state() {
    let mut record = Record::default();
    let usage = UsageReport::polled([five_hour(10), seven_day(20)]).login_id(login_id("a"));
    poll(&mut record, at(0), &usage);
    let lease = grant(&mut record, at(600));

    let usage = UsageReport::from_headers([five_hour(33)]).login_id(login_id("b"));
    let committed = record.commit(at(601), &lease, &usage);

    assert_eq!(committed, CommitOutcome::LoginChanged);
    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(33)));
    assert_eq!(used(&record, &WindowId::seven_day()), None);
    assert_eq!(record.login_id(), Some(&login_id("b")));
}

#[test]
fn another_owner_of_the_same_login_replaces_the_readings() {
    let mut record = record_of("a");
    let first = UsageReport::polled([five_hour(10), seven_day(20)]).owner_id(owner_id("org-1"));
    poll(&mut record, at(600), &first);
    let lease = grant(&mut record, at(1200));

    let second = UsageReport::from_headers([five_hour(33)]).owner_id(owner_id("org-2"));
    let committed = record.commit(at(1201), &lease, &second);

    assert_eq!(committed, CommitOutcome::LoginChanged);
    assert_eq!(used(&record, &WindowId::seven_day()), None);
    assert_eq!(record.owner_id(), Some(&owner_id("org-2")));
}

#[test]
fn another_owner_of_the_same_login_keeps_the_login() {
    let mut record = record_of("a");
    poll(&mut record, at(600), &UsageReport::polled([five_hour(10)]).owner_id(owner_id("org-1")));

    poll(&mut record, at(1200), &UsageReport::polled([five_hour(33)]).owner_id(owner_id("org-2")));

    assert_eq!(record.login_id(), Some(&login_id("a")));
}

#[test]
fn alternating_logins_share_one_budget() {
    let mut record = Record::default();
    let ask_as = |record: &mut Record, call: i64| {
        let name = if call % 2 == 0 { "a" } else { "b" };
        begin(record, at(call), &of(request(u128::try_from(call).unwrap()), name))
    };
    let granted = (0..100).filter(|call| matches!(ask_as(&mut record, *call), LeaseDecision::Granted(_)));

    assert_eq!(granted.count(), 28);
}

#[test]
fn the_fence_rises_across_logins() {
    let mut record = record_of("a");
    let before = record.fence();

    let _ = begin(&mut record, at(10), &of(request(2), "b"));

    assert!(record.fence() > before);
}
