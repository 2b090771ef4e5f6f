//! The JSON that programs rely on. A changed snapshot is a changed format.

use std::time::Duration;

use quota::manager::StaleReason;
use quota::model::Money;
use quota::record::{Hold, HoldReason};
use quota::{Percent, Used};
use serde_json::Value;

use super::super::account::FailureView;
use super::super::fixtures::{self, MINUTE, local};
use super::*;

fn account() -> AccountView {
    let (age, plan) = (Some(Duration::from_secs(12)), Some("max 20x".to_owned()));
    AccountView { age, plan, ..fixtures::account("anthropic/main", Vec::new()) }
}

fn window(used: Used) -> WindowView {
    let observed_at = local().now - Duration::from_secs(12);
    let scope = Some(Scope::model("Fable"));
    WindowView { observed_at, scope, ..fixtures::window("seven_day/fable", used, MINUTE * 130) }
}

/// The JSON of this window.
fn window_json(window: WindowView) -> Value {
    let text = render(&[AccountView { windows: vec![window], ..account() }], &local());
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["accounts"][0]["windows"][0].take()
}

#[test]
fn an_account_with_readings() {
    let mut credits = Credits::default();
    credits.enabled = Some(true);
    credits.used = Some(Money::new(2050, "EUR", 2));
    let windows = vec![window(Used::Exact(Percent::from_percent(62.5).unwrap()))];

    let account = AccountView { windows, credits: Some(credits), ..account() };

    insta::assert_snapshot!(render(&[account], &local()));
}

#[test]
fn an_account_without_readings() {
    let state = ViewFreshness::Stale { since: Some(local().now), why: StaleReason::OnHold };
    let hold = Hold::new(local().now, local().now + Duration::from_secs(60), HoldReason::RateLimited);
    let failure = FailureView { why: "rate limited (429)".to_owned(), advice: None };

    let account =
        AccountView { state, age: None, plan: None, hold: Some(hold), failure: Some(failure), ..account() };

    insta::assert_snapshot!(render(&[account], &local()));
}

#[test]
fn unknown_usage_is_null() {
    let window = window_json(window(Used::Unknown));

    assert_eq!((&window["used_percent"], &window["certainty"]), (&Value::Null, &"unknown".into()));
}

#[test]
fn a_lower_bound_is_marked() {
    let window = window_json(window(Used::AtLeast(Percent::FULL)));

    assert_eq!((&window["used_percent"], &window["certainty"]), (&100.0.into(), &"at_least".into()));
}

#[test]
fn a_past_reset_has_no_remaining_seconds() {
    let window = window_json(WindowView { resets_at: Some(local().now), ..window(Used::Unknown) });

    assert_eq!(window["resets_at"], "2026-11-23T11:55:00Z");
    assert_eq!(window["resets_in_seconds"], Value::Null);
}

#[test]
fn an_unlimited_window_has_no_percentage() {
    let none = Used::Exact(Percent::ZERO);

    let shown = window_json(WindowView { is_unlimited: true, ..window(none) });

    assert_eq!((&shown["unlimited"], &shown["used_percent"]), (&Value::Bool(true), &Value::Null));
}
