//! When no account may serve, and when one may again.

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
fn an_account_is_of_use_again_when_its_last_spent_window_is() {
    let soon = with_left(WindowId::five_hour(), 0.0, minutes(10));
    let request = Request::new().with_model("claude-opus-4-5");

    let retry = retry_after(&[Given::new("a", [soon, opus_week(0.0)])], &request, &RoutingPolicy::default());

    assert_eq!(retry, in_hours(96));
}

#[test]
fn a_window_that_has_room_does_not_shorten_the_wait() {
    let soon = with_left(WindowId::five_hour(), 50.0, minutes(10));
    let request = Request::new().with_model("claude-opus-4-5");

    let retry = retry_after(&[Given::new("a", [soon, opus_week(0.0)])], &request, &RoutingPolicy::default());

    assert_eq!(retry, in_hours(96));
}

#[test]
fn of_several_accounts_the_first_that_is_of_use_again_counts() {
    let long = Given::new("a", [with_left(WindowId::five_hour(), 0.0, hours(1)), seven_day(0.0)]);
    let short = Given::new("b", [with_left(WindowId::five_hour(), 0.0, hours(5)), seven_day(50.0)]);
    let policy = RoutingPolicy::default();

    assert_eq!(retry_after(std::slice::from_ref(&long), &Request::new(), &policy), in_hours(72));
    assert_eq!(retry_after(&[long, short], &Request::new(), &policy), in_hours(5));
}

#[test]
fn a_killed_main_account_is_not_fallen_back_to() {
    let policy = RoutingPolicy::default().killswitch(left(5.0));
    let given = [Given::new("main", [five_hour(3.0)]), Given::new("work", [five_hour(0.0)])];

    let decision = decide(&given, &Request::new(), &policy);

    assert!(decision.chosen().is_none());
}

#[test]
fn a_killed_fallback_is_never_taken() {
    let policy = RoutingPolicy::default().min_remaining(left(20.0)).killswitch(left(5.0));
    let given = [Given::new("main", [five_hour(0.0)]), Given::new("work", [five_hour(4.0)])];

    assert_eq!(taken(&given, &Request::new(), &policy), None);
}

#[test]
fn when_all_are_spent_the_answer_says_how_long_to_wait() {
    let given = [Given::new("a", [five_hour(0.0)]), Given::new("b", [five_hour(0.0)])];

    assert_eq!(retry_after(&given, &Request::new(), &RoutingPolicy::default()), in_hours(2));
}

#[test]
fn dead_logins_have_no_time_at_which_to_come_back() {
    let dead = |name| Given::new(name, []).blocked(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    assert_eq!(retry_after(&[dead("a"), dead("b")], &Request::new(), &RoutingPolicy::default()), None);
}

#[test]
fn a_dead_login_with_a_spent_window_does_not_come_back_at_the_reset() {
    let dead =
        Given::new("a", [five_hour(0.0)]).blocked(Block::new(RejectionKind::Unauthorized, minutes(-1)));

    assert_eq!(retry_after(&[dead], &Request::new(), &RoutingPolicy::default()), None);
}

#[test]
fn without_accounts_none_is_chosen() {
    assert_eq!(retry_after(&[], &Request::new(), &RoutingPolicy::default()), None);
}

fn closed() -> RoutingPolicy {
    RoutingPolicy::default().when_unknown(UnknownUsage::Deny)
}

#[test]
fn an_account_that_is_not_known_is_worth_another_look_after_a_pause() {
    let spent = Given::new("a", [five_hour(0.0)]);

    let retry = retry_after(&[spent, Given::new("b", [])], &Request::new(), &closed());

    assert_eq!(retry, Some(closed().throttle_cooldown));
}

#[test]
fn an_unknown_owner_is_retried_after_the_other_exclusions_have_ended() {
    let without_owner = |left| {
        let mut given = Given::new("a", [five_hour(left)]);
        given.has_unknown_owner = true;
        given
    };

    assert_eq!(
        retry_after(&[without_owner(50.0)], &Request::new(), &closed()),
        Some(closed().throttle_cooldown)
    );
    assert_eq!(retry_after(&[without_owner(0.0)], &Request::new(), &closed()), in_hours(2));
}

#[test]
fn what_is_not_known_has_no_end_of_its_own() {
    let verdict = verdict(Given::new("a", []), &Request::new(), &closed());

    assert_eq!(verdict.retry_at, None);
}
