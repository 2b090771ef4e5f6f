//! The text of a decision: its outcome, and why an account is available or not.

use quota::Percent;
use quota::accounts::routing::{Decision, Evaluated, Reason};

use crate::account::WindowView;
use crate::format::{self, LocalTime};
use crate::pending_reset::PendingReset;
use crate::sanitize::sanitize;
use crate::window_name::window_name;

/// The outcome of a decision, for exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An account is available.
    Available,
    /// All accounts are unavailable until a reset, or the session waits.
    Later,
    /// All accounts are disabled.
    AllDisabled,
    /// The usage is unknown, or a user must log in.
    Unknown,
}

/// Determines the outcome of a decision.
#[must_use]
pub fn outcome(decision: &Decision) -> Outcome {
    if decision.chosen().is_some() {
        return Outcome::Available;
    }
    let reasons = || decision.accounts().iter().map(|account| account.reason);
    let is_about_quota = |reason| {
        use Reason::{BelowKillswitch, Exhausted, QuotaExhausted, Reserved, Throttled};
        matches!(reason, Exhausted | BelowKillswitch | QuotaExhausted | Reserved | Throttled)
    };
    if reasons().all(|reason| reason == Reason::Disabled) {
        return Outcome::AllDisabled;
    }
    let is_unknown = reasons().any(may_be_available) || !reasons().any(is_about_quota);
    if is_unknown && decision.awaited().is_none() { Outcome::Unknown } else { Outcome::Later }
}

/// The verdict if no account serves a request, with the next available one.
#[must_use]
pub fn verdict(decision: &Decision, local: &LocalTime) -> String {
    let accounts = decision.accounts();
    let back = decision.retry_after().map(|wait| local.relative(format::after(local.now, wait)));
    if let Some(account) = decision.awaited() {
        return format!("the session waits for {}, available {}", account.account, back.unwrap_or_default());
    }
    match outcome(decision) {
        Outcome::Available | Outcome::Later => {}
        Outcome::AllDisabled if accounts.is_empty() => return "no account is configured".to_owned(),
        Outcome::AllDisabled => return "all accounts are disabled".to_owned(),
        Outcome::Unknown => return "no usable account".to_owned(),
    }
    let next = accounts.iter().filter(|account| account.retry_at.is_some()).min_by_key(|one| one.retry_at);
    match (next, back) {
        (Some(next), Some(back)) => {
            format!("no account available; next available: {} {back}", next.account)
        }
        _ => "no account available".to_owned(),
    }
}

/// Why an account is available or not, and until when.
#[must_use]
pub fn account_reason(account: &Evaluated, login_hint: &str, local: &LocalTime) -> String {
    if let Some(why) = account.not_refreshed.as_ref().filter(|_| account.reason == Reason::OwnerUnknown) {
        return sanitize(why);
    }
    let usage = account.window_usage();
    let window = usage.map(|usage| window_name(&WindowView::of(&usage.window, usage.used)));
    if let (Some(pending), Some(window)) = (PendingReset::of_account(account, local.now), &window) {
        return sanitize(&format!("{window}: {}", pending.text(local)));
    }
    let window = window.or_else(|| account.window.as_ref().map(ToString::to_string));
    let mut text = match (account.reason, usage, account.limit) {
        (Reason::BelowMinimum | Reason::BelowKillswitch, Some(usage), Some(limit)) => {
            let left = usage.used.lower_bound().map_or(Percent::ZERO, Percent::remaining);
            // A model window exactly at its limit also blocks the account.
            let relation = if left < limit { "below" } else { "at" };
            let (left, limit) = (format::percent(left), format::percent(limit));
            let name = if account.reason == Reason::BelowKillswitch { "killswitch" } else { "minimum" };
            format!("{left} left, {relation} the {name} of {limit}")
        }
        (Reason::LoginRejected, ..) => format!("{}; {login_hint}", account.reason),
        (Reason::SameLogin, ..) => account.to_string(),
        (reason, ..) => reason.to_string(),
    };
    if let Some(window) = window {
        text = match account.reason {
            Reason::Exhausted => format!("{window} window exhausted"),
            _ => format!("{window}: {text}"),
        };
    }
    if let Some(retry_at) = account.retry_at.filter(|at| *at > local.now) {
        let verb = match account.reason {
            Reason::Exhausted | Reason::QuotaExhausted => "resets",
            _ => "retry",
        };
        text = format!("{text}, {verb} {}", local.relative(retry_at));
    }
    if let Some(why) = account.not_refreshed.as_ref().filter(|_| may_be_available(account.reason)) {
        text = format!("{text} ({why})");
    }
    sanitize(&text)
}

/// Whether an account with this reason may turn out to be available.
#[must_use]
pub fn may_be_available(reason: Reason) -> bool {
    reason.is_unknown() || matches!(reason, Reason::CredentialUnavailable | Reason::LoginRenewing)
}
