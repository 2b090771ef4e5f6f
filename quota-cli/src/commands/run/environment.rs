//! The environment of the command: which variables are set for an account, and which are removed.
//! The token is passed only in the environment, never in an argument or a message.
//!
//! The provider's description lists the variables of its own program. This module cannot override a login in that
//! program's files, such as `apiKeyHelper` or `env` in Claude Code's settings.json.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use quota::http::CommandEnvironment;
use quota::{AccountId, Credential, Secret};

use crate::config::{Config, LoginSource};
use crate::exit::{CliError, Exit};
use crate::store::URL_VARIABLE;

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

/// The changes for a command that runs with this account. `variable` reads the current environment.
///
/// # Errors
///
/// [`CliError`] if the provider's program cannot get this login.
pub(super) fn of(
    config: &Config,
    account: &AccountId,
    credential: Option<&Credential>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<EnvironmentChange>, CliError> {
    let settings = config.accounts.iter().find(|one| one.id == *account);
    let own = settings.map(|one| &one.login);
    let provider = config.defined_providers.find(account.provider().as_str());
    let program = provider.and_then(|provider| provider.environment()).copied().unwrap_or_default();
    let remove = |name: &str| EnvironmentChange::Remove(name.to_owned());
    let mut changes: Vec<_> = program.remove.iter().copied().map(remove).collect();
    // The URL may contain the password of the store.
    changes.push(remove(URL_VARIABLE));
    if let Some(name) = program.headers
        && variable(name).is_some_and(|headers| contain_a_login(&headers))
    {
        changes.push(remove(name));
    }
    // The command must not get the tokens of other accounts.
    let others = config.accounts.iter().filter(|one| one.id != *account);
    changes.extend(
        others
            .filter_map(|one| one.login.variable())
            .filter(|name| own.is_none_or(|own| !names(own, name, &program)))
            .map(remove),
    );
    changes.push(EnvironmentChange::Set(ACCOUNT, Value::Plain(account.as_str().into())));
    if let Some(name) = program.base_url {
        // Without a base URL, remove the variable. Otherwise the token could be sent to a host that the user's shell names.
        let own = settings.and_then(|one| one.base_url.as_ref());
        changes.push(match own.or(config.provider(account.provider()).base_url.as_ref()) {
            Some(url) => {
                EnvironmentChange::Set(name, Value::Plain(url.as_str().trim_end_matches('/').into()))
            }
            None => remove(name),
        });
    }
    let tokens = program.token.iter().chain(program.other_tokens).copied().map(remove);
    match own {
        // Keep the environment in which the login was found. Claude Code may have found it in a variable.
        None | Some(LoginSource::ClaudeCode) => {}
        Some(LoginSource::Program(_)) => {
            // The login is in a file. A token in the environment would override it, and bill another account.
            changes.extend(tokens);
            if program.is_token_required {
                let set = set_token(&program, credential);
                changes.push(set.ok_or_else(|| takes_none(account, "login", ""))?);
            }
        }
        Some(LoginSource::ClaudeConfigDir(dir) | LoginSource::ProgramDir(_, dir)) => {
            changes.extend(tokens);
            let (dir, home) = expanded(dir);
            if let Some(name) = program.dir_variable {
                // Claude Code stores some files elsewhere if the variable is set, even to its default directory.
                let is_default = home.is_some_and(|home| dir == home.join(program.default_dir));
                changes.push(match is_default {
                    true => remove(name),
                    false => EnvironmentChange::Set(name, Value::Plain(dir.into())),
                });
            } else {
                // The program always uses its default folder, so only the token selects the login.
                let set = set_token(&program, credential);
                changes.push(set.ok_or_else(|| takes_none(account, "login", ""))?);
            }
        }
        Some(
            LoginSource::TokenEnv(_)
            | LoginSource::TokenFile(_)
            | LoginSource::TokenCommand(_)
            | LoginSource::Keyring(_)
            | LoginSource::Own,
        ) => {
            if let Some(set) = set_token(&program, credential) {
                changes.extend(program.other_tokens.iter().copied().map(remove));
                changes.push(set);
            } else if provider.is_some_and(|provider| provider.environment().is_some()) {
                let hint = if program.dir_variable.is_some() { "; set login_dir" } else { "" };
                return Err(takes_none(account, "token", hint));
            }
        }
    }
    Ok(changes)
}

/// The change that passes the token; `None` if the program takes none, or there is none.
fn set_token(program: &CommandEnvironment, credential: Option<&Credential>) -> Option<EnvironmentChange> {
    Some(EnvironmentChange::Set(program.token?, Value::Secret(credential?.secret.clone())))
}

/// The program would use its own login, so another account would be billed.
fn takes_none(account: &AccountId, what: &str, hint: &str) -> CliError {
    let why = format!("the program of {account} takes no {what} from its environment{hint}");
    CliError::new(Exit::Config, why)
}

/// Reads a variable of this process.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Whether one of these headers is a login.
fn contain_a_login(headers: &str) -> bool {
    let names = headers.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let mut names = names.map(str::to_ascii_lowercase);
    names.any(|name| matches!(&*name, "authorization" | "x-api-key" | "cookie"))
}

/// Whether the login is read from this variable.
fn names(login: &LoginSource, variable: &str, program: &CommandEnvironment) -> bool {
    match login {
        LoginSource::TokenEnv(name) => name == variable,
        LoginSource::ClaudeCode => program.token == Some(variable),
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
