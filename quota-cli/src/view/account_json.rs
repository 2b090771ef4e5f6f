//! The JSON of `quota status`, described in docs/status-json.md.
//! A field that changes its meaning raises the version; a new field does not.

use quota::model::{Credits, IgnoredField, Money, Scope};
use quota::record::LastFailureKind;
use serde::Serialize;

use super::account::{AccountView, ViewFreshness, WindowView};
use super::json;
use super::reason::Reason;
use crate::format::{LocalTime, between, rfc3339};

const VERSION: u32 = 2;

/// The document, with a line break at its end.
pub(crate) fn render(accounts: &[AccountView], local: &LocalTime) -> String {
    document(accounts, None, local)
}

/// The document if the configuration or the store cannot be used.
pub(crate) fn render_broken(accounts: &[AccountView], reason: Reason, local: &LocalTime) -> String {
    document(accounts, Some(reason), local)
}

fn document(accounts: &[AccountView], error: Option<Reason>, local: &LocalTime) -> String {
    let accounts = accounts.iter().map(|account| AccountViewJson::of(account, local)).collect();
    let document =
        StatusJson { version: VERSION, now: rfc3339(local.now), error: error.map(Reason::word), accounts };
    json::pretty(&document)
}

#[derive(Serialize)]
struct StatusJson<'a> {
    version: u32,
    now: String,
    error: Option<String>,
    accounts: Vec<AccountViewJson<'a>>,
}

#[derive(Serialize)]
struct AccountViewJson<'a> {
    account: &'a str,
    state: &'static str,
    stale_since: Option<String>,
    stale_reason: Option<&'static str>,
    reason: Option<String>,
    age_seconds: Option<u64>,
    plan: Option<&'a str>,
    windows: Vec<WindowViewJson<'a>>,
    credits: Option<CreditsJson<'a>>,
    /// Only if the last response had such fields.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ignored: &'a [IgnoredField],
    hold: Option<HoldJson>,
    last_failure: Option<LastFailureJson<'a>>,
    error: Option<&'a str>,
    not_refreshed: Option<&'a str>,
    called_at: Option<String>,
    disabled: bool,
}

/// One window.
#[derive(Serialize)]
pub(crate) struct WindowViewJson<'a> {
    id: &'a str,
    used_percent: Option<f64>,
    certainty: &'static str,
    /// Only if the window has no limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unlimited: bool,
    resets_at: Option<String>,
    resets_in_seconds: Option<u64>,
    observed_at: String,
    age_seconds: u64,
    source: &'static str,
    scope: Option<ScopeJson<'a>>,
    length_seconds: Option<u64>,
}

#[derive(Serialize)]
struct HoldJson {
    until: String,
    reason: quota::record::HoldReason,
    retry_after_seconds: Option<u64>,
}

impl HoldJson {
    fn of(hold: &quota::record::Hold) -> Self {
        let retry_after_seconds = hold.retry_after.map(|requested| requested.as_secs());
        Self { until: rfc3339(hold.until), reason: hold.reason, retry_after_seconds }
    }
}

#[derive(Serialize)]
struct LastFailureJson<'a> {
    kind: LastFailureKind,
    message: &'a str,
    at: String,
}

/// The model or surface whose usage a window counts, unless it counts all usage.
#[derive(Serialize)]
pub(crate) struct ScopeJson<'a> {
    model: Option<&'a str>,
    surface: Option<&'a str>,
}

/// Paid usage beyond the windows.
#[derive(Serialize)]
pub(crate) struct CreditsJson<'a> {
    enabled: Option<bool>,
    used: Option<MoneyJson<'a>>,
    limit: Option<MoneyJson<'a>>,
    /// Only if the provider states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlimited: Option<bool>,
    balance: Option<MoneyJson<'a>>,
    disabled_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct MoneyJson<'a> {
    minor: i64,
    exponent: u8,
    currency: &'a str,
}

impl<'a> AccountViewJson<'a> {
    fn of(account: &'a AccountView, local: &LocalTime) -> Self {
        let (state, stale_since, stale_reason) = match account.state {
            ViewFreshness::Fresh => ("fresh", None, None),
            ViewFreshness::Stale { since, why } => ("stale", since.map(rfc3339), Some(why.as_str())),
        };
        Self {
            account: account.id.as_str(),
            state,
            stale_since,
            stale_reason,
            reason: account.reason.map(Reason::word),
            age_seconds: account.age.map(|age| age.as_secs()),
            plan: account.plan.as_deref(),
            windows: account.windows.iter().map(|window| WindowViewJson::of(window, local)).collect(),
            credits: account.credits.as_ref().map(CreditsJson::of),
            ignored: &account.ignored,
            hold: account.hold.as_ref().map(HoldJson::of),
            last_failure: account.last_failure.as_ref().map(|failure| LastFailureJson {
                kind: failure.kind,
                message: &failure.message,
                at: rfc3339(failure.at),
            }),
            error: account.failure.as_ref().map(|failure| &*failure.why),
            not_refreshed: account.not_refreshed.as_deref(),
            called_at: account.called_at.map(rfc3339),
            disabled: account.disabled,
        }
    }
}

impl<'a> WindowViewJson<'a> {
    pub(crate) fn of(window: &'a WindowView, local: &LocalTime) -> Self {
        Self {
            id: &window.id,
            // Without a limit, no percentage is true.
            used_percent: window
                .used
                .lower_bound()
                .filter(|_| !window.is_unlimited)
                .map(quota::Percent::as_f64),
            certainty: window.used.certainty(),
            unlimited: window.is_unlimited,
            resets_at: window.resets_at.map(rfc3339),
            resets_in_seconds: window
                .resets_at
                .filter(|reset| *reset > local.now)
                .map(|reset| between(local.now, reset).as_secs()),
            observed_at: rfc3339(window.observed_at),
            age_seconds: between(window.observed_at, local.now).as_secs(),
            source: window.source.as_str(),
            scope: window.scope.as_ref().map(ScopeJson::of),
            length_seconds: window.length.map(|length| length.as_secs()),
        }
    }
}

impl<'a> ScopeJson<'a> {
    pub(crate) fn of(scope: &'a Scope) -> Self {
        Self { model: scope.model.as_deref(), surface: scope.surface.as_deref() }
    }
}

impl<'a> CreditsJson<'a> {
    pub(crate) fn of(credits: &'a Credits) -> Self {
        let money = |money: &'a Option<Money>| {
            money.as_ref().map(|money| MoneyJson {
                minor: money.minor,
                exponent: money.exponent,
                currency: &money.currency,
            })
        };
        Self {
            enabled: credits.enabled,
            used: money(&credits.used),
            limit: money(&credits.limit),
            unlimited: credits.unlimited,
            balance: money(&credits.balance),
            disabled_reason: credits.disabled_reason.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests;
