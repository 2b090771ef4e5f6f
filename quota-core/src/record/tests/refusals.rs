//! Rejected credentials, forbidden accounts and missing logins. None of them arms a hold. Failures that arm one are in
//! `backoff`.

use super::support::*;
use crate::model::{CredentialFingerprint, LoginInfo, UsageReport};
use crate::provider::FetchError;
use crate::record::{CommitOutcome, FailOutcome, LastFailureKind, LeaseDecision, LeaseRequest, Record};

fn with_fingerprint(request: LeaseRequest, fingerprint: u64) -> LeaseRequest {
    request.login(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint)))
}

/// A record whose only call, with this fingerprint, failed with this error.
fn refused(fingerprint: u64, error: &FetchError) -> Record {
    let mut record = Record::default();
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &with_fingerprint(request(1), fingerprint))
    else {
        panic!("no other process calls")
    };
    let _ = record.fail(at(1), &lease, error, &policy());
    record
}

fn forbidden() -> FetchError {
    FetchError::forbidden("OAuth authentication is not allowed for this organization")
}

#[test]
fn a_rejection_arms_no_hold_and_counts_no_failure() {
    for error in [FetchError::Unauthorized, forbidden()] {
        let mut record = Record::default();
        let lease = grant(&mut record, at(0));

        let failed = record.fail(at(1), &lease, &error, &policy());

        assert_eq!(failed, FailOutcome::Stored { hold: None, cooldown: None });
        assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
    }
}

#[test]
fn a_rejection_has_a_kind_by_its_remedy() {
    let kind = |error| refused(1, &error).last_failure().unwrap().kind;

    assert_eq!(kind(FetchError::Unauthorized), LastFailureKind::Unauthorized);
    assert_eq!(kind(forbidden()), LastFailureKind::Forbidden);
}

#[test]
fn a_rejected_credential_is_retried_only_by_an_explicit_refresh() {
    for error in [FetchError::Unauthorized, forbidden()] {
        let mut record = refused(1, &error);
        let failure = record.last_failure().unwrap().clone();

        assert_eq!(
            begin(&mut record, at(2), &with_fingerprint(request(2), 1)),
            LeaseDecision::CredentialRejected(failure)
        );
    }
}

const DAY: i64 = 24 * 3600;

fn missing_scope() -> FetchError {
    FetchError::missing_scope("user:profile")
}

#[test]
fn a_credential_without_the_scope_is_not_tried_for_a_day() {
    let mut record = refused(1, &missing_scope());

    assert!(matches!(
        begin(&mut record, at(DAY - 1), &with_fingerprint(request(2), 1)),
        LeaseDecision::CredentialRejected(_)
    ));
    assert!(matches!(
        begin(&mut record, at(DAY), &with_fingerprint(request(2), 1)),
        LeaseDecision::Granted(_)
    ));
}

#[test]
fn an_explicit_refresh_does_not_retry_a_missing_scope() {
    let mut record = refused(1, &missing_scope());

    let begun = begin(&mut record, at(600), &with_fingerprint(explicit_request(2), 1));

    assert!(
        matches!(&begun, LeaseDecision::CredentialRejected(failure) if failure.kind == LastFailureKind::MissingScope),
        "{begun:?}"
    );
}

#[test]
fn another_credential_is_tried_after_one_without_the_scope() {
    let mut record = refused(1, &missing_scope());

    assert!(matches!(begin(&mut record, at(2), &with_fingerprint(request(2), 7)), LeaseDecision::Granted(_)));
}

/// A record in which another credential called after the first one lacked the scope.
fn called_by_another(outcome: Result<(), FetchError>) -> Record {
    let mut record = refused(1, &missing_scope());
    let LeaseDecision::Granted(lease) = begin(&mut record, at(2), &with_fingerprint(request(2), 7)) else {
        panic!("it is not barred")
    };
    match outcome {
        Ok(()) => {
            assert_eq!(
                record.commit(at(3), &lease, &UsageReport::polled([five_hour(10)])),
                CommitOutcome::Stored
            )
        }
        Err(error) => drop(record.fail(at(3), &lease, &error, &policy())),
    }
    record
}

#[test]
fn another_credentials_result_does_not_clear_a_missing_scope() {
    let outcomes = [Ok(()), Err(FetchError::unavailable("down")), Err(FetchError::Unauthorized)];
    for outcome in outcomes {
        let record = called_by_another(outcome.clone());
        let mut stored = Record::decode(&record.encode()).unwrap();
        assert_eq!(stored, record);
        let mut rejoined = refused(2, &FetchError::Unauthorized);
        let _ = rejoined.merge_standalone(at(4), &record, None);

        for record in [&mut stored, &mut rejoined] {
            let begun = begin(record, at(7200), &with_fingerprint(explicit_request(3), 1));
            assert!(matches!(begun, LeaseDecision::CredentialRejected(_)), "{outcome:?}: {begun:?}");
            let begun = begin(record, at(DAY), &with_fingerprint(explicit_request(4), 1));
            assert!(matches!(begun, LeaseDecision::Granted(_)), "{outcome:?}: {begun:?}");
        }
    }
}

#[test]
fn a_credential_with_a_new_scope_may_call() {
    let mut record = refused(1, &missing_scope());
    let LeaseDecision::Granted(lease) = begin(&mut record, at(DAY), &with_fingerprint(request(2), 1)) else {
        panic!("a day has passed")
    };
    let _ = record.commit(at(DAY + 1), &lease, &UsageReport::polled([five_hour(10)]));

    assert!(matches!(
        begin(&mut record, at(DAY + 600), &with_fingerprint(request(3), 1)),
        LeaseDecision::Granted(_)
    ));
}

#[test]
fn stored_credentials_without_the_scope_are_limited() {
    let mut record = Record::default();
    for fingerprint in 1..=100 {
        let failure = crate::record::LastFailure::of(
            &missing_scope(),
            at(fingerprint),
            Some(CredentialFingerprint::from_hash(fingerprint.unsigned_abs())),
        );
        record.record_unscoped(&failure);
    }

    assert_eq!(record.unscoped().len(), 64);
    assert_eq!(record.unscoped()[0].fingerprint, Some(CredentialFingerprint::from_hash(37)));
}

#[test]
fn five_credentials_without_the_scope_are_all_blocked_again() {
    let mut record = Record::default();
    let mut calls = 0;
    for round in 0_i64..2 {
        for fingerprint in 1..=5 {
            let second = 10 * (round * 5 + fingerprint);
            let number = second.unsigned_abs();
            let request = with_fingerprint(explicit_request(number.into()), fingerprint.unsigned_abs());
            let LeaseDecision::Granted(lease) = begin(&mut record, at(second), &request) else { continue };
            let _ = record.fail(at(second + 1), &lease, &missing_scope(), &policy());
            calls += 1;
        }
    }

    assert_eq!(calls, 5);
}

#[test]
fn a_credential_without_the_scope_arms_no_hold() {
    let record = refused(1, &missing_scope());

    assert_eq!((record.hold(), record.consecutive_failures()), (None, 0));
}

#[test]
fn a_new_credential_is_tried_at_once() {
    let mut record = refused(1, &FetchError::Unauthorized);

    assert!(matches!(begin(&mut record, at(2), &with_fingerprint(request(2), 7)), LeaseDecision::Granted(_)));
}

#[test]
fn an_explicit_refresh_may_try_a_rejected_credential_again() {
    let mut record = refused(1, &FetchError::Unauthorized);

    assert!(matches!(
        begin(&mut record, at(2), &with_fingerprint(explicit_request(2), 1)),
        LeaseDecision::Granted(_)
    ));
}

#[test]
fn a_rejection_blocks_for_the_max_age() {
    let mut record = refused(1, &FetchError::Unauthorized);

    assert!(matches!(
        begin(&mut record, at(299), &with_fingerprint(request(2), 1)),
        LeaseDecision::CredentialRejected(_)
    ));
    assert!(matches!(
        begin(&mut record, at(300), &with_fingerprint(request(2), 1)),
        LeaseDecision::Granted(_)
    ));
}

#[test]
fn an_unknown_rejected_credential_is_blocked() {
    let mut record = Record::default();
    fail(&mut record, at(0), &FetchError::Unauthorized);

    assert!(matches!(begin(&mut record, at(2), &request(2)), LeaseDecision::CredentialRejected(_)));
}

#[test]
fn a_transient_failure_blocks_no_call_after_its_hold() {
    for error in [FetchError::TimedOut, FetchError::throttled(None)] {
        let mut record = refused(1, &error);
        let over = record.hold().unwrap().until;

        assert!(
            matches!(begin(&mut record, over, &with_fingerprint(request(2), 1)), LeaseDecision::Granted(_)),
            "{error}"
        );
    }
}

#[test]
fn a_blocked_credential_gets_fresh_readings() {
    let mut record = polled(at(0), [five_hour(10)]);
    fail(&mut record, at(2), &FetchError::Unauthorized);

    assert_eq!(begin(&mut record, at(3), &request(9)), LeaseDecision::NotNeeded);
}

#[test]
fn a_rejection_keeps_the_readings() {
    let mut record = polled(at(0), [five_hour(10)]);
    let before = record.snapshot().clone();

    fail(&mut record, at(600), &FetchError::Unauthorized);

    assert_eq!(record.snapshot(), &before);
}

#[test]
fn a_success_clears_a_rejection() {
    let mut record = refused(1, &FetchError::Unauthorized);

    poll(&mut record, at(2), &UsageReport::polled([five_hour(10)]));

    assert_eq!(record.last_failure(), None);
}

#[test]
fn a_rejection_does_not_change_the_rate_limit_streak() {
    let mut record = Record::default();
    let over = fail(&mut record, at(0), &FetchError::throttled(None)).unwrap().until;

    fail(&mut record, over, &FetchError::Unauthorized);

    assert_eq!(record.consecutive_failures(), 1);
}

#[test]
fn a_call_without_a_login_does_not_count() {
    let mut record = Record::default();
    let lease = grant(&mut record, at(0));

    let failed = record.fail(at(0), &lease, &FetchError::not_logged_in("no file"), &policy());

    assert_eq!(failed, FailOutcome::Stored { hold: None, cooldown: None });
    assert_eq!((record.calls(), record.last_failure(), record.lease()), (&[][..], None, None));
}

#[test]
fn a_call_without_a_login_withdraws_no_other_call() {
    let mut record = Record::default();
    let other = grant(&mut record, at(0));
    record.release(&other);
    let lease = grant(&mut record, at(0));

    let _ = record.fail(at(0), &lease, &FetchError::not_logged_in("no file"), &policy());

    assert_eq!(record.calls().len(), 1);
}

#[test]
fn a_failure_message_has_no_control_characters_and_a_limit() {
    let long = "\u{1b}[31m".to_owned() + &"ß".repeat(5000);

    let record = refused(1, &FetchError::forbidden(long));

    let note = &record.last_failure().unwrap().message;
    assert!(!note.chars().any(char::is_control));
    assert_eq!(note.chars().count(), 200);
}

/// A record in which credential 1 lacked the scope at 0, and one in which it succeeded at 60.
fn rejected_and_succeeded() -> (Record, Record) {
    let refused = refused(1, &missing_scope());
    let mut answered = Record::default();
    let LeaseDecision::Granted(lease) = begin(&mut answered, at(60), &with_fingerprint(request(2), 1)) else {
        panic!("no call was made")
    };
    let _ = answered.commit(at(61), &lease, &UsageReport::polled([five_hour(10)]));
    (refused, answered)
}

#[test]
fn a_success_clears_an_older_rejection_in_either_merge_order() {
    let (refused, answered) = rejected_and_succeeded();
    for (mut shared, alone) in [(refused.clone(), answered.clone()), (answered, refused)] {
        let _ = shared.merge_standalone(at(120), &alone, None);

        let begun = begin(&mut shared, at(3600), &with_fingerprint(explicit_request(3), 1));
        assert!(matches!(begun, LeaseDecision::Granted(_)), "{begun:?}");
    }
}

#[test]
fn an_outdated_rejection_from_an_older_program_does_not_block() {
    let (refused, answered) = rejected_and_succeeded();
    let mut older = document(&answered);
    older["unscoped"] = document(&refused)["unscoped"].clone();

    let begun = begin(&mut decode(&older), at(3600), &with_fingerprint(explicit_request(3), 1));

    assert!(matches!(begun, LeaseDecision::Granted(_)), "{begun:?}");
}
