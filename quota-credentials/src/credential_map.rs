//! Another source for each account.
//! Which account is used is not decided here.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialFingerprint, CredentialSource};

/// Asks the source that was named for the account.
///
/// ```
/// use std::sync::Arc;
/// use quota_credentials::{ClaudeCode, CredentialMap, FileToken};
///
/// let logins = CredentialMap::new()
///     .with("anthropic/main".parse()?, Arc::new(ClaudeCode::from_env()))
///     .with("anthropic/work".parse()?, Arc::new(FileToken::new("~/.config/work.token")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct CredentialMap {
    sources: HashMap<AccountId, Arc<dyn CredentialSource>>,
}

impl CredentialMap {
    /// No account yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the source of an account, in place of one that was named before.
    #[must_use]
    pub fn with(mut self, account: AccountId, source: Arc<dyn CredentialSource>) -> Self {
        self.sources.insert(account, source);
        self
    }
}

#[async_trait]
impl CredentialSource for CredentialMap {
    /// Asks the source of the account. The future may be dropped if that source's may be.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if none was named, and whatever the source answers.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        match self.sources.get(account) {
            Some(source) => source.credential(account).await,
            None => Err(nobody(account)),
        }
    }

    /// Asks the source of the account, which knows whether it can renew one.
    ///
    /// # Errors
    ///
    /// As [`credential`](Self::credential).
    async fn renew(
        &self,
        account: &AccountId,
        refused: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        match self.sources.get(account) {
            Some(source) => source.renew(account, refused).await,
            None => Err(nobody(account)),
        }
    }
}

fn nobody(account: &AccountId) -> CredentialError {
    CredentialError::not_logged_in(format!("no login is configured for {account}"))
}

#[cfg(test)]
mod tests {
    use quota_core::Secret;

    use super::*;
    use crate::StaticCredential;

    fn account(id: &str) -> AccountId {
        id.parse().unwrap()
    }

    fn fixed(token: &str) -> Arc<dyn CredentialSource> {
        Arc::new(StaticCredential::new(Secret::new(token)))
    }

    #[tokio::test]
    async fn each_account_has_its_own_source() {
        let logins = CredentialMap::new()
            .with(account("anthropic/a"), fixed("sk-ant-oat01-a"))
            .with(account("anthropic/b"), fixed("sk-ant-oat01-b"));

        let credential = logins.credential(&account("anthropic/b")).await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-b");
    }

    #[tokio::test]
    async fn an_account_without_a_source_is_named() {
        let logins = CredentialMap::new().with(account("anthropic/a"), fixed("sk-ant-oat01-a"));

        let error = logins.credential(&account("anthropic/x")).await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert_eq!(error.to_string(), "no login is configured for anthropic/x");
    }

    #[tokio::test]
    async fn an_account_is_told_from_one_of_the_same_name_elsewhere() {
        let logins = CredentialMap::new().with(account("anthropic/a"), fixed("sk-ant-oat01-a"));

        assert!(logins.credential(&account("openai/a")).await.is_err());
    }

    #[tokio::test]
    async fn the_source_that_was_named_last_counts() {
        let logins = CredentialMap::new()
            .with(account("anthropic/a"), fixed("sk-ant-oat01-old"))
            .with(account("anthropic/a"), fixed("sk-ant-oat01-new"));

        let credential = logins.credential(&account("anthropic/a")).await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-new");
    }
}
