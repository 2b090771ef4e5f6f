//! The text at several terminal widths, without colors.

use std::time::Duration;

use jiff::Timestamp;
use quota::manager::StaleReason;
use quota::model::{Credits, Money, Scope};
use quota::record::{Hold, HoldReason};
use quota::{Percent, Used};

use super::super::account::{FailureView, ViewFreshness, on_hold};
use super::super::fixtures::{HOUR, MINUTE, account, local, window};
use super::*;
use crate::term::Screen;

fn after(duration: Duration) -> Timestamp {
    local().now + duration
}

fn render(accounts: &[AccountView], width: usize) -> String {
    Screen::DEFAULT.show(&lines(accounts, &local(), width))
}

fn percent(percent: f64) -> Percent {
    Percent::from_percent(percent).unwrap()
}

fn exact(used: f64) -> Used {
    Used::Exact(percent(used))
}

fn of_model(model: &str, used: Used, resets_in: Duration) -> WindowView {
    let id = format!("seven_day/{}", model.to_lowercase());
    WindowView { scope: Some(Scope::model(model)), ..window(&id, used, resets_in) }
}

fn failed(name: &str, why: &str, advice: Option<&str>) -> AccountView {
    let failure = FailureView { why: why.to_owned(), advice: advice.map(Into::into) };
    let state = ViewFreshness::Stale { since: None, why: StaleReason::NeverRead };
    AccountView { state, failure: Some(failure), age: None, ..account(name, Vec::new()) }
}

/// Accounts with every kind of line.
fn all_kinds() -> Vec<AccountView> {
    let mut money = Credits::default();
    money.used = Some(Money::new(2050, "EUR", 2));
    money.limit = Some(Money::new(4000, "EUR", 2));
    let main = AccountView {
        plan: Some("max 20x".to_owned()),
        credits: Some(money),
        ..account(
            "anthropic/main",
            vec![
                window("five_hour", exact(62.5), MINUTE * 130),
                window("seven_day", exact(91.0), HOUR * 70),
                of_model("Fable", exact(104.2), HOUR * 70),
            ],
        )
    };
    let untouched = account(
        "anthropic/untouched",
        vec![window("five_hour", exact(0.0), None), window("seven_day", exact(3.0), HOUR * 160)],
    );
    let on_hold = AccountView {
        state: ViewFreshness::Stale { since: Some(local().now - MINUTE), why: StaleReason::OnHold },
        hold: Some(Hold::new(local().now, after(MINUTE * 4), HoldReason::ProviderRateLimited)),
        ..account(
            "anthropic/old",
            vec![
                window("five_hour", Used::Unknown, None),
                window("seven_day", Used::AtLeast(percent(41.0)), HOUR * 30),
            ],
        )
    };
    let rejected =
        failed("anthropic/dead", "login rejected (401)", Some("log in again: run `claude`, then /login"));
    vec![main, untouched, on_hold, rejected]
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

#[test]
fn an_unlimited_window_has_no_percentage() {
    let window = WindowView { is_unlimited: true, ..window("monthly", exact(0.0), None) };

    let text = render(&[account("openai/main", vec![window])], 80);

    assert!(text.contains("unlimited") && !text.contains('%') && !text.contains("not started"), "{text}");
}

#[test]
fn everything_at_eighty_columns() {
    insta::assert_snapshot!(render(&all_kinds(), 80));
}

#[test]
fn everything_at_sixty_columns() {
    insta::assert_snapshot!(render(&all_kinds(), 60));
}

#[test]
fn everything_at_a_hundred_and_twenty_columns() {
    insta::assert_snapshot!(render(&all_kinds(), 120));
}

#[test]
fn no_line_is_wider_than_the_terminal_from_42_columns() {
    for width in 42..=200 {
        let text = render(&all_kinds(), width);
        assert!(widest(&text) <= width, "{width}:\n{text}");
    }
}

#[test]
fn a_long_account_name_is_truncated() {
    let name = format!("anthropic/{}", "x".repeat(120));

    let text = render(&[account(&name, Vec::new())], 80);

    assert!(widest(&text) <= 80, "{text}");
    assert!(text.starts_with("anthropic/xxx"));
}

#[test]
fn a_long_model_name_is_truncated_before_the_usage() {
    let window = of_model(&"long ".repeat(20), exact(50.0), HOUR * 70);

    let text = render(&[account("anthropic/main", vec![window])], 80);

    assert!(widest(&text) <= 80 && text.contains("50 %  resets in 2 d 22 h"), "{text}");
}

#[test]
fn a_name_from_a_provider_cannot_control_the_terminal() {
    let window = of_model("a\u{1b}[2Jb", exact(50.0), HOUR);

    let text = render(&[account("anthropic/main", vec![window])], 80);

    assert!(!text.contains('\u{1b}') && text.contains("7-day a?[2Jb"), "{text}");
}

#[test]
fn colored_output_has_the_same_text() {
    let colored = Screen { color: true, ..Screen::DEFAULT }.show(&lines(&all_kinds(), &local(), 80));

    let stripped = anstream::adapter::strip_str(&colored).to_string();
    assert_ne!(colored, stripped);
    assert_eq!(stripped, render(&all_kinds(), 80));
}

#[test]
fn a_past_reset_is_shown_with_its_time() {
    let window =
        WindowView { resets_at: Some(local().now - MINUTE * 5), ..window("five_hour", Used::Unknown, None) };

    let text = render(&[account("anthropic/main", vec![window])], 80);

    assert!(text.contains("unknown  reset 5 min ago (11:50)"), "{text}");
}

#[test]
fn a_reset_beyond_the_windows_length_has_no_tick() {
    let text = render(&[account("anthropic/main", vec![window("five_hour", exact(0.0), HOUR * 6)])], 80);

    assert!(!text.contains('┼'), "{text}");
}

#[test]
fn a_stale_account_shows_the_age_of_its_readings() {
    let state = ViewFreshness::Stale { since: None, why: StaleReason::Failing };

    let (text, _) = freshness(&AccountView { state, ..account("anthropic/main", vec![]) });

    assert_eq!(text, "stale, read 2 min ago");
}

#[test]
fn a_disabled_account_shows_no_retry() {
    let hold = Hold::new(local().now, after(MINUTE * 4), HoldReason::RateLimited);
    let not_refreshed = Some(on_hold(&hold));
    let held = AccountView { hold: Some(hold), ..account("anthropic/off", vec![]) };

    let disabled = render(&[AccountView { disabled: true, not_refreshed, ..held.clone() }], 80);

    assert!(render(&[held], 80).contains("retrying in 4 min"));
    assert_eq!(disabled.lines().count(), 1, "{disabled}");
}

#[test]
fn credits_show_the_known_amounts() {
    let euros = |minor| Some(Money::new(minor, "EUR", 2));
    let mut used = Credits::default();
    used.used = euros(763);
    let mut limited = used.clone();
    limited.limit = euros(4000);
    let mut off = Credits::default();
    off.enabled = Some(false);
    let mut out = Credits::default();
    out.used = euros(42);
    out.balance = euros(0);
    out.disabled_reason = Some("out_of_credits".to_owned());

    let texts = [&Credits::default(), &used, &limited, &off, &out].map(money);

    let expected = [
        None,
        Some("extra usage: 7.63 EUR"),
        Some("extra usage: 7.63 of 40.00 EUR"),
        Some("extra usage: off"),
        Some("extra usage: 0.42 EUR, 0.00 EUR left, off (out of credits)"),
    ];
    assert_eq!(texts.each_ref().map(Option::as_deref), expected);
}
