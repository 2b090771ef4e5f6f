//! The JSON of `quota accounts list`, which docs/accounts-json.md describes.
//! The version number rises if a field changes its meaning, but not for a new field.

use std::collections::BTreeMap;
use std::path::Path;

use quota::accounts::Limits;
use quota::{AccountId, Percent, WindowId};
use serde::Serialize;

use super::text::AccountRow;
use crate::config::{self, Config, Origin};
use crate::format::{LocalTime, rfc3339};
use crate::view::json;

/// Renders the document with a final line break.
pub(super) fn render(
    named: Option<&Path>,
    config: &Config,
    accounts: &[AccountRow<'_>],
    local: &LocalTime,
) -> String {
    let document = AccountsJson {
        version: 3,
        now: rfc3339(local.now),
        config: config.path.as_ref().map(|path| path.display().to_string()),
        file: config::path(named).ok().map(|path| path.display().to_string()),
        accounts: accounts.iter().enumerate().map(|(at, account)| AccountRowJson::of(at, account)).collect(),
        unusable: config.unusable.iter().map(|id| id.as_str()).collect(),
    };
    json::pretty(&document)
}

#[derive(Serialize)]
struct AccountsJson<'a> {
    version: u32,
    now: String,
    config: Option<String>,
    file: Option<String>,
    accounts: Vec<AccountRowJson<'a>>,
    unusable: Vec<&'a str>,
}

#[derive(Serialize)]
struct AccountRowJson<'a> {
    account: &'a str,
    role: &'static str,
    disabled: bool,
    login: LoginJson,
    origin: &'static str,
    line: Option<usize>,
    base_url: Option<&'a str>,
    min_remaining: Option<LimitsJson<'a>>,
    killswitch: Option<LimitsJson<'a>>,
    eligibility: Option<&'static str>,
    reason: Option<&'static str>,
    same_login_as: Option<&'a str>,
    window: Option<&'a str>,
    retry_at: Option<String>,
}

#[derive(Serialize)]
struct LoginJson {
    kind: &'static str,
    name: Option<String>,
}

#[derive(Serialize)]
struct LimitsJson<'a> {
    every_percent: Option<f64>,
    windows_percent: BTreeMap<&'a str, f64>,
}

impl<'a> LimitsJson<'a> {
    fn of(limits: &'a Limits) -> Self {
        let windows = limits.windows().map(|(window, left)| (window.as_str(), left.as_f64()));
        Self {
            every_percent: limits.default_limit().map(Percent::as_f64),
            windows_percent: windows.collect(),
        }
    }
}

impl<'a> AccountRowJson<'a> {
    fn of(at: usize, listed: &AccountRow<'a>) -> Self {
        let AccountRow { settings, evaluated } = listed;
        let (kind, name) = settings.login.kind();
        let (origin, line) = match settings.origin {
            Origin::Default => ("default", None),
            Origin::Configured { line } => ("config", Some(line)),
            Origin::OldFile => ("added", None),
        };
        Self {
            account: settings.id.as_str(),
            role: if at == 0 { "main" } else { "fallback" },
            disabled: settings.disabled,
            login: LoginJson { kind, name },
            origin,
            line,
            base_url: settings.base_url.as_ref().map(url::Url::as_str),
            min_remaining: settings.limits.min_remaining.as_ref().map(LimitsJson::of),
            killswitch: settings.limits.killswitch.as_ref().map(LimitsJson::of),
            eligibility: evaluated.map(|evaluated| evaluated.eligibility.as_str()),
            reason: evaluated.map(|evaluated| evaluated.reason.as_str()),
            same_login_as: evaluated
                .and_then(|evaluated| evaluated.same_login_as.as_ref())
                .map(AccountId::as_str),
            window: evaluated.and_then(|evaluated| evaluated.window.as_ref()).map(WindowId::as_str),
            retry_at: evaluated.and_then(|evaluated| evaluated.retry_at).map(rfc3339),
        }
    }
}
