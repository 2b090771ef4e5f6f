//! The grace time after a window's reset. No call is made during it, so the usage of the window is unknown until its end.
//! quota-core has the rule; this file decides whether a command waits for the end.

use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::routing::Evaluated;
use quota::clock::Instant;
use quota::{AccountUsage, Clock};

use crate::context::COMMAND_TIMEOUT;
use crate::format::{LocalTime, between};

/// Added to each wait, because the clocks of the store and of this machine may differ slightly.
pub(crate) const MARGIN: Duration = Duration::from_millis(50);

/// The part of a command's timeout that is reserved for the call after the wait.
const TIME_FOR_CALL: Duration = Duration::from_secs(5);

/// A window that has reset but was not refreshed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingReset {
    pub(crate) reset_at: Timestamp,
    /// When the next refresh may begin. Always in the future.
    pub(crate) refresh_at: Timestamp,
}

impl PendingReset {
    /// The pending reset of a window at `reset_at`; `None` if the account may be refreshed for requests of `model` now.
    pub(crate) fn of(answer: &AccountUsage, reset_at: Timestamp, model: Option<&str>) -> Option<Self> {
        let due = answer.due_at(model).filter(|due| answer.now() < *due)?;
        let refresh_at = answer.hold().map_or(due, |hold| due.max(hold.until));
        Some(Self { reset_at, refresh_at })
    }

    /// The same for an account of a decision at `now`.
    pub(crate) fn of_account(account: &Evaluated, now: Timestamp) -> Option<Self> {
        let usage = account.window_usage().filter(|_| account.reason.is_unknown())?;
        let reset_at = usage.window.expires_at().filter(|reset| *reset <= now)?;
        let refresh_at = account.refresh_at.filter(|refresh_at| now < *refresh_at)?;
        Some(Self { reset_at, refresh_at })
    }

    /// The time until the refresh.
    pub(crate) fn wait(&self, now: Timestamp) -> Duration {
        between(now, self.refresh_at)
    }

    /// `reset at 11:55:00, next refresh in 12 s (11:55:15)`
    pub(crate) fn text(&self, local: &LocalTime) -> String {
        let (relative, at) =
            (local.relative_only(self.refresh_at), local.time_of_day_with_seconds(self.refresh_at));
        format!("{}, next refresh {relative} ({at})", reset(self.reset_at, local))
    }
}

/// `reset at 11:55:00`
pub(crate) fn reset(at: Timestamp, local: &LocalTime) -> String {
    format!("reset at {}", local.time_of_day_with_seconds(at))
}

/// Measures the time of a command against its timeout.
#[derive(Debug, Clone)]
pub(crate) struct Time {
    clock: Clock,
    started: Instant,
}

impl Time {
    /// Starts now.
    pub(crate) fn of_command(clock: &Clock) -> Self {
        Self { clock: clock.clone(), started: clock.instant() }
    }

    /// Whether a wait of this length leaves time for a call.
    pub(crate) fn allows(&self, wait: Duration) -> bool {
        allows(wait, self.clock.instant().saturating_since(self.started))
    }
}

fn allows(wait: Duration, elapsed: Duration) -> bool {
    wait.saturating_add(elapsed).saturating_add(TIME_FOR_CALL) <= COMMAND_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_must_leave_time_for_a_call() {
        let seconds = Duration::from_secs;

        assert!(allows(seconds(15), seconds(10)));
        assert!(!allows(seconds(15), seconds(11)));
        assert!(!allows(seconds(60), seconds(0)));
        assert!(!allows(Duration::MAX, seconds(0)));
    }
}
