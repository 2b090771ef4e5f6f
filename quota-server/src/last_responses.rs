//! The provider's last response for each account, in memory only. The gateway passes its unknown fields on to clients.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use quota::http::LastResponse;
use quota::model::LoginInfo;
use quota::{AccountId, Clock, Credential};

/// The last response for each account, at most 64 KiB, with the login that the request used.
#[derive(Debug, Clone, Default)]
pub struct LastResponses(Arc<RwLock<HashMap<AccountId, Entry>>>);

#[derive(Debug)]
struct Entry {
    login: LoginInfo,
    response: Arc<LastResponse>,
}

impl LastResponses {
    /// The maximum number of accounts.
    const MAX_ACCOUNTS: usize = 4096;

    /// A function for [`on_response`](quota::http::FetcherBuilder::on_response) of a fetcher.
    pub fn recorder(&self) -> impl Fn(&AccountId, &Credential, &[u8]) + Send + Sync + 'static {
        let responses = self.clone();
        move |account, credential, body| responses.record(account, credential, body)
    }

    fn record(&self, account: &AccountId, credential: &Credential, body: &[u8]) {
        let response = LastResponse::parse(body, Clock::system().now());
        let mut entries = self.0.write();
        match response {
            Some(response) if entries.len() < Self::MAX_ACCOUNTS || entries.contains_key(account) => {
                let entry = Entry { login: credential.login.clone(), response: Arc::new(response) };
                entries.insert(account.clone(), entry);
            }
            // The previous response no longer matches the readings.
            _ => drop(entries.remove(account)),
        }
    }

    /// The last response of this account and login. A response of another login is never returned.
    pub(crate) fn get(&self, account: &AccountId, login: &LoginInfo) -> Option<Arc<LastResponse>> {
        let entries = self.0.read();
        let entry = entries.get(account)?;
        let is_same = match (&entry.login.login_id, &login.login_id) {
            (None, None) => entry.login.fingerprint.is_some() && entry.login.fingerprint == login.fingerprint,
            (one, other) => one == other,
        };
        is_same.then(|| Arc::clone(&entry.response))
    }

    pub(crate) fn remove(&self, account: &AccountId) {
        self.0.write().remove(account);
    }
}

#[cfg(test)]
mod tests {
    use quota::Secret;
    use quota::credentials::StaticCredential;
    use quota::model::{CredentialFingerprint, LoginId};

    use super::*;

    fn account() -> AccountId {
        "anthropic/main".parse().unwrap()
    }

    fn login(id: Option<&str>, fingerprint: u64) -> LoginInfo {
        let login = id.map_or_else(LoginInfo::unknown, |id| LoginInfo::new(LoginId::new(id)));
        login.fingerprint(CredentialFingerprint::from_hash(fingerprint))
    }

    fn recorded(login: LoginInfo) -> LastResponses {
        let responses = LastResponses::default();
        let credential = Credential::new(Secret::new("sk-ant-oat01-made-up")).login(login);
        responses.recorder()(&account(), &credential, b"{}");
        responses
    }

    #[test]
    fn a_response_belongs_to_a_login() {
        let responses = recorded(login(Some("a"), 1));

        assert!(responses.get(&account(), &login(Some("a"), 2)).is_some());
        assert!(responses.get(&account(), &login(Some("b"), 1)).is_none());
        assert!(responses.get(&account(), &login(None, 1)).is_none());
    }

    #[test]
    fn without_a_login_a_response_belongs_to_a_credential() {
        let responses = recorded(login(None, 1));

        assert!(responses.get(&account(), &login(None, 1)).is_some());
        assert!(responses.get(&account(), &login(None, 2)).is_none());
        assert!(responses.get(&account(), &LoginInfo::unknown()).is_none());
    }

    #[tokio::test]
    async fn an_unusable_response_removes_the_previous_one() {
        let responses = recorded(login(None, 1));
        let source = StaticCredential::new(Secret::new("sk-ant-oat01-made-up"));
        let credential = quota::CredentialSource::credential(&source, &account()).await.unwrap();

        responses.recorder()(&account(), &credential, b"[]");

        assert!(responses.get(&account(), &login(None, 1)).is_none());
    }
}
