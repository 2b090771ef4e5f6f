//! Which of several eligible accounts is chosen.

use std::collections::BTreeMap;

use quota_core::WindowId;
use quota_core::provider::RejectionKind;

use super::support::*;
use crate::routing::{Block, Choice};
use crate::{Request, RoutingMode, RoutingPolicy, UnknownUsage};

fn in_mode(mode: RoutingMode) -> RoutingPolicy {
    RoutingPolicy::default().mode(mode)
}

fn three(left: [f64; 3]) -> [Given; 3] {
    let [a, b, c] = left;
    [Given::new("main", [five_hour(a)]), Given::new("b", [five_hour(b)]), Given::new("c", [five_hour(c)])]
}

fn session(name: &str) -> Request {
    Request::new().with_session(name)
}

#[test]
fn main_first_uses_the_main_account_until_it_is_exhausted() {
    let policy = in_mode(RoutingMode::MainFirst);

    assert_eq!(chosen(&three([1.0, 90.0, 90.0]), &Request::new(), &policy), Some(0));
    assert_eq!(chosen(&three([0.0, 10.0, 90.0]), &Request::new(), &policy), Some(1));
    assert_eq!(chosen(&three([0.0, 0.0, 90.0]), &Request::new(), &policy), Some(2));
}

#[test]
fn fallback_first_uses_the_fallbacks_before_the_main_account() {
    let policy = in_mode(RoutingMode::FallbackFirst);

    assert_eq!(chosen(&three([90.0, 1.0, 90.0]), &Request::new(), &policy), Some(1));
    assert_eq!(chosen(&three([90.0, 0.0, 0.0]), &Request::new(), &policy), Some(0));
}

#[test]
fn an_account_above_its_minimum_is_preferred_to_one_below() {
    let policy = in_mode(RoutingMode::MainFirst).min_remaining(left(20.0)).killswitch(left(5.0));

    assert_eq!(chosen(&three([10.0, 0.0, 30.0]), &Request::new(), &policy), Some(2));
}

#[test]
fn an_account_below_its_minimum_serves_if_none_is_above() {
    let policy = in_mode(RoutingMode::MainFirst).min_remaining(left(20.0)).killswitch(left(5.0));

    assert_eq!(chosen(&three([3.0, 10.0, 12.0]), &Request::new(), &policy), Some(1));
}

#[test]
fn soonest_reset_first_uses_the_account_that_resets_soonest() {
    let week =
        |name, reset| Given::new(name, [five_hour(50.0), with_left(WindowId::seven_day(), 50.0, reset)]);
    let given = [week("a", hours(100)), week("b", hours(20)), week("c", hours(60))];

    assert_eq!(chosen(&given, &Request::new(), &in_mode(RoutingMode::SoonestResetFirst)), Some(1));
}

#[test]
fn soonest_reset_first_puts_unknown_resets_last() {
    let given = [Given::new("a", []), Given::new("b", [seven_day(50.0)])];

    assert_eq!(chosen(&given, &Request::new(), &in_mode(RoutingMode::SoonestResetFirst)), Some(1));
}

#[test]
fn new_sessions_are_spread_by_capacity_until_the_reset() {
    let given = three([80.0, 20.0, 0.0]);
    let policy = in_mode(RoutingMode::StickyBalanced);

    let mut counts = BTreeMap::new();
    for name in 0..2000 {
        *counts.entry(chosen(&given, &session(&format!("session {name}")), &policy)).or_insert(0) += 1;
    }

    // Four to one, and none for the exhausted account. Two thousand sessions are within a few percent of that.
    assert!((1500..1700).contains(&counts[&Some(0)]), "{counts:?}");
    assert_eq!(counts.len(), 2);
}

#[test]
fn an_account_that_leaves_moves_only_its_own_sessions() {
    let given = three([50.0, 50.0, 50.0]);
    let policy = in_mode(RoutingMode::StickyBalanced);

    for name in 0..200 {
        let request = session(&format!("session {name}"));
        let before = chosen(&given, &request, &policy);
        let after = chosen(&given[..2], &request, &policy);

        assert!(before == Some(2) || before == after, "{name}: {before:?} {after:?}");
    }
}

#[test]
fn without_a_session_the_account_with_most_capacity_is_chosen() {
    assert_eq!(
        chosen(&three([30.0, 60.0, 50.0]), &Request::new(), &in_mode(RoutingMode::StickyBalanced)),
        Some(1)
    );
}

#[test]
fn capacity_below_the_killswitch_does_not_count() {
    let policy = in_mode(RoutingMode::StickyBalanced).killswitch(left(5.0));
    let mut given = three([60.0, 50.0, 0.0]);
    given[0].limits = given[0].limits.clone().killswitch(left(55.0));

    assert_eq!(chosen(&given, &Request::new(), &policy), Some(1));
}

#[test]
fn a_session_stays_with_its_account_while_that_is_eligible() {
    let policy = in_mode(RoutingMode::StickyBalanced).min_remaining(left(20.0)).killswitch(left(1.0));
    let [a, b, c] = three([90.0, 90.0, 2.0]);

    assert_eq!(chosen(&[a, b, c.session_account()], &session("s"), &policy), Some(2));
}

#[test]
fn a_session_moves_when_its_account_is_exhausted() {
    let [a, b, c] = three([90.0, 0.0, 0.0]);

    assert_eq!(
        chosen(&[a, b, c.session_account()], &session("s"), &in_mode(RoutingMode::StickyBalanced)),
        Some(0)
    );
}

#[test]
fn a_session_waits_for_a_near_reset_of_its_account() {
    let own = Given::new("b", [with_left(WindowId::five_hour(), 0.0, minutes(2))]).session_account();
    let given = [Given::new("main", [five_hour(90.0)]), own];

    let choice = decide(&given, &session("s"), &in_mode(RoutingMode::StickyBalanced)).choice();

    assert_eq!(choice, Choice::Wait { index: 1, until: minutes(2) });
}

#[test]
fn a_session_waits_for_a_short_cooldown_but_not_a_rejected_login() {
    let policy = in_mode(RoutingMode::StickyBalanced);
    let own = |block| Given::new("b", [five_hour(50.0)]).session_account().blocked(block);
    let main = || Given::new("main", [five_hour(90.0)]);

    let throttled = [main(), own(Block::new(RejectionKind::Throttled, now()).until(minutes(1)))];
    let rejected = [main(), own(Block::new(RejectionKind::Unauthorized, now()))];

    assert!(matches!(decide(&throttled, &session("s"), &policy).choice(), Choice::Wait { index: 1, .. }));
    assert_eq!(chosen(&rejected, &session("s"), &policy), Some(0));
}

#[test]
fn session_affinity_counts_only_in_sticky_mode() {
    let [a, b, c] = three([90.0, 90.0, 90.0]);

    assert_eq!(
        chosen(&[a, b, c.session_account()], &session("s"), &in_mode(RoutingMode::MainFirst)),
        Some(0)
    );
}

#[test]
fn a_policy_that_denies_stale_usage_is_written_and_never_read() {
    let policy = RoutingPolicy::default().when_unknown(UnknownUsage::DenyStale);

    let written = serde_json::to_value(policy).unwrap();

    assert_eq!(written["when_unknown"], "deny_stale");
    assert!(serde_json::from_value::<RoutingPolicy>(written).is_err());
}

#[test]
fn the_policy_is_written_in_this_form() {
    insta::assert_json_snapshot!(RoutingPolicy::default().min_remaining(left(20.0)).killswitch(left(5.0)));
}
