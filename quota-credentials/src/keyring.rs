//! A token in the keyring of the operating system. It is read, and never written.
//! Claude Code's own item of the macOS keychain is another matter: only the program that made it may read it unasked, see
//! `claude_code`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keyring_core::CredentialStore;
use quota_core::{AccountId, Clock, Credential, CredentialError, CredentialSource};
use secrecy::zeroize::Zeroizing;
use tokio::sync::oneshot;

use crate::token;

/// Finds a token in the keyring of the operating system: the Secret Service on Linux and the BSDs, Keychain on macOS, the
/// Credential Manager on Windows.
///
/// ```
/// use quota_credentials::Keyring;
///
/// // On Linux: secret-tool store --label "work" service my-program username anthropic/work
/// let source = Keyring::new("my-program");
/// ```
///
/// The item is named by a service and a user; the user is the account's name (`anthropic/work`) unless another is set. It
/// holds the token and nothing else. It says neither whose the login is nor how long the token is good for.
///
/// A keyring that is locked may ask its user to unlock it. That is waited for, five seconds; the question may stay open, and
/// until it is answered the keyring is not asked again.
#[derive(Clone)]
pub struct Keyring {
    service: String,
    user: Option<String>,
    store: fn() -> keyring_core::Result<Arc<CredentialStore>>,
    clock: Clock,
    /// Whether a question is open.
    is_asking: Arc<AtomicBool>,
}

/// A locked keyring asks its user for a password, and nobody may be there to answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Keyring {
    /// Looks for items of this service.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self::with_store(service.into(), of_this_machine)
    }

    fn with_store(service: String, store: fn() -> keyring_core::Result<Arc<CredentialStore>>) -> Self {
        Self { service, user: None, store, clock: Clock::system(), is_asking: Arc::default() }
    }

    /// Looks for the item of this user, whatever the account.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    fn unreadable(&self, user: &str, why: &str, source: io::Error) -> CredentialError {
        let item = self.item(user);
        CredentialError::unreadable(format!("{item} in the keyring could not be read: {why}"), source)
    }

    /// The item as it may be shown: a token that was put where a name belongs must not be repeated.
    fn item(&self, user: &str) -> String {
        let is_plain = |text: &str| {
            text.len() <= 64
                && !text.starts_with("sk-")
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@/ ".contains(&byte))
        };
        if is_plain(&self.service) && is_plain(user) {
            format!("the item of {user} for {}", self.service)
        } else {
            "the item, whose name is not repeated since it may be a token,".to_owned()
        }
    }
}

#[async_trait]
impl CredentialSource for Keyring {
    /// Reads the item. The future may be dropped; a question that the keyring asks its user stays open.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no such item or nothing in it, [`CredentialError::Unreadable`] if there is
    /// no keyring, it is locked, or the item holds anything but one token. Neither repeats what it holds.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let user = self.user.clone().unwrap_or_else(|| account.to_string());
        if self.is_asking.swap(true, Ordering::AcqRel) {
            let why = "it has not answered the last question yet; unlock it";
            return Err(self.unreadable(&user, why, io::ErrorKind::WouldBlock.into()));
        }
        let (answer, answered) = oneshot::channel();
        let asking = Asking(Arc::clone(&self.is_asking));
        let (store, service, of) = (self.store, self.service.clone(), user.clone());
        let ask = move || {
            // Dropped in this order, should the library break: the question ends before whoever waits is told.
            let (answer, asking) = (answer, asking);
            let found = read(store, &service, &of);
            drop(asking);
            // Whoever asked may have left.
            let _ = answer.send(found);
        };
        // A thread of its own: one of the runtime's would keep a program from ending for as long as the question is open.
        let thread = std::thread::Builder::new().name("quota-keyring".to_owned()).spawn(ask);
        thread.map_err(|error| self.unreadable(&user, "no thread could be started", error))?;
        let found = match self.clock.bounded(PATIENCE, answered).await {
            Some(Ok(found)) => found,
            Some(Err(_)) => Err(Trouble::Broken),
            None => Err(Trouble::Slow),
        };
        let kind = io::ErrorKind::Other;
        match found {
            Ok(secret) => {
                let text = std::str::from_utf8(&secret).map_err(|_| token::NotAToken);
                match text.and_then(token::take) {
                    Ok(Some(secret)) => Ok(token::credential(secret)),
                    Ok(None) => Err(CredentialError::not_logged_in(format!(
                        "{} in the keyring is empty: put a token in it",
                        self.item(&user)
                    ))),
                    Err(flaw) => Err(CredentialError::unreadable(
                        format!(
                            "{} in the keyring holds more than one token: put one in it",
                            self.item(&user)
                        ),
                        flaw,
                    )),
                }
            }
            Err(Trouble::NoItem) => Err(CredentialError::not_logged_in(format!(
                "{} is not in the keyring: put a token in it",
                self.item(&user)
            ))),
            Err(trouble) => Err(self.unreadable(&user, trouble.advice(), kind.into())),
        }
    }
}

/// Ends the question, however it ends.
struct Asking(Arc<AtomicBool>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What can go wrong, without what the keyring says of it: its errors may hold what an item holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    NoItem,
    NoKeyring,
    Locked,
    Several,
    Failed,
    Slow,
    Broken,
}

impl Trouble {
    fn advice(self) -> &'static str {
        match self {
            Self::NoItem => "it is not there",
            Self::NoKeyring => "no keyring answers here; use a file or a variable instead, or start one",
            Self::Locked => "the keyring is locked or denies it; unlock it",
            Self::Several => "there are several of that name; leave one",
            Self::Failed => "the keyring failed; see whether it is in order",
            Self::Slow => "the keyring did not answer in time; unlock it",
            Self::Broken => "the keyring's library broke; report it",
        }
    }
}

fn read(
    store: fn() -> keyring_core::Result<Arc<CredentialStore>>,
    service: &str,
    user: &str,
) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let store = store().map_err(|_| Trouble::NoKeyring)?;
    let entry = store.build(service, user, None).map_err(trouble)?;
    entry.get_secret().map(Zeroizing::new).map_err(trouble)
}

fn trouble(error: keyring_core::Error) -> Trouble {
    use keyring_core::Error;

    match error {
        Error::NoEntry => Trouble::NoItem,
        Error::NoStorageAccess(_) => Trouble::Locked,
        Error::Ambiguous(_) => Trouble::Several,
        Error::NoDefaultStore | Error::NotSupportedByStore(_) => Trouble::NoKeyring,
        Error::BadEncoding(bytes) | Error::BadDataFormat(bytes, _) => {
            drop(Zeroizing::new(bytes));
            Trouble::Failed
        }
        _ => Trouble::Failed,
    }
}

#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
fn of_this_machine() -> keyring_core::Result<Arc<CredentialStore>> {
    Ok(zbus_secret_service_keyring_store::Store::new()?)
}

#[cfg(target_os = "macos")]
fn of_this_machine() -> keyring_core::Result<Arc<CredentialStore>> {
    Ok(apple_native_keyring_store::keychain::Store::new()?)
}

#[cfg(windows)]
fn of_this_machine() -> keyring_core::Result<Arc<CredentialStore>> {
    Ok(windows_native_keyring_store::Store::new()?)
}

#[cfg(not(any(windows, unix)))]
fn of_this_machine() -> keyring_core::Result<Arc<CredentialStore>> {
    Err(keyring_core::Error::NoDefaultStore)
}

#[cfg(any(target_os = "ios", target_os = "android"))]
fn of_this_machine() -> keyring_core::Result<Arc<CredentialStore>> {
    Err(keyring_core::Error::NoDefaultStore)
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = self.item(self.user.as_deref().unwrap_or("each account"));
        f.debug_struct("Keyring").field("item", &item).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
