//! What is shown of an account: the manager's answer as plain values, each as of one moment.
//! How it looks is in `text` and `json`; nothing here asks anybody.

use std::time::Duration;

use jiff::Timestamp;
use quota::{
    AccountId, AccountUsage, Credits, Freshness, Hold, LastFailure, QuotaError, Scope, Source, StaleReason,
    Used, Window,
};

use super::reason::Reason;

/// One account.
#[derive(Debug, Clone)]
pub(crate) struct AccountView {
    pub(crate) id: AccountId,
    pub(crate) state: ViewFreshness,
    /// How old the oldest reading is.
    pub(crate) age: Option<Duration>,
    pub(crate) plan: Option<String>,
    pub(crate) windows: Vec<WindowView>,
    pub(crate) credits: Option<Credits>,
    pub(crate) hold: Option<Hold>,
    pub(crate) trouble: Option<LastFailure>,
    pub(crate) failure: Option<FailureView>,
    /// Why the numbers are missing or old, in two words.
    pub(crate) reason: Option<Reason>,
    /// Why the numbers are not newer, if a refresh was tried.
    pub(crate) not_refreshed: Option<String>,
    /// When the call was started that made another one needless; see `call_limit`.
    pub(crate) called_at: Option<Timestamp>,
    /// Whether the user has switched it off, so that nobody asks about it.
    pub(crate) switched_off: bool,
}

/// How far an account's numbers are to be trusted.
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
    pub(crate) resets_at: Option<Timestamp>,
    pub(crate) observed_at: Timestamp,
    pub(crate) source: Source,
    pub(crate) scope: Option<Scope>,
    pub(crate) length: Option<Duration>,
}

/// Why an account has no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureView {
    /// What failed, with its causes.
    pub(crate) why: String,
    /// What to do, if anybody can do anything.
    pub(crate) advice: Option<String>,
}

impl AccountView {
    /// What `answer` says now.
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
            hold: answer.hold(),
            trouble: answer.last_failure().cloned(),
            failure,
            reason: Reason::of(answer),
            not_refreshed: answer.error().map(why),
            called_at: None,
            switched_off: false,
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
    /// What a window says, where so much of it is used.
    pub(crate) fn of(window: &Window, used: Used) -> Self {
        Self {
            id: window.id().as_str().to_owned(),
            used,
            resets_at: window.resets_at(),
            observed_at: window.observed_at(),
            source: window.source(),
            scope: window.scope().cloned(),
            length: window.length(),
        }
    }

    /// Short windows first, those of the whole account before those of a part of it.
    pub(crate) fn rank(&self) -> (Duration, bool, String) {
        (self.length.unwrap_or(Duration::MAX), self.scope.is_some(), self.id.clone())
    }
}

impl FailureView {
    /// Nobody was asked, and nobody has shared anything.
    pub(crate) fn of_nothing_known() -> Self {
        Self {
            why: "nothing is known of it yet".to_owned(),
            advice: Some("to ask, leave out --offline".to_owned()),
        }
    }

    /// What to tell people of an error: not whose it is, for it stands under the account's name.
    pub(crate) fn of(error: &QuotaError, advice: impl FnOnce() -> String) -> Self {
        let refused = match error {
            QuotaError::Fetch { error: quota::FetchError::Unauthorized, .. } => true,
            QuotaError::CredentialRejected { failure: trouble, .. }
            | QuotaError::CalledRecently { failure: trouble, .. } => {
                trouble.kind == quota::LastFailureKind::Unauthorized
            }
            _ => false,
        };
        Self { why: why(error), advice: refused.then(advice) }
    }
}

/// That a hold allows no call.
pub(crate) fn not_asked(hold: &Hold) -> String {
    format!("not asked: {}", hold.reason)
}

/// What went wrong, with its causes.
pub(crate) fn why(error: &QuotaError) -> String {
    match error {
        QuotaError::Fetch { error, .. } => error.report(),
        QuotaError::CredentialRejected { failure: trouble, .. }
        | QuotaError::CalledRecently { failure: trouble, .. } => trouble.message.clone(),
        // No call was made, so the provider is not the one that did not answer.
        QuotaError::DeadlineExceeded { .. } => "no time was left for a call".to_owned(),
        QuotaError::InProgress { .. } => "another process is refreshing it, and has not finished".to_owned(),
        QuotaError::OnHold { hold, .. } => not_asked(hold),
        _ => error.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(id: &str, hours: impl Into<Option<u64>>, scope: Option<Scope>) -> WindowView {
        let length = hours.into().map(|hours| Duration::from_secs(hours * 3600));
        let (used, observed_at, source) = (Used::Unknown, Timestamp::UNIX_EPOCH, Source::Poll);
        WindowView { id: id.to_owned(), used, resets_at: None, observed_at, source, scope, length }
    }

    #[tokio::test]
    async fn a_refresh_that_had_no_time_for_a_call_is_not_called_unanswered() {
        let login =
            std::sync::Arc::new(quota::credentials::StaticCredential::new(quota::Secret::new("made-up")));
        let fetcher = quota::anthropic::Anthropic::builder().build().unwrap();
        let quota = quota::QuotaManager::builder(quota::MemoryStore::new())
            .provider(fetcher, login)
            .deadline(Duration::from_secs(1))
            .build()
            .unwrap();

        let error = quota.account(&"anthropic/main".parse().unwrap()).refresh().await.unwrap_err();

        assert_eq!(why(&error), "no time was left for a call");
    }

    #[test]
    fn short_windows_come_first_and_parts_after_the_whole() {
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
