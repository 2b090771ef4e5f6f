//! The trait that calls a provider's usage endpoint, and the errors of such a call.
//! When to call, and what follows from a failure, is decided in `record`.

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
/// An implementation sends one request and parses the response. It never retries and never waits before it sends, because the
/// manager decides when to call. It reads no credential either: the manager reads it from the account's
/// [`CredentialSource`](crate::CredentialSource) and passes it in. Calls for several accounts can run at once.
#[async_trait]
pub trait UsageFetcher: fmt::Debug + Send + Sync + 'static {
    /// The provider whose accounts this fetches.
    fn provider(&self) -> ProviderId;

    /// Calls the provider once with `credential`, which is [`Credential::none`] if the account has no credential source.
    ///
    /// The manager adds the login and the plan of the credential to the report, unless the report states its own. It drops the
    /// future after [`Policy::fetch_timeout`](crate::Policy#structfield.fetch_timeout), or when it cancels its calls.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; its variants differ in what the manager does next.
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

/// Why a fetch brought no report.
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
    /// The credential is valid and lacks the permission. No backoff.
    #[error("the provider does not allow it: {reason}")]
    #[non_exhaustive]
    Forbidden {
        /// What the provider does not allow.
        reason: Cow<'static, str>,
    },
    /// The credential is valid and lacks a scope that the usage endpoint requires. The account makes no usage call for a day, or until
    /// the credential is replaced; ordinary responses still bring readings. No backoff.
    #[error(
        "the token may not read usage (it lacks the scope {scope}); log in with an interactive login instead of a setup token"
    )]
    #[non_exhaustive]
    MissingScope {
        /// The scope, by the provider's name.
        scope: Cow<'static, str>,
    },
    /// There is no login, so no request was sent.
    #[error("not logged in: {reason}")]
    #[non_exhaustive]
    NotLoggedIn {
        /// What the source looked for, and what to do.
        reason: Cow<'static, str>,
    },
    /// The source of the credential timed out or is renewing it. No request was sent, so no call counts and no hold follows.
    #[error("{reason}")]
    #[non_exhaustive]
    CredentialUnavailable {
        /// What the source waits for.
        reason: Cow<'static, str>,
        /// How long until the source tries again, if it knows.
        retry_after: Option<Duration>,
        /// Whether the source timed out. Another read may take as long.
        timed_out: bool,
    },
    /// The provider could not be reached, or failed.
    #[error("{reason}")]
    #[non_exhaustive]
    Unavailable {
        /// What happened, as a line of its own: `could not resolve api.anthropic.com`.
        reason: Cow<'static, str>,
        /// The wait that the provider requested.
        retry_after: Option<Duration>,
        /// The cause, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The provider did not answer in time.
    #[error("the provider timed out")]
    TimedOut,
    /// The response could not be parsed.
    #[error("the provider's answer was not understood: {reason}")]
    #[non_exhaustive]
    Malformed {
        /// What is wrong with it, without any part of it.
        reason: Cow<'static, str>,
    },
}

impl FetchError {
    /// The error in one line: its own text, and the innermost cause where that adds something.
    #[must_use]
    pub fn report(&self) -> String {
        with_cause(self)
    }

    /// The provider rate limited the call, with or without a wait.
    #[must_use]
    pub fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Throttled { retry_after }
    }

    /// The credential lacks the permission.
    #[must_use]
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Forbidden { reason: reason.into() }
    }

    /// The credential lacks this scope.
    #[must_use]
    pub fn missing_scope(scope: impl Into<Cow<'static, str>>) -> Self {
        Self::MissingScope { scope: scope.into() }
    }

    /// There is no credential.
    #[must_use]
    pub fn not_logged_in(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::NotLoggedIn { reason: reason.into() }
    }

    /// The credential is temporarily unavailable.
    #[must_use]
    pub fn credential_unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::CredentialUnavailable { reason: reason.into(), retry_after: None, timed_out: false }
    }

    /// The source of the credential did not answer in time.
    #[must_use]
    pub fn credential_timed_out(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::CredentialUnavailable { reason: reason.into(), retry_after: None, timed_out: true }
    }

    /// The provider failed.
    #[must_use]
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None, source: None }
    }

    /// The provider could not be reached, because of `source`.
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

    /// The wait that the provider requested, if it requested one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The response could not be parsed.
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
    /// Without a credential there is no call. A source that timed out or is renewing may have one at the next attempt.
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
