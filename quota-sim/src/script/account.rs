//! The settings of one simulated account. `check` validates them together.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::{optional as optional_span, required as span};
use serde::{Deserialize, Deserializer};

use super::{Phase, Window};

/// One account of the simulated provider.
///
/// ```
/// use std::time::Duration;
/// use quota_sim::{Account, Answer, Phase, Window};
///
/// let account = Account::new("main")
///     .windows([Window::five_hour().used(35.0), Window::seven_day()])
///     .answers([Phase::new(Answer::Hang).until(Duration::from_secs(20))])
///     .budget(None);
/// assert_eq!(account.token(), "sim-token-main");
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub(super) name: String,
    #[serde(default = "default_provider")]
    provider: String,
    pub(super) token: Option<String>,
    refresh_token: Option<String>,
    organization: Option<String>,
    pub(crate) plan: Option<String>,
    #[serde(default = "default_windows")]
    pub(crate) windows: Vec<Window>,
    #[serde(default = "default_budget", deserialize_with = "number_or_none")]
    pub(crate) budget: Option<u32>,
    #[serde(default)]
    pub(crate) budget_answer: BudgetAnswer,
    #[serde(default)]
    pub(crate) answers: Vec<Phase>,
    #[serde(default, with = "span")]
    pub(crate) latency: Duration,
    pub(crate) extra_usage: Option<ExtraUsage>,
    #[serde(default, with = "optional_span")]
    pub(crate) token_ttl: Option<Duration>,
    #[serde(default, with = "span")]
    pub(crate) reuse_grace: Duration,
}

/// The providers that can be simulated.
pub(crate) const PROVIDERS: [&str; 13] = [
    "anthropic",
    "openai",
    "zai",
    "kimi",
    "minimax",
    "gemini",
    "antigravity",
    "copilot",
    "openrouter",
    "deepseek",
    "litellm",
    "cursor",
    "xai",
];

fn default_provider() -> String {
    PROVIDERS[0].to_owned()
}

fn default_windows() -> Vec<Window> {
    vec![Window::five_hour(), Window::seven_day()]
}

#[expect(clippy::unnecessary_wraps, reason = "serde requires the type of the field")]
fn default_budget() -> Option<u32> {
    Some(30)
}

impl Account {
    /// Creates an account with a budget of 30 calls per hour, an unused five-hour window and an unused seven-day window.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            provider: default_provider(),
            token: None,
            refresh_token: None,
            organization: None,
            plan: None,
            windows: default_windows(),
            budget: default_budget(),
            budget_answer: BudgetAnswer::default(),
            answers: Vec::new(),
            latency: Duration::ZERO,
            extra_usage: None,
            token_ttl: None,
            reuse_grace: Duration::ZERO,
        }
    }

    /// Sets the provider: `anthropic` (the default), or another one of [`providers`](crate::providers).
    #[must_use]
    pub fn provider(mut self, provider: impl Into<String>) -> Self {
        self.provider = provider.into();
        self
    }

    /// The provider.
    #[must_use]
    pub fn provider_name(&self) -> &str {
        &self.provider
    }

    /// Sets the access token. It must start with `sim-`, so that a real token is rejected.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the refresh token. It must also start with `sim-`.
    #[must_use]
    pub fn with_refresh_token(mut self, token: impl Into<String>) -> Self {
        self.refresh_token = Some(token.into());
        self
    }

    /// Sets how long access tokens are valid, in simulated time. This applies to the first token too.
    ///
    /// By default the first token never expires, and later ones expire after eight hours.
    #[must_use]
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.token_ttl = Some(ttl);
        self
    }

    /// Sets how long a used refresh token still returns the same tokens, in simulated time, for clients that lost the
    /// response. The default is zero.
    #[must_use]
    pub fn reuse_grace(mut self, grace: Duration) -> Self {
        self.reuse_grace = grace;
        self
    }

    /// Sets the organization id in responses.
    #[must_use]
    pub fn with_organization(mut self, organization: impl Into<String>) -> Self {
        self.organization = Some(organization.into());
        self
    }

    /// Sets the plan, under the name that the provider uses, such as `claude_max` or `claude_team`.
    #[must_use]
    pub fn plan(mut self, plan: impl Into<String>) -> Self {
        self.plan = Some(plan.into());
        self
    }

    /// Replaces the windows.
    #[must_use]
    pub fn windows(mut self, windows: impl IntoIterator<Item = Window>) -> Self {
        self.windows = windows.into_iter().collect();
        self
    }

    /// Sets how many calls the usage endpoint answers in any trailing hour; `None` for no limit.
    ///
    /// Calls that a phase of the script answers do not count.
    #[must_use]
    pub fn budget(mut self, per_hour: impl Into<Option<u32>>) -> Self {
        self.budget = per_hour.into();
        self
    }

    /// Sets the answer to a call beyond the budget.
    #[must_use]
    pub fn budget_answer(mut self, answer: BudgetAnswer) -> Self {
        self.budget_answer = answer;
        self
    }

    /// Replaces the phases of the script. If two phases overlap, the first applies.
    #[must_use]
    pub fn answers(mut self, phases: impl IntoIterator<Item = Phase>) -> Self {
        self.answers = phases.into_iter().collect();
        self
    }

    /// Sets the latency of every response, in real time.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sets the extra usage beyond the windows.
    #[must_use]
    pub fn extra_usage(mut self, extra_usage: impl Into<Option<ExtraUsage>>) -> Self {
        self.extra_usage = extra_usage.into();
        self
    }

    /// The account's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The access token: `sim-token-<name>` by default.
    #[must_use]
    pub fn token(&self) -> Cow<'_, str> {
        or_default(self.token.as_deref(), "sim-token-", &self.name)
    }

    /// The refresh token: `sim-refresh-<name>` by default.
    #[must_use]
    pub fn refresh_token(&self) -> Cow<'_, str> {
        or_default(self.refresh_token.as_deref(), "sim-refresh-", &self.name)
    }

    /// The organization id: `sim-org-<name>` by default.
    #[must_use]
    pub fn organization(&self) -> Cow<'_, str> {
        or_default(self.organization.as_deref(), "sim-org-", &self.name)
    }

    /// The environment variable for the token in [`client_config`](crate::Script::client_config).
    pub(super) fn env_name(&self) -> String {
        format!("QUOTA_SIM_{}", self.name.to_uppercase().replace(['-', '.'], "_"))
    }
}

fn or_default<'a>(set: Option<&'a str>, prefix: &str, name: &str) -> Cow<'a, str> {
    set.map_or_else(|| format!("{prefix}{name}").into(), Cow::Borrowed)
}

/// The answer to a call beyond the budget. Providers send these two kinds of 429.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BudgetAnswer {
    /// `Retry-After: 0`. The rejected call counts too, so a client that keeps calling stays blocked.
    #[default]
    Zero,
    /// A block of one hour. `Retry-After` counts down to its end, and further calls do not extend it.
    Deadline,
}

/// The extra usage of an account beyond its windows, in minor units: 2050 is 20.50.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraUsage {
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) used_minor: u64,
    pub(crate) limit_minor: Option<u64>,
    #[serde(default = "dollars")]
    pub(crate) currency: String,
}

fn yes() -> bool {
    true
}

fn dollars() -> String {
    "USD".to_owned()
}

impl ExtraUsage {
    /// Sets the used amount and the limit; `None` for no limit.
    #[must_use]
    pub fn new(used_minor: u64, limit_minor: impl Into<Option<u64>>) -> Self {
        Self { enabled: yes(), used_minor, limit_minor: limit_minor.into(), currency: dollars() }
    }

    /// Sets the currency. The default is US dollars.
    #[must_use]
    pub fn currency(mut self, currency: impl Into<String>) -> Self {
        self.currency = currency.into();
        self
    }

    /// Sets whether extra usage is enabled.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

fn number_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    struct NumberOrNone;

    impl serde::de::Visitor<'_> for NumberOrNone {
        type Value = Option<u32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of calls per hour, or \"none\"")
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
            u32::try_from(number)
                .map(Some)
                .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                "none" => Ok(None),
                _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
            }
        }
    }

    deserializer.deserialize_any(NumberOrNone)
}
