//! Where the credential of an account comes from.
//! Most sources only read: the login belongs to another program, which alone refreshes and rewrites it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::model::{AccountId, CredentialFingerprint, LoginInfo};
use crate::secret::Secret;

/// Finds the credentials of accounts.
///
/// A [`QuotaManager`](crate::QuotaManager) owns the sources of its accounts
/// ([`QuotaManagerBuilder::provider`](crate::manager::QuotaManagerBuilder::provider)). It reads the credential before each call to the
/// provider, because logins change while a program runs, and it bounds each read in time and catches panics.
#[async_trait]
pub trait CredentialSource: fmt::Debug + Send + Sync + 'static {
    /// Reads the current credential of `account`.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no login, otherwise why it could not be read.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError>;

    /// Returns the credential to use after the provider rejected the one with the fingerprint `rejected`: a newer one if there is
    /// one or the source can get one, otherwise the same.
    ///
    /// Most sources read once more. A source that renews logins of its own does so here, at most once for a credential that it has
    /// not just renewed for the same reason: after a second rejection the user must log in.
    ///
    /// # Errors
    ///
    /// As [`credential`](Self::credential).
    async fn renew(
        &self,
        account: &AccountId,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let _ = rejected;
        self.credential(account).await
    }
}

#[async_trait]
impl<T: CredentialSource + ?Sized> CredentialSource for Arc<T> {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        (**self).credential(account).await
    }

    async fn renew(
        &self,
        account: &AccountId,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        (**self).renew(account, rejected).await
    }
}

/// The secret that opens an account, and what its source knows about the account.
///
/// Give it the fingerprint of its secret ([`LoginInfo::fingerprint`]). Without one, a rejected secret cannot be distinguished from its
/// replacement, so the account is not called for a while after a rejection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Credential {
    /// The token or key to send.
    pub secret: Secret,
    /// The login that it belongs to, and its fingerprint.
    pub login: LoginInfo,
    /// When the provider stops accepting it, if the source knows.
    pub expires_at: Option<Timestamp>,
    /// The plan of the account, if the source states it.
    pub plan: Option<String>,
}

impl Credential {
    /// A credential without a stated login, expiry or plan.
    #[must_use]
    pub fn new(secret: impl Into<Secret>) -> Self {
        Self { secret: secret.into(), login: LoginInfo::unknown(), expires_at: None, plan: None }
    }

    /// No credential: its secret is empty. Fetchers receive it for accounts without a credential source.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Secret::new(""))
    }

    /// Sets the login that it belongs to.
    #[must_use]
    pub fn login(mut self, login: LoginInfo) -> Self {
        self.login = login;
        self
    }

    /// Sets when the provider stops accepting it.
    #[must_use]
    pub fn expires_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.expires_at = at.into();
        self
    }

    /// Sets the plan of the account.
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
    /// There is no login where this source looks.
    #[error("{reason}")]
    #[non_exhaustive]
    NotLoggedIn {
        /// What the source looked for, and what to do.
        reason: Cow<'static, str>,
    },
    /// The login could not be read.
    #[error("{reason}")]
    #[non_exhaustive]
    Unreadable {
        /// What could not be read, and what to do.
        reason: Cow<'static, str>,
        /// The cause.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The credential expired and is not renewed yet. The source tries again; the user need not act.
    #[error("{reason}")]
    #[non_exhaustive]
    TemporarilyUnavailable {
        /// What the source waits for.
        reason: Cow<'static, str>,
        /// How long until the source tries again, if it knows.
        retry_after: Option<Duration>,
    },
}

impl CredentialError {
    /// There is no login.
    #[must_use]
    pub fn not_logged_in(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::NotLoggedIn { reason: reason.into() }
    }

    /// The login could not be read.
    #[must_use]
    pub fn unreadable(
        reason: impl Into<Cow<'static, str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Unreadable { reason: reason.into(), source: Some(Arc::new(source)) }
    }

    /// The source did not answer in time.
    #[must_use]
    pub fn timed_out(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::unreadable(reason, io::Error::from(io::ErrorKind::TimedOut))
    }

    /// Whether the source did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        let Self::Unreadable { source: Some(source), .. } = self else { return false };
        source.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    /// The credential expired and is not renewed yet.
    #[must_use]
    pub fn temporarily_unavailable(
        reason: impl Into<Cow<'static, str>>,
        retry_after: Option<Duration>,
    ) -> Self {
        Self::TemporarilyUnavailable { reason: reason.into(), retry_after }
    }
}
