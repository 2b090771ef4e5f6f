//! Texts about an account and its windows.

use jiff::Timestamp;
use quota::Used;
use quota::manager::StaleReason;
use quota::model::{Credits, Money};
use quota::record::{Hold, HoldReason, LastFailureKind};

use crate::account::{AccountView, ViewFreshness, WindowView, on_hold};
use crate::format::{self, LocalTime, between};
use crate::sanitize::sanitize;

/// The severity of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A fact.
    Plain,
    /// A detail.
    Dim,
    /// A transient problem.
    Warn,
    /// A problem that prevents the use of the account.
    Bad,
}

/// The format of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// `resets in 2 h 10 min (14:05)`
    WithTime,
    /// `resets in 2 h 10 min`
    Relative,
    /// `in 2 h 10 min`
    Short,
}

/// The age of an account's readings.
#[must_use]
pub fn freshness(account: &AccountView) -> (String, Level) {
    if account.disabled {
        return ("disabled".to_owned(), Level::Dim);
    }
    let age = account.age.map(format::ago);
    match (account.state, age) {
        (ViewFreshness::Fresh, age) => (format!("read {}", age.as_deref().unwrap_or("just now")), Level::Dim),
        (ViewFreshness::Stale { why: StaleReason::NeverRead | StaleReason::OwnerUnknown, .. }, _)
        | (_, None) => ("no data".to_owned(), Level::Bad),
        (_, Some(age)) => (format!("stale, read {age}"), Level::Warn),
    }
}

/// How much of a window is used.
#[must_use]
pub fn used(window: &WindowView) -> String {
    if window.is_unlimited {
        return "unlimited".to_owned();
    }
    match window.used {
        Used::Exact(percent) => format::percent(percent),
        Used::AtLeast(percent) => format!("≥ {}", format::percent(percent)),
        _ => "unknown".to_owned(),
    }
}

/// When a window resets.
#[must_use]
pub fn reset(window: &WindowView, local: &LocalTime, format: ResetFormat) -> String {
    let relative = |at| match format {
        ResetFormat::WithTime => local.relative(at),
        ResetFormat::Relative | ResetFormat::Short => local.relative_only(at),
    };
    match window.resets_at {
        Some(at) if at > local.now && format == ResetFormat::Short => relative(at),
        Some(at) if at > local.now => format!("resets {}", relative(at)),
        Some(at) => format!("reset {}", relative(at)),
        None if window.is_unlimited => String::new(),
        None if window.used.lower_bound().is_some_and(|used| used.basis_points() == 0) => {
            "not started".to_owned()
        }
        None => "no reset time".to_owned(),
    }
}

/// The elapsed share of the window's time, from 0 to 1.
#[must_use]
pub fn elapsed(window: &WindowView, now: Timestamp) -> Option<f64> {
    let (reset, length) = (window.resets_at?, window.length.filter(|length| !length.is_zero())?);
    let left = between(now, reset);
    // If the reset is further away than the window's length, the start of the window is unknown.
    (reset > now && left <= length).then(|| 1.0 - left.as_secs_f64() / length.as_secs_f64())
}

/// Why there is no usage, or no newer one, and what to do.
#[must_use]
pub fn failure_notes(account: &AccountView) -> Vec<(Level, String)> {
    let hold = hold(account);
    // A disabled account is never refreshed.
    let not_refreshed = account.not_refreshed.as_ref().filter(|_| !account.disabled);
    if let Some(failure) = &account.failure {
        let advice = failure.advice.iter().map(|advice| (Level::Plain, sanitize(advice)));
        return [(Level::Bad, sanitize(&failure.why))].into_iter().chain(advice).collect();
    }
    if let Some(failed) = account.last_failure.as_ref().filter(|_| !hold_names_failure(account, hold)) {
        return vec![(Level::Warn, format!("last refresh failed: {}", sanitize(&failed.message)))];
    }
    let why = not_refreshed.filter(|_| !hold_explains(account, hold));
    why.map(|why| (Level::Warn, format!("not refreshed: {}", sanitize(why)))).into_iter().collect()
}

/// Why no call is allowed now, and when the next one is allowed.
#[must_use]
pub fn hold_note(account: &AccountView, local: &LocalTime) -> Option<String> {
    let hold = hold(account)?;
    let reason = if account.failure.is_none() { format!("{}, ", hold.reason) } else { String::new() };
    let requested = hold.shortened_from().map_or_else(String::new, |requested| {
        format!("; the provider asked for {}", format::duration(requested))
    });
    Some(format!("{reason}retrying {}{requested}", local.relative(hold.until)))
}

/// The hold of an account. A disabled account is not refreshed after its hold.
fn hold(account: &AccountView) -> Option<&Hold> {
    account.hold.as_ref().filter(|_| !account.disabled)
}

/// Whether the hold gives the reason for the last failure.
fn hold_names_failure(account: &AccountView, hold: Option<&Hold>) -> bool {
    let failure = account.last_failure.as_ref().map(|failure| failure.kind);
    let hold = hold.map(|hold| hold.reason);
    failure == Some(LastFailureKind::Throttled) && hold == Some(HoldReason::RateLimited)
}

/// Whether the hold explains why there is no newer usage. A cooldown or a used-up budget does not explain a missing login.
fn hold_explains(account: &AccountView, hold: Option<&Hold>) -> bool {
    hold.is_some_and(|hold| {
        account.last_failure.is_some() || account.not_refreshed.as_ref() == Some(&on_hold(hold))
    })
}

/// The credits as short text; `None` if the provider states no amount and no reason.
#[must_use]
pub fn money(credits: &Credits) -> Option<String> {
    let used = match (&credits.used, &credits.limit) {
        (Some(used), Some(limit)) => Some(used_of(used, limit)),
        (Some(used), None) => Some(used.to_string()),
        (None, Some(limit)) => Some(format!("up to {limit}")),
        (None, None) => credits.unlimited.filter(|unlimited| *unlimited).map(|_| "unlimited".to_owned()),
    };
    let left = credits.balance.as_ref().map(|balance| format!("{balance} left"));
    let off = (credits.enabled == Some(false) || credits.disabled_reason.is_some()).then(|| {
        match &credits.disabled_reason {
            Some(reason) => format!("off ({})", reason.replace('_', " ")),
            None => "off".to_owned(),
        }
    });
    let parts: Vec<_> = [used, left, off].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| sanitize(&format!("extra usage: {}", parts.join(", "))))
}

/// `12.40 of 40.00 EUR`
fn used_of(used: &Money, limit: &Money) -> String {
    let (used_text, limit_text) = (used.to_string(), limit.to_string());
    let amount = used_text.strip_suffix(&*used.currency).filter(|_| used.currency == limit.currency);
    format!("{} of {limit_text}", amount.map_or(&*used_text, str::trim_end))
}
