//! Requests without an eligible account, and their wait.

use std::time::Duration;

use quota_core::WindowId;
use quota_core::provider::RejectionKind;

use super::support::*;
use crate::routing::{Block, Choice};
use crate::{Request, RoutingPolicy, UnknownUsage};

fn retry_after(given: &[Given], request: &Request, policy: &RoutingPolicy) -> Option<Duration> {
    let decision = decide(given, request, policy);
    assert!(matches!(decision.choice(), Choice::NoAccount { .. }), "{:?}", decision.choice());
    decision.retry_after()
}

fn in_hours(hours: u64) -> Option<Duration> {
    Some(Duration::from_secs(hours * 3600))
}

#[test]
fn the_wait_lasts_until_the_last_exhausted_window_resets() {
    let soon = with_left(WindowId::five_hour(), 0.0, minutes(10));
    let request = Request::new().with_model("claude-opus-4-5");

    let retry = retry_after(&[Given::new("a", [soon, opus_week(0.0)])], &request, &RoutingPolicy::default());

    assert_eq!(retry, in_hours(96));
}

#[test]
fn an_available_window_does_not_shorten_the_wait() {
    let soon = with_left(WindowId::five_hour(), 50.0, minutes(10));
    let request = Request::new().with_model("claude-opus-4-5");

    let retry = retry_after(&[Given::new("a", [soon, opus_week(0.0)])], &request, &RoutingPolicy::default());

    assert_eq!(retry, in_hours(96));
}

#[test]
fn the_wait_is_that_of_the_first_available_account() {
    let long = Given::new("a", [with_left(WindowId::five_hour(), 0.0, hours(1)), seven_day(0.0)]);
    let short = Given::new("b", [with_left(WindowId::five_hour(), 0.0, hours(5)), seven_day(50.0)]);
    let policy = RoutingPolicy::default();

    assert_eq!(retry_after(std::slice::from_ref(&long), &Request::new(), &policy), in_hours(72));
    assert_eq!(retry_after(&[long, short], &Request::new(), &policy), in_hours(5));
}

#[test]
fn a_main_account_below_its_killswitch_is_no_last_resort() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let given = [Given::new("main", [five_hour(3.0)]), Given::new("work", [five_hour(0.0)])];

    let decision = decide(&given, &Request::new(), &policy);

    assert!(decision.chosen().is_none());
}

#[test]
fn a_fallback_below_its_killswitch_is_never_chosen() {
    let policy = RoutingPolicy::default().min_remaining(left(20.0)).killswitch(left(5.0));
    let given = [Given::new("main", [five_hour(0.0)]), Given::new("work", [five_hour(4.0)])];

    assert_eq!(chosen(&given, &Request::new(), &policy), None);
}

#[test]
fn exhausted_accounts_have_a_wait_until_the_reset() {
    let given = [Given::new("a", [five_hour(0.0)]), Given::new("b", [five_hour(0.0)])];

    assert_eq!(retry_after(&given, &Request::new(), &RoutingPolicy::default()), in_hours(2));
}

#[test]
fn rejected_logins_have_no_wait() {
    let rejected = |name| Given::new(name, []).blocked(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    assert_eq!(
        retry_after(&[rejected("a"), rejected("b")], &Request::new(), &RoutingPolicy::default()),
        None
    );
}

#[test]
fn a_rejected_login_has_no_wait_despite_a_reset() {
    let rejected =
        Given::new("a", [five_hour(0.0)]).blocked(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    assert_eq!(retry_after(&[rejected], &Request::new(), &RoutingPolicy::default()), None);
}

#[test]
fn without_accounts_none_is_chosen() {
    assert_eq!(retry_after(&[], &Request::new(), &RoutingPolicy::default()), None);
}

fn deny_unknown() -> RoutingPolicy {
    RoutingPolicy::default().when_unknown(UnknownUsage::Deny)
}

#[test]
fn unknown_usage_is_retried_after_the_throttle_cooldown() {
    let exhausted = Given::new("a", [five_hour(0.0)]);

    let retry = retry_after(&[exhausted, Given::new("b", [])], &Request::new(), &deny_unknown());

    assert_eq!(retry, Some(deny_unknown().throttle_cooldown));
}

#[test]
fn an_unknown_owner_is_retried_after_the_other_exclusions_have_ended() {
    let without_owner = |left| {
        let mut given = Given::new("a", [five_hour(left)]);
        given.has_unknown_owner = true;
        given
    };

    assert_eq!(
        retry_after(&[without_owner(50.0)], &Request::new(), &deny_unknown()),
        Some(deny_unknown().throttle_cooldown)
    );
    assert_eq!(retry_after(&[without_owner(0.0)], &Request::new(), &deny_unknown()), in_hours(2));
}

#[test]
fn unknown_usage_has_no_retry_time_of_its_own() {
    let verdict = verdict(Given::new("a", []), &Request::new(), &deny_unknown());

    assert_eq!(verdict.retry_at, None);
}
