//! Errors of a refresh and of an observation.

use crate::model::{AccountId, ProviderId};
use crate::provider::FetchError;
use crate::provider::fetch::with_cause;
use crate::record::{Hold, LastFailure};
use crate::store::StoreError;

/// Why a read or a refresh brought nothing new.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// No fetcher was given for the provider: this process can only read what others fetch.
    #[error("nothing here fetches usage from {provider}")]
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
        /// Until when, and why.
        hold: Hold,
    },
    /// The provider refused this login a short while ago, and nothing has changed since.
    #[error("{account}: {}", failure.message)]
    #[non_exhaustive]
    CredentialRejected {
        /// The account.
        account: AccountId,
        /// What went wrong then.
        failure: LastFailure,
    },
    /// A call with this credential was started a short while ago and failed, and no other one was made. Only
    /// [`Account::refresh_unless_called_within`](crate::Account::refresh_unless_called_within) ends so.
    #[error("the last call for {account} failed a short while ago: {}", failure.message)]
    #[non_exhaustive]
    CalledRecently {
        /// The account.
        account: AccountId,
        /// What went wrong, and when that call was started.
        failure: LastFailure,
    },
    /// The provider was asked, or was to be asked, and there was no usable answer.
    #[error("could not fetch usage for {account}")]
    #[non_exhaustive]
    Fetch {
        /// The account.
        account: AccountId,
        /// What went wrong.
        #[source]
        error: FetchError,
    },
    /// The account was given to another login before this refresh could ask.
    #[error("{account} holds another login by now")]
    #[non_exhaustive]
    LoginChanged {
        /// The account.
        account: AccountId,
    },
    /// The account was removed while the provider was called; the answer was not stored. See
    /// [`QuotaManager::forget`](crate::QuotaManager::forget).
    #[error("{account} was removed while it was refreshed")]
    #[non_exhaustive]
    Forgotten {
        /// The account.
        account: AccountId,
    },
    /// Another process was refreshing, and did not finish in time.
    #[error("another process is refreshing {account} and has not finished")]
    #[non_exhaustive]
    InProgress {
        /// The account.
        account: AccountId,
    },
    /// The store could not be used, and the policy is not to go on without it.
    #[error("could not use the store for {account}")]
    #[non_exhaustive]
    Store {
        /// The account.
        account: AccountId,
        /// What went wrong.
        #[source]
        error: StoreError,
    },
    /// The shared record was written by a newer version of this program: it can be read, and must not be changed.
    #[error("the record of {account} was written by a newer program; update this one")]
    #[non_exhaustive]
    UnsupportedFormat {
        /// The account.
        account: AccountId,
    },
    /// The time that this program has ([`QuotaManagerBuilder::deadline`](crate::manager::QuotaManagerBuilder::deadline)) left too little for
    /// a call, so none was made.
    #[error("no time left to refresh {account}")]
    #[non_exhaustive]
    DeadlineExceeded {
        /// The account.
        account: AccountId,
    },
    /// The fetcher broke, or the store did. The next refresh starts from the beginning.
    #[error("the refresh of {account} broke in the middle")]
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
    /// The error in one line for people, with the innermost cause where that adds something.
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

    /// The cause alone, for a reader that shows the account beside it.
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
            Self::InProgress { .. } => "another process is still refreshing it".to_owned(),
            Self::OnHold { hold, .. } => hold.reason.to_string(),
            _ => self.report(),
        }
    }
}

/// Why an observation or a seed was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The manager has no such account: readings are never filed under another one.
    #[error("{account} is not an account of this manager")]
    #[non_exhaustive]
    UnknownAccount {
        /// The account that was named.
        account: AccountId,
    },
    /// The readings belong to another login than the one the account holds now.
    #[error("the readings belong to another login of {account}")]
    #[non_exhaustive]
    AnotherLogin {
        /// The account.
        account: AccountId,
    },
    /// The shared record was written by a newer version of this program.
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
