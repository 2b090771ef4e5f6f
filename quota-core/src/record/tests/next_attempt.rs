//! When a refused request may succeed, compared with the decisions of [`Record::begin`] at that time and before it.

use std::time::Duration;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::random::{Op, World, ops};
use super::support::*;
use crate::model::{CredentialFingerprint, LoginInfo, UsageReport};
use crate::policy::Budget;
use crate::provider::FetchError;
use crate::record::{Hold, HoldReason, LeaseDecision, LeaseRequest, MaxStaleness, Priority, Record};

fn login() -> impl Strategy<Value = LoginInfo> {
    let id = option::of(select(vec!["a", "b"]));
    let fingerprint = option::of(0_u64..3);
    (id, fingerprint).prop_map(|(id, fingerprint)| LoginInfo {
        login_id: id.map(login_id),
        fingerprint: fingerprint.map(CredentialFingerprint::from_hash),
    })
}

fn error() -> impl Strategy<Value = FetchError> {
    select(vec![
        FetchError::throttled(None),
        FetchError::throttled(Some(HOUR * 2)),
        FetchError::TimedOut,
        FetchError::Unauthorized,
        FetchError::forbidden("by policy"),
        FetchError::missing_scope("no user:profile"),
    ])
}

/// A call of a login: what it uses, how it fails, and how long after the previous one it starts.
type Call = (LoginInfo, Option<FetchError>, Duration);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let wait =
        prop_oneof![(0_u64..90).prop_map(Duration::from_secs), (0_u64..7200).prop_map(Duration::from_secs)];
    vec((login(), option::of(error()), wait), 0..12)
}

/// A world after these operations and then these calls.
fn world(ops: &[Op], calls: Vec<Call>) -> World {
    let mut world = World::after(ops, at(0));
    for (number, (login, error, wait)) in calls.into_iter().enumerate() {
        world.now += wait;
        let request = explicit_request(1000 + number as u128).login(login);
        let LeaseDecision::Granted(lease) = world.record.begin(world.now, &request, &frugal()) else {
            continue;
        };
        match error {
            Some(error) => drop(world.record.fail(world.now, &lease, &error, &frugal())),
            None => drop(world.record.commit(world.now, &lease, &UsageReport::polled([five_hour(1)]))),
        }
    }
    world
}

fn frugal() -> crate::Policy {
    policy().budget(Budget::new(5, 2))
}

fn asked(login: LoginInfo, priority: Priority, cooldown: Option<Hold>) -> LeaseRequest {
    LeaseRequest::new(attempt(9999), MaxStaleness::Age(Duration::ZERO))
        .login(login)
        .priority(priority)
        .cooldown(cooldown)
}

/// Whether a request at `at` is refused; `None` if the readings are fresh, so that the question does not arise.
fn is_refused(record: &Record, at: Timestamp, request: &LeaseRequest) -> Option<bool> {
    match record.clone().begin(at, request, &frugal()) {
        LeaseDecision::NotNeeded => None,
        LeaseDecision::Granted(_) | LeaseDecision::InProgress { .. } => Some(false),
        _ => Some(true),
    }
}

proptest! {
    #[test]
    fn begin_refuses_exactly_until_the_next_attempt(
        ops in ops(),
        calls in calls(),
        login in login(),
        priority in select(vec![Priority::Background, Priority::Interactive]),
        cooldown in option::of(1_u64..7200),
        elapsed in 0.0..1.0,
    ) {
        let world = world(&ops, calls);
        let now = crate::time::truncate_ms(world.now);
        let cooldown =
            cooldown.map(|wait| Hold::new(now, now + Duration::from_secs(wait), HoldReason::ProviderRateLimited));
        let request = asked(login, priority, cooldown);

        let next = world.record.next_attempt_at(now, &request, &frugal());

        let refused = |at| is_refused(&world.record, at, &request);
        let Some(next) = next else {
            prop_assert_ne!(refused(now), Some(true));
            return Ok(());
        };
        let wait = Duration::try_from(next.duration_since(now)).expect("it is in the future");
        let between = crate::time::truncate_ms(now + wait.mul_f64(elapsed));
        for at in [now, between, next - Duration::from_millis(1)] {
            prop_assert_ne!(refused(at), Some(false), "at {} of {}", at, next);
        }
        prop_assert_ne!(refused(next), Some(true), "at {}", next);
    }
}

#[test]
fn an_unheld_account_may_be_refreshed_now() {
    let record = polled(at(0), [five_hour(40)]);

    assert_eq!(record.next_attempt_at(at(600), &request(1), &policy()), None);
}

#[test]
fn the_reserve_delays_background_callers_only() {
    let mut record = Record::default();
    for call in 0..3 {
        poll(&mut record, at(call * 60), &UsageReport::polled([five_hour(40)]));
    }

    let next = |priority| record.next_attempt_at(at(600), &request(9).priority(priority), &frugal());

    assert_eq!(next(Priority::Interactive), None);
    assert_eq!(next(Priority::Background), Some(at(3600)));
}

#[test]
fn the_longer_of_a_hold_and_a_rejection_decides() {
    let mut record = Record::default();
    fail(&mut record, at(0), &FetchError::Unauthorized);

    let next = record.next_attempt_at(at(1), &request(2), &policy());

    assert_eq!(next, Some(at(300)));
}

#[test]
fn a_hold_from_the_future_counts_from_now() {
    let mut record = Record::default();
    let _ = record.seed(at(100_000), &held(rate_limited(at(100_000), at(100_060))));

    let next = record.next_attempt_at(at(0), &request(1), &policy());

    assert_eq!(next, Some(at(60)));
}

#[test]
fn a_newer_format_is_refused_until_the_record_changes() {
    let mut newer = document(&Record::default());
    newer["format"] = 99.into();

    let next = decode(&newer).next_attempt_at(at(0), &request(1), &policy());

    assert_eq!(next, Some(Timestamp::MAX));
}
