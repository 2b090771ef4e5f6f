//! The sources of credentials. Most sources only read. Another program owns the login, and only that program refreshes
//! and rewrites it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::source_version::SourceVersion;
use crate::model::{AccountId, CredentialFingerprint, LoginInfo};
use crate::secret::Secret;

/// Finds the credentials of accounts.
///
/// A [`QuotaManager`](crate::QuotaManager) owns the sources of its accounts
/// ([`QuotaManagerBuilder::provider`](crate::manager::QuotaManagerBuilder::provider)), and one cache in front of them.
/// It gets the credential before each call to the provider, because logins change while a program runs. Concurrent
/// callers share one read. The manager bounds each read in time and catches panics. It repeats a failed read after a
/// second, and then at increasing intervals of up to a minute. A change of the source's files or an [explicit
/// refresh](crate::Account::refresh) repeats it immediately.
#[async_trait]
pub trait CredentialSource: fmt::Debug + Send + Sync + 'static {
    /// Reads the current credential of `account`.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no login; otherwise the reason why the source could not read it.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError>;

    /// Returns the credential to use after the provider rejected the credential with the fingerprint `rejected`. It is a
    /// newer one if the source has or can get one, otherwise the same.
    ///
    /// Most sources read again. A source that owns its logins renews the credential here. It does so only once per rejection:
    /// if the provider rejects the new credential too, the user must log in.
    ///
    /// # Errors
    ///
    /// The errors of [`credential`](Self::credential).
    async fn renew(
        &self,
        account: &AccountId,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let _ = rejected;
        self.credential(account).await
    }

    /// Identifies what [`credential`](Self::credential) would read now, without reading it. It must be much cheaper than a read.
    ///
    /// The manager uses it to decide whether to use the previous credential again:
    ///
    /// | the source states | the manager reads again |
    /// |---|---|
    /// | `None`, the default | for each caller; concurrent callers share the read |
    /// | [`SourceVersion::of_files`] | if a file has changed |
    /// | [`SourceVersion::undetectable`] | after five minutes, or shortly before the credential expires |
    ///
    /// It also reads again if the provider rejects the credential ([`renew`](Self::renew)), and if the files changed during a read:
    /// otherwise a source of several files could return the token of one login with the name of another.
    async fn version(&self, account: &AccountId) -> Option<SourceVersion> {
        let _ = account;
        None
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

    async fn version(&self, account: &AccountId) -> Option<SourceVersion> {
        (**self).version(account).await
    }
}

/// The secret that grants access to an account, with metadata from its source.
///
/// Set the fingerprint of its secret ([`LoginInfo::fingerprint`]). Without one, a rejected secret cannot be distinguished
/// from its replacement, so the manager makes no calls for a while after a rejection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Credential {
    /// The token or key to send.
    pub secret: Secret,
    /// The login of the secret, and the fingerprint of the secret.
    pub login: LoginInfo,
    /// When the provider stops accepting the secret, if the source states it.
    pub expires_at: Option<Timestamp>,
    /// The plan of the account, if the source states it.
    pub plan: Option<String>,
    /// The provider's own id of the account, for requests that must name it. It is not a secret.
    pub account_id: Option<String>,
}

impl Credential {
    /// Creates a credential with only a secret.
    #[must_use]
    pub fn new(secret: impl Into<Secret>) -> Self {
        Self {
            secret: secret.into(),
            login: LoginInfo::unknown(),
            expires_at: None,
            plan: None,
            account_id: None,
        }
    }

    /// Creates an empty credential. Fetchers receive it for accounts without a credential source.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Secret::new(""))
    }

    /// Sets the login of the secret.
    #[must_use]
    pub fn login(mut self, login: LoginInfo) -> Self {
        self.login = login;
        self
    }

    /// Sets when the provider stops accepting the secret.
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

    /// Sets the provider's own id of the account.
    #[must_use]
    pub fn account_id(mut self, id: impl Into<Option<String>>) -> Self {
        self.account_id = id.into();
        self
    }
}

/// Why there is no credential.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The source found no login.
    #[error("{reason}")]
    #[non_exhaustive]
    NotLoggedIn {
        /// Where the source searched, and what to do.
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
    /// The credential expired and is not renewed yet. The source retries, and the user does not have to act.
    #[error("{reason}")]
    #[non_exhaustive]
    TemporarilyUnavailable {
        /// The operation that the source waits for.
        reason: Cow<'static, str>,
        /// The time until the source retries, if it states it.
        retry_after: Option<Duration>,
    },
}

impl CredentialError {
    /// Creates an error for a missing login.
    #[must_use]
    pub fn not_logged_in(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::NotLoggedIn { reason: reason.into() }
    }

    /// Creates an error for a login that could not be read.
    #[must_use]
    pub fn unreadable(
        reason: impl Into<Cow<'static, str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Unreadable { reason: reason.into(), source: Some(Arc::new(source)) }
    }

    /// Creates an error for a source that timed out.
    #[must_use]
    pub fn timed_out(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::unreadable(reason, io::Error::from(io::ErrorKind::TimedOut))
    }

    /// Whether the source timed out. A caller that timed out before the read ended gets
    /// [`TemporarilyUnavailable`](Self::TemporarilyUnavailable) instead, because its timeout gives no information about
    /// the source.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        let Self::Unreadable { source: Some(source), .. } = self else { return false };
        source.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    /// Creates an error for a credential that expired and is not renewed yet.
    #[must_use]
    pub fn temporarily_unavailable(
        reason: impl Into<Cow<'static, str>>,
        retry_after: Option<Duration>,
    ) -> Self {
        Self::TemporarilyUnavailable { reason: reason.into(), retry_after }
    }
}
