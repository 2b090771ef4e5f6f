//! The logins that this program owns: kept in a file of its own, and renewed if that was switched on.
//! The logins of other programs are not among them: those are only ever read, where they are.

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
use quota_core::{
    AccountId, Backoff, Clock, Credential, CredentialError, CredentialFingerprint, CredentialSource,
    ProviderId, QuotaStore, RequestId, TokenRefresher,
};

pub use login::{NewLogin, PutResult};
use policy::{Pace, Want};
use renewal::Inner;

use crate::Environment;
use quota_core::file::FileError;
use quota_core::file::JsonFile;

/// Keeps logins that were made for this program, and renews them.
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
/// Nothing is renewed unless a [refresher](TokenStoreBuilder::refresher) is given for the provider. Then an access token is
/// renewed a while before its end, in the background, and once if the provider refuses it ([`renew`](Self::renew)).
///
/// A refresh token works once, and a second one who sends it logs everybody out. So it is sent by one task of one process at
/// a time: the file is locked for that, and with a [store](TokenStoreBuilder::store) so are other hosts; logins of one
/// provider are never renewed at the same time. The new token replaces the old one in one step, and only if the old one is
/// still there. A provider's refusal is final for that very token and no other: a new login ends it.
///
/// The file is this program's alone: for nobody but its owner, replaced whole, and left as it is where it is damaged.
/// Never put another program's refresh token into it: that program would be logged out.
///
/// Cheap to clone; all clones are one. Call [`close`](Self::close) before the program ends.
#[derive(Clone)]
pub struct TokenStore {
    inner: Arc<Inner>,
}

impl TokenStore {
    /// Begins with the logins in this file, which need not be there yet.
    pub fn builder(path: impl Into<PathBuf>) -> TokenStoreBuilder {
        TokenStoreBuilder {
            path: path.into(),
            refreshers: HashMap::new(),
            store: None,
            clock: Clock::system(),
            margin: Duration::from_secs(10 * 60),
            backoff: Backoff::doubling(Duration::from_secs(30), Duration::from_secs(15 * 60)),
            login_hint: None,
        }
    }

    /// Where the file is if nobody says otherwise: `quota/logins.json` in `$XDG_STATE_HOME`, else in `~/.local/state`.
    /// `None` if there is no home directory.
    #[must_use]
    pub fn path_in(environment: &Environment) -> Option<PathBuf> {
        Some(environment.state_home()?.join("quota").join("logins.json"))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.document.path()
    }

    /// Keeps a login that somebody has just made for this program, in place of the account's last one.
    ///
    /// One whose refresh token is kept already, or was exchanged for what is kept, changes nothing: what is kept is newer.
    /// Dropping the future leaves the login kept, or not.
    ///
    /// # Errors
    ///
    /// [`FileError`] if it could not be written; what is there stays.
    pub async fn put(&self, account: &AccountId, login: NewLogin) -> Result<PutResult, FileError> {
        let (account, now) = (account.clone(), self.inner.clock.now());
        self.inner.document.update(move |file: &mut login::LoginsFile| file.put(account, login, now)).await
    }

    /// Forgets the login of an account; `true` if there was one. The provider is not told.
    ///
    /// # Errors
    ///
    /// [`FileError`] if it could not be written; what is there stays.
    pub async fn remove(&self, account: &AccountId) -> Result<bool, FileError> {
        let account = account.clone();
        let change = move |file: &mut login::LoginsFile| file.logins.remove(&account).is_some();
        self.inner.document.update(change).await
    }

    /// The accounts that have a login here.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file could not be read.
    pub async fn accounts(&self) -> Result<Vec<AccountId>, FileError> {
        Ok(self.inner.load().await?.logins.into_keys().collect())
    }

    /// Waits for the renewals that are under way: one that is cut off may cost its login. It takes no longer than those do.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl CredentialSource for TokenStore {
    /// Reads the file. A token that ends soon is renewed in the background; one that has ended is waited for, a few seconds.
    /// The future may be dropped: what was begun goes on.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if nobody is, or no longer; [`CredentialError::TemporarilyUnavailable`] if the token has ended and
    /// could not be renewed for now; [`CredentialError::Unreadable`] if the file could not be read. All name the file, and
    /// none repeats what it holds.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        Inner::credential(&self.inner, account, Want::Credential).await
    }

    /// Renews the credential, if it is the one that was refused and was not renewed for that reason already.
    ///
    /// # Errors
    ///
    /// As [`credential`](Self::credential); [`CredentialError::NotLoggedIn`] also if a renewed token was refused as well.
    async fn renew(
        &self,
        account: &AccountId,
        refused: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        Inner::credential(&self.inner, account, refused.map_or(Want::Credential, Want::Another)).await
    }
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The settings of [`TokenStore`].
#[derive(Debug, Clone)]
#[must_use = "nothing is built before `build`"]
pub struct TokenStoreBuilder {
    path: PathBuf,
    refreshers: HashMap<ProviderId, Arc<dyn TokenRefresher>>,
    store: Option<Arc<dyn QuotaStore>>,
    clock: Clock,
    margin: Duration,
    backoff: Backoff,
    login_hint: Option<String>,
}

impl TokenStoreBuilder {
    /// Has the logins of its provider renewed by this one. Without one they are only read.
    pub fn refresher(mut self, refresher: Arc<dyn TokenRefresher>) -> Self {
        self.refreshers.insert(refresher.provider(), refresher);
        self
    }

    /// Shares the lease to renew a login through this store, with hosts that have sibling logins in files of their own. Without it,
    /// or while it is away, only processes that use this file exclude each other. No token is ever in it.
    pub fn store(mut self, store: Arc<dyn QuotaStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Renews so long before an access token's end, or a quarter of its life if that is less. Ten minutes; each process
    /// takes a random part of the second half off, so that not all of them come at once.
    pub fn margin(mut self, span: Duration) -> Self {
        self.margin = span;
        self
    }

    /// How long to leave a refresh token alone that could not be exchanged. 30 s, doubling to 15 min.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// What a person does to log in, for messages: a command, such as `my-program login`.
    pub fn login_hint(mut self, command: impl Into<String>) -> Self {
        self.login_hint = Some(command.into());
        self
    }

    /// Goes by this clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the source. It reads nothing yet.
    #[must_use]
    pub fn build(self) -> TokenStore {
        let pace =
            Pace { margin: self.margin, dice: RequestId::random().jitter_unit(), backoff: self.backoff };
        let document = JsonFile::at(self.path, self.clock.clone());
        let login_hint = self.login_hint;
        let inner = Inner::new(document, self.refreshers, self.store, self.clock, pace, login_hint);
        TokenStore { inner: Arc::new(inner) }
    }
}
