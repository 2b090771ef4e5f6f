//! One login that reads different limits, such as those of several organizations.

use async_trait::async_trait;
use quota_core::model::CredentialFingerprint;
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

use crate::token;

/// A source whose login counts as another one for each scope.
///
/// Accounts with one login share a record. If their requests differ, such as by a header with the organization, they may read different
/// limits. Give each a scope of its own, so that each has a record of its own.
///
/// ```
/// use quota_credentials::{ClaudeCode, CredentialMap, ScopedLogin};
///
/// let logins = CredentialMap::new()
///     .with("anthropic/team-a".parse()?, ScopedLogin::new(ClaudeCode::from_env(), "x-organization: a"))
///     .with("anthropic/team-b".parse()?, ScopedLogin::new(ClaudeCode::from_env(), "x-organization: b"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ScopedLogin<S> {
    source: S,
    scope: String,
}

impl<S: CredentialSource> ScopedLogin<S> {
    /// Wraps a source. The login id gets a hash of the scope. A credential without a login id stays without one.
    #[must_use]
    pub fn new(source: S, scope: impl Into<String>) -> Self {
        Self { source, scope: scope.into() }
    }

    fn scoped(&self, mut credential: Credential) -> Credential {
        let login = credential.login.login_id.take();
        credential.login.login_id = login.map(|login| token::login_id(&[login.as_str(), &self.scope]));
        credential
    }
}

#[async_trait]
impl<S: CredentialSource> CredentialSource for ScopedLogin<S> {
    /// Delegates to the source. Dropping the future is safe if it is safe for that source.
    ///
    /// # Errors
    ///
    /// The errors of the source.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.source.credential(account).await.map(|credential| self.scoped(credential))
    }

    /// Delegates to the source.
    ///
    /// # Errors
    ///
    /// The errors of the source.
    async fn renew(
        &self,
        account: &AccountId,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        self.source.renew(account, rejected).await.map(|credential| self.scoped(credential))
    }

    /// Delegates to the source.
    async fn version(&self, account: &AccountId) -> Option<SourceVersion> {
        self.source.version(account).await
    }
}

#[cfg(test)]
mod tests {
    use quota_core::Secret;
    use quota_core::model::{LoginId, LoginInfo};

    use super::*;
    use crate::StaticCredential;

    async fn login_in(scope: &str, login: LoginInfo) -> LoginInfo {
        let credential = Credential::new(Secret::new("sk-ant-oat01-made-up")).login(login);
        let source = ScopedLogin::new(StaticCredential::from(credential), scope);
        source.credential(&"anthropic/main".parse().unwrap()).await.unwrap().login
    }

    #[tokio::test]
    async fn each_scope_of_a_login_is_another_login() {
        let login = || LoginInfo::new(LoginId::new("home"));

        let [a, again, b] =
            [login_in("a", login()).await, login_in("a", login()).await, login_in("b", login()).await];

        assert_eq!(a, again);
        assert!(a.login_id.is_some() && a.login_id != b.login_id && a.login_id != login().login_id);
    }

    #[tokio::test]
    async fn a_credential_without_a_login_id_stays_without_one() {
        assert_eq!(login_in("a", LoginInfo::unknown()).await.login_id, None);
    }
}
