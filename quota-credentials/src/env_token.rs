//! A token from an environment variable.

use std::fmt;

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

use crate::{Environment, token};

/// Reads a token from an environment variable.
///
/// ```
/// use quota_core::CredentialSource;
/// use quota_credentials::{EnvToken, Environment};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let environment = Environment::from_vars([("MY_TOKEN", "sk-ant-oat01-abc")]);
/// let source = EnvToken::in_environment("MY_TOKEN", environment);
///
/// let credential = source.credential(&"anthropic/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// White space around the token is ignored. A variable provides no login and no expiry.
#[derive(Clone)]
pub struct EnvToken {
    name: String,
    environment: Environment,
}

impl EnvToken {
    /// Reads a variable from the environment of this process.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::in_environment(name, Environment::process())
    }

    /// Reads a variable from another environment.
    #[must_use]
    pub fn in_environment(name: impl Into<String>, environment: Environment) -> Self {
        Self { name: name.into(), environment }
    }

    /// The variable as shown in messages. A name that may be a token, entered by mistake, is hidden.
    fn display_name(&self) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if self.name.len() <= 64 && self.name.bytes().all(is_plain) {
            format!("the environment variable {}", self.name)
        } else {
            "the environment variable (name hidden, it may be a token)".to_owned()
        }
    }
}

#[async_trait]
impl CredentialSource for EnvToken {
    /// Returns the variable's token for any account.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if the variable is unset or empty, [`CredentialError::Unreadable`] if it does not contain a
    /// token. Both errors name the variable, and never show its value.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let name = self.display_name();
        token::require(
            self.environment.var(&self.name).unwrap_or_default().as_encoded_bytes(),
            || format!("{name} is not set; set it to a token"),
            || format!("{name} does not contain a token; set it to one"),
        )
    }
}

impl fmt::Debug for EnvToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EnvToken").field(&self.display_name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(name: &str, value: &str) -> Result<Credential, CredentialError> {
        let source = EnvToken::in_environment(name, Environment::from_vars([("MY_TOKEN", value)]));
        source.credential(&"anthropic/main".parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_token_has_a_fingerprint_and_no_login() {
        let credential = read("MY_TOKEN", " sk-ant-oat01-abc\n").await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
        assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&credential.secret)));
        assert_eq!(credential.login.login_id, None);
    }

    #[tokio::test]
    async fn an_unset_variable_is_named() {
        let error = read("OTHER_TOKEN", "sk-ant-oat01-abc").await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert_eq!(error.to_string(), "the environment variable OTHER_TOKEN is not set; set it to a token");
    }

    #[tokio::test]
    async fn a_blank_variable_is_not_set() {
        for value in ["", " \n"] {
            let error = read("MY_TOKEN", value).await.unwrap_err();

            assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{value:?} {error:?}");
        }
    }

    #[tokio::test]
    async fn an_invalid_value_is_not_repeated() {
        let error = read("MY_TOKEN", "not a token").await.unwrap_err();

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the environment variable MY_TOKEN does not contain a token; set it to one"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_value_that_is_not_utf8_is_invalid() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;

        let environment = Environment::from_vars([("MY_TOKEN", OsString::from_vec(vec![b'a', 0xff]))]);
        let source = EnvToken::in_environment("MY_TOKEN", environment);

        let error = source.credential(&"anthropic/main".parse().unwrap()).await.unwrap_err();

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_token_given_as_the_name_is_hidden() {
        for token in ["sk-ant-oat01-abc", &"abc".repeat(22)] {
            let source = EnvToken::in_environment(token, Environment::from_vars([("A", "")]));

            let error = source.credential(&"anthropic/main".parse().unwrap()).await.unwrap_err();

            assert!(!format!("{source:?} {error:?} {error}").contains("abc"), "{error}");
        }
    }

    #[tokio::test]
    async fn no_name_panics() {
        for name in ["", "=", "A=B", "A\0B", "\u{1f600}"] {
            let source = EnvToken::new(name);

            assert!(source.credential(&"anthropic/main".parse().unwrap()).await.is_err(), "{name:?}");
        }
    }
}
