//! Where the credential of an account comes from.
//! Sources mostly only read: another program's login is never refreshed or rewritten.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{AccountId, CredentialFingerprint, FetchError, LoginInfo, Secret};

/// Finds the credential of an account, anew each time: logins change under a running program.
#[async_trait]
pub trait CredentialSource: fmt::Debug + Send + Sync + 'static {
    /// Reads the credential of `account` as it is now.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] says whether nobody is logged in or the place could not be read.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError>;

    /// Gives a credential after the provider refused the one with the mark `refused`: another, if there is one or one can be
    /// got; else the same, or the reason why there is none.
    ///
    /// Most sources only read, and read once more. One that renews logins of its own does so here, at most once for a
    /// credential that it has not just renewed for the same reason: a second refusal means that somebody has to log in.
    ///
    /// # Errors
    ///
    /// As [`credential`](Self::credential).
    async fn renew(
        &self,
        account: &AccountId,
        refused: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let _ = refused;
        self.credential(account).await
    }
}

/// What opens an account, and what is known about it without asking the provider.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Credential {
    /// The token or key to send.
    pub secret: Secret,
    /// Which login it belongs to, and a mark that tells it from the next one.
    pub login: LoginInfo,
    /// When it stops being accepted, if that is known.
    pub expires_at: Option<Timestamp>,
    /// The plan of the account, if the place says so.
    pub plan: Option<String>,
}

impl Credential {
    /// A credential of which nothing else is known.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self { secret, login: LoginInfo::unknown(), expires_at: None, plan: None }
    }

    /// Says which login it belongs to.
    #[must_use]
    pub fn login(mut self, login: LoginInfo) -> Self {
        self.login = login;
        self
    }

    /// Says when it stops being accepted.
    #[must_use]
    pub fn expires_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.expires_at = at.into();
        self
    }

    /// Says which plan the account has.
    #[must_use]
    pub fn plan(mut self, plan: impl Into<Option<String>>) -> Self {
        self.plan = plan.into();
        self
    }
}

/// Why there is no credential.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// Nobody is logged in where this source looks.
    #[error("{why}")]
    #[non_exhaustive]
    NotLoggedIn {
        /// What was looked for, and what to do.
        why: Cow<'static, str>,
    },
    /// The place is there and could not be read.
    #[error("{why}")]
    #[non_exhaustive]
    Unreadable {
        /// Which place, and what to do.
        why: Cow<'static, str>,
        /// The failure underneath.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The credential has run out and could not be renewed yet. Nobody has to do anything: it is tried again.
    #[error("{why}")]
    #[non_exhaustive]
    TemporarilyUnavailable {
        /// What is waited for.
        why: Cow<'static, str>,
        /// How long until it is tried again, if that is known.
        retry_after: Option<Duration>,
    },
}

impl CredentialError {
    /// Nobody is logged in.
    #[must_use]
    pub fn not_logged_in(why: impl Into<Cow<'static, str>>) -> Self {
        Self::NotLoggedIn { why: why.into() }
    }

    /// The place could not be read.
    #[must_use]
    pub fn unreadable(why: impl Into<Cow<'static, str>>, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unreadable { why: why.into(), source: Some(Arc::new(source)) }
    }

    /// Whether the source did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        let Self::Unreadable { source: Some(source), .. } = self else { return false };
        source.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    /// The credential has run out and could not be renewed yet.
    #[must_use]
    pub fn temporarily_unavailable(why: impl Into<Cow<'static, str>>, retry_after: Option<Duration>) -> Self {
        Self::TemporarilyUnavailable { why: why.into(), retry_after }
    }
}

impl From<CredentialError> for FetchError {
    /// There is no credential to call with. A credential that is late or is being renewed may be there at the next attempt.
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::TemporarilyUnavailable { why, retry_after } => {
                Self::credential_unavailable(why).after(retry_after)
            }
            error if error.is_timeout() => Self::credential_unavailable(error.to_string()),
            error => Self::not_logged_in(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_late_is_worth_another_attempt_and_one_that_is_broken_is_not() {
        let error = |kind: io::ErrorKind| {
            FetchError::from(CredentialError::unreadable("`pass` timed out", io::Error::from(kind)))
        };

        assert!(error(io::ErrorKind::TimedOut).is_transient());
        assert!(!error(io::ErrorKind::PermissionDenied).is_transient());
        assert_eq!(error(io::ErrorKind::TimedOut).report(), "`pass` timed out");
    }

    #[test]
    fn without_a_credential_the_provider_is_not_asked() {
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
