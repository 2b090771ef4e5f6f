//! Logins that this program owns. They are stored in its own file, and renewed if a refresher is configured. Logins of other programs
//! are never stored here; their sources only read them.

mod lease;
mod login;
mod policy;
mod renewal;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quota_core::file::{FileError, JsonFile};
use quota_core::model::{CredentialFingerprint, RequestId};
use quota_core::policy::Backoff;
use quota_core::provider::{SourceVersion, TokenError, TokenRefresher, Tokens};
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource, QuotaStore};

use self::login::LoginsFile;
pub use self::login::{NewLogin, PutResult};
use self::policy::{Demand, RenewalTiming};
pub use self::renewal::LogInError;
use self::renewal::{Renewer, Settings};
use crate::Environment;

/// Stores logins that were created for this program, and renews them.
///
/// ```
/// use quota_core::{CredentialSource, Secret};
/// use quota_credentials::{NewLogin, TokenStore};
///
/// # let dir = tempfile::tempdir()?;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let logins = TokenStore::builder(dir.path().join("logins.json")).build();
/// let main = "anthropic/main".parse()?;
/// logins.put(&main, NewLogin::new(Secret::new("an-access-token"))).await?;
///
/// assert_eq!(logins.credential(&main).await?.secret.expose(), "an-access-token");
/// logins.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Without a [refresher](TokenStoreBuilder::refresher) for the provider, nothing is renewed. With one, a background task renews an
/// access token shortly before it expires. It also renews a token once if the provider rejects it ([`renew`](Self::renew)).
///
/// A refresh token works once. If it is sent twice, the provider revokes the whole login. So only one task of one process sends it at a
/// time. A file lock excludes other processes, and with a [store](TokenStoreBuilder::store) a lease excludes other hosts. Logins of one
/// provider are never renewed at the same time. The new token replaces the old one atomically, and only if the old one is still stored.
/// A refresh token that the provider has rejected is never sent again; the user must log in.
///
/// Only the owner of the file may access it. A malformed file is never overwritten. Never store another program's refresh token in the
/// file, because that would log the other program out.
///
/// Clones share all state. Call [`close`](Self::close) before the program ends.
#[derive(Clone)]
pub struct TokenStore {
    renewer: Arc<Renewer>,
}

impl TokenStore {
    /// Uses the logins in this file, which may not exist yet.
    pub fn builder(path: impl Into<PathBuf>) -> TokenStoreBuilder {
        let timing = RenewalTiming {
            margin: Duration::from_secs(10 * 60),
            jitter: RequestId::random().jitter_unit(),
            backoff: Backoff::doubling(Duration::from_secs(30), Duration::from_secs(15 * 60)),
        };
        let settings = Settings {
            refreshers: HashMap::new(),
            store: None,
            clock: Clock::system(),
            timing,
            login_hint: None,
        };
        TokenStoreBuilder { path: path.into(), settings }
    }

    /// The default path: `quota/logins.json` in `$XDG_STATE_HOME`, otherwise in `~/.local/state`. `None` if there is no home directory.
    #[must_use]
    pub fn default_path(environment: &Environment) -> Option<PathBuf> {
        Some(environment.xdg_dir("XDG_STATE_HOME", ".local/state")?.join("quota").join("logins.json"))
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.renewer.file.path()
    }

    /// Stores a new login, and replaces the account's previous one.
    ///
    /// If its refresh token is already stored, or the stored one descends from it, nothing changes, because the stored login is newer.
    /// If the future is dropped, the login may or may not be stored.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file cannot be written; it is then unchanged.
    pub async fn put(&self, account: &AccountId, login: NewLogin) -> Result<PutResult, FileError> {
        let (account, now) = (account.clone(), self.renewer.settings.clock.now());
        self.renewer.file.update(move |file: &mut LoginsFile| file.put(account, login, now)).await
    }

    /// Obtains a login by an exchange with the provider, such as that of an authorization code, and stores it in place of the account's
    /// previous one.
    ///
    /// The exchange holds the lease for renewals, so that no sibling login is renewed at the same time. It starts only
    /// if the file can be read. If the future is dropped, the exchange continues, and [`close`](Self::close) waits for
    /// it.
    ///
    /// # Errors
    ///
    /// [`LogInError`]. Nothing is stored then.
    pub async fn log_in(
        &self,
        account: &AccountId,
        exchange: impl Future<Output = Result<Tokens, TokenError>> + Send + 'static,
    ) -> Result<(), LogInError> {
        self.renewer.log_in(account, exchange).await
    }

    /// Removes the login of an account. Returns whether there was one. The provider is not notified.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file cannot be written; it is then unchanged.
    pub async fn remove(&self, account: &AccountId) -> Result<bool, FileError> {
        let account = account.clone();
        let remove = move |file: &mut LoginsFile| file.logins.remove(&account).is_some();
        self.renewer.file.update(remove).await
    }

    /// The accounts that have a login in the file.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file cannot be read.
    pub async fn accounts(&self) -> Result<Vec<AccountId>, FileError> {
        Ok(self.renewer.load().await?.logins.into_keys().collect())
    }

    /// Waits for running renewals. Their timeouts bound the wait. Interrupting a renewal may lose its login. A renewal
    /// that still waits for another process after a second is abandoned, because it has sent nothing.
    pub async fn close(&self) {
        self.renewer.close().await;
    }
}

#[async_trait]
impl CredentialSource for TokenStore {
    /// Reads the file. If the token expires soon, a background task renews it. If it has expired, the call waits a few seconds for the
    /// renewal. If the future is dropped, the renewal continues.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no login or it is no longer valid. [`CredentialError::TemporarilyUnavailable`] if
    /// the token has expired and cannot be renewed yet. [`CredentialError::Unreadable`] if the file cannot be read. No error repeats
    /// its content.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.renewer.credential(account, Demand::Credential).await
    }

    /// Renews a login whose access token the provider rejected. If another token has been stored since, returns that one. Dropping the
    /// future is safe.
    ///
    /// # Errors
    ///
    /// The same as those of [`credential`](Self::credential). If the provider also rejects the token that replaced a rejected one, the
    /// user must log in again.
    async fn renew(
        &self,
        account: &AccountId,
        refused: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let demand = refused.map_or(Demand::Credential, Demand::Replacement);
        self.renewer.credential(account, demand).await
    }

    /// Every login and every renewal by any process changes the file. It does not change when a login becomes due for renewal, so
    /// a manager also reads after five minutes, and shortly before the expiry.
    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::of_files([self.path().to_owned()]).await.and_undetectable())
    }
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The settings of a [`TokenStore`].
#[derive(Debug, Clone)]
#[must_use = "the store is not created before `build`"]
pub struct TokenStoreBuilder {
    path: PathBuf,
    settings: Settings,
}

impl TokenStoreBuilder {
    /// Renews the logins of the refresher's provider. Logins of other providers are only read.
    pub fn refresher(mut self, refresher: Arc<dyn TokenRefresher>) -> Self {
        self.settings.refreshers.insert(refresher.provider(), refresher);
        self
    }

    /// Shares the lease for renewals, through this store, with hosts that have sibling logins in their own files. Without a
    /// store, or while it is unavailable, only processes that use the same file exclude each other. The store never contains a token.
    pub fn store(mut self, store: Arc<dyn QuotaStore>) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// Sets how long before its expiry an access token is renewed. The limit is a quarter of its lifetime, and the default ten minutes.
    /// Each process subtracts a random part of up to one half, so that processes do not renew at the same time.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.settings.timing.margin = margin;
        self
    }

    /// Sets the backoff after a failed renewal. The default is 30 s, doubling up to 15 min.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.timing.backoff = backoff;
        self
    }

    /// Sets the command for logging in that error messages show, such as `my-program login`.
    pub fn login_hint(mut self, command: impl Into<String>) -> Self {
        self.settings.login_hint = Some(command.into());
        self
    }

    /// Sets the clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Creates the store, without reading the file.
    #[must_use]
    pub fn build(self) -> TokenStore {
        let file = JsonFile::at(self.path, self.settings.clock.clone());
        TokenStore { renewer: Arc::new(Renewer::new(file, self.settings)) }
    }
}
