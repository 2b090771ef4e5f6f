//! A credential that the program already has, for tests and for programs that manage credentials themselves.

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, Secret};

use crate::token;

/// Returns the credential that it was created with.
///
/// ```
/// use quota_core::{CredentialSource, Secret};
/// use quota_credentials::StaticCredential;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let source = StaticCredential::new(Secret::new("sk-ant-oat01-abc"));
///
/// let credential = source.credential(&"anthropic/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StaticCredential(Credential);

impl StaticCredential {
    /// Creates a credential with a fingerprint, but no login, expiry or plan.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self(token::credential(secret))
    }
}

impl From<Credential> for StaticCredential {
    /// Uses a complete credential. It gets a fingerprint if it has none.
    fn from(mut credential: Credential) -> Self {
        credential.login.fingerprint.get_or_insert_with(|| token::fingerprint(&credential.secret));
        Self(credential)
    }
}

#[async_trait]
impl CredentialSource for StaticCredential {
    /// Returns the credential for any account. It never fails.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};

    use super::*;

    async fn credential_of(source: StaticCredential) -> Credential {
        source.credential(&"anthropic/main".parse().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_secret_gets_a_fingerprint() {
        let secret = Secret::new("sk-ant-oat01-abc");

        let credential = credential_of(StaticCredential::new(secret.clone())).await;

        assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&secret)));
    }

    #[tokio::test]
    async fn login_and_plan_are_preserved() {
        let login = LoginInfo::new(LoginId::new("a")).fingerprint(CredentialFingerprint::from_hash(7));
        let complete =
            Credential::new(Secret::new("sk-ant-oat01-abc")).login(login.clone()).plan("max".to_owned());

        let credential = credential_of(StaticCredential::from(complete)).await;

        assert_eq!((credential.login, credential.plan.as_deref()), (login, Some("max")));
    }

    #[tokio::test]
    async fn a_credential_without_a_fingerprint_gets_one() {
        let complete =
            Credential::new(Secret::new("sk-ant-oat01-abc")).login(LoginInfo::new(LoginId::new("a")));

        let credential = credential_of(StaticCredential::from(complete)).await;

        assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&credential.secret)));
    }
}
