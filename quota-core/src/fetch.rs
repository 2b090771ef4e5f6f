//! Asking a provider: the trait that does it, and what can come of it.
//! When to ask, and what follows from a failure, is not decided here; see `record`.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::{AccountId, LoginInfo, ProviderId, UsageReport};

/// Asks one provider how much of an account is used.
///
/// Implementations ask once: they never retry and never wait, because waiting is shared by everybody who uses the
/// account and is therefore the manager's business. They may be called for several accounts at once.
#[async_trait]
pub trait UsageFetcher: fmt::Debug + Send + Sync + 'static {
    /// The provider whose accounts this asks about.
    fn provider(&self) -> ProviderId;

    /// Asks the provider once.
    ///
    /// Dropping the future gives the call up; the manager does so when its time is over.
    ///
    /// # Errors
    ///
    /// [`FetchError`] sorts failures by what follows from them.
    async fn fetch(&self, account: &AccountId) -> Result<UsageReport, FetchError>;

    /// Does the same as [`fetch`](Self::fetch), and reports when it sends its request. The manager calls this one.
    ///
    /// A fetcher that does something slow before that, such as running a program for a credential, implements it. Otherwise a
    /// program that hangs would be taken for a provider that does not answer. By default the request is sent at once.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    async fn fetch_tracked(
        &self,
        account: &AccountId,
        progress: &RequestProgress,
    ) -> Result<UsageReport, FetchError> {
        progress.mark_sent();
        self.fetch(account).await
    }

    /// Which login the next [`fetch`](Self::fetch) would use, as far as that is known without asking the provider.
    ///
    /// Asked before every call, so that a new login is not held up by what the old one left.
    ///
    /// # Errors
    ///
    /// [`FetchError::NotLoggedIn`] if there is none, or it cannot be told whose it is: then no number is shown.
    async fn login(&self, account: &AccountId) -> Result<LoginInfo, FetchError> {
        let _ = account;
        Ok(LoginInfo::unknown())
    }

    /// Tries to get a newer credential after the provider refused the last one; `true` if there is one now.
    ///
    /// Called at most once for a refresh that was answered [`FetchError::Unauthorized`].
    async fn renew(&self, account: &AccountId) -> bool {
        let _ = account;
        false
    }
}

/// Whether a fetch has sent its request to the provider.
///
/// A fetch that is cut off before is no call: it does not count toward the budget, and no hold follows.
#[derive(Debug, Default)]
pub struct RequestProgress(AtomicBool);

impl RequestProgress {
    /// Notes that the request is being sent: from now on the provider may have received it.
    pub fn mark_sent(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the provider may have received the request.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a provider gave no usable answer, sorted by what follows from it.
///
/// The texts never hold a token, and never a provider's body: only what this program itself has to say about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The provider asked to slow down. The account backs off, and its neighbours stay quiet for a while.
    #[error("the provider asked to slow down")]
    #[non_exhaustive]
    Throttled {
        /// How long it wants to be left alone, if it said.
        retry_after: Option<Duration>,
    },
    /// The credential was refused: log in again. No backoff.
    #[error("the provider refused the credential")]
    Unauthorized,
    /// The credential is good and may not do this. No backoff.
    #[error("the provider does not allow it: {why}")]
    #[non_exhaustive]
    Forbidden {
        /// What is not allowed.
        why: Cow<'static, str>,
    },
    /// The credential is good and lacks a scope that reading usage needs. It makes no usage call for a day, or until it is replaced;
    /// numbers still arrive with ordinary responses. No backoff.
    #[error(
        "the token may not read usage (it lacks the scope {scope}); log in with an interactive login instead of a setup token"
    )]
    #[non_exhaustive]
    MissingScope {
        /// The scope that it lacks, by the provider's name for it.
        scope: Cow<'static, str>,
    },
    /// There is no credential to ask with. The provider was not asked.
    #[error("not logged in: {why}")]
    #[non_exhaustive]
    NotLoggedIn {
        /// What was looked for, and what to do.
        why: Cow<'static, str>,
    },
    /// There may be a credential, and it could not be got now: its source did not answer in time, or is renewing it. The provider was
    /// not asked, so the call does not count, and no hold follows.
    #[error("{why}")]
    #[non_exhaustive]
    CredentialUnavailable {
        /// What was waited for.
        why: Cow<'static, str>,
        /// How long until its source tries again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The provider could not be reached, or failed.
    #[error("{why}")]
    #[non_exhaustive]
    Unavailable {
        /// What happened, as a line of its own: `could not resolve api.anthropic.com`.
        why: Cow<'static, str>,
        /// How long it wants to be left alone, if it said.
        retry_after: Option<Duration>,
        /// The failure underneath, if there was one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The provider did not answer in time.
    #[error("the provider did not answer in time")]
    TimedOut,
    /// The answer was not understood.
    #[error("the provider's answer was not understood: {why}")]
    #[non_exhaustive]
    Malformed {
        /// What was wrong with it, without any of it.
        why: Cow<'static, str>,
    },
}

impl FetchError {
    /// The error in one line for people: its own text, and the innermost cause where that adds something.
    #[must_use]
    pub fn report(&self) -> String {
        with_cause(self)
    }

    /// The provider asked to slow down, and said for how long or did not.
    #[must_use]
    pub fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Throttled { retry_after }
    }

    /// The credential may not do this.
    #[must_use]
    pub fn forbidden(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Forbidden { why: why.into() }
    }

    /// The credential lacks this scope.
    #[must_use]
    pub fn missing_scope(scope: impl Into<Cow<'static, str>>) -> Self {
        Self::MissingScope { scope: scope.into() }
    }

    /// There is no credential.
    #[must_use]
    pub fn not_logged_in(why: impl Into<Cow<'static, str>>) -> Self {
        Self::NotLoggedIn { why: why.into() }
    }

    /// The credential could not be got now.
    #[must_use]
    pub fn credential_unavailable(why: impl Into<Cow<'static, str>>) -> Self {
        Self::CredentialUnavailable { why: why.into(), retry_after: None }
    }

    /// The provider failed.
    #[must_use]
    pub fn unavailable(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { why: why.into(), retry_after: None, source: None }
    }

    /// The provider could not be reached, because of `source`.
    #[must_use]
    pub fn unreachable(
        why: impl Into<Cow<'static, str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Unavailable { why: why.into(), retry_after: None, source: Some(Arc::new(source)) }
    }

    /// Says how long to wait, where that may be known: when the provider throttles or is unavailable, or the credential is.
    #[must_use]
    pub fn after(mut self, span: Option<Duration>) -> Self {
        if let Self::Throttled { retry_after }
        | Self::Unavailable { retry_after, .. }
        | Self::CredentialUnavailable { retry_after, .. } = &mut self
        {
            *retry_after = span;
        }
        self
    }

    /// How long the provider wants to be left alone, if it said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The answer was not understood.
    #[must_use]
    pub fn malformed(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed { why: why.into() }
    }

    /// Whether the fetch ended before the provider was asked.
    #[must_use]
    pub fn is_before_request(&self) -> bool {
        matches!(self, Self::NotLoggedIn { .. } | Self::CredentialUnavailable { .. })
    }

    /// Whether asking again later may help without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. }
            | Self::CredentialUnavailable { .. }
            | Self::Unavailable { .. }
            | Self::TimedOut
            | Self::Malformed { .. } => true,
            Self::Unauthorized
            | Self::Forbidden { .. }
            | Self::MissingScope { .. }
            | Self::NotLoggedIn { .. } => false,
        }
    }
}

/// An error and its innermost cause, in one line.
///
/// The layers between the two are those of a library; they name steps, not causes. A cause that the line already contains is
/// not repeated. The number of a system error says nothing to people.
pub(crate) fn with_cause(error: &dyn Error) -> String {
    let line = error.to_string();
    let innermost = std::iter::successors(error.source(), |&cause| cause.source()).last();
    let cause = innermost.map(|cause| match cause.to_string() {
        text if text.ends_with(')') => text.split(" (os error ").next().unwrap_or_default().to_owned(),
        text => text,
    });
    match cause {
        Some(cause) if !cause.is_empty() && !line.contains(&cause) => format!("{line}: {cause}"),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<dyn Error + Send + Sync>>);

    fn layered(cause: io::Error) -> Layer {
        let inner = Layer("client error (Connect)", Some(Box::new(cause)));
        Layer("error sending request", Some(Box::new(inner)))
    }

    #[test]
    fn a_report_has_no_number_of_a_system_error() {
        let cause = io::Error::from_raw_os_error(1);
        let text = cause.to_string();
        assert!(text.contains("os error"), "{text}");

        let report = FetchError::unreachable("could not connect", cause).report();

        assert_eq!(report, format!("could not connect: {}", text.replace(" (os error 1)", "")));
    }

    #[test]
    fn a_report_names_the_innermost_cause_and_no_layer_between() {
        let error = FetchError::unreachable("could not connect to x", layered(io::Error::other("refused")));

        assert_eq!(error.report(), "could not connect to x: refused");
    }

    #[test]
    fn a_cause_that_the_line_already_contains_is_not_repeated() {
        let error = FetchError::unreachable("could not resolve x", Layer("could not resolve x", None));

        assert_eq!(error.report(), "could not resolve x");
    }
}
