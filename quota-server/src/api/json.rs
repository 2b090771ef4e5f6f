//! The JSON of the gateway's own API. A field that changes its meaning raises the version of the path; a new field does not.

use std::time::Duration;

use jiff::Timestamp;
use quota::model::{Credits, Money, Rejected, Scope, Window};
use quota::record::Hold;
use quota::{AccountUsage, Freshness};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::served::Served;

/// All accounts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountsJson {
    /// The time of the answer.
    #[schema(format = DateTime)]
    now: String,
    /// In the order of the configuration.
    accounts: Vec<AccountJson>,
}

impl AccountsJson {
    pub(crate) fn of<'a>(
        now: Timestamp,
        accounts: impl IntoIterator<Item = (&'a Served, &'a AccountUsage)>,
    ) -> Self {
        let accounts = accounts.into_iter().map(|(served, usage)| AccountJson::of(served, usage));
        Self { now: now.to_string(), accounts: accounts.collect() }
    }
}

/// The accounts that have changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangesJson {
    /// The value of `after` for the next request.
    pub(crate) next: String,
    /// The changed accounts; all of them without a valid `after`. Empty if nothing has changed in time.
    pub(crate) accounts: Vec<AccountJson>,
}

/// One account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountJson {
    /// The provider and the name, such as `anthropic/main`.
    account: String,
    /// Whether the readings are fresh.
    state: StateJson,
    /// Since when they are stale.
    #[schema(format = DateTime)]
    stale_since: Option<String>,
    /// Why there are no newer ones, such as `on_hold`.
    stale_reason: Option<&'static str>,
    /// The age of the oldest reading.
    age_seconds: Option<u64>,
    /// The plan, as the provider names it.
    plan: Option<String>,
    /// The limits of the account, sorted by id.
    windows: Vec<WindowJson>,
    /// Money beyond the windows.
    credits: Option<CreditsJson>,
    /// Why no call is allowed now, and until when.
    hold: Option<HoldJson>,
    /// Why the last call of any process failed.
    last_failure: Option<FailureJson>,
    /// Why this process's last refresh failed.
    error: Option<String>,
    /// When a refresh may succeed, if none can succeed now.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// The calls of the last hour, by all processes.
    budget: BudgetJson,
    /// Since when the gateway runs without the store.
    #[schema(format = DateTime)]
    store_unavailable_since: Option<String>,
    /// Whether the account is shown, but never refreshed.
    disabled: bool,
}

/// Whether readings are fresh.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StateJson {
    Fresh,
    Stale,
}

/// One window.
#[derive(Debug, Serialize, ToSchema)]
struct WindowJson {
    /// The name, such as `five_hour` or `seven_day/opus`.
    id: String,
    /// How much is used; absent if it is unknown, or if the window has no limit.
    #[schema(minimum = 0)]
    used_percent: Option<f64>,
    /// `exact`, `at_least` or `unknown`.
    certainty: &'static str,
    /// Whether the window has no limit.
    unlimited: bool,
    /// When the window resets.
    #[schema(format = DateTime)]
    resets_at: Option<String>,
    /// The length of the window.
    length_seconds: Option<u64>,
    /// The time of the reading.
    #[schema(format = DateTime)]
    observed_at: String,
    /// The age of the reading.
    age_seconds: u64,
    /// Where the reading comes from, such as `poll` or `headers`.
    source: &'static str,
    /// What the window counts, if not everything.
    scope: Option<ScopeJson>,
}

/// The model or the product that a window counts.
#[derive(Debug, Serialize, ToSchema)]
struct ScopeJson {
    model: Option<String>,
    surface: Option<String>,
}

/// Money beyond the windows.
#[derive(Debug, Serialize, ToSchema)]
struct CreditsJson {
    enabled: Option<bool>,
    unlimited: Option<bool>,
    used: Option<MoneyJson>,
    limit: Option<MoneyJson>,
    balance: Option<MoneyJson>,
}

/// An amount: 2050 with the exponent 2 is 20.50.
#[derive(Debug, Serialize, ToSchema)]
struct MoneyJson {
    minor: i64,
    exponent: u8,
    currency: String,
}

/// Why no call is allowed.
#[derive(Debug, Serialize, ToSchema)]
struct HoldJson {
    #[schema(format = DateTime)]
    until: String,
    /// `rate_limited`, `provider_rate_limited`, `failing` or `budget_exhausted`.
    reason: String,
    /// The wait that the provider asked for.
    retry_after_seconds: Option<u64>,
}

/// A failed call.
#[derive(Debug, Serialize, ToSchema)]
struct FailureJson {
    /// The kind, such as `throttled` or `unauthorized`.
    kind: String,
    /// One line for people.
    message: String,
    #[schema(format = DateTime)]
    at: String,
}

/// The calls of the last hour.
#[derive(Debug, Serialize, ToSchema)]
struct BudgetJson {
    calls: usize,
    allowed: u32,
    left: usize,
    /// The part that only interactive callers may use.
    reserve: u32,
}

impl AccountJson {
    pub(crate) fn of(served: &Served, usage: &AccountUsage) -> Self {
        let now = usage.now();
        let (state, stale_since, stale_reason) = match usage.freshness() {
            Freshness::Stale { since, reason, .. } => {
                (StateJson::Stale, since.map(|at| at.to_string()), Some(reason.as_str()))
            }
            _ => (StateJson::Fresh, None, None),
        };
        let budget = usage.budget();
        let calls = usage.calls_in_last_hour();
        let windows = usage.snapshot().windows().iter();
        Self {
            account: served.id().to_string(),
            state,
            stale_since,
            stale_reason,
            age_seconds: usage.age().map(|age| age.as_secs()),
            plan: usage.snapshot().plan().map(str::to_owned),
            windows: windows.map(|window| WindowJson::of(window, usage.max_age(), now)).collect(),
            credits: usage.snapshot().credits().map(CreditsJson::of),
            hold: usage.hold().as_ref().map(HoldJson::of),
            last_failure: usage.last_failure().map(|failure| FailureJson {
                kind: word(&failure.kind),
                message: failure.message.clone(),
                at: failure.at.to_string(),
            }),
            error: usage.error().map(|error| error.cause()),
            next_attempt_at: usage
                .next_attempt_at()
                .filter(|at| *at != Timestamp::MAX)
                .map(|at| at.to_string()),
            budget: BudgetJson {
                calls,
                allowed: budget.per_hour,
                left: (budget.per_hour as usize).saturating_sub(calls),
                reserve: budget.interactive_reserve,
            },
            store_unavailable_since: served.store_unavailable_since(usage).map(|at| at.to_string()),
            disabled: served.is_disabled,
        }
    }
}

impl WindowJson {
    fn of(window: &Window, max_age: Duration, now: Timestamp) -> Self {
        let used = window.used_at(now, max_age);
        Self {
            id: window.id().to_string(),
            // Without a limit, no percentage is true.
            used_percent: used.lower_bound().filter(|_| !window.is_unlimited()).map(quota::Percent::as_f64),
            certainty: used.certainty(),
            unlimited: window.is_unlimited(),
            resets_at: window.resets_at().map(|at| at.to_string()),
            length_seconds: window.length().map(|length| length.as_secs()),
            observed_at: window.observed_at().to_string(),
            age_seconds: Duration::try_from(now.duration_since(window.observed_at()))
                .map_or(0, |age| age.as_secs()),
            source: window.source().as_str(),
            scope: window.scope().map(|Scope { model, surface, .. }| ScopeJson {
                model: model.as_deref().map(str::to_owned),
                surface: surface.as_deref().map(str::to_owned),
            }),
        }
    }
}

impl CreditsJson {
    fn of(credits: &Credits) -> Self {
        let money = |money: &Option<Money>| {
            money.as_ref().map(|money| MoneyJson {
                minor: money.minor,
                exponent: money.exponent,
                currency: money.currency.clone(),
            })
        };
        Self {
            enabled: credits.enabled,
            unlimited: credits.unlimited,
            used: money(&credits.used),
            limit: money(&credits.limit),
            balance: money(&credits.balance),
        }
    }
}

impl HoldJson {
    fn of(hold: &Hold) -> Self {
        let retry_after_seconds = hold.retry_after.map(|requested| requested.as_secs());
        Self { until: hold.until.to_string(), reason: word(&hold.reason), retry_after_seconds }
    }
}

/// The stored word of an enumeration.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "other".to_owned(),
    }
}

/// The outcome of a refresh.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefreshJson {
    /// Whether this request caused a call, and it succeeded.
    pub(crate) fetched: bool,
    /// When the call started that made a new one unnecessary.
    #[schema(format = DateTime)]
    pub(crate) called_at: Option<String>,
    /// Why there are no new readings.
    pub(crate) error: Option<String>,
    /// The account afterwards.
    pub(crate) account: AccountJson,
}

/// The response that another program got from a provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObserveJson {
    /// The account whose credential was used.
    pub(crate) account: String,
    /// The HTTP status.
    #[schema(minimum = 100, maximum = 599)]
    #[serde(deserialize_with = "whole")]
    pub(crate) status: u16,
    /// The headers of the response. Those without a limit are ignored.
    #[serde(default)]
    pub(crate) headers: std::collections::BTreeMap<String, String>,
}

/// Reads a whole number. JSON Schema, and languages without integers, also write it as `429.0`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    optional_whole(deserializer)?.ok_or_else(|| D::Error::custom("not a number"))
}

/// Reads a whole number or null.
pub(super) fn optional_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    match number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number) {
        true => Ok(Some(number as u16)),
        false => Err(D::Error::custom("not a whole number")),
    }
}

/// What the gateway learned from a response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ObservedJson {
    /// The windows that the response reported.
    pub(crate) windows: Vec<String>,
    /// The implausible values, which were not merged.
    pub(crate) rejected: Vec<RejectedJson>,
}

/// A value that was not merged.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RejectedJson {
    /// The window, or its reset.
    field: String,
    reason: &'static str,
}

impl RejectedJson {
    pub(crate) fn of(rejected: &Rejected) -> Self {
        Self { field: rejected.field(), reason: rejected.reason }
    }
}
