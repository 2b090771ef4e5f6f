//! The list at several terminal widths, without colors.

use quota::accounts::routing::{Eligibility, Reason, Role};
use quota::accounts::{AccountLimits, Evaluated, Limits};
use quota::{Percent, WindowId};

use super::*;
use crate::config::{AccountSettings, LoginSource};
use crate::view::fixtures::{assert_fits, local};
use crate::view::line::print;

fn evaluated(
    account: &AccountSettings,
    eligibility: Eligibility,
    reason: Reason,
    retry_at: Option<&str>,
) -> Evaluated {
    let mut evaluated = Evaluated::new(account.id.clone(), Role::Fallback, eligibility, reason);
    evaluated.retry_at = retry_at.map(|at| at.parse().unwrap());
    evaluated
}

fn at(width: usize) -> Vec<Line> {
    let account = |name: &str, login| AccountSettings::new(name.parse().unwrap(), login);
    let mut accounts = [
        account("anthropic/main", LoginSource::ClaudeCode),
        account("anthropic/work", LoginSource::ClaudeConfigDir("~/.claude-work".into())),
        account("anthropic/spare", LoginSource::TokenEnv("QUOTA_SPARE".into())),
        account("anthropic/vault", LoginSource::TokenCommand(vec!["pass".into(), "show".into()])),
        account("anthropic/odd", LoginSource::TokenEnv("sk-ant-oat01-made-up".into())),
    ];
    accounts[2].disabled = true;
    let percent = |percent| Percent::from_percent(percent).unwrap();
    let killswitch = Limits::of(percent(5.0)).window(WindowId::seven_day(), percent(12.5));
    accounts[3].limits =
        AccountLimits::none().min_remaining(Limits::of(percent(20.0))).killswitch(killswitch);
    let states = [
        evaluated(
            &accounts[0],
            Eligibility::Ineligible,
            Reason::QuotaExhausted,
            Some("2026-11-23T14:05:00Z"),
        ),
        evaluated(&accounts[1], Eligibility::Ineligible, Reason::LoginRejected, None),
        evaluated(&accounts[2], Eligibility::Ineligible, Reason::Disabled, None),
        evaluated(&accounts[3], Eligibility::Eligible, Reason::Available, None),
        evaluated(&accounts[4], Eligibility::Eligible, Reason::UnknownAllowed, None),
    ];
    let listed: Vec<_> = accounts
        .iter()
        .zip(&states)
        .map(|(settings, state)| AccountRow { settings, evaluated: Some(state) })
        .collect();
    lines(&listed, &local(), width)
}

#[test]
fn list_at_80_columns() {
    insta::assert_snapshot!(print(&at(80), false));
}

#[test]
fn list_at_120_columns() {
    insta::assert_snapshot!(print(&at(120), false));
}

#[test]
fn list_in_a_narrow_terminal() {
    insta::assert_snapshot!(print(&at(40), false));
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    for width in 20..=160 {
        assert_fits(&at(width), width);
    }
}

#[test]
fn json_has_the_same_accounts_and_limits_in_percent() {
    let mut account = AccountSettings::new("anthropic/main".parse().unwrap(), LoginSource::ClaudeCode);
    let limits = Limits::of(Percent::from_percent(5.0).unwrap());
    account.limits = AccountLimits::none().killswitch(limits.window(WindowId::seven_day(), Percent::FULL));
    let config = crate::config::Config::default_account();
    let listed = [AccountRow { settings: &account, evaluated: None }];

    let text = crate::commands::accounts::json::render(
        Some(std::path::Path::new("/c.toml")),
        &config,
        &listed,
        &local(),
    );

    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&document["accounts"]).unwrap());
}
