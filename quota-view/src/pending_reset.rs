//! The grace period after a window's reset, as a value. No call is made during this period, so the usage of the window
//! is unknown until it ends. quota-core contains the rule.

use std::time::Duration;

use jiff::Timestamp;
use quota::AccountUsage;
use quota::accounts::routing::Evaluated;

use crate::format::{LocalTime, between};

/// A window that has reset but was not refreshed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingReset {
    /// When the window has reset.
    pub reset_at: Timestamp,
    /// When the next refresh may begin. Always in the future.
    pub refresh_at: Timestamp,
}

impl PendingReset {
    /// The pending reset of a window at `reset_at`; `None` if the account may be refreshed for requests of `model` now.
    pub fn of(answer: &AccountUsage, reset_at: Timestamp, model: Option<&str>) -> Option<Self> {
        let due = answer.due_at(model).filter(|due| answer.now() < *due)?;
        let refresh_at = answer.hold().map_or(due, |hold| due.max(hold.until));
        Some(Self { reset_at, refresh_at })
    }

    /// The pending reset of a window, for an account of a decision at `now`.
    pub fn of_account(account: &Evaluated, now: Timestamp) -> Option<Self> {
        let usage = account.window_usage().filter(|_| account.reason.is_unknown())?;
        let reset_at = usage.window.expires_at().filter(|reset| *reset <= now)?;
        let refresh_at = account.refresh_at.filter(|refresh_at| now < *refresh_at)?;
        Some(Self { reset_at, refresh_at })
    }

    /// The time until the refresh.
    pub fn wait(&self, now: Timestamp) -> Duration {
        between(now, self.refresh_at)
    }

    /// `reset at 11:55:00, next refresh in 12 s (11:55:15)`
    pub fn text(&self, local: &LocalTime) -> String {
        let (relative, at) =
            (local.relative_only(self.refresh_at), local.time_of_day_with_seconds(self.refresh_at));
        format!("{}, next refresh {relative} ({at})", reset(self.reset_at, local))
    }
}

/// `reset at 11:55:00`
pub fn reset(at: Timestamp, local: &LocalTime) -> String {
    format!("reset at {}", local.time_of_day_with_seconds(at))
}
