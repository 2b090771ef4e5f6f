//! A credential source for each account.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use quota_core::model::CredentialFingerprint;
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

/// Maps accounts to their credential sources.
///
/// ```
/// use quota_credentials::{ClaudeCode, CredentialMap, FileToken};
///
/// let logins = CredentialMap::new()
///     .with("anthropic/main".parse()?, ClaudeCode::from_env())
///     .with("anthropic/work".parse()?, FileToken::new("~/.config/work.token"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct CredentialMap {
    sources: HashMap<AccountId, Arc<dyn CredentialSource>>,
}

impl CredentialMap {
    /// Creates an empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the source of an account.
    #[must_use]
    pub fn with(mut self, account: AccountId, source: impl CredentialSource) -> Self {
        self.sources.insert(account, Arc::new(source));
        self
    }

    fn source(&self, account: &AccountId) -> Result<&dyn CredentialSource, CredentialError> {
        self.sources
            .get(account)
            .map(|source| &**source)
            .ok_or_else(|| CredentialError::not_logged_in(format!("no login is configured for {account}")))
    }
}

#[async_trait]
impl CredentialSource for CredentialMap {
    /// Delegates to the source of the account. Dropping the future is safe if it is safe for that source.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if the account has no source, otherwise the error of its source.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.source(account)?.credential(account).await
    }

    /// Delegates to the source of the account.
    ///
    /// # Errors
    ///
    /// The same as those of [`credential`](Self::credential).
    async fn renew(
        &self,
        account: &AccountId,
        refused: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        self.source(account)?.renew(account, refused).await
    }

    /// Delegates to the source of the account.
    async fn version(&self, account: &AccountId) -> Option<SourceVersion> {
        self.source(account).ok()?.version(account).await
    }
}

#[cfg(test)]
mod tests {
    use quota_core::Secret;

    use super::*;
    use crate::StaticCredential;

    fn account(id: &str) -> AccountId {
        id.parse().unwrap()
    }

    fn source(token: &str) -> Arc<dyn CredentialSource> {
        Arc::new(StaticCredential::new(Secret::new(token)))
    }

    #[tokio::test]
    async fn each_account_has_its_own_source() {
        let logins = CredentialMap::new()
            .with(account("anthropic/a"), source("sk-ant-oat01-a"))
            .with(account("anthropic/b"), source("sk-ant-oat01-b"));

        let credential = logins.credential(&account("anthropic/b")).await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-b");
    }

    #[tokio::test]
    async fn an_account_without_a_source_is_an_error() {
        let logins = CredentialMap::new().with(account("anthropic/a"), source("sk-ant-oat01-a"));

        let error = logins.credential(&account("anthropic/x")).await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert_eq!(error.to_string(), "no login is configured for anthropic/x");
    }

    #[tokio::test]
    async fn the_same_name_at_another_provider_is_another_account() {
        let logins = CredentialMap::new().with(account("anthropic/a"), source("sk-ant-oat01-a"));

        assert!(logins.credential(&account("openai/a")).await.is_err());
    }

    #[tokio::test]
    async fn a_later_source_replaces_an_earlier_one() {
        let logins = CredentialMap::new()
            .with(account("anthropic/a"), source("sk-ant-oat01-old"))
            .with(account("anthropic/a"), source("sk-ant-oat01-new"));

        let credential = logins.credential(&account("anthropic/a")).await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-new");
    }
}
