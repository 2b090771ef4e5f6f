//! The text of a decision at several terminal widths, without colors.

use std::time::Duration;

use quota::accounts::routing::{Choice, Eligibility, Reason, WindowUsage};
use quota::model::{Provenance, Source};
use quota::{Percent, Used, WindowId, WindowReading};

use super::*;
use crate::config::LoginSource;
use crate::view::fixtures::{HOUR, MINUTE, assert_fits, local};
use crate::view::line::print;

fn percent(percent: u32) -> Percent {
    Percent::from_basis_points(percent * 100)
}

fn window(id: WindowId, hours: u32, used: Used, resets_in: Duration) -> WindowUsage {
    let reading = WindowReading::new(id, used.lower_bound().unwrap_or(Percent::ZERO));
    let reading = reading.resets_at(local().now + resets_in).length(HOUR * hours);
    let window = reading.stamped(Provenance::new(local().now - MINUTE * 3, Source::Poll));
    WindowUsage::new(window, used, MINUTE * 3)
}

fn account(name: &str, eligibility: Eligibility, reason: Reason, windows: &[WindowUsage]) -> Evaluated {
    let role = if name.ends_with("main") { Role::Main } else { Role::Fallback };
    let mut account = Evaluated::new(name.parse().unwrap(), role, eligibility, reason);
    account.windows = windows.to_vec();
    account
}

/// Sets the window and the limit that the reason refers to.
fn with_reason_window(mut account: Evaluated, window: &WindowUsage, limit: Option<u32>) -> Evaluated {
    account.window = Some(window.window.id().clone());
    account.limit = limit.map(percent);
    if account.eligibility == Eligibility::Ineligible {
        account.retry_at = window.window.resets_at();
    }
    account
}

fn accounts() -> Vec<Evaluated> {
    let five_hour = |used| window(WindowId::five_hour(), 5, used, HOUR * 2 + MINUTE * 10);
    let seven_day = |used| window(WindowId::seven_day(), 168, used, HOUR * 70);
    let exhausted = five_hour(Used::Exact(percent(100)));
    let low = seven_day(Used::AtLeast(percent(84)));
    let killed = seven_day(Used::Exact(percent(97)));
    let ineligible = |name, reason, windows: &[_]| account(name, Eligibility::Ineligible, reason, windows);
    let available = |name, windows: &[_]| account(name, Eligibility::Eligible, Reason::Available, windows);
    let mut silent = ineligible("anthropic/silent", Reason::UnknownDenied, &[]);
    silent.not_refreshed = Some("the provider timed out".to_owned());
    let main_windows = [exhausted.clone(), seven_day(Used::Exact(percent(62)))];
    let low_windows = [five_hour(Used::AtLeast(percent(10))), low.clone()];
    let low_account = account("anthropic/low", Eligibility::LastResort, Reason::BelowMinimum, &low_windows);
    let killed_account =
        ineligible("anthropic/killed", Reason::BelowKillswitch, std::slice::from_ref(&killed));
    vec![
        with_reason_window(ineligible("anthropic/main", Reason::Exhausted, &main_windows), &exhausted, None),
        with_reason_window(low_account, &low, Some(20)),
        available("anthropic/work", &[five_hour(Used::Exact(percent(42))), seven_day(Used::Unknown)]),
        available("anthropic/other", &[five_hour(Used::Exact(percent(3)))]),
        with_reason_window(killed_account, &killed, Some(5)),
        ineligible("anthropic/dead", Reason::LoginRejected, &[]),
        ineligible("anthropic/off", Reason::Disabled, &[]),
        silent,
        ineligible("anthropic/later", Reason::UnknownDenied, &[]),
    ]
}

/// One account is exhausted, one low and one selected. The others are unavailable, each for another reason.
fn decision() -> Decision {
    Decision::new(local().now, Choice::use_account(2), accounts())
}

fn settings() -> Vec<AccountSettings> {
    let settings = accounts().into_iter();
    settings.map(|account| AccountSettings::new(account.account, LoginSource::ClaudeCode)).collect()
}

fn at(width: usize) -> String {
    print(&lines(&decision(), &settings(), &local(), width), false)
}

#[test]
fn decision_at_80_columns() {
    insta::assert_snapshot!(at(80));
}

#[test]
fn decision_at_120_columns() {
    insta::assert_snapshot!(at(120));
}

#[test]
fn decision_in_a_narrow_terminal() {
    insta::assert_snapshot!(at(44));
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    for width in 44..=160 {
        assert_fits(&lines(&decision(), &settings(), &local(), width), width);
    }
}

#[test]
fn plain_output_has_no_colors() {
    assert!(!at(80).contains('\u{1b}'));
    let colored = print(&lines(&decision(), &settings(), &local(), 80), true);
    assert!(colored.contains('\u{1b}'));
}

#[test]
fn without_an_available_account_the_next_available_one_is_shown() {
    let is_unavailable = |account: &Evaluated| {
        matches!(account.reason, Reason::Exhausted | Reason::BelowKillswitch | Reason::Disabled)
    };
    let accounts: Vec<_> = accounts().into_iter().filter(is_unavailable).collect();
    let choice = Choice::no_account(accounts[0].retry_at);
    let decision = Decision::new(local().now, choice, accounts);

    let lines = lines(&decision, &settings(), &local(), 120);

    assert_eq!(
        lines[0].text(),
        "no account available; next available: anthropic/main in 2 h 10 min (14:05)."
    );
}

#[test]
fn json_has_the_same_decision() {
    let accounts: Vec<_> = accounts().into_iter().take(3).collect();
    let decision = Decision::new(local().now, Choice::use_account(2), accounts);

    insta::assert_snapshot!(crate::view::decision_json::explain(&decision, None));
}
