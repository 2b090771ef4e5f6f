//! What a command is given of an account: which environment variables are set for it, and which are taken away.
//! The token is in the environment of the command and nowhere else: not in its arguments, and in no message.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use quota::accounts::Credential;
use quota::{AccountId, Secret};

use crate::config::{AccountSettings, Config, LoginSource};

/// From these Claude Code takes a login before it looks for one.
const TOKEN: &str = "CLAUDE_CODE_OAUTH_TOKEN";
/// Where it looks for one.
const DIRECTORY: &str = "CLAUDE_CONFIG_DIR";
/// What would be used in place of any login, and be paid by somebody else.
const KEYS: [&str; 2] = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"];
/// Which account it is, for whoever wants to tell.
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

/// What is to be changed for a command that runs with this account.
pub(super) fn of(config: &Config, account: &AccountId, credential: Option<&Credential>) -> Vec<Change> {
    let own = config.accounts.iter().find(|one| one.id == *account).map(|one| &one.login);
    let mut changes: Vec<_> = KEYS.iter().map(|key| Change::Remove((*key).to_owned())).collect();
    // The tokens of the other accounts are none of the command's business.
    let others = config.accounts.iter().filter(|one| one.id != *account);
    changes.extend(
        others
            .filter_map(variable)
            .filter(|name| own.is_none_or(|own| !names(own, name)))
            .map(Change::Remove),
    );
    changes.push(Change::Set(ACCOUNT, Value::Plain(account.as_str().into())));
    match own {
        // As it stands: that is where the login was found.
        None | Some(LoginSource::ClaudeCode) => {}
        Some(LoginSource::ClaudeConfigDir(dir)) => {
            changes.push(Change::Remove(TOKEN.to_owned()));
            let (dir, home) = expanded(dir);
            // Claude Code keeps some things elsewhere if it is told of the directory that it uses by itself.
            let is_usual = home.is_some_and(|home| dir == home.join(".claude"));
            changes.push(match is_usual {
                true => Change::Remove(DIRECTORY.to_owned()),
                false => Change::Set(DIRECTORY, Value::Plain(dir.into())),
            });
        }
        Some(LoginSource::TokenEnv(_) | LoginSource::TokenFile(_) | LoginSource::TokenCommand(_)) => {
            if let Some(credential) = credential {
                changes.push(Change::Set(TOKEN, Value::Secret(credential.secret.clone())));
            }
        }
    }
    changes
}

/// The variable that an account's token is in.
fn variable(account: &AccountSettings) -> Option<String> {
    match &account.login {
        // What cannot be a name cannot be taken away.
        LoginSource::TokenEnv(name) if !name.is_empty() && !name.contains(['=', '\0']) => Some(name.clone()),
        _ => None,
    }
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
