//! The text of a decision: why an account is available or not.

use quota::Percent;
use quota::accounts::routing::{Evaluated, Reason};

use crate::account::WindowView;
use crate::format::{self, LocalTime};
use crate::pending_reset::PendingReset;
use crate::sanitize::sanitize;
use crate::window_name::window_name;

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
