//! A token in the keyring of the operating system, which is only read. `claude_code` reads Claude Code's own keychain item on macOS,
//! because other programs need the user's permission to read it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyring_core::CredentialStore;
use parking_lot::Mutex;
use quota_core::clock::Instant;
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource};
use secrecy::zeroize::Zeroizing;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::token;

/// Reads a token from the keyring of the operating system: the Secret Service on Linux and the BSDs, Keychain on macOS, Credential
/// Manager on Windows.
///
/// ```
/// use quota_credentials::Keyring;
///
/// // On Linux: secret-tool store --label "work" service my-program username anthropic/work
/// let source = Keyring::new("my-program");
/// ```
///
/// A service and a user identify the item. The user is the name of the account (`anthropic/work`), unless another is set. The item
/// contains only the token, and provides no login and no expiry.
///
/// A locked keyring may prompt the user to unlock it. The call waits at most five seconds. Lookups run one after the
/// other. After a lookup has timed out, further calls fail at once until the keyring responds. A manager reads an item
/// once every five minutes, and again if the provider rejects the token.
#[derive(Clone)]
pub struct Keyring {
    service: String,
    user: Option<String>,
    store: StoreFactory,
    clock: Clock,
    lookups: Arc<Lookups>,
}

/// One lookup runs at a time, because each one may open a dialog.
#[derive(Default)]
struct Lookups {
    /// The thread of a lookup holds this lock until the keyring responds.
    lock: Arc<tokio::sync::Mutex<()>>,
    /// When the last lookup began.
    last_began: Mutex<Option<Instant>>,
}

type StoreFactory = fn() -> keyring_core::Result<Arc<CredentialStore>>;

/// The timeout of a lookup, because a locked keyring waits for the user's password.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

impl Keyring {
    /// Reads items of this service. The user is the account's name.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self::with_store(service.into(), platform_store)
    }

    fn with_store(service: String, store: StoreFactory) -> Self {
        Self { service, user: None, store, clock: Clock::system(), lookups: Arc::default() }
    }

    /// Reads the item of this user, for any account.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The item as shown in messages. A name that may be a token, entered by mistake, is hidden.
    fn display_item(&self, user: &str) -> String {
        let is_plain = |text: &str| {
            text.len() <= 64
                && !text.starts_with("sk-")
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@/ ".contains(&byte))
        };
        if is_plain(&self.service) && is_plain(user) {
            format!("the keyring item of {user} for {}", self.service)
        } else {
            "the keyring item (name hidden, it may be a token)".to_owned()
        }
    }

    /// Reads the item on its own thread. A thread of the runtime's pool would delay the end of the program until the keyring responds.
    async fn lookup(&self, user: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let running = self.wait_for_previous().await?;
        let (sender, receiver) = oneshot::channel();
        let (store, service, user) = (self.store, self.service.clone(), user.to_owned());
        let work = move || {
            // If the library panics, `running` is dropped before the caller is notified.
            let (sender, running) = (sender, running);
            let found = read(store, &service, &user);
            drop(running);
            // The caller may have timed out.
            let _ = sender.send(found);
        };
        let thread = std::thread::Builder::new().name("quota-keyring".to_owned()).spawn(work);
        thread.map_err(|_| KeyringError::NoThread)?;
        match self.clock.bounded(LOOKUP_TIMEOUT, receiver).await {
            Some(Ok(found)) => found,
            Some(Err(_)) => Err(KeyringError::Panicked),
            None => Err(KeyringError::TimedOut),
        }
    }

    /// Waits for the previous lookup, but only while it has not timed out: a keyring that hangs must not delay further calls.
    async fn wait_for_previous(&self) -> Result<OwnedMutexGuard<()>, KeyringError> {
        let Lookups { lock, last_began } = &*self.lookups;
        let running = match Arc::clone(lock).try_lock_owned() {
            Ok(running) => running,
            Err(_) => {
                let elapsed = last_began.lock().map(|began| self.clock.instant().saturating_since(began));
                let left = LOOKUP_TIMEOUT.saturating_sub(elapsed.unwrap_or_default());
                let wait = self.clock.bounded(left, Arc::clone(lock).lock_owned());
                wait.await.ok_or(KeyringError::InFlight)?
            }
        };
        *last_began.lock() = Some(self.clock.instant());
        Ok(running)
    }
}

#[async_trait]
impl CredentialSource for Keyring {
    /// Reads the item. Dropping the future is safe, but a dialog that the keyring has opened stays open.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if the item is missing or blank. [`CredentialError::Unreadable`] if there is no keyring, it is
    /// locked, or the item does not contain exactly one token. Neither error repeats the content.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let user = self.user.clone().unwrap_or_else(|| account.to_string());
        let item = self.display_item(&user);
        match self.lookup(&user).await {
            Ok(secret) => token::require(
                &secret,
                || format!("{item} is empty; put a token in it"),
                || format!("{item} does not contain exactly one token; put one token in it"),
            ),
            Err(KeyringError::NotFound) => {
                Err(CredentialError::not_logged_in(format!("{item} does not exist; create it with a token")))
            }
            Err(error) => {
                let reason = format!("could not read {item}: {error}");
                Err(CredentialError::unreadable(reason, io::Error::from(io::ErrorKind::Other)))
            }
        }
    }

    /// Only a lookup detects a change.
    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::undetectable())
    }
}

/// Why a lookup failed. The keyring's own error text is dropped, because it may repeat the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum KeyringError {
    #[error("it does not exist")]
    NotFound,
    #[error("no keyring is running; start one, or use a file or a variable")]
    Unavailable,
    #[error("the keyring is locked or denies access; unlock it")]
    Locked,
    #[error("several items have this name; keep one of them")]
    Ambiguous,
    #[error("the keyring reported an error; check it")]
    Failed,
    #[error("the keyring timed out; unlock it")]
    TimedOut,
    #[error("the previous lookup is still waiting for the keyring; unlock it")]
    InFlight,
    #[error("the keyring library panicked; report it")]
    Panicked,
    #[error("could not start a thread; try again")]
    NoThread,
}

impl From<keyring_core::Error> for KeyringError {
    fn from(error: keyring_core::Error) -> Self {
        use keyring_core::Error;

        match error {
            Error::NoEntry => Self::NotFound,
            Error::NoStorageAccess(_) => Self::Locked,
            Error::Ambiguous(_) => Self::Ambiguous,
            Error::NoDefaultStore | Error::NotSupportedByStore(_) => Self::Unavailable,
            Error::BadEncoding(bytes) | Error::BadDataFormat(bytes, _) => {
                drop(Zeroizing::new(bytes));
                Self::Failed
            }
            _ => Self::Failed,
        }
    }
}

fn read(store: StoreFactory, service: &str, user: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let store = store().map_err(|_| KeyringError::Unavailable)?;
    Ok(Zeroizing::new(store.build(service, user, None)?.get_secret()?))
}

fn platform_store() -> keyring_core::Result<Arc<CredentialStore>> {
    #[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
    return Ok(zbus_secret_service_keyring_store::Store::new()?);
    #[cfg(target_os = "macos")]
    return Ok(apple_native_keyring_store::keychain::Store::new()?);
    #[cfg(windows)]
    return Ok(windows_native_keyring_store::Store::new()?);
    #[cfg(any(not(any(windows, unix)), target_os = "ios", target_os = "android"))]
    return Err(keyring_core::Error::NoDefaultStore);
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = self.display_item(self.user.as_deref().unwrap_or("each account"));
        f.debug_struct("Keyring").field("item", &item).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
