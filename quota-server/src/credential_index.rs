//! Finds the account of a presented credential. It holds hashes of credentials, never the credentials.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use quota::clock::Instant;
use quota::model::LoginInfo;
use quota::{Clock, Credential, CredentialError, ProviderId};
use tokio::task::JoinSet;

use crate::access::digest;
use crate::served::Served;

/// The age of the last check from which a lookup starts another check in the background.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum time between the starts of two checks. It limits the checks that clients with unknown credentials can
/// cause.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The timeout of one credential source.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How many credentials of a login are kept, because a client may use the previous one for a while.
const MAX_CREDENTIALS: usize = 4;

type Digest = [u8; 32];

/// The credentials of the accounts of one manager.
#[derive(Debug)]
pub(crate) struct CredentialIndex {
    accounts: Vec<Arc<Served>>,
    /// The positions of the accounts of a credential.
    positions: ArcSwap<HashMap<Digest, Vec<usize>>>,
    known: Mutex<Vec<KnownCredentials>>,
    /// When the last finished check began.
    checked_at: Mutex<Option<Instant>>,
    /// When the last check began. It may be unfinished because its caller dropped it.
    began_at: Mutex<Option<Instant>>,
    /// One check at a time.
    checking: tokio::sync::Mutex<()>,
    background: Mutex<JoinSet<()>>,
    clock: Clock,
}

/// The credentials of one account, the current one first.
#[derive(Debug, Clone, Default, PartialEq)]
struct KnownCredentials {
    login: LoginInfo,
    digests: Vec<Digest>,
}

impl KnownCredentials {
    /// Adds a credential that was just read. The previous credentials stay valid only if they have the same login.
    fn update(&mut self, read: Result<Option<Credential>, CredentialError>) {
        match read {
            Ok(Some(credential)) if !credential.secret.expose().trim().is_empty() => {
                let current = digest(credential.secret.expose().trim());
                let login = credential.login;
                if self.login.login_id.is_none() || self.login.login_id != login.login_id {
                    self.digests.clear();
                }
                self.digests.retain(|known| *known != current);
                self.digests.insert(0, current);
                self.digests.truncate(MAX_CREDENTIALS);
                self.login = login;
            }
            Ok(_) | Err(CredentialError::NotLoggedIn { .. }) => *self = Self::default(),
            // The login may still be the same.
            Err(_) => {}
        }
    }
}

impl CredentialIndex {
    pub(crate) fn new(accounts: Vec<Arc<Served>>) -> Self {
        Self {
            known: Mutex::new(vec![KnownCredentials::default(); accounts.len()]),
            accounts,
            positions: ArcSwap::default(),
            checked_at: Mutex::default(),
            began_at: Mutex::default(),
            checking: tokio::sync::Mutex::default(),
            background: Mutex::default(),
            clock: Clock::system(),
        }
    }

    /// The first account of this provider with the credential.
    ///
    /// Waits for the credential sources only if the credential is unknown.
    pub(crate) async fn find(self: &Arc<Self>, provider: &ProviderId, token: &str) -> Option<Arc<Served>> {
        let digest = digest(token);
        if let Some(found) = self.get(provider, &digest) {
            if self.is_due() {
                let index = Arc::clone(self);
                let mut background = self.background.lock();
                while background.try_join_next().is_some() {}
                if background.is_empty() {
                    background.spawn(async move { index.check().await });
                }
            }
            return Some(found);
        }
        self.check().await;
        self.get(provider, &digest)
    }

    /// Whether this is a known credential of the account. It never waits.
    pub(crate) fn knows(&self, served: &Served, token: &str) -> bool {
        let positions = self.positions_of(&digest(token));
        positions.iter().any(|at| self.accounts[*at].id() == served.id())
    }

    /// Whether this is a credential of the account. It waits for the credential sources if the credential is unknown.
    pub(crate) async fn is_of(&self, served: &Served, token: &str) -> bool {
        if self.knows(served, token) {
            return true;
        }
        self.check().await;
        self.knows(served, token)
    }

    fn get(&self, provider: &ProviderId, digest: &Digest) -> Option<Arc<Served>> {
        let positions = self.positions_of(digest);
        let mut accounts = positions.iter().map(|at| &self.accounts[*at]);
        accounts.find(|served| served.id().provider() == provider).cloned()
    }

    fn positions_of(&self, digest: &Digest) -> Vec<usize> {
        self.positions.load().get(digest).cloned().unwrap_or_default()
    }

    fn is_due(&self) -> bool {
        let now = self.clock.instant();
        self.checked_at.lock().is_none_or(|checked_at| now.saturating_since(checked_at) >= CHECK_INTERVAL)
    }

    /// Reads the credentials of all accounts. All callers share a check that begins after their call. A new check waits
    /// until [`MIN_INTERVAL`] after the start of the last one.
    pub(crate) async fn check(&self) {
        let called_at = self.clock.instant();
        let _checking = self.checking.lock().await;
        if let Some(checked_at) = *self.checked_at.lock()
            && checked_at > called_at
        {
            return;
        }
        let since = self.began_at.lock().map(|began_at| self.clock.instant().saturating_since(began_at));
        if let Some(wait) = since.and_then(|since| MIN_INTERVAL.checked_sub(since)) {
            self.clock.sleep(wait).await;
        }
        let began_at = self.clock.instant();
        *self.began_at.lock() = Some(began_at);
        let reads = self.accounts.iter().map(|served| served.account.credential(READ_TIMEOUT));
        let reads = join_all(reads).await;
        let mut known = self.known.lock();
        let mut positions: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (at, (known, read)) in known.iter_mut().zip(reads).enumerate() {
            known.update(read);
            self.accounts[at].login.lock().clone_from(&known.login);
            for digest in &known.digests {
                positions.entry(*digest).or_default().push(at);
            }
        }
        self.positions.store(Arc::new(positions));
        *self.checked_at.lock() = Some(began_at);
    }
}

#[cfg(test)]
mod tests {
    use quota::Secret;
    use quota::model::LoginId;

    use super::*;

    fn read(token: &str, login: Option<&str>) -> Result<Option<Credential>, CredentialError> {
        let login = login.map_or_else(LoginInfo::unknown, |id| LoginInfo::new(LoginId::new(id)));
        Ok(Some(Credential::new(Secret::new(token)).login(login)))
    }

    fn after(reads: impl IntoIterator<Item = Result<Option<Credential>, CredentialError>>) -> Vec<Digest> {
        let mut known = KnownCredentials::default();
        reads.into_iter().for_each(|read| known.update(read));
        known.digests
    }

    #[test]
    fn previous_credentials_of_the_same_login_stay_known() {
        let digests = after([read("one", Some("a")), read("two", Some("a")), read("one", Some("a"))]);

        assert_eq!(digests, [digest("one"), digest("two")]);
    }

    #[test]
    fn a_credential_of_another_login_replaces_all() {
        assert_eq!(after([read("one", Some("a")), read("two", Some("b"))]), [digest("two")]);
        assert_eq!(after([read("one", None), read("two", None)]), [digest("two")]);
        assert_eq!(after([read("one", Some("a")), read("two", None)]), [digest("two")]);
    }

    #[test]
    fn without_a_login_no_credential_is_known() {
        assert!(after([read("one", Some("a")), Err(CredentialError::not_logged_in("log in"))]).is_empty());
        assert!(after([read("one", Some("a")), Ok(None)]).is_empty());
        assert!(after([read(" ", None)]).is_empty());
    }

    #[test]
    fn a_failed_read_changes_nothing() {
        let failed = Err(CredentialError::timed_out("it timed out"));

        assert_eq!(after([read("one", None), failed]), [digest("one")]);
    }

    #[test]
    fn the_number_of_credentials_is_bounded() {
        let reads = (0..9).map(|at| read(&at.to_string(), Some("a")));

        assert_eq!(after(reads).len(), MAX_CREDENTIALS);
    }
}
