//! The usage of an account as plain values at one point in time.
//! `account_text` and `account_json` format them.

use std::time::Duration;

use jiff::Timestamp;
use quota::manager::StaleReason;
use quota::model::{Credits, IgnoredField, Scope, Source, Window};
use quota::record::{Hold, LastFailure};
use quota::{AccountId, AccountUsage, Freshness, QuotaError, Used};

use super::reason::Reason;

/// One account.
#[derive(Debug, Clone)]
pub(crate) struct AccountView {
    pub(crate) id: AccountId,
    pub(crate) state: ViewFreshness,
    /// The age of the oldest reading.
    pub(crate) age: Option<Duration>,
    pub(crate) plan: Option<String>,
    pub(crate) windows: Vec<WindowView>,
    pub(crate) credits: Option<Credits>,
    /// The fields of the last response that were skipped.
    pub(crate) ignored: Vec<IgnoredField>,
    pub(crate) hold: Option<Hold>,
    pub(crate) last_failure: Option<LastFailure>,
    pub(crate) failure: Option<FailureView>,
    /// Why the usage is missing or stale.
    pub(crate) reason: Option<Reason>,
    /// Why a refresh returned no newer usage.
    pub(crate) not_refreshed: Option<String>,
    /// The start of the recent call that made another call unnecessary; see `call_limit`.
    pub(crate) called_at: Option<Timestamp>,
    /// Whether the account is disabled, so that it is never refreshed.
    pub(crate) disabled: bool,
}

/// Whether the usage of an account is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ViewFreshness {
    Fresh,
    Stale { since: Option<Timestamp>, why: StaleReason },
}

/// One window.
#[derive(Debug, Clone)]
pub(crate) struct WindowView {
    pub(crate) id: String,
    pub(crate) used: Used,
    pub(crate) is_unlimited: bool,
    pub(crate) resets_at: Option<Timestamp>,
    pub(crate) observed_at: Timestamp,
    pub(crate) source: Source,
    pub(crate) scope: Option<Scope>,
    pub(crate) length: Option<Duration>,
}

/// Why an account has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureView {
    /// The error with its causes.
    pub(crate) why: String,
    /// What the user can do, if anything.
    pub(crate) advice: Option<String>,
}

impl AccountView {
    /// The view of a cached usage.
    pub(crate) fn of(id: &AccountId, answer: &AccountUsage, failure: Option<FailureView>) -> Self {
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
    /// The view of a window with this use.
    pub(crate) fn of(window: &Window, used: Used) -> Self {
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

    /// The sort key: short windows first, and windows of the whole account before those of a model.
    pub(crate) fn rank(&self) -> (Duration, bool, String) {
        (self.length.unwrap_or(Duration::MAX), self.scope.is_some(), self.id.clone())
    }
}

impl FailureView {
    /// Nothing is stored, and no call was made.
    pub(crate) fn no_data() -> Self {
        Self {
            why: "no data".to_owned(),
            advice: Some("to refresh it, run the command without --offline".to_owned()),
        }
    }

    /// The failure without the account's name, because it is shown below the name.
    pub(crate) fn of(error: &QuotaError, advice: impl FnOnce() -> String) -> Self {
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
pub(crate) fn on_hold(hold: &Hold) -> String {
    format!("on hold: {}", hold.reason)
}

/// The cause of an error.
pub(crate) fn why(error: &QuotaError) -> String {
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
        WindowView { scope, length, ..crate::view::fixtures::window(id, Used::Unknown, None) }
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
