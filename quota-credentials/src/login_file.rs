//! The login in the file of a provider's own program. The login belongs to that program. This module only reads it, and
//! never its refresh token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use quota_core::file;
use quota_core::provider::{ProgramLogin, SourceVersion, token_claims};
use quota_core::{AccountId, Credential, CredentialError, CredentialSource, ProviderId};
use secrecy::zeroize::Zeroizing;
use serde_json::Value;

use crate::error::{check_provider, read_error};
use crate::{Environment, token};

/// Finds the login of a provider's own program in the file that the program writes, such as that of Codex.
///
/// The provider's description states the location and the format ([`ProgramLogin`]). The [login
/// id](quota_core::model::LoginInfo::login_id) is a hash of the account id in the file, which stays the same when
/// tokens rotate. An API key without a login is ignored, because it has no usage.
///
/// ```
/// use quota_core::provider::ProgramLogin;
/// use quota_core::{CredentialSource, ProviderId};
/// use quota_credentials::LoginFile;
///
/// const LOGIN: ProgramLogin = ProgramLogin::new("Codex", "codex login", ".codex", &["auth.json"])
///     .token(&["/tokens/access_token"])
///     .account_id(&["/tokens/account_id"]);
///
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("auth.json"), r#"{"tokens":{"access_token":"abc","account_id":"made-up"}}"#)?;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let source = LoginFile::new(ProviderId::from_static("openai"), LOGIN).in_dir(dir.path());
///
/// let credential = source.credential(&"openai/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LoginFile {
    provider: ProviderId,
    login: ProgramLogin,
    dir: Option<PathBuf>,
}

/// The maximum size of the file. A login takes a few kilobytes.
const LIMIT: u64 = 1024 * 1024;

impl LoginFile {
    /// Uses the file that the program would use in the environment of this process. The environment is read now.
    #[must_use]
    pub fn new(provider: ProviderId, login: ProgramLogin) -> Self {
        let dir = default_dir(&login, &Environment::process());
        Self { provider, login, dir }
    }

    /// Uses the file that the program would use in this environment. The environment is read now.
    #[must_use]
    pub fn in_environment(mut self, environment: &Environment) -> Self {
        self.dir = default_dir(&self.login, environment);
        self
    }

    /// Uses the file in another folder of the program. A leading `~/` means the home directory.
    #[must_use]
    pub fn in_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(Environment::process().expand(dir.into()));
        self
    }

    /// The paths of the file, in order of preference; empty without a home directory.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let dir = self.dir.iter();
        dir.flat_map(|dir| self.login.files.iter().map(|file| dir.join(file))).collect()
    }

    fn no_login_error(&self, path: &Path) -> CredentialError {
        let ProgramLogin { program, log_in, .. } = self.login;
        CredentialError::not_logged_in(format!("no login of {program} in {}; run `{log_in}`", path.display()))
    }

    fn invalid_error(&self, path: &Path) -> CredentialError {
        let log_in = self.login.log_in;
        let reason = format!("could not parse {}: it is not a login; run `{log_in}`", path.display());
        CredentialError::unreadable(reason, InvalidLogin)
    }

    fn parse(&self, path: &Path, contents: &[u8]) -> Result<Credential, CredentialError> {
        // The error of the parser could repeat the content.
        let file = serde_json::from_slice(file::strip_bom(contents)).map_err(|_| self.invalid_error(path))?;
        let file = ZeroizedJson(file);
        let Value::Object(_) = &file.0 else { return Err(self.invalid_error(path)) };
        let (text, entry) = match find(&file.0, self.login.token, None) {
            None => return Err(self.no_login_error(path)),
            Some((Found::Text(text), at)) => (text, entry(self.login.token, at)),
            Some((Found::Other, _)) => return Err(self.invalid_error(path)),
        };
        let credential = token::parse(text.as_bytes()).map_err(|_| self.invalid_error(path))?;
        let mut credential = credential.ok_or_else(|| self.no_login_error(path))?;
        let text = |pointers| match find(&file.0, pointers, entry.as_deref()) {
            Some((Found::Text(text), _)) => Some(text.trim().to_owned()),
            _ => None,
        };
        credential.account_id = text(self.login.account_id);
        credential.plan = text(self.login.plan);
        credential.expires_at = text(self.login.expires_at).and_then(|text| timestamp(&text));
        let user = text(self.login.user_id);
        let provider = self.provider.as_str();
        credential.login.login_id = match (&credential.account_id, &user) {
            (Some(account), Some(user)) => Some(token::login_id(&[provider, account, user])),
            (Some(only), None) | (None, Some(only)) => Some(token::login_id(&[provider, only])),
            (None, None) => None,
        };
        Ok(credential)
    }
}

fn default_dir(login: &ProgramLogin, environment: &Environment) -> Option<PathBuf> {
    let named = login.dir_variable.and_then(|name| environment.path(name));
    let named = named.map(|dir| environment.expand(dir).join(login.below_variable));
    named.or_else(|| Some(environment.home()?.join(login.dir)))
}

#[async_trait]
impl CredentialSource for LoginFile {
    /// Reads the file. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no file or no login in it, or the account is of another provider.
    /// [`CredentialError::Unreadable`] if the file cannot be read or parsed. Neither error repeats its content.
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let program = self.login.program;
        check_provider(account, self.provider.as_str(), program)?;
        let paths = self.paths();
        let Some(last) = paths.last() else {
            let variables = match self.login.dir_variable {
                Some(name) => format!("neither {name} nor HOME is set; set one of them"),
                None => "HOME is not set; set it".to_owned(),
            };
            let reason = format!("could not find a login of {program}: {variables}");
            return Err(CredentialError::not_logged_in(reason));
        };
        for path in &paths {
            match file::load(path, LIMIT).await {
                Ok(contents) => return self.parse(path, &contents),
                Err(error) if file::is_not_found(&error) => {}
                Err(error) => return Err(read_error(path, error)),
            }
        }
        Err(self.no_login_error(last))
    }

    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::of_files(self.paths()).await)
    }
}

/// The content is not a login. The error does not repeat the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its content is not a login")]
struct InvalidLogin;

/// A document whose strings are zeroed on drop, because they include tokens.
struct ZeroizedJson(Value);

impl Drop for ZeroizedJson {
    fn drop(&mut self) {
        zeroize(std::mem::take(&mut self.0));
    }
}

fn zeroize(value: Value) {
    match value {
        Value::String(text) => drop(Zeroizing::new(text)),
        Value::Array(values) => values.into_iter().for_each(zeroize),
        Value::Object(fields) => fields.into_iter().for_each(|(_, value)| zeroize(value)),
        _ => {}
    }
}

enum Found {
    /// A text, or a number as text.
    Text(Zeroizing<String>),
    /// A value of another type.
    Other,
}

/// The value at the first pointer that finds one, and its location. Null and blank values do not count. If `entry` is
/// given, only values in that entry of the file count.
fn find(file: &Value, pointers: &[&str], entry: Option<&str>) -> Option<(Found, String)> {
    pointers.iter().find_map(|pointer| {
        let (pointer, claim) =
            pointer.split_once('#').map_or((*pointer, None), |(pointer, claim)| (pointer, Some(claim)));
        at(file, pointer, "").into_iter().filter(|(at, _)| is_in(at, entry)).find_map(|(at, value)| {
            let found = match claim {
                None => found(value),
                Some(claim) => {
                    let claims = ZeroizedJson(Value::Object(token_claims(value.as_str()?)?));
                    found(claims.0.pointer(claim)?)
                }
            };
            Some((found?, at))
        })
    })
}

fn is_in(at: &str, entry: Option<&str>) -> bool {
    entry.is_none_or(|entry| at.strip_prefix(entry).is_some_and(|rest| rest.starts_with('/')))
}

/// The entry that contains the token at this pointer; `None` if the file has only one. For a file with several entries,
/// the token's pointer contains a `*`. The other fields must come from the same entry, because another entry is another
/// login.
fn entry(token: &[&str], at: String) -> Option<String> {
    let depth = token.iter().find_map(|pointer| Some(pointer.split_once('*')?.0.matches('/').count()))?;
    let end = at.match_indices('/').nth(depth).map(|(end, _)| end);
    Some(at[..end.unwrap_or(at.len())].to_owned())
}

fn found(value: &Value) -> Option<Found> {
    match value {
        Value::Null => None,
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(Found::Text(Zeroizing::new(text.clone()))),
        Value::Number(number) => Some(Found::Text(Zeroizing::new(number.to_string()))),
        _ => Some(Found::Other),
    }
}

/// The values at a JSON pointer, each with its own pointer below `path`. A key that ends with `*` matches any key with
/// that prefix.
fn at<'a>(value: &'a Value, pointer: &str, path: &str) -> Vec<(String, &'a Value)> {
    let Some((before, after)) = pointer.split_once('*') else {
        return value.pointer(pointer).map(|found| (format!("{path}{pointer}"), found)).into_iter().collect();
    };
    let Some((object, beginning)) = before.rsplit_once('/') else { return Vec::new() };
    let beginning = beginning.replace("~1", "/").replace("~0", "~");
    let fields = value.pointer(object).and_then(Value::as_object).into_iter().flatten();
    let fields = fields.filter(|(key, _)| key.starts_with(&beginning));
    let values = fields.flat_map(|(key, value)| {
        let key = key.replace('~', "~0").replace('/', "~1");
        at(value, after, &format!("{path}{object}/{key}"))
    });
    values.collect()
}

/// A Unix time in seconds or milliseconds, or an ISO 8601 date, which is in UTC without an offset.
fn timestamp(text: &str) -> Option<Timestamp> {
    const MIN_MILLISECONDS: f64 = 1e12;
    let Ok(number) = text.parse::<f64>() else {
        let in_utc = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
        return text.parse().ok().or_else(in_utc);
    };
    let seconds = if number < MIN_MILLISECONDS { number } else { number / 1000.0 };
    let since = Duration::try_from_secs_f64(seconds).ok().filter(|since| !since.is_zero())?;
    Timestamp::UNIX_EPOCH.checked_add(since).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: ProgramLogin =
        ProgramLogin::new("Codex", "codex login", ".codex", &["auth.json", "old.json"])
            .dir_variable("CODEX_HOME")
            .token(&["/tokens/access_token", "/tokens/accessToken"])
            .account_id(&["/tokens/account_id", "/tokens/accountId", "/tokens/id_token#/auth/account"])
            .user_id(&["/tokens/id_token#/auth/user"])
            .expires_at(&["/tokens/access_token#/exp", "/expiry"]);
    /// printf '{"exp":1800000000}' | basenc --base64url
    const EXPIRING: &str = "e30.eyJleHAiOjE4MDAwMDAwMDB9.sig";
    /// printf '{"auth":{"account":"id-1","user":"u-1"}}' | basenc --base64url
    const USER: &str = "e30.eyJhdXRoIjp7ImFjY291bnQiOiJpZC0xIiwidXNlciI6InUtMSJ9fQ.sig";

    fn source() -> LoginFile {
        LoginFile::new(ProviderId::from_static("openai"), LOGIN)
    }

    async fn read_file(name: &str, text: &str) -> Result<Credential, CredentialError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        source().in_dir(dir.path()).credential(&"openai/main".parse().unwrap()).await
    }

    async fn read(text: &str) -> Result<Credential, CredentialError> {
        read_file("auth.json", text).await
    }

    #[tokio::test]
    async fn a_login_has_a_login_id_and_a_fingerprint() {
        let credential = read(r#"{"tokens":{"access_token":"abc","account_id":"id-1"}}"#).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
        assert_eq!(credential.account_id.as_deref(), Some("id-1"));
        assert!(credential.login.login_id.is_some() && credential.login.fingerprint.is_some());
    }

    #[tokio::test]
    async fn names_of_older_versions_are_read() {
        let credential = read(r#"{"tokens":{"accessToken":"abc","accountId":"id-1"}}"#).await.unwrap();

        assert_eq!((credential.secret.expose(), credential.account_id.as_deref()), ("abc", Some("id-1")));
    }

    #[tokio::test]
    async fn the_second_file_is_read_if_the_first_does_not_exist() {
        let credential = read_file("old.json", r#"{"tokens":{"access_token":"abc"}}"#).await.unwrap();

        assert_eq!(credential.secret.expose(), "abc");
    }

    #[tokio::test]
    async fn the_expiry_is_read_from_the_claims_of_the_token() {
        let credential = read(&format!(r#"{{"tokens":{{"access_token":"{EXPIRING}"}}}}"#)).await.unwrap();

        assert_eq!(credential.expires_at, Timestamp::from_second(1_800_000_000).ok());
    }

    #[tokio::test]
    async fn an_expiry_is_in_seconds_milliseconds_or_a_date() {
        for expiry in ["1800000000", "1800000000000", r#""2027-01-15T08:00:00Z""#] {
            let text = format!(r#"{{"tokens":{{"access_token":"abc"}},"expiry":{expiry}}}"#);

            let credential = read(&text).await.unwrap();

            assert_eq!(credential.expires_at, Timestamp::from_second(1_800_000_000).ok(), "{expiry}");
        }
    }

    #[tokio::test]
    async fn two_users_of_one_account_are_two_logins() {
        let one = read(r#"{"tokens":{"access_token":"abc","account_id":"id-1"}}"#).await.unwrap();
        let other =
            read(&format!(r#"{{"tokens":{{"access_token":"abc","id_token":"{USER}"}}}}"#)).await.unwrap();

        assert_eq!(other.account_id, one.account_id);
        assert_ne!(other.login.login_id, one.login.login_id);
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
            r#""n33dle""#,
            r#"{"tokens":{"access_token":"n33dle"#,
            r#"{"tokens":{"access_token":["n33dle"]}}"#,
            r#"{"tokens":{"access_token":"n33dle n33dle"}}"#,
        ] {
            let error = read(text).await.unwrap_err();

            assert!(matches!(error, CredentialError::Unreadable { .. }), "{text} {error:?}");
            assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn another_provider_does_not_get_the_token() {
        let error =
            source().in_dir("/nowhere").credential(&"anthropic/main".parse().unwrap()).await.unwrap_err();

        assert!(error.to_string().contains("is not for anthropic/main"), "{error}");
    }

    #[test]
    fn the_file_is_the_one_that_the_program_uses() {
        let first = |login: ProgramLogin, variables: &[(&str, &str)]| {
            let environment = Environment::from_vars(variables.iter().copied());
            let source = LoginFile { login, ..source() }.in_environment(&environment);
            source.paths().first().cloned()
        };
        let below =
            ProgramLogin::new("X", "x", ".config/x", &["a.json"]).dir_variable_below("XDG_CONFIG_HOME", "x");

        assert_eq!(first(LOGIN, &[("CODEX_HOME", "/c"), ("HOME", "/h")]), Some("/c/auth.json".into()));
        assert_eq!(first(LOGIN, &[("HOME", "/h")]), Some("/h/.codex/auth.json".into()));
        assert_eq!(first(LOGIN, &[("A", "b")]), None);
        assert_eq!(first(below, &[("XDG_CONFIG_HOME", "/c")]), Some("/c/x/a.json".into()));
        assert_eq!(first(below, &[("HOME", "/h")]), Some("/h/.config/x/a.json".into()));
    }

    const SEVERAL: ProgramLogin = ProgramLogin::new("X", "x login", ".x", &["auth.json"])
        .token(&["/site:*/key", "/site/key"])
        .account_id(&["/site:*/account", "/site/account"])
        .user_id(&["/site:*/user", "/site/user"])
        .expires_at(&["/site:*/expiry", "/site/expiry"]);

    fn parse_several(file: &Value) -> Credential {
        let source = LoginFile { login: SEVERAL, ..source() };
        source.parse(Path::new("auth.json"), file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn everything_is_read_from_the_entry_with_the_token() {
        let other = serde_json::json!({ "key": "B", "account": "b", "user": "b", "expiry": 5 });
        for first in ["site:a", "site"] {
            let credential = parse_several(&serde_json::json!({ first: { "key": "A" }, "site:b": {
                "key": if first == "site" { Value::Null } else { other["key"].clone() },
                "account": "b", "user": "b", "expiry": 5,
            } }));

            assert_eq!(credential.secret.expose(), "A");
            assert_eq!((credential.account_id, credential.expires_at), (None, None), "{first}");
            assert_eq!(credential.login.login_id, None);
        }
    }

    #[test]
    fn an_entry_without_a_token_does_not_hide_the_next_one() {
        for empty in [Value::Null, Value::from(" ")] {
            let credential = parse_several(&serde_json::json!({
                "site:a": { "key": empty, "account": "a" },
                "site:b": { "key": "B", "account": "b", "expiry": "2027-01-15T08:00:00" },
            }));

            assert_eq!((credential.secret.expose(), credential.account_id.as_deref()), ("B", Some("b")));
            assert_eq!(credential.expires_at, Timestamp::from_second(1_800_000_000).ok());
        }
    }

    #[test]
    fn a_star_in_a_key_of_the_file_is_a_plain_character() {
        let credential = parse_several(&serde_json::json!({ "site:*": { "key": "A", "account": "a" } }));

        assert_eq!((credential.secret.expose(), credential.account_id.as_deref()), ("A", Some("a")));
    }

    fn text_at(file: &Value, pointer: &str) -> Option<String> {
        match find(file, &[pointer], None)?.0 {
            Found::Text(text) => Some(text.to_string()),
            Found::Other => None,
        }
    }

    #[test]
    fn a_star_in_a_pointer_means_any_key() {
        let file = serde_json::json!({ "version": 1, "github.com:app": { "oauth_token": "abc" } });

        assert_eq!(text_at(&file, "/*/oauth_token").as_deref(), Some("abc"));
    }

    #[test]
    fn a_star_after_text_means_any_key_with_that_beginning() {
        let file = serde_json::json!({
            "acme.example:app": { "token": "other" },
            "https://auth.example::app": { "token": "abc" },
        });

        assert_eq!(text_at(&file, "/https:~1~1auth.example::*/token").as_deref(), Some("abc"));
        assert_eq!(text_at(&file, "/https:~1~1auth.other::*/token"), None);
    }
}
