//! A credential source from an async function.

use std::fmt;

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

use crate::token;

/// Returns a source that calls `read` for each credential.
///
/// A credential without a fingerprint gets the fingerprint of its secret, so that a rejected secret is not retried
/// until it changes.
///
/// ```
/// use quota_core::{Credential, CredentialSource};
/// use quota_credentials::from_fn;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let vault = from_fn(|account| async move {
///     // Query your own vault for the token of `account`.
///     Ok(Credential::new(format!("token of {account}")))
/// });
///
/// let credential = vault.credential(&"anthropic/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "token of anthropic/main");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from_fn<F, R>(read: F) -> FromFn<F>
where
    F: Fn(AccountId) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Credential, CredentialError>> + Send + 'static,
{
    FromFn(read)
}

/// The source that [`from_fn`] returns.
#[derive(Clone)]
pub struct FromFn<F>(F);

#[async_trait]
impl<F, R> CredentialSource for FromFn<F>
where
    F: Fn(AccountId) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Credential, CredentialError>> + Send + 'static,
{
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let mut credential = (self.0)(account.clone()).await?;
        credential.login.fingerprint.get_or_insert_with(|| token::fingerprint(&credential.secret));
        Ok(credential)
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

#[cfg(test)]
mod tests {
    use quota_core::Secret;

    use super::*;

    #[tokio::test]
    async fn a_credential_gets_the_fingerprint_of_its_secret() {
        let source = from_fn(|_account| async { Ok(Credential::new(Secret::new("n33dle"))) });

        let credential = source.credential(&"example/main".parse().unwrap()).await.unwrap();

        assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&Secret::new("n33dle"))));
    }

    #[tokio::test]
    async fn an_error_of_the_function_is_returned() {
        let source = from_fn(|account| async move {
            Err(CredentialError::not_logged_in(format!("the vault has no {account}")))
        });

        let error = source.credential(&"example/main".parse().unwrap()).await.unwrap_err();

        assert_eq!(error.to_string(), "the vault has no example/main");
    }
}
