//! The call limit of `--refresh` and of the refresh keys of `quota watch`: after a recent call, no further call is made.
//! quota-core decides which call counts.

use std::time::Duration;

use jiff::Timestamp;
use quota::manager::RefreshOutcome;
use quota::{Account, QuotaError};

use crate::format::{ago, between, duration};

/// The minimum time between two calls with the same credential. Otherwise thirty commands in a row would use up the hourly budget of
/// all processes that share the store.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Refreshes, unless a call was started within [`LIMIT`].
///
/// # Errors
///
/// [`QuotaError`] if the account has no data.
pub(crate) async fn refresh(account: &Account) -> Result<RefreshOutcome, QuotaError> {
    account.refresh_unless_called_within(LIMIT).await
}

/// The start of the recent call, if it prevented a call.
pub(crate) fn recent_call(refreshed: &Result<RefreshOutcome, QuotaError>) -> Option<Timestamp> {
    match refreshed {
        Ok(refreshed) => refreshed.called_at,
        Err(QuotaError::CalledRecently { failure, .. }) => Some(failure.at),
        Err(_) => None,
    }
}

/// The human-readable note: `refreshed 4 s ago, not called again (limit: one call per 10 s)`.
pub(crate) fn text(called_at: Timestamp, has_failed: bool, now: Timestamp) -> String {
    let outcome = if has_failed { "last call failed" } else { "refreshed" };
    let age = ago(between(called_at, now));
    format!("{outcome} {age}, not called again (limit: one call per {})", duration(LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_recent_success_has_its_age_and_the_limit() {
        assert_eq!(
            text(at(0), false, at(4)),
            "refreshed 4 s ago, not called again (limit: one call per 10 s)"
        );
    }

    #[test]
    fn a_recent_failure_is_not_called_a_refresh() {
        let text = text(at(0), true, at(4));

        assert_eq!(text, "last call failed 4 s ago, not called again (limit: one call per 10 s)");
    }
}
