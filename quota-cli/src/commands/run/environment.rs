//! What a command is given of an account: which environment variables are set for it, and which are taken away.
//! The token is in the environment of the command and nowhere else: not in its arguments, and in no message.
//!
//! The variables are those that Claude Code documents at <https://code.claude.com/docs/en/env-vars>. A setting that names a
//! login in a file (`apiKeyHelper`, or `env` of settings.json) cannot be changed from here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use quota::Credential;
use quota::{AccountId, Secret};

use crate::config::{Config, LoginSource};
use crate::store::URL_VARIABLE;

/// From this Claude Code takes a login before it looks for one.
const TOKEN: &str = "CLAUDE_CODE_OAUTH_TOKEN";
/// Other forms of the same.
const OTHER_TOKENS: [&str; 3] = [
    "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
    "CLAUDE_CODE_OAUTH_SCOPES",
    "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
];
/// Where it looks for one.
const DIRECTORY: &str = "CLAUDE_CONFIG_DIR";
/// Where it sends its requests.
const BASE_URL: &str = "ANTHROPIC_BASE_URL";
/// Headers that it sends with each request. One of them may be a login.
const HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";
/// With one of these, another login, provider or host is used than the account's, and another account is billed.
const OVERRIDES: [&str; 17] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_FEDERATION_RULE_ID",
    "ANTHROPIC_IDENTITY_TOKEN",
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
    "ANTHROPIC_ORGANIZATION_ID",
    "ANTHROPIC_PROFILE",
    "ANTHROPIC_SERVICE_ACCOUNT_ID",
    "ANTHROPIC_UNIX_SOCKET",
    "ANTHROPIC_WORKSPACE_ID",
    "CLAUDE_CODE_API_BASE_URL",
    "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
];
/// The account, for a command that wants to show it.
const ACCOUNT: &str = "QUOTA_ACCOUNT";

/// One change of the environment.
#[derive(Debug)]
pub(super) enum Change {
    Set(&'static str, Value),
    Remove(String),
}

/// What a variable is set to. It may be a token, and is not shown.
pub(super) enum Value {
    Plain(OsString),
    Secret(Secret),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => text.fmt(f),
            Self::Secret(_) => f.write_str("***"),
        }
    }
}

impl AsRef<std::ffi::OsStr> for Value {
    fn as_ref(&self) -> &std::ffi::OsStr {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.expose().as_ref(),
        }
    }
}

/// What is to be changed for a command that runs with this account. `headers` is the value of [`HEADERS`] now.
pub(super) fn of(
    config: &Config,
    account: &AccountId,
    credential: Option<&Credential>,
    headers: Option<&str>,
) -> Vec<Change> {
    let settings = config.accounts.iter().find(|one| one.id == *account);
    let own = settings.map(|one| &one.login);
    let remove = |name: &str| Change::Remove(name.to_owned());
    let mut changes: Vec<_> = OVERRIDES.into_iter().map(remove).collect();
    // Its URL may hold the password of the store.
    changes.push(remove(URL_VARIABLE));
    if headers.is_some_and(holds_a_login) {
        changes.push(remove(HEADERS));
    }
    // The tokens of the other accounts are none of the command's business.
    let others = config.accounts.iter().filter(|one| one.id != *account);
    changes.extend(
        others
            .filter_map(|one| one.login.variable())
            .filter(|name| own.is_none_or(|own| !names(own, name)))
            .map(remove),
    );
    changes.push(Change::Set(ACCOUNT, Value::Plain(account.as_str().into())));
    // Without one, the account is at its provider: its token must not go to another host that the user's shell names.
    let base_url = settings.and_then(|one| one.base_url.as_ref()).or(config.anthropic.base_url.as_ref());
    changes.push(match base_url {
        Some(url) => Change::Set(BASE_URL, Value::Plain(url.as_str().trim_end_matches('/').into())),
        None => remove(BASE_URL),
    });
    match own {
        // As it stands: that is where the login was found.
        None | Some(LoginSource::ClaudeCode) => {}
        Some(LoginSource::ClaudeConfigDir(dir)) => {
            changes.extend([TOKEN].into_iter().chain(OTHER_TOKENS).map(remove));
            let (dir, home) = expanded(dir);
            // Claude Code keeps some things elsewhere if it is told of the directory that it uses by itself.
            let is_usual = home.is_some_and(|home| dir == home.join(".claude"));
            changes.push(match is_usual {
                true => remove(DIRECTORY),
                false => Change::Set(DIRECTORY, Value::Plain(dir.into())),
            });
        }
        Some(LoginSource::TokenEnv(_) | LoginSource::TokenFile(_) | LoginSource::TokenCommand(_)) => {
            if let Some(credential) = credential {
                changes.extend(OTHER_TOKENS.into_iter().map(remove));
                changes.push(Change::Set(TOKEN, Value::Secret(credential.secret.clone())));
            }
        }
    }
    changes
}

/// The headers that the environment adds to each request, if any.
pub(super) fn headers() -> Option<String> {
    std::env::var_os(HEADERS).map(|value| value.to_string_lossy().into_owned())
}

/// Whether one of these headers says who asks.
fn holds_a_login(headers: &str) -> bool {
    let names = headers.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let mut names = names.map(str::to_ascii_lowercase);
    names.any(|name| matches!(&*name, "authorization" | "x-api-key" | "cookie"))
}

/// Whether a login is in that variable.
fn names(login: &LoginSource, variable: &str) -> bool {
    match login {
        LoginSource::TokenEnv(name) => name == variable,
        LoginSource::ClaudeCode => variable == TOKEN,
        _ => false,
    }
}

/// The directory with its `~` replaced, as `quota` itself understands it; and the home directory.
fn expanded(dir: &Path) -> (PathBuf, Option<PathBuf>) {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    match (dir.strip_prefix("~"), &home) {
        (Ok(rest), Some(home_dir)) => (home_dir.join(rest), home),
        _ => (dir.to_owned(), home),
    }
}

#[cfg(test)]
mod tests;
