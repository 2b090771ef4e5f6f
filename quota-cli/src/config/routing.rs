//! The table `[routing]`: its TOML form, and its conversion to a policy.

use std::time::Duration;

use quota::accounts::{AccountLimits, Limits, RoutingMode, RoutingPolicy, UnknownUsage};
use quota::{Percent, WindowId};
use serde::Deserialize;
use toml::Value;

use super::error::{ConfigError, nearest};
use super::spanned::Spanned;

/// Which account serves a request. A missing key has its default.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Routing {
    /// Which of the available accounts serves a request.
    mode: Option<RoutingMode>,
    /// The percentage below which other accounts are preferred, for all windows or for each.
    #[cfg_attr(test, schemars(with = "Option<LimitsSchema>"))]
    min_remaining: Option<Spanned<Value>>,
    /// The percentage below which an account is never used, for all windows or for each.
    #[cfg_attr(test, schemars(with = "Option<LimitsSchema>"))]
    killswitch: Option<Spanned<Value>>,
    /// What to do with an account if the usage of a window is unknown.
    when_unknown: Option<UnknownUsage>,
    /// The HTTP status codes after which another account is tried.
    #[cfg_attr(test, schemars(inner(range(min = 400, max = 599))))]
    fallback_on: Option<Vec<Spanned<u16>>>,
    /// How long a throttled account is skipped if the provider states no wait. Default: `30s`.
    throttle_cooldown: Option<DurationText>,
    /// How long an exhausted account is skipped if the provider states no reset. Default: `5m`.
    exhausted_cooldown: Option<DurationText>,
    /// How long an account is skipped after a provider or an organization forbade a request. Default: `1h`.
    forbidden_cooldown: Option<DurationText>,
    /// The timeout for reading a credential.
    credential_timeout: Option<DurationText>,
    /// How long a request waits for refreshes and credentials. Default: `5s`.
    route_timeout: Option<DurationText>,
    /// How long a session stays with its account after its last request. Default: `7d`.
    session_ttl: Option<DurationText>,
    /// How many sessions are remembered. Default: 10,000.
    max_sessions: Option<usize>,
    /// A session waits for its account instead of moving if the account is available again within this time. Default: `2m`.
    max_session_wait: Option<DurationText>,
}

/// A duration such as `30s`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
struct DurationText(
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    #[cfg_attr(test, schemars(with = "String"))]
    Duration,
);

/// Limits: one percentage, or one per window. `every` applies to windows without their own.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[schemars(untagged, rename = "Limits")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum LimitsSchema {
    Every(#[schemars(range(min = 0, max = 100))] f64),
    Windows(#[schemars(inner(range(min = 0, max = 100)))] std::collections::BTreeMap<String, f64>),
}

impl Routing {
    /// Whether the user has set `when_unknown`.
    pub(super) fn when_unknown_is_set(&self) -> bool {
        self.when_unknown.is_some()
    }

    /// Converts the table to a policy.
    pub(super) fn policy(self) -> Result<RoutingPolicy, ConfigError> {
        let mut policy = RoutingPolicy::default();
        let set = |field: &mut Duration, value: Option<DurationText>| {
            *field = value.map_or(*field, |DurationText(duration)| duration)
        };
        set(&mut policy.throttle_cooldown, self.throttle_cooldown);
        set(&mut policy.exhausted_cooldown, self.exhausted_cooldown);
        set(&mut policy.forbidden_cooldown, self.forbidden_cooldown);
        set(&mut policy.credential_timeout, self.credential_timeout);
        set(&mut policy.route_timeout, self.route_timeout);
        set(&mut policy.session_ttl, self.session_ttl);
        set(&mut policy.max_session_wait, self.max_session_wait);
        policy.mode = self.mode.unwrap_or(policy.mode);
        policy.when_unknown = self.when_unknown.unwrap_or(policy.when_unknown);
        policy.max_sessions = self.max_sessions.unwrap_or(policy.max_sessions);
        if let Some(min_remaining) = self.min_remaining {
            policy.min_remaining = limits(&min_remaining)?;
        }
        if let Some(killswitch) = self.killswitch {
            policy.killswitch = limits(&killswitch)?;
        }
        if let Some(fallback_on) = self.fallback_on {
            policy.fallback_on = fallback_on.into_iter().map(status).collect::<Result<_, _>>()?;
        }
        Ok(policy)
    }
}

/// The limits of one account.
pub(super) fn of_account(
    min_remaining: Option<&Spanned<Value>>,
    killswitch: Option<&Spanned<Value>>,
) -> Result<AccountLimits, ConfigError> {
    let mut own = AccountLimits::none();
    own.min_remaining = min_remaining.map(limits).transpose()?;
    own.killswitch = killswitch.map(limits).transpose()?;
    Ok(own)
}

fn status(status: Spanned<u16>) -> Result<u16, ConfigError> {
    if (400..600).contains(status.get_ref()) {
        return Ok(status.into_inner());
    }
    Err(ConfigError::at(status.span(), "fallback_on takes HTTP status codes from 400 to 599, such as 429"))
}

/// A percentage for every window, or one for each named window.
fn limits(written: &Spanned<Value>) -> Result<Limits, ConfigError> {
    let error = |what: String| ConfigError::at(written.span(), what);
    let share = |value: &Value| {
        let share = match value {
            Value::Integer(whole) => i32::try_from(*whole).ok().map(f64::from),
            Value::Float(share) => Some(*share),
            _ => None,
        };
        let share = share.filter(|share| (0.0..=100.0).contains(share)).and_then(Percent::from_percent);
        share.ok_or_else(|| {
            error("write a percentage from 0 to 100, or { every = 20, five_hour = 10 }".to_owned())
        })
    };
    let Value::Table(windows) = written.get_ref() else { return share(written.get_ref()).map(Limits::of) };
    let every = windows.get("every").map(share).transpose()?;
    let limits = every.map_or_else(Limits::none, Limits::of);
    windows.iter().filter(|(name, _)| *name != "every").try_fold(limits, |limits, (name, value)| {
        Ok(limits.window(window(name).map_err(error)?, share(value)?))
    })
}

/// The window with this name. Unknown windows are allowed, but a name that is similar to a known one is probably a typo.
fn window(name: &str) -> Result<WindowId, String> {
    const KNOWN: [&str; 4] = ["every", "five_hour", "seven_day", "monthly"];
    match nearest(name, KNOWN) {
        Some(near) if near != name && !name.contains('/') => {
            Err(format!("unknown window {name}; did you mean {near}?"))
        }
        _ => WindowId::new(name)
            .map_err(|_| "invalid window name; write one such as five_hour or seven_day/opus".to_owned()),
    }
}
