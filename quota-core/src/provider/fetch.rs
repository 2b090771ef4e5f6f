//! The trait that calls a provider's usage endpoint, and the errors of such a call.
//! The module `record` decides when to call and how to handle a failure.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Credential, CredentialError};
use crate::model::{AccountId, ProviderId, UsageReport};

/// Fetches the usage of one provider's accounts.
///
/// An implementation sends one request and parses the response. It never retries or waits, because the manager decides when
/// to call. It does not read credentials: the manager passes in the credential from the account's
/// [`CredentialSource`](crate::CredentialSource). Calls for several accounts can run at once.
#[async_trait]
pub trait UsageFetcher: fmt::Debug + Send + Sync + 'static {
    /// The provider of the accounts.
    fn provider(&self) -> ProviderId;

    /// Calls the provider once with `credential`, which is [`Credential::none`] if the account has no credential source.
    ///
    /// The manager adds the login and the plan of the credential to the report, unless the report states its own. It drops the
    /// future after [`Policy::fetch_timeout`](crate::Policy#structfield.fetch_timeout), or when it cancels its calls.
    ///
    /// # Errors
    ///
    /// [`FetchError`]. Its variants differ in how the manager reacts.
    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError>;
}

#[async_trait]
impl<T: UsageFetcher + ?Sized> UsageFetcher for Arc<T> {
    fn provider(&self) -> ProviderId {
        (**self).provider()
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        (**self).fetch(account, credential).await
    }
}

/// Why a fetch returned no report.
///
/// The texts contain neither a token nor any part of the provider's response.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The provider rate limited the call (429). The account backs off, and the provider's other accounts wait for its cooldown.
    #[error("rate limited (429)")]
    #[non_exhaustive]
    Throttled {
        /// The wait that the provider requested.
        retry_after: Option<Duration>,
    },
    /// The provider rejected the credential (401), so the user must log in. No backoff.
    #[error("login rejected (401)")]
    Unauthorized,
    /// The credential is valid but lacks the permission. No backoff.
    #[error("forbidden: {reason}")]
    #[non_exhaustive]
    Forbidden {
        /// The operation that the provider forbids.
        reason: Cow<'static, str>,
    },
    /// The credential is valid but lacks a scope that the usage endpoint requires. No backoff. The account makes no usage
    /// calls for a day, or until the credential is replaced. Ordinary responses still supply readings.
    #[error(
        "the token may not read usage (it lacks the scope {scope}); log in with an interactive login instead of a setup token"
    )]
    #[non_exhaustive]
    MissingScope {
        /// The scope, as the provider names it.
        scope: Cow<'static, str>,
    },
    /// There is no login, so no request was sent.
    #[error("not logged in: {reason}")]
    #[non_exhaustive]
    NotLoggedIn {
        /// Where the source searched, and what to do.
        reason: Cow<'static, str>,
    },
    /// The source of the credential timed out or is renewing it. No request was sent, so no call counts and no hold follows.
    #[error("{reason}")]
    #[non_exhaustive]
    CredentialUnavailable {
        /// The operation that the source waits for.
        reason: Cow<'static, str>,
        /// The time until the source retries, if it states it.
        retry_after: Option<Duration>,
        /// Whether the source timed out. The next read may take as long.
        timed_out: bool,
    },
    /// The provider could not be reached, or failed.
    #[error("{reason}")]
    #[non_exhaustive]
    Unavailable {
        /// The failure as a complete phrase: `could not resolve api.anthropic.com`.
        reason: Cow<'static, str>,
        /// The wait that the provider requested.
        retry_after: Option<Duration>,
        /// The cause, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The provider did not respond in time.
    #[error("the provider timed out")]
    TimedOut,
    /// The response could not be parsed.
    #[error("could not parse the provider's response: {reason}")]
    #[non_exhaustive]
    Malformed {
        /// The fault in the response, without any part of the response.
        reason: Cow<'static, str>,
    },
}

impl FetchError {
    /// The error in one line: its text, and the innermost cause if that adds information.
    #[must_use]
    pub fn report(&self) -> String {
        with_cause(self)
    }

    /// Creates an error for a rate limited call, with or without a requested wait.
    #[must_use]
    pub fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Throttled { retry_after }
    }

    /// Creates an error for a credential without the permission.
    #[must_use]
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Forbidden { reason: reason.into() }
    }

    /// Creates an error for a credential without this scope.
    #[must_use]
    pub fn missing_scope(scope: impl Into<Cow<'static, str>>) -> Self {
        Self::MissingScope { scope: scope.into() }
    }

    /// Creates an error for a missing credential.
    #[must_use]
    pub fn not_logged_in(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::NotLoggedIn { reason: reason.into() }
    }

    /// Creates an error for a credential that is temporarily unavailable.
    #[must_use]
    pub fn credential_unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::CredentialUnavailable { reason: reason.into(), retry_after: None, timed_out: false }
    }

    /// Creates an error for a credential source that timed out.
    #[must_use]
    pub fn credential_timed_out(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::CredentialUnavailable { reason: reason.into(), retry_after: None, timed_out: true }
    }

    /// Creates an error for a failing provider.
    #[must_use]
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None, source: None }
    }

    /// Creates an error for an unreachable provider, caused by `source`.
    #[must_use]
    pub fn unreachable(
        reason: impl Into<Cow<'static, str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None, source: Some(Arc::new(source)) }
    }

    /// Sets the wait. Only `Throttled`, `Unavailable` and `CredentialUnavailable` have one.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        if let Self::Throttled { retry_after }
        | Self::Unavailable { retry_after, .. }
        | Self::CredentialUnavailable { retry_after, .. } = &mut self
        {
            *retry_after = wait;
        }
        self
    }

    /// The requested wait, if there is one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Creates an error for a response that could not be parsed.
    #[must_use]
    pub fn malformed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed { reason: reason.into() }
    }

    /// Whether the fetch ended before a request was sent.
    #[must_use]
    pub fn is_before_request(&self) -> bool {
        matches!(self, Self::NotLoggedIn { .. } | Self::CredentialUnavailable { .. })
    }

    /// Whether a later call can succeed without the user acting.
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
/// The layers between the two belong to libraries and name steps, not causes. A cause that the line already contains is not
/// repeated. The number of a system error is left out.
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

impl From<CredentialError> for FetchError {
    /// Converts to an error before the request. Only a source that timed out or is renewing may succeed at the next attempt.
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::TemporarilyUnavailable { reason, retry_after } => {
                Self::credential_unavailable(reason).with_retry_after(retry_after)
            }
            error if error.is_timeout() => Self::credential_timed_out(error.to_string()),
            error => Self::not_logged_in(error.to_string()),
        }
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

    #[test]
    fn only_a_timeout_of_a_credential_source_is_transient() {
        let error = |kind: io::ErrorKind| {
            FetchError::from(CredentialError::unreadable("`pass` timed out", io::Error::from(kind)))
        };

        assert!(error(io::ErrorKind::TimedOut).is_transient());
        assert!(!error(io::ErrorKind::PermissionDenied).is_transient());
        assert_eq!(error(io::ErrorKind::TimedOut).report(), "`pass` timed out");
    }

    #[test]
    fn an_error_of_a_credential_source_precedes_the_request() {
        let unreadable = |kind| CredentialError::unreadable("`pass` failed", io::Error::from(kind));
        let errors = [
            CredentialError::not_logged_in("no file"),
            CredentialError::temporarily_unavailable(
                "the login is being renewed",
                Some(Duration::from_secs(1)),
            ),
            unreadable(io::ErrorKind::TimedOut),
            unreadable(io::ErrorKind::PermissionDenied),
        ];

        for error in errors.map(FetchError::from) {
            assert!(error.is_before_request(), "{error:?}");
        }
    }
}
