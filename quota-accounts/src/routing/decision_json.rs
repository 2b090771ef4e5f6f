//! The JSON of a decision. Its fields are documented at [`Decision`].

use jiff::Timestamp;
use quota_core::{AccountId, Percent};
use serde::{Serialize, Serializer};

use super::Role;
use super::decision::{Decision, Evaluated, WindowUsage, seconds, whole_seconds};

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let now = self.now();
        DecisionJson {
            now: seconds(now),
            account: self.chosen().map(|account| account.account.as_str()),
            waits_for: self.awaited().map(|account| account.account.as_str()),
            retry_after_seconds: self.retry_after().map(whole_seconds),
            accounts: self.accounts().iter().map(|account| EvaluatedJson::of(account, now)).collect(),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
struct DecisionJson<'a> {
    now: String,
    account: Option<&'a str>,
    waits_for: Option<&'a str>,
    retry_after_seconds: Option<u64>,
    accounts: Vec<EvaluatedJson<'a>>,
}

#[derive(Serialize)]
struct EvaluatedJson<'a> {
    account: &'a str,
    role: &'static str,
    eligibility: &'static str,
    reason: &'static str,
    same_login_as: Option<&'a str>,
    window: Option<&'a str>,
    limit_percent: Option<f64>,
    retry_at: Option<String>,
    not_refreshed: Option<&'a str>,
    windows: Vec<WindowUsageJson<'a>>,
}

#[derive(Serialize)]
struct WindowUsageJson<'a> {
    id: &'a str,
    used_percent: Option<f64>,
    certainty: &'static str,
    resets_at: Option<String>,
    resets_in_seconds: Option<u64>,
    observed_at: String,
    age_seconds: u64,
    source: &'static str,
    scope: Option<WindowScopeJson<'a>>,
    length_seconds: Option<u64>,
}

#[derive(Serialize)]
struct WindowScopeJson<'a> {
    model: Option<&'a str>,
    surface: Option<&'a str>,
}

impl<'a> EvaluatedJson<'a> {
    fn of(account: &'a Evaluated, now: Timestamp) -> Self {
        Self {
            account: account.account.as_str(),
            role: match account.role {
                Role::Main => "main",
                Role::Fallback => "fallback",
            },
            eligibility: account.eligibility.as_str(),
            reason: account.reason.as_str(),
            same_login_as: account.same_login_as.as_ref().map(AccountId::as_str),
            window: account.window.as_ref().map(|window| window.as_str()),
            limit_percent: account.limit.map(Percent::as_f64),
            retry_at: account.retry_at.map(seconds),
            not_refreshed: account.not_refreshed.as_deref(),
            windows: account.windows.iter().map(|usage| WindowUsageJson::of(usage, now)).collect(),
        }
    }
}

impl<'a> WindowUsageJson<'a> {
    fn of(usage: &'a WindowUsage, now: Timestamp) -> Self {
        let window = &usage.window;
        // `None` if the reset has passed.
        let resets_in =
            window.resets_at().and_then(|at| u64::try_from(at.duration_since(now).as_secs()).ok());
        Self {
            id: window.id().as_str(),
            used_percent: usage.used.lower_bound().map(Percent::as_f64),
            certainty: usage.used.certainty(),
            resets_at: window.resets_at().map(seconds),
            resets_in_seconds: resets_in.filter(|_| window.resets_at() > Some(now)),
            observed_at: seconds(window.observed_at()),
            age_seconds: usage.age.as_secs(),
            source: window.source().as_str(),
            scope: window.scope().map(|scope| WindowScopeJson {
                model: scope.model.as_deref(),
                surface: scope.surface.as_deref(),
            }),
            length_seconds: window.length().map(|length| length.as_secs()),
        }
    }
}
