//! The current login of Codex. The login belongs to Codex. This module only reads it, and never its refresh token.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use quota_core::file;
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use crate::error::{check_provider, read_error};
use crate::{Environment, token};

/// Finds the login of Codex (a ChatGPT subscription) in the file that Codex writes.
///
/// ```
/// use quota_core::CredentialSource;
/// use quota_credentials::Codex;
///
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("auth.json"), r#"{"tokens":{"access_token":"abc","account_id":"made-up"}}"#)?;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let source = Codex::in_dir(dir.path());
///
/// let credential = source.credential(&"openai/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The file is `auth.json` in `$CODEX_HOME`, otherwise in `~/.codex`. The [login id](quota_core::model::LoginInfo::login_id) is a hash of the
/// account id in it, which stays the same when tokens rotate. An API key without a login is ignored, because it has no usage.
#[derive(Debug, Clone)]
pub struct Codex {
    path: Option<PathBuf>,
}

/// The maximum size of the file. A login takes a few kilobytes.
const LIMIT: u64 = 1024 * 1024;

impl Codex {
    /// Uses the file that Codex would use in the environment of this process. The environment is read now.
    #[must_use]
    pub fn from_env() -> Self {
        Self::in_environment(&Environment::process())
    }

    /// Uses the file that Codex would use in this environment. The environment is read now.
    #[must_use]
    pub fn in_environment(environment: &Environment) -> Self {
        let dir = environment.path("CODEX_HOME").map(|dir| environment.expand(dir));
        let dir = dir.or_else(|| Some(environment.home()?.join(".codex")));
        Self { path: dir.map(|dir| dir.join("auth.json")) }
    }

    /// Uses the file of a Codex whose `CODEX_HOME` is `dir`. A leading `~/` means the home directory.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { path: Some(Environment::process().expand(dir.into()).join("auth.json")) }
    }
}

#[async_trait]
impl CredentialSource for Codex {
    /// Reads the file. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no file or no login in it, or the provider of the account is not `openai`.
    /// [`CredentialError::Unreadable`] if the file cannot be read or parsed. Neither error repeats its content.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        check_provider(account, "openai", "Codex")?;
        let Some(path) = &self.path else {
            return Err(CredentialError::not_logged_in(
                "could not find a login of Codex: neither CODEX_HOME nor HOME is set; set one of them",
            ));
        };
        match file::load(path, LIMIT).await {
            Ok(contents) => parse(path, &contents),
            Err(error) if file::is_not_found(&error) => Err(no_login_error(path)),
            Err(error) => Err(read_error(path, error)),
        }
    }

    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::of_files([self.path.clone()?]).await)
    }
}

fn no_login_error(path: &Path) -> CredentialError {
    CredentialError::not_logged_in(format!("no login of Codex in {}; run `codex login`", path.display()))
}

/// The content is not a login. The error does not repeat the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its content is not a login")]
struct InvalidLogin;

/// The relevant part of the file. Older versions of Codex wrote the names in camel case.
#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    tokens: Option<Tokens>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default, alias = "accessToken")]
    access_token: Option<String>,
    #[serde(default, alias = "accountId")]
    account_id: Option<String>,
}

fn parse(path: &Path, contents: &[u8]) -> Result<Credential, CredentialError> {
    let invalid = || {
        let reason = format!("could not parse {}: it is not a login; run `codex login`", path.display());
        CredentialError::unreadable(reason, InvalidLogin)
    };
    // The error of the parser could repeat the content.
    let auth: Auth = serde_json::from_slice(file::strip_bom(contents)).map_err(|_| invalid())?;
    let tokens = auth.tokens.ok_or_else(|| no_login_error(path))?;
    let text = Zeroizing::new(tokens.access_token.unwrap_or_default());
    let credential = token::parse(text.as_bytes()).map_err(|_| invalid())?;
    let mut credential = credential.ok_or_else(|| no_login_error(path))?;
    let id = tokens.account_id.as_deref().map(str::trim).filter(|id| !id.is_empty());
    credential.login.login_id = id.map(|id| token::login_id(&["openai", id]));
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> Result<Credential, CredentialError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("auth.json"), text).unwrap();
        Codex::in_dir(dir.path()).credential(&"openai/main".parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_login_has_a_login_id_and_a_fingerprint() {
        let credential = read(r#"{"tokens":{"access_token":"abc","account_id":"id-1"}}"#).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
        assert!(credential.login.login_id.is_some() && credential.login.fingerprint.is_some());
    }

    #[tokio::test]
    async fn names_of_older_versions_are_read() {
        let credential = read(r#"{"tokens":{"accessToken":"abc","accountId":"id-1"}}"#).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
    }

    #[tokio::test]
    async fn the_login_id_does_not_change_when_the_token_rotates() {
        let one = read(r#"{"tokens":{"access_token":"abc","account_id":"id-1"}}"#).await.unwrap();
        let next = read(r#"{"tokens":{"access_token":"def","account_id":"id-1"}}"#).await.unwrap();
        let other = read(r#"{"tokens":{"access_token":"def","account_id":"id-2"}}"#).await.unwrap();

        assert_eq!(one.login.login_id, next.login.login_id);
        assert_ne!(one.login.fingerprint, next.login.fingerprint);
        assert_ne!(next.login.login_id, other.login.login_id);
    }

    #[tokio::test]
    async fn an_api_key_alone_and_an_empty_login_are_not_logged_in() {
        for text in [
            r#"{"OPENAI_API_KEY":"sk-abc"}"#,
            r#"{"OPENAI_API_KEY":"sk-abc","tokens":null}"#,
            r#"{"tokens":{}}"#,
            r#"{"tokens":{"access_token":""}}"#,
        ] {
            let error = read(text).await.unwrap_err();

            assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{text} {error:?}");
            assert!(error.to_string().ends_with("run `codex login`"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_error_does_not_repeat_the_content() {
        for text in [
            "n33dle",
            r#"{"tokens":{"access_token":"n33dle"#,
            r#"{"tokens":{"access_token":["n33dle"]}}"#,
            r#"{"tokens":{"access_token":"n33dle n33dle"}}"#,
            r#"{"tokens":"n33dle"}"#,
        ] {
            let error = read(text).await.unwrap_err();

            assert!(matches!(error, CredentialError::Unreadable { .. }), "{text} {error:?}");
            assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn another_provider_does_not_get_the_token() {
        let source = Codex::in_dir("/nowhere");

        let error = source.credential(&"anthropic/main".parse().unwrap()).await.unwrap_err();

        assert!(error.to_string().contains("is not for anthropic/main"), "{error}");
    }

    #[test]
    fn the_file_is_the_one_that_codex_uses() {
        let path = |variables: &[(&str, &str)]| {
            Codex::in_environment(&Environment::from_vars(variables.iter().copied())).path
        };

        assert_eq!(path(&[("CODEX_HOME", "/c"), ("HOME", "/h")]), Some("/c/auth.json".into()));
        assert_eq!(path(&[("HOME", "/h")]), Some("/h/.codex/auth.json".into()));
        assert_eq!(path(&[("A", "b")]), None);
    }
}
