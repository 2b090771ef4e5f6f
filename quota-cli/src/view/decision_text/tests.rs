//! The error lines if no account serves a request.

use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::routing::{Choice, Eligibility, Role, WindowUsage};
use quota::model::{Provenance, Source};
use quota::{Percent, Used, WindowReading};

use super::*;
use crate::config::LoginSource;
use crate::view::fixtures::local;

fn account(name: &str, reason: Reason, minutes: impl Into<Option<u64>>) -> Evaluated {
    let id = format!("anthropic/{name}").parse().unwrap();
    let role = if name == "main" { Role::Main } else { Role::Fallback };
    let mut account = Evaluated::new(id, role, Eligibility::Ineligible, reason);
    account.retry_at = minutes.into().map(|minutes| local().now + Duration::from_secs(60 * minutes));
    account
}

fn without_account(accounts: Vec<Evaluated>) -> Decision {
    let retry_at = accounts.iter().filter_map(|account| account.retry_at).min();
    Decision::new(local().now, Choice::no_account(retry_at), accounts)
}

fn line_of(decision: &Decision) -> (Exit, String) {
    let accounts = decision.accounts().iter();
    let settings: Vec<_> =
        accounts.map(|one| AccountSettings::new(one.account.clone(), LoginSource::ClaudeCode)).collect();
    (exit_of(decision), no_account(decision, &settings, &local()))
}

fn line(accounts: Vec<Evaluated>) -> (Exit, String) {
    line_of(&without_account(accounts))
}

fn reason_of(account: &Evaluated) -> String {
    account_reason(account, "log in again", &local())
}

#[test]
fn a_single_account_is_named_with_its_reason() {
    let rejected = line(vec![account("main", Reason::LoginRejected, None)]);
    let exhausted = line(vec![account("main", Reason::QuotaExhausted, 10)]);

    assert_eq!(rejected.0, Exit::Unavailable);
    assert!(rejected.1.starts_with("anthropic/main: login rejected; log in again: "), "{}", rejected.1);
    let words = "anthropic/main: exhausted (rejected by the provider), resets in 10 min (12:05)";
    assert_eq!(exhausted, (Exit::Incomplete, words.to_owned()));
}

#[test]
fn an_account_with_the_login_of_another_names_it() {
    let mut again = account("again", Reason::SameLogin, None);
    again.same_login_as = Some("anthropic/main".parse().unwrap());

    assert_eq!(reason_of(&again), "same login as anthropic/main");
}

#[test]
fn if_all_accounts_are_disabled_the_enable_command_is_printed() {
    let off = |name| account(name, Reason::Disabled, None);

    let one = "anthropic/main is disabled; enable it with: quota accounts enable anthropic/main";
    assert_eq!(line(vec![off("main")]), (Exit::NoAccount, one.to_owned()));
    let several = "all accounts are disabled; enable one with: quota accounts enable anthropic/main";
    assert_eq!(line(vec![off("main"), off("work")]), (Exit::NoAccount, several.to_owned()));
}

#[test]
fn a_pending_reset_is_shown_with_the_next_refresh() {
    let (now, seconds) = (local().now, Duration::from_secs);
    let mut account = about(account("main", Reason::UnknownDenied, None), opus(0, Some(now - seconds(3))));
    account.refresh_at = Some(now + seconds(12));

    let (exit, line) = line(vec![account]);

    assert_eq!(exit, Exit::Unavailable);
    assert!(line.starts_with("anthropic/main: 7-day Opus"), "{line}");
    let words = ": reset at 11:54:57, next refresh in 12 s (11:55:12); use --unknown allow to proceed anyway";
    assert!(line.ends_with(words), "{line}");
}

fn opus(used: u32, resets_at: Option<Timestamp>) -> WindowUsage {
    let used = Percent::from_basis_points(used);
    let reading = WindowReading::new("seven_day/opus".parse().unwrap(), used).resets_at(resets_at);
    let age = Duration::from_secs(60);
    let window = reading.stamped(Provenance::new(local().now - age, Source::Poll));
    WindowUsage::new(window, Used::Exact(used), age)
}

fn about(mut account: Evaluated, usage: WindowUsage) -> Evaluated {
    account.window = Some(usage.window.id().clone());
    account.windows = vec![usage];
    account
}

#[test]
fn usage_exactly_at_the_killswitch_is_described_as_at_it() {
    let text = |used| {
        let mut account = about(account("main", Reason::BelowKillswitch, None), opus(used, None));
        account.limit = Some(Percent::from_basis_points(500));
        reason_of(&account)
    };

    assert!(text(9500).ends_with("at the killswitch of 5 %"), "{}", text(9500));
    assert!(text(9600).ends_with("below the killswitch of 5 %"), "{}", text(9600));
}

#[test]
fn a_window_without_a_reading_is_named() {
    let mut account = account("main", Reason::UnknownDenied, None);
    account.window = Some("seven_day/opus".parse().unwrap());

    assert_eq!(reason_of(&account), "seven_day/opus: no data");
}

#[test]
fn the_next_available_account_of_several_is_named() {
    let accounts = vec![
        account("main", Reason::QuotaExhausted, 90),
        account("work", Reason::Throttled, 10),
        account("dead", Reason::LoginRejected, None),
    ];

    let words = "no account available; next available: anthropic/work in 10 min (12:05)";
    assert_eq!(line(accounts), (Exit::Incomplete, words.to_owned()));
}

#[test]
fn a_block_until_the_maximum_time_is_shown() {
    let mut forever = account("main", Reason::QuotaExhausted, None);
    forever.retry_at = Some(Timestamp::MAX);

    let (_, line) = line(vec![forever.clone(), account("work", Reason::Disabled, None)]);

    assert!(line.ends_with("(9999-12-30)"), "{line}");
    assert!(reason_of(&forever).ends_with("(9999-12-30)"));
}

#[test]
fn an_account_without_data_explains_more_than_an_exhausted_one() {
    let mut no_data = account("work", Reason::UnknownDenied, None);
    no_data.not_refreshed = Some("the provider timed out".to_owned());

    let (exit, line) = line(vec![account("main", Reason::QuotaExhausted, 90), no_data]);

    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(
        line,
        "no usable account; anthropic/work: no data (the provider timed out); \
         use --unknown allow to proceed anyway; details: quota explain"
    );
}

#[test]
fn an_unreadable_login_may_be_available_again() {
    let mut locked = account("work", Reason::CredentialUnavailable, 1);
    locked.not_refreshed = Some("the keychain is locked".to_owned());

    let (exit, line) = line(vec![account("main", Reason::QuotaExhausted, 90), locked]);

    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(
        line,
        "no usable account; anthropic/work: login unreadable, retry in 1 min (11:56) \
         (the keychain is locked); details: quota explain"
    );
}

#[test]
fn a_session_that_waits_names_its_account() {
    let accounts = vec![account("main", Reason::QuotaExhausted, 1), account("work", Reason::Disabled, None)];
    let until = accounts[0].retry_at.unwrap();
    let decision = Decision::new(local().now, Choice::wait(0, until), accounts);

    let words = "the session waits for anthropic/main, available in 1 min (11:56)";
    assert_eq!(line_of(&decision), (Exit::Incomplete, words.to_owned()));
}

#[test]
fn an_error_text_cannot_control_the_terminal() {
    let mut no_data = account("main", Reason::UnknownDenied, None);
    no_data.not_refreshed = Some("a\u{1b}[2Jb".to_owned());

    assert!(!reason_of(&no_data).contains('\u{1b}'));
}
