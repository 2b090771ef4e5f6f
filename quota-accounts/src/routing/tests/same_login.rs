//! Several accounts with one login are one candidate.

use quota_core::provider::RejectionKind;

use super::support::*;
use crate::routing::{Block, Choice, Reason};
use crate::{AccountLimits, Request, RoutingMode, RoutingPolicy, UnknownUsage};

/// Two accounts with one login that has this much left, and one with a login of its own.
fn two_of_three(left: f64) -> [Given; 3] {
    [
        Given::new("main", [five_hour(left)]).login("one"),
        Given::new("again", [five_hour(left)]).login("one"),
        Given::new("other", [five_hour(50.0)]).login("two"),
    ]
}

fn reasons(given: &[Given], policy: &RoutingPolicy) -> Vec<Reason> {
    decide(given, &Request::new(), policy).accounts().iter().map(|account| account.reason).collect()
}

#[test]
fn an_exhausted_login_is_not_used_under_another_name() {
    let given = two_of_three(0.0);

    let decision = decide(&given, &Request::new(), &RoutingPolicy::default());

    assert_eq!(decision.choice(), Choice::Use { index: 2 });
    let again = &decision.accounts()[1];
    assert_eq!((again.reason, again.same_login_as.as_ref()), (Reason::SameLogin, Some(&given[0].id)));
    assert_eq!(again.to_string(), "same login as anthropic/main");
}

#[test]
fn in_every_mode_the_first_name_is_the_one_that_is_used() {
    for mode in [
        RoutingMode::MainFirst,
        RoutingMode::FallbackFirst,
        RoutingMode::StickyBalanced,
        RoutingMode::SoonestResetFirst,
    ] {
        let found = reasons(&two_of_three(90.0), &RoutingPolicy::default().mode(mode));

        assert_eq!(found, [Reason::Available, Reason::SameLogin, Reason::Available], "{mode:?}");
    }
}

#[test]
fn a_disabled_name_leaves_its_login_to_the_next_one() {
    let mut given = two_of_three(90.0);
    given[0].is_disabled = true;

    assert_eq!(chosen(&given, &Request::new(), &RoutingPolicy::default()), Some(1));
}

#[test]
fn a_disabled_second_name_stays_disabled() {
    let mut given = two_of_three(90.0);
    given[1].is_disabled = true;

    assert_eq!(reasons(&given, &RoutingPolicy::default())[1], Reason::Disabled);
}

#[test]
fn a_name_with_a_rejected_credential_leaves_its_login_to_the_next_one() {
    let mut given = two_of_three(90.0);
    given[0].blocks.push(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    assert_eq!(chosen(&given, &Request::new(), &RoutingPolicy::default()), Some(1));
}

#[test]
fn the_limits_of_the_first_name_hold_although_its_credential_is_rejected() {
    let stop = AccountLimits::none().killswitch(left(20.0));
    let mut given = two_of_three(10.0);
    given[0].limits = stop;
    given[0].blocks.push(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    let found = reasons(&given, &RoutingPolicy::default());

    assert_eq!(found, [Reason::LoginRejected, Reason::SameLogin, Reason::Available]);
}

#[test]
fn a_laxer_limit_of_a_later_name_does_not_use_a_protected_login() {
    let given = two_of_three(10.0);
    let [main, again, other] = given;
    let given = [main.limits(AccountLimits::none().killswitch(left(20.0))), again, other];

    let found = reasons(&given, &RoutingPolicy::default());

    assert_eq!(found, [Reason::BelowKillswitch, Reason::SameLogin, Reason::Available]);
}

#[test]
fn a_stricter_limit_of_a_later_name_is_not_that_of_the_first() {
    let [main, again, other] = two_of_three(10.0);
    let given = [main, again.limits(AccountLimits::none().killswitch(left(20.0))), other];

    assert_eq!(chosen(&given, &Request::new(), &RoutingPolicy::default()), Some(0));
}

#[test]
fn a_login_below_its_minimum_is_a_last_resort_once() {
    let [main, again, other] = two_of_three(10.0);
    let given = [main.limits(AccountLimits::none().min_remaining(left(20.0))), again, other];

    let found = reasons(&given, &RoutingPolicy::default());

    assert_eq!(found, [Reason::BelowMinimum, Reason::SameLogin, Reason::Available]);
}

#[test]
fn unknown_use_of_a_login_is_unknown_under_one_name() {
    let given = [Given::new("main", []).login("one"), Given::new("again", []).login("one")];
    let policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);

    assert_eq!(reasons(&given, &policy), [Reason::UnknownDenied, Reason::SameLogin]);
}

#[test]
fn names_of_two_providers_never_hold_one_login() {
    let mut given = two_of_three(90.0);
    given[1].id = "openai/again".parse().unwrap();

    assert_eq!(reasons(&given, &RoutingPolicy::default())[1], Reason::Available);
}

#[test]
fn a_name_with_a_forbidden_credential_leaves_its_login_to_the_next_one() {
    let mut given = two_of_three(90.0);
    let token = quota_core::model::CredentialFingerprint::from_hash(1);
    given[0].blocks.push(Block::new(RejectionKind::Forbidden, minutes(-1)).fingerprint(token));

    assert_eq!(chosen(&given, &Request::new(), &RoutingPolicy::default()), Some(1));
}

#[test]
fn a_forbidden_login_is_not_used_under_another_name() {
    let mut given = two_of_three(90.0);
    given[0].blocks.push(Block::new(RejectionKind::Forbidden, minutes(-1)));

    assert_eq!(chosen(&given, &Request::new(), &RoutingPolicy::default()), Some(2));
}

#[test]
fn a_name_without_readings_and_credential_leaves_its_login_to_the_next_one() {
    let mut given = [Given::new("main", []).login("one"), Given::new("again", []).login("one")];
    given[0].blocks.push(Block::new(RejectionKind::Unauthorized, minutes(-1)));
    let policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);

    // The reading of the second name may admit it, and a scan refreshes no account with the reason `SameLogin`.
    assert_eq!(reasons(&given, &policy), [Reason::LoginRejected, Reason::UnknownDenied]);
}

#[test]
fn a_login_whose_first_name_is_rejected_is_available_after_its_reset() {
    let mut given =
        [five_hour(0.0), five_hour(0.0)].map(|reading| Given::new("main", [reading]).login("one"));
    given[1].id = "anthropic/again".parse().unwrap();
    given[0].blocks.push(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    let decision = decide(&given, &Request::new(), &RoutingPolicy::default());

    assert_eq!(decision.choice(), Choice::NoAccount { retry_at: Some(hours(2)) });
}
