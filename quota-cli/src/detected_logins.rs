//! Detects the logins of this machine: those of Claude Code and of other providers' programs, and tokens in environment variables.
//! It checks only whether they exist. `quota doctor` checks whether they work.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quota::anthropic::ANTHROPIC;
use quota::credentials::{ClaudeCode, CredentialLocation, DiscoveredCredential, LoginFile};
use quota::http::{PROVIDERS, Provider};
use quota::{AccountId, CredentialError, CredentialSource as _, ProviderId};

use crate::config::{self, LoginSource, Program};

/// The variable of this program for a Claude token, and the account name for it.
const OWN_VARIABLE: (&str, &str) = ("QUOTA_MAIN", "quota-main");

/// The logins of this machine.
#[derive(Debug, Default)]
pub(crate) struct DetectedLogins {
    /// The location of Claude Code's login, if there is one.
    pub(crate) claude_code: Option<CredentialLocation>,
    /// The programs of other providers that have a login, and its file.
    pub(crate) programs: Vec<(Program, PathBuf)>,
    /// The variables that are set, and the account for each.
    pub(crate) variables: Vec<(&'static str, AccountId)>,
}

impl DetectedLogins {
    /// Detects the logins. No provider is called.
    pub(crate) async fn detect() -> Self {
        let copies = claude_code(None).discover().await;
        let copy =
            copies.iter().find(|copy| copy.is_active).or_else(|| copies.iter().find(|copy| exists(copy)));
        let mut programs = Vec::new();
        for program in PROVIDERS.iter().copied().filter_map(Program::of) {
            programs.extend(find_program(&program).await.map(|path| (program, path)));
        }
        Self {
            claude_code: copy.map(|copy| copy.location.clone()),
            programs,
            variables: PROVIDERS.iter().flat_map(|provider| variables(provider)).collect(),
        }
    }

    /// The logins, with their accounts.
    pub(crate) fn accounts(&self) -> Vec<(AccountId, LoginSource)> {
        let claude =
            self.claude_code.is_some().then(|| (account(ANTHROPIC, "main"), LoginSource::ClaudeCode));
        let programs = self
            .programs
            .iter()
            .map(|(program, _)| (account(program.provider.id(), "main"), LoginSource::Program(*program)));
        let variables = self.variables.iter();
        let variables =
            variables.map(|(variable, id)| (id.clone(), LoginSource::TokenEnv((*variable).to_owned())));
        claude.into_iter().chain(programs).chain(variables).collect()
    }
}

fn account(provider: ProviderId, name: &str) -> AccountId {
    AccountId::new(provider, name).expect("a constant name is valid")
}

/// The file with the login of a provider's program, if it has one. A damaged login counts.
async fn find_program(program: &Program) -> Option<PathBuf> {
    let source = LoginFile::new(program.provider.id(), program.login);
    let result = source.credential(&account(program.provider.id(), "main")).await;
    let has_login = !matches!(result, Err(CredentialError::NotLoggedIn { .. }));
    source.paths().into_iter().find(|path| path.exists()).filter(|_| has_login)
}

/// The variables with a token of this provider that are set, and the account for each. Several variables of one provider usually have
/// the same token, so only the first counts.
fn variables(provider: &'static Provider) -> Vec<(&'static str, AccountId)> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let name = if provider.own_login().is_some() { "token" } else { "main" };
    let usual = provider.variables().iter().copied().find(is_set).map(|variable| (variable, name));
    let own = (provider.id() == ANTHROPIC && is_set(&OWN_VARIABLE.0)).then_some(OWN_VARIABLE);
    let id = |(variable, name)| (variable, account(provider.id(), name));
    usual.into_iter().chain(own).map(id).collect()
}

/// The login of Claude Code in this configuration directory, or in the one of the environment. Its login id is remembered for the next
/// command, so that a statusline does not parse a state file of several megabytes.
pub(crate) fn claude_code(dir: Option<&Path>) -> ClaudeCode {
    let source = dir.map_or_else(ClaudeCode::from_env, ClaudeCode::in_dir);
    match config::directory("XDG_STATE_HOME", &[".local", "state"]) {
        Some(state) => source.remember_logins(state.join("quota").join("login-ids.json")),
        None => source,
    }
}

/// Checks whether Claude Code has a login.
///
/// # Errors
///
/// The locations without a login, each with the reason.
pub(crate) async fn find_claude_code() -> Result<(), Vec<String>> {
    let copies = claude_code(None).discover().await;
    if copies.iter().any(exists) { Ok(()) } else { Err(copies.iter().map(missing).collect()) }
}

/// Whether a login exists. A damaged login counts: it is shown as an account with an error, and `quota doctor` shows how to fix it.
fn exists(copy: &DiscoveredCredential) -> bool {
    !matches!(copy.result, Err(CredentialError::NotLoggedIn { .. }))
}

/// Why a location has no login, without the hint that would be repeated on every line.
fn missing(copy: &DiscoveredCredential) -> String {
    let error = copy.result.as_ref().map_or_else(ToString::to_string, |_| String::new());
    error.rsplit_once("; run `claude`").map_or(error.clone(), |(cause, _)| cause.to_owned())
}

/// The programs of other providers that have a login. An account for one is added by `quota init`.
pub(crate) async fn programs_with_login() -> Vec<&'static str> {
    let mut names = Vec::new();
    for program in PROVIDERS.iter().copied().filter_map(Program::of) {
        names.extend(find_program(&program).await.map(|_| program.login.program));
    }
    names
}

/// The text for a user without an account. These programs of other providers have a login.
pub(crate) fn nothing_found(searched: &[String], config: Option<&Path>, programs: &[&str]) -> String {
    let mut text = "No account was found. Searched:\n".to_owned();
    match config {
        Some(path) => {
            let _ = writeln!(text, "  {} does not exist", path.display());
        }
        None => text.push_str("  a configuration: neither XDG_CONFIG_HOME nor HOME is set\n"),
    }
    if searched.is_empty() {
        text.push_str("  a login of Claude Code: neither CLAUDE_CONFIG_DIR nor HOME is set\n");
    }
    for location in searched {
        let _ = writeln!(text, "  {location}");
    }
    for program in programs {
        let _ = writeln!(text, "\nThere is a login of {program}. To use it, run: quota init");
    }
    text.push_str(
        "\nTo add one, run `claude` and log in; or run:\n\n  \
         quota accounts add main --token-env QUOTA_MAIN    # an environment variable that holds a token\n\n\
         or add an account to that configuration:\n\n  \
         [[accounts]]\n  id = \"anthropic/main\"\n  token_env = \"QUOTA_MAIN\"    # an environment variable that holds a token\n\n\
         Help: quota status --help. Demo without an account: quota demo\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searched_locations_are_listed() {
        let searched = ["/home/me/.claude/.credentials.json does not exist".to_owned()];

        insta::assert_snapshot!(nothing_found(
            &searched,
            Some(Path::new("/home/me/.config/quota/config.toml")),
            &[]
        ));
    }

    #[test]
    fn a_missing_home_directory_is_reported() {
        insta::assert_snapshot!(nothing_found(&[], None, &[]));
    }
}
