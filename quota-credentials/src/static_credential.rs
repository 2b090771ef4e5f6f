//! A credential that somebody already has.
//! For tests, and for programs that keep credentials themselves.

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, Secret};

use crate::token;

/// Gives the credential it was given.
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
    /// A secret of which nothing else is known.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self(token::credential(secret))
    }
}

impl From<Credential> for StaticCredential {
    /// A credential with all that is known of it; it is marked if it is not yet.
    fn from(mut credential: Credential) -> Self {
        credential.login.mark.get_or_insert_with(|| token::mark(&credential.secret));
        Self(credential)
    }
}

#[async_trait]
impl CredentialSource for StaticCredential {
    /// Gives the credential; the account does not matter, and it does not fail.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use quota_core::{CredentialFingerprint, LoginId, LoginInfo};

    use super::*;

    async fn given(source: StaticCredential) -> Credential {
        source.credential(&"anthropic/main".parse().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_secret_is_marked() {
        let secret = Secret::new("sk-ant-oat01-abc");

        let credential = given(StaticCredential::new(secret.clone())).await;

        assert_eq!(credential.login.mark, Some(token::mark(&secret)));
    }

    #[tokio::test]
    async fn what_is_known_of_a_credential_is_kept() {
        let login = LoginInfo::new(LoginId::new("a")).mark(CredentialFingerprint::from_hash(7));
        let known =
            Credential::new(Secret::new("sk-ant-oat01-abc")).login(login.clone()).plan("max".to_owned());

        let credential = given(StaticCredential::from(known)).await;

        assert_eq!((credential.login, credential.plan.as_deref()), (login, Some("max")));
    }

    #[tokio::test]
    async fn a_credential_without_a_mark_is_marked() {
        let known = Credential::new(Secret::new("sk-ant-oat01-abc")).login(LoginInfo::new(LoginId::new("a")));

        let credential = given(StaticCredential::from(known)).await;

        assert_eq!(credential.login.mark, Some(token::mark(&credential.secret)));
    }
}
