//! `quota_wait`: waits until `quota_pick` would pick an account. A random delay prevents all waiting agents from
//! starting at once.

use std::time::Duration;

use quota::Clock;
use quota::accounts::Decision;
use quota::accounts::routing::Reason;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::{Peer, RoleServer};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::tools::{self, Purpose};
use crate::cli::RequestArgs;
use crate::config::Config;
use crate::exit::CliError;
use crate::format::LocalTime;
use crate::view::{decision_json, decision_text};

/// The longest time between two checks. A check calls a provider only if a reading is stale.
const RECHECK_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest time between two checks.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The longest delay after an account becomes available.
const MAX_SPREAD: Duration = Duration::from_secs(30);
/// The timeout of a progress notification if the client does not read.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// The client that waits.
pub(super) struct Waiter<'a> {
    pub(super) calls: &'a Calls,
    pub(super) cancelled: &'a CancellationToken,
    pub(super) peer: &'a Peer<RoleServer>,
    pub(super) progress: Option<ProgressToken>,
}

impl Waiter<'_> {
    /// Waits for an account, at most `max_wait`. Returns the document of `quota pick --json` with `waited_seconds`.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the configuration or the store cannot be used, or the call is cancelled.
    pub(super) async fn wait(&self, request: &RequestArgs, max_wait: Duration) -> Result<String, CliError> {
        let clock = Clock::system();
        let started_at = clock.instant();
        let waited = || clock.instant().saturating_since(started_at);
        let (mut decision, mut config) = self.decide(request, Purpose::Pick).await?;
        loop {
            let left = max_wait.saturating_sub(waited());
            let is_over = left.is_zero() || self.calls.closed().is_cancelled();
            if decision.chosen().is_some() || is_over || are_all_disabled(&decision) {
                return Ok(document(&decision, waited()));
            }
            self.report(&decision, &config, waited(), max_wait).await;
            self.calls.pause(self.cancelled, interval(&decision, fastrand::f64()).min(left)).await?;
            (decision, config) = self.decide(request, Purpose::Explain).await?;
            if decision.chosen().is_some() {
                let left = max_wait.saturating_sub(waited());
                let delay = spread(waited()).mul_f64(fastrand::f64()).min(left);
                self.calls.pause(self.cancelled, delay).await?;
                // Other agents may have used the account during the delay.
                (decision, config) = self.decide(request, Purpose::Pick).await?;
            }
        }
    }

    async fn decide(&self, request: &RequestArgs, purpose: Purpose) -> Result<(Decision, Config), CliError> {
        tools::decide(self.calls, self.cancelled, request, purpose).await
    }

    async fn report(&self, decision: &Decision, config: &Config, waited: Duration, max_wait: Duration) {
        let Some(token) = self.progress.clone() else { return };
        let local = LocalTime { now: decision.now(), ..LocalTime::now() };
        let text = decision_text::no_account(decision, &config.accounts, &local);
        let progress = ProgressNotificationParam::new(token, waited.as_secs_f64())
            .with_total(max_wait.as_secs_f64())
            .with_message(format!("waiting: {text}"));
        // The wait must continue even if the client does not read.
        drop(Clock::system().bounded(PROGRESS_TIMEOUT, self.peer.notify_progress(progress)).await);
    }
}

fn are_all_disabled(decision: &Decision) -> bool {
    decision.accounts().iter().all(|account| account.reason == Reason::Disabled)
}

/// The time until the next check: when an account may become available, but soon enough to notice other changes.
/// `random`, from 0 to 1, spreads the checks of many agents.
fn interval(decision: &Decision, random: f64) -> Duration {
    let retry_after = decision.retry_after().unwrap_or(RECHECK_INTERVAL);
    retry_after.clamp(MIN_INTERVAL, RECHECK_INTERVAL).mul_f64(0.75 + random / 2.0)
}

/// The maximum random delay after a wait: a tenth of the wait.
fn spread(waited: Duration) -> Duration {
    (waited / 10).min(MAX_SPREAD)
}

/// The document, with `waited_seconds`.
fn document(decision: &Decision, waited: Duration) -> String {
    let document = decision_json::pick(decision);
    let mut document: Value = serde_json::from_str(&document).expect("it is a JSON document");
    document["waited_seconds"] = waited.as_secs().into();
    document.to_string()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use quota::accounts::routing::Choice;

    use super::*;

    fn decision(retry_after: Option<u64>) -> Decision {
        let now = Timestamp::UNIX_EPOCH;
        let retry_at = retry_after.map(|seconds| now + Duration::from_secs(seconds));
        Decision::new(now, Choice::no_account(retry_at), Vec::new())
    }

    #[test]
    fn the_next_check_is_when_an_account_may_be_available() {
        let seconds = |retry_after, random| interval(&decision(retry_after), random).as_secs_f64();

        assert_eq!(seconds(Some(8), 0.5), 8.0);
        assert_eq!(seconds(Some(0), 0.5), 1.0);
        assert_eq!(seconds(Some(3600), 0.5), 15.0);
        assert_eq!(seconds(None, 0.5), 15.0);
        assert_eq!((seconds(None, 0.0), seconds(None, 1.0)), (11.25, 18.75));
    }

    #[test]
    fn agents_are_spread_by_how_long_they_waited() {
        assert_eq!(spread(Duration::ZERO), Duration::ZERO);
        assert_eq!(spread(Duration::from_secs(50)), Duration::from_secs(5));
        assert_eq!(spread(Duration::from_secs(36_000)), MAX_SPREAD);
    }

    #[test]
    fn the_document_is_that_of_a_pick_with_the_wait() {
        let document: Value =
            serde_json::from_str(&document(&decision(Some(60)), Duration::from_secs(50))).unwrap();

        assert_eq!(document["waited_seconds"], 50);
        assert_eq!(document["retry_after_seconds"], 60);
        assert_eq!(document["version"], 3);
    }
}
