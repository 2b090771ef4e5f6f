//! Errors of a refresh and of an observation.

use crate::model::{AccountId, ProviderId};
use crate::provider::FetchError;
use crate::provider::fetch::with_cause;
use crate::record::{Hold, LastFailure};
use crate::store::StoreError;

/// Why a read or a refresh returned no new readings.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// The manager has no fetcher for the provider, so this process can only read what other processes fetch.
    #[error("no fetcher configured for provider {provider}")]
    #[non_exhaustive]
    NoFetcher {
        /// The provider.
        provider: ProviderId,
    },
    /// No call is allowed now.
    #[error("{account} is on hold until {}: {}", hold.until, hold.reason)]
    #[non_exhaustive]
    OnHold {
        /// The account.
        account: AccountId,
        /// The hold, with its end and its reason.
        hold: Hold,
    },
    /// The provider rejected this credential a short time ago, and the credential has not changed.
    #[error("{account}: {}", failure.message)]
    #[non_exhaustive]
    CredentialRejected {
        /// The account.
        account: AccountId,
        /// The provider's rejection.
        failure: LastFailure,
    },
    /// Another call with this credential failed, so this refresh made no new call. The call was running at the request or began
    /// later. For [`Account::refresh_unless_called_within`](crate::Account::refresh_unless_called_within) it may have ended before.
    #[error("a recent call for {account} failed: {}", failure.message)]
    #[non_exhaustive]
    CalledRecently {
        /// The account.
        account: AccountId,
        /// The failure of that call, with the time of its start.
        failure: LastFailure,
    },
    /// The call failed, or the credential for it could not be read.
    #[error("could not fetch usage for {account}")]
    #[non_exhaustive]
    Fetch {
        /// The account.
        account: AccountId,
        /// The cause.
        #[source]
        error: FetchError,
    },
    /// The account's login changed before this refresh could call the provider.
    #[error("{account} switched to another login during the refresh")]
    #[non_exhaustive]
    LoginChanged {
        /// The account.
        account: AccountId,
    },
    /// The account was removed during the call, so its readings were not stored. See
    /// [`QuotaManager::forget`](crate::QuotaManager::forget).
    #[error("{account} was removed while it was refreshed")]
    #[non_exhaustive]
    Forgotten {
        /// The account.
        account: AccountId,
    },
    /// A refresh, by this process or another one, did not end in time. It continues, and a later read returns its
    /// readings.
    #[error("a refresh of {account} is still in progress")]
    #[non_exhaustive]
    InProgress {
        /// The account.
        account: AccountId,
    },
    /// A read or a write of the store failed, and the policy does not allow standalone operation.
    #[error("could not use the store for {account}")]
    #[non_exhaustive]
    Store {
        /// The account.
        account: AccountId,
        /// The cause.
        #[source]
        error: StoreError,
    },
    /// A newer version of this program wrote the shared record. This version can read it, but must not change it.
    #[error("the record of {account} was written by a newer program; update this one")]
    #[non_exhaustive]
    UnsupportedFormat {
        /// The account.
        account: AccountId,
    },
    /// Too little time was left for a call before this program's
    /// [deadline](crate::manager::QuotaManagerBuilder::deadline), so none was made.
    #[error("no time left to refresh {account}")]
    #[non_exhaustive]
    DeadlineExceeded {
        /// The account.
        account: AccountId,
    },
    /// The fetcher, the credential source or the store panicked. The next refresh starts from the beginning, unless the fetcher has failed
    /// before too: then its panic arms a hold.
    #[error("the refresh of {account} panicked")]
    #[non_exhaustive]
    Panicked {
        /// The account.
        account: AccountId,
    },
    /// The manager was closed, or its runtime shut down.
    #[error("the quota manager was closed")]
    Closed,
}

impl QuotaError {
    /// This error of a refresh for `account`, which shares the record of the account that started the refresh.
    pub(crate) fn for_account(&self, id: &AccountId) -> Self {
        let mut error = self.clone();
        match &mut error {
            Self::OnHold { account, .. }
            | Self::CredentialRejected { account, .. }
            | Self::CalledRecently { account, .. }
            | Self::Fetch { account, .. }
            | Self::LoginChanged { account }
            | Self::Forgotten { account }
            | Self::InProgress { account }
            | Self::Store { account, .. }
            | Self::UnsupportedFormat { account }
            | Self::DeadlineExceeded { account }
            | Self::Panicked { account } => account.clone_from(id),
            Self::NoFetcher { .. } | Self::Closed => {}
        }
        error
    }

    /// Whether the error is about the credential of the account that started the refresh, and not about the record.
    pub(crate) fn is_of_credential(&self) -> bool {
        let Self::Fetch { error, .. } = self else { return false };
        matches!(error, FetchError::NotLoggedIn { .. } | FetchError::CredentialUnavailable { .. })
    }

    /// The error in one line for people, with the innermost cause if that adds information.
    ///
    /// ```
    /// # use quota_core::{AccountId, FetchError, MemoryStore, QuotaManager, testing::FakeProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// # let fetcher = FakeProvider::answering("example", 1.0);
    /// # fetcher.then_fail(FetchError::unavailable("the provider is out of service (status 503)"));
    /// # let quota = QuotaManager::builder(MemoryStore::new()).fetcher(fetcher).build()?;
    /// # let error = quota.account(&"example/main".parse::<AccountId>()?).get().await.unwrap_err();
    /// assert_eq!(
    ///     error.report(),
    ///     "could not fetch usage for example/main: the provider is out of service (status 503)",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn report(&self) -> String {
        match self {
            Self::Fetch { error, .. } => format!("{self}: {}", error.report()),
            Self::Store { error, .. } => format!("{self}: {}", with_cause(error)),
            _ => self.to_string(),
        }
    }

    /// The cause without the account, for output that shows the account separately.
    ///
    /// ```
    /// # use quota_core::{AccountId, FetchError, MemoryStore, QuotaManager, testing::FakeProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// # let fetcher = FakeProvider::answering("example", 1.0);
    /// # fetcher.then_fail(FetchError::unavailable("the provider is out of service (status 503)"));
    /// # let quota = QuotaManager::builder(MemoryStore::new()).fetcher(fetcher).build()?;
    /// # let error = quota.account(&"example/main".parse::<AccountId>()?).get().await.unwrap_err();
    /// assert_eq!(error.cause(), "the provider is out of service (status 503)");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Fetch { error, .. } => error.report(),
            Self::CredentialRejected { failure, .. } | Self::CalledRecently { failure, .. } => {
                failure.message.clone()
            }
            // No call was made, so the provider is not the cause.
            Self::DeadlineExceeded { .. } => "no time was left for a call".to_owned(),
            Self::InProgress { .. } => "a refresh is still in progress".to_owned(),
            Self::OnHold { hold, .. } => hold.reason.to_string(),
            _ => self.report(),
        }
    }
}

/// Why an observation or a seed was not merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The manager has no such account.
    #[error("{account} is not an account of this manager")]
    #[non_exhaustive]
    UnknownAccount {
        /// The account.
        account: AccountId,
    },
    /// The readings belong to a login other than the account's current one.
    #[error("the readings belong to another login of {account}")]
    #[non_exhaustive]
    AnotherLogin {
        /// The account.
        account: AccountId,
    },
    /// A newer version of this program wrote the shared record, so this version must not change it.
    #[error("the record of {account} was written by a newer program; update this one")]
    #[non_exhaustive]
    UnsupportedFormat {
        /// The account.
        account: AccountId,
    },
    /// The manager was closed, so the readings would not reach the store.
    #[error("the quota manager was closed")]
    Closed,
}
