//! The usage of an account as plain values at one point in time.
//! `account_text` and `account_json` format them.

use std::time::Duration;

use jiff::Timestamp;
use quota::manager::StaleReason;
use quota::model::{Credits, IgnoredField, Scope, Source, Window};
use quota::record::{Hold, LastFailure};
use quota::{AccountId, AccountUsage, Freshness, QuotaError, Used};

use crate::reason::Reason;

/// One account.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// The account.
    pub id: AccountId,
    /// Whether its usage is fresh.
    pub state: ViewFreshness,
    /// The age of the oldest reading.
    pub age: Option<Duration>,
    /// The plan, as the provider names it.
    pub plan: Option<String>,
    /// The short windows first.
    pub windows: Vec<WindowView>,
    /// Money beyond the windows.
    pub credits: Option<Credits>,
    /// The fields of the last response that were skipped.
    pub ignored: Vec<IgnoredField>,
    /// Why no call is allowed now.
    pub hold: Option<Hold>,
    /// Why the last call of any process failed.
    pub last_failure: Option<LastFailure>,
    /// Why there is no data.
    pub failure: Option<FailureView>,
    /// Why the usage is missing or stale.
    pub reason: Option<Reason>,
    /// Why a refresh returned no newer usage.
    pub not_refreshed: Option<String>,
    /// The start of a recent call that prevented another one; see `call_limit`.
    pub called_at: Option<Timestamp>,
    /// Whether the account is disabled, so that it is never refreshed.
    pub disabled: bool,
}

/// Whether the usage of an account is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewFreshness {
    /// Younger than the maximum age.
    Fresh,
    /// Older, or unknown.
    Stale {
        /// Since when.
        since: Option<Timestamp>,
        /// Why.
        why: StaleReason,
    },
}

/// One window.
#[derive(Debug, Clone)]
pub struct WindowView {
    /// The id.
    pub id: String,
    /// How much is used.
    pub used: Used,
    /// Whether the provider states no limit.
    pub is_unlimited: bool,
    /// When it resets.
    pub resets_at: Option<Timestamp>,
    /// When it was read.
    pub observed_at: Timestamp,
    /// Where the reading is from.
    pub source: Source,
    /// The requests that it counts; `None` for all.
    pub scope: Option<Scope>,
    /// The length of its period.
    pub length: Option<Duration>,
}

/// Why an account has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureView {
    /// The error with its causes.
    pub why: String,
    /// What the user can do, if anything.
    pub advice: Option<String>,
}

impl AccountView {
    /// The view of a cached usage.
    pub fn of(id: &AccountId, answer: &AccountUsage, failure: Option<FailureView>) -> Self {
        let snapshot = answer.snapshot();
        let windows = snapshot.windows().iter();
        let mut windows: Vec<_> =
            windows.map(|window| WindowView::of(window, answer.used(window.id()))).collect();
        windows.sort_by_key(WindowView::rank);
        Self {
            id: id.clone(),
            state: ViewFreshness::of(answer.freshness()),
            age: answer.age(),
            plan: snapshot.plan().map(ToOwned::to_owned),
            windows,
            credits: snapshot.credits().cloned(),
            ignored: snapshot.ignored().to_vec(),
            hold: answer.hold(),
            last_failure: answer.last_failure().cloned(),
            failure,
            reason: Reason::of(answer),
            not_refreshed: answer.error().map(why),
            called_at: None,
            disabled: false,
        }
    }
}

impl ViewFreshness {
    fn of(state: Freshness) -> Self {
        match state {
            Freshness::Stale { since, reason: why, .. } => Self::Stale { since, why },
            _ => Self::Fresh,
        }
    }
}

impl WindowView {
    /// The view of a window with this usage.
    pub fn of(window: &Window, used: Used) -> Self {
        Self {
            id: window.id().as_str().to_owned(),
            used,
            is_unlimited: window.is_unlimited(),
            resets_at: window.resets_at(),
            observed_at: window.observed_at(),
            source: window.source(),
            scope: window.scope().cloned(),
            length: window.length(),
        }
    }

    /// A window of unknown usage, for tests.
    #[cfg(test)]
    pub(crate) fn without_readings(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            used: Used::Unknown,
            is_unlimited: false,
            resets_at: None,
            observed_at: Timestamp::UNIX_EPOCH,
            source: Source::Poll,
            scope: None,
            length: None,
        }
    }

    /// The sort key: short windows first, and windows of the whole account before those of a model.
    pub fn rank(&self) -> (Duration, bool, String) {
        (self.length.unwrap_or(Duration::MAX), self.scope.is_some(), self.id.clone())
    }
}

impl FailureView {
    /// No readings are stored, and no call was made.
    pub fn no_data() -> Self {
        Self {
            why: "no data".to_owned(),
            advice: Some("to refresh it, run the command without --offline".to_owned()),
        }
    }

    /// The failure without the account's name, because it is shown below the name.
    pub fn of(error: &QuotaError, advice: impl FnOnce() -> String) -> Self {
        let is_rejected = match error {
            QuotaError::Fetch { error: quota::FetchError::Unauthorized, .. } => true,
            QuotaError::CredentialRejected { failure, .. } | QuotaError::CalledRecently { failure, .. } => {
                failure.kind == quota::record::LastFailureKind::Unauthorized
            }
            _ => false,
        };
        Self { why: why(error), advice: is_rejected.then(advice) }
    }
}

/// The text of a hold that prevented a refresh.
pub fn on_hold(hold: &Hold) -> String {
    format!("on hold: {}", hold.reason)
}

/// The cause of an error.
pub fn why(error: &QuotaError) -> String {
    match error {
        QuotaError::OnHold { hold, .. } => on_hold(hold),
        _ => error.cause(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(id: &str, hours: impl Into<Option<u64>>, scope: Option<Scope>) -> WindowView {
        let length = hours.into().map(|hours| Duration::from_secs(hours * 3600));
        WindowView { scope, length, ..WindowView::without_readings(id) }
    }

    #[tokio::test]
    async fn a_refresh_without_time_for_a_call_has_its_reason() {
        let login =
            std::sync::Arc::new(quota::credentials::StaticCredential::new(quota::Secret::new("made-up")));
        let fetcher = quota::http::Fetcher::builder(&quota::anthropic::PROVIDER).build().unwrap();
        let quota = quota::QuotaManager::builder(quota::MemoryStore::new())
            .provider(fetcher, login)
            .deadline(Duration::from_secs(1))
            .build()
            .unwrap();

        let error = quota.account(&"anthropic/main".parse().unwrap()).refresh().await.unwrap_err();

        assert_eq!(why(&error), "no time was left for a call");
    }

    #[test]
    fn short_windows_come_first_and_models_last() {
        let mut windows = [
            window("tangelo", None, None),
            window("seven_day/opus", 168, Some(Scope::model("Opus"))),
            window("seven_day", 168, None),
            window("five_hour", 5, None),
        ];

        windows.sort_by_key(WindowView::rank);

        let ids = windows.each_ref().map(|window| &*window.id);
        assert_eq!(ids, ["five_hour", "seven_day", "seven_day/opus", "tangelo"]);
    }
}
