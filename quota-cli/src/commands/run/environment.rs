//! The environment of the command: which variables are set for an account, and which are removed.
//! The token is passed only in the environment, never in an argument or a message.
//!
//! The variables are those that Claude Code documents at <https://code.claude.com/docs/en/env-vars>. This module cannot change a
//! login in settings.json (`apiKeyHelper` or `env`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use quota::Credential;
use quota::{AccountId, Secret};

use crate::config::{Config, LoginSource};
use crate::store::URL_VARIABLE;

/// The login that Claude Code prefers over a stored one.
const TOKEN: &str = "CLAUDE_CODE_OAUTH_TOKEN";
/// Other variables from which Claude Code reads a login.
const OTHER_TOKENS: [&str; 3] = [
    "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
    "CLAUDE_CODE_OAUTH_SCOPES",
    "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
];
/// The directory in which Claude Code stores its login.
const DIRECTORY: &str = "CLAUDE_CONFIG_DIR";
/// The URL to which Claude Code sends its requests.
const BASE_URL: &str = "ANTHROPIC_BASE_URL";
/// Headers that Claude Code adds to each request. They may contain a login.
const HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";
/// Variables that select another login, provider or host, so that another account would be billed.
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
/// The account, for commands that show it.
const ACCOUNT: &str = "QUOTA_ACCOUNT";

/// One change to the environment.
#[derive(Debug)]
pub(super) enum EnvironmentChange {
    Set(&'static str, Value),
    Remove(String),
}

/// The value of a variable. `Debug` hides secrets.
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

/// The changes for a command that runs with this account. `headers` is the current value of [`HEADERS`].
pub(super) fn of(
    config: &Config,
    account: &AccountId,
    credential: Option<&Credential>,
    headers: Option<&str>,
) -> Vec<EnvironmentChange> {
    let settings = config.accounts.iter().find(|one| one.id == *account);
    let own = settings.map(|one| &one.login);
    let remove = |name: &str| EnvironmentChange::Remove(name.to_owned());
    let mut changes: Vec<_> = OVERRIDES.into_iter().map(remove).collect();
    // The URL may contain the password of the store.
    changes.push(remove(URL_VARIABLE));
    if headers.is_some_and(contain_a_login) {
        changes.push(remove(HEADERS));
    }
    // The command must not get the tokens of other accounts.
    let others = config.accounts.iter().filter(|one| one.id != *account);
    changes.extend(
        others
            .filter_map(|one| one.login.variable())
            .filter(|name| own.is_none_or(|own| !names(own, name)))
            .map(remove),
    );
    changes.push(EnvironmentChange::Set(ACCOUNT, Value::Plain(account.as_str().into())));
    // Without a base URL, remove the variable. Otherwise the token could be sent to a host that the user's shell names.
    let base_url = settings.and_then(|one| one.base_url.as_ref()).or(config.anthropic.base_url.as_ref());
    changes.push(match base_url {
        Some(url) => {
            EnvironmentChange::Set(BASE_URL, Value::Plain(url.as_str().trim_end_matches('/').into()))
        }
        None => remove(BASE_URL),
    });
    match own {
        // Keep the environment in which the login was found.
        None | Some(LoginSource::ClaudeCode) => {}
        Some(LoginSource::ClaudeConfigDir(dir)) => {
            changes.extend([TOKEN].into_iter().chain(OTHER_TOKENS).map(remove));
            let (dir, home) = expanded(dir);
            // Claude Code stores some files elsewhere if the variable is set, even to its default directory.
            let is_default = home.is_some_and(|home| dir == home.join(".claude"));
            changes.push(match is_default {
                true => remove(DIRECTORY),
                false => EnvironmentChange::Set(DIRECTORY, Value::Plain(dir.into())),
            });
        }
        Some(LoginSource::TokenEnv(_) | LoginSource::TokenFile(_) | LoginSource::TokenCommand(_)) => {
            if let Some(credential) = credential {
                changes.extend(OTHER_TOKENS.into_iter().map(remove));
                changes.push(EnvironmentChange::Set(TOKEN, Value::Secret(credential.secret.clone())));
            }
        }
    }
    changes
}

/// The headers that the environment adds to each request, if any.
pub(super) fn headers() -> Option<String> {
    std::env::var_os(HEADERS).map(|value| value.to_string_lossy().into_owned())
}

/// Whether one of these headers is a login.
fn contain_a_login(headers: &str) -> bool {
    let names = headers.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let mut names = names.map(str::to_ascii_lowercase);
    names.any(|name| matches!(&*name, "authorization" | "x-api-key" | "cookie"))
}

/// Whether the login is read from this variable.
fn names(login: &LoginSource, variable: &str) -> bool {
    match login {
        LoginSource::TokenEnv(name) => name == variable,
        LoginSource::ClaudeCode => variable == TOKEN,
        _ => false,
    }
}

/// The directory with `~` expanded, and the home directory.
fn expanded(dir: &Path) -> (PathBuf, Option<PathBuf>) {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    match (dir.strip_prefix("~"), &home) {
        (Ok(rest), Some(home_dir)) => (home_dir.join(rest), home),
        _ => (dir.to_owned(), home),
    }
}

#[cfg(test)]
mod tests;
