//! The login of Codex, as it is now.
//! It belongs to Codex, so it is only ever read: not renewed, not repaired, not copied. Its refresh token is never read.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, LoginId};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use crate::unreadable::unreadable;
use crate::{Environment, hash, token};
use quota_core::file;

/// Finds the login of Codex (a subscription of ChatGPT) in the file that Codex keeps it in.
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
/// It is `auth.json` in `$CODEX_HOME`, else in `~/.codex`. The [`lineage`](quota_core::LoginInfo::lineage) is a hash of the
/// account's id in there, which stays when tokens rotate. A key of the API instead of a login has no quota to ask for, so it
/// is not found.
#[derive(Debug, Clone)]
pub struct Codex {
    path: Option<PathBuf>,
}

/// A login takes a few kilobytes.
const LIMIT: u64 = 1024 * 1024;

impl Codex {
    /// Looks where Codex looks when it is started in the environment of this process, read now.
    #[must_use]
    pub fn from_env() -> Self {
        Self::in_environment(&Environment::process())
    }

    /// Looks where Codex looks when it is started in that environment, read now.
    #[must_use]
    pub fn in_environment(environment: &Environment) -> Self {
        let dir = environment.path("CODEX_HOME").map(|dir| environment.expand(dir));
        let dir = dir.or_else(|| Some(environment.home()?.join(".codex")));
        Self { path: dir.map(|dir| dir.join("auth.json")) }
    }

    /// Looks where Codex looks when it is started with `CODEX_HOME` set to `dir`. A leading `~/` is the home directory.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { path: Some(Environment::process().expand(dir.into()).join("auth.json")) }
    }
}

#[async_trait]
impl CredentialSource for Codex {
    /// Reads the file. The future may be dropped.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no file, no login in it, or the account is not one of `openai`;
    /// [`CredentialError::Unreadable`] if it could not be read or is damaged. Neither repeats what stands there.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        if account.provider().as_str() != "openai" {
            return Err(CredentialError::not_logged_in(format!(
                "the login of Codex does not open {account}: name another source for that account"
            )));
        }
        let Some(path) = &self.path else {
            return Err(CredentialError::not_logged_in(
                "there is no home directory to look for a login of Codex in",
            ));
        };
        let opened = path.clone();
        match file::blocking(move || file::read(file::open(&opened)?, LIMIT)).await {
            Ok(contents) => parse(path, &contents),
            Err(error) if file::is_not_found(&error) => Err(nobody(path)),
            Err(error) => Err(unreadable(path, error)),
        }
    }
}

fn nobody(path: &Path) -> CredentialError {
    CredentialError::not_logged_in(format!("no login of Codex in {}; run `codex login`", path.display()))
}

/// The text is there and is not a login. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the file of a login")]
struct NotALogin;

/// What is read of the file. Older versions of Codex wrote names in another case.
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
    let damaged = || {
        let why = format!("{} is not the file of a login; run `codex login`", path.display());
        CredentialError::unreadable(why, NotALogin)
    };
    // The parser's own error could repeat what stands there.
    let auth: Auth = serde_json::from_slice(file::strip_bom(contents)).map_err(|_| damaged())?;
    let Some(tokens) = auth.tokens else { return Err(nobody(path)) };
    let text = Zeroizing::new(tokens.access_token.unwrap_or_default());
    let secret = token::take(&text).map_err(|_| damaged())?.ok_or_else(|| nobody(path))?;
    let mut credential = token::credential(secret);
    let id = tokens.account_id.filter(|id| !id.trim().is_empty());
    credential.login.lineage = id.map(|id| {
        let bits = hash::first_64_bits(&[b"quota-lineage\0codex\0", id.trim().as_bytes()].concat());
        LoginId::new(&format!("{bits:016x}"))
    });
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(text: &str) -> Result<Credential, CredentialError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("auth.json"), text).unwrap();
        Codex::in_dir(dir.path()).credential(&"openai/main".parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_login_is_found_with_its_lineage() {
        let credential = found(r#"{"tokens":{"access_token":"abc","account_id":"id-1"}}"#).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
        assert!(credential.login.lineage.is_some() && credential.login.mark.is_some());
    }

    #[tokio::test]
    async fn names_of_older_versions_are_understood() {
        let credential = found(r#"{"tokens":{"accessToken":"abc","accountId":"id-1"}}"#).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
    }

    // B33
    #[tokio::test]
    async fn the_lineage_stays_when_the_token_rotates() {
        let one = found(r#"{"tokens":{"access_token":"abc","account_id":"id-1"}}"#).await.unwrap();
        let next = found(r#"{"tokens":{"access_token":"def","account_id":"id-1"}}"#).await.unwrap();
        let other = found(r#"{"tokens":{"access_token":"def","account_id":"id-2"}}"#).await.unwrap();

        assert_eq!(one.login.lineage, next.login.lineage);
        assert_ne!(one.login.mark, next.login.mark);
        assert_ne!(next.login.lineage, other.login.lineage);
    }

    #[tokio::test]
    async fn a_key_alone_and_an_empty_login_are_no_login() {
        for text in [
            r#"{"OPENAI_API_KEY":"sk-abc"}"#,
            r#"{"OPENAI_API_KEY":"sk-abc","tokens":null}"#,
            r#"{"tokens":{}}"#,
            r#"{"tokens":{"access_token":""}}"#,
        ] {
            let error = found(text).await.unwrap_err();

            assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{text} {error:?}");
            assert!(error.to_string().ends_with("run `codex login`"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_damaged_is_not_repeated() {
        for text in [
            "n33dle",
            r#"{"tokens":{"access_token":"n33dle"#,
            r#"{"tokens":{"access_token":["n33dle"]}}"#,
            r#"{"tokens":{"access_token":"n33dle n33dle"}}"#,
            r#"{"tokens":"n33dle"}"#,
        ] {
            let error = found(text).await.unwrap_err();

            assert!(matches!(error, CredentialError::Unreadable { .. }), "{text} {error:?}");
            assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn another_providers_account_is_not_opened_by_it() {
        let source = Codex::in_dir("/nowhere");

        let error = source.credential(&"anthropic/main".parse().unwrap()).await.unwrap_err();

        assert!(error.to_string().contains("does not open anthropic/main"), "{error}");
    }

    #[test]
    fn the_file_is_where_codex_keeps_it() {
        let path = |variables: &[(&str, &str)]| {
            Codex::in_environment(&Environment::from_vars(variables.iter().copied())).path
        };

        assert_eq!(path(&[("CODEX_HOME", "/c"), ("HOME", "/h")]), Some("/c/auth.json".into()));
        assert_eq!(path(&[("HOME", "/h")]), Some("/h/.codex/auth.json".into()));
        assert_eq!(path(&[("A", "b")]), None);
    }
}
