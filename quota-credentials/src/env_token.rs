//! A token in an environment variable.
//! Which variable is chosen by whoever configures the account.

use std::fmt;

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

use crate::{Environment, token};

/// Finds a token in an environment variable.
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
/// White space around the token is not part of it. A variable says neither whose the login is nor how long the token is
/// good for.
#[derive(Clone)]
pub struct EnvToken {
    name: String,
    environment: Environment,
}

impl EnvToken {
    /// Looks at a variable of this process.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::in_environment(name, Environment::process())
    }

    /// Looks at a variable of another environment.
    #[must_use]
    pub fn in_environment(name: impl Into<String>, environment: Environment) -> Self {
        Self { name: name.into(), environment }
    }

    /// The variable as it may be shown: a token that was put where its variable's name belongs must not be repeated.
    fn shown(&self) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if self.name.len() <= 64 && self.name.bytes().all(is_plain) {
            format!("the environment variable {}", self.name)
        } else {
            "the environment variable, whose name is not repeated since it may be a token,".to_owned()
        }
    }
}

#[async_trait]
impl CredentialSource for EnvToken {
    /// Reads the variable; the account does not matter.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if it is not set or empty, [`CredentialError::Unreadable`] if it does not hold a
    /// token. Both name the variable and never what it holds.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let shown = self.shown();
        let value = self.environment.var(&self.name);
        let value = value.as_deref().unwrap_or_default();
        match value.to_str().map_or(Err(token::NotAToken), token::take) {
            Ok(Some(secret)) => Ok(token::credential(secret)),
            Ok(None) => Err(CredentialError::not_logged_in(format!("{shown} is not set; set it to a token"))),
            Err(flaw) => Err(CredentialError::unreadable(
                format!("{shown} does not hold a token; set it to one"),
                flaw,
            )),
        }
    }
}

impl fmt::Debug for EnvToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EnvToken").field(&self.shown()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(name: &str, value: &str) -> Result<Credential, CredentialError> {
        let source = EnvToken::in_environment(name, Environment::from_vars([("MY_TOKEN", value)]));
        source.credential(&"anthropic/main".parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_token_is_found_with_its_mark_and_without_a_lineage() {
        let credential = found("MY_TOKEN", " sk-ant-oat01-abc\n").await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
        assert_eq!(credential.login.mark, Some(token::mark(&credential.secret)));
        assert_eq!(credential.login.lineage, None);
    }

    #[tokio::test]
    async fn an_unset_variable_is_named() {
        let error = found("OTHER_TOKEN", "sk-ant-oat01-abc").await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
        assert_eq!(error.to_string(), "the environment variable OTHER_TOKEN is not set; set it to a token");
    }

    #[tokio::test]
    async fn a_variable_with_nothing_in_it_is_not_set() {
        for value in ["", " \n"] {
            let error = found("MY_TOKEN", value).await.unwrap_err();

            assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{value:?} {error:?}");
        }
    }

    #[tokio::test]
    async fn a_variable_that_holds_no_token_is_named_without_its_value() {
        let error = found("MY_TOKEN", "not a token").await.unwrap_err();

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the environment variable MY_TOKEN does not hold a token; set it to one"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_variable_that_is_not_text_holds_no_token() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;

        let environment = Environment::from_vars([("MY_TOKEN", OsString::from_vec(vec![b'a', 0xff]))]);
        let source = EnvToken::in_environment("MY_TOKEN", environment);

        let error = source.credential(&"anthropic/main".parse().unwrap()).await.unwrap_err();

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_token_in_the_place_of_the_name_is_not_shown() {
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
