//! The grace period after a window's reset. No call is made during this period, so the usage of the window is unknown
//! until it ends. quota-core contains the rule; this file decides whether a command waits for the end.

use std::time::Duration;

use quota::Clock;
use quota::clock::Instant;
pub(crate) use quota_view::pending_reset::{PendingReset, reset};

use crate::context::COMMAND_TIMEOUT;

/// Added to each wait, because the clocks of the store and of this machine may differ slightly.
pub(crate) const MARGIN: Duration = Duration::from_millis(50);

/// The part of a command's timeout that is reserved for the call after the wait.
const TIME_FOR_CALL: Duration = Duration::from_secs(5);

/// Measures the time of a command against its timeout.
#[derive(Debug, Clone)]
pub(crate) struct Time {
    clock: Clock,
    started: Instant,
}

impl Time {
    /// Starts measuring now.
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
