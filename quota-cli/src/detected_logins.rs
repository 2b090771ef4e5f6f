//! Detects the logins of this machine: Claude Code's login, and tokens in environment variables.
//! It checks only whether they exist. `quota doctor` checks whether they work.

use std::fmt::Write as _;
use std::path::Path;

use quota::CredentialError;
use quota::credentials::{ClaudeCode, CredentialLocation, DiscoveredCredential};

use crate::config::{self, LoginSource};

/// Common variables with a Claude token, and the account name for each.
const VARIABLES: [(&str, &str); 2] = [("ANTHROPIC_AUTH_TOKEN", "token"), ("QUOTA_MAIN", "quota-main")];

/// The logins of this machine.
#[derive(Debug, Default)]
pub(crate) struct DetectedLogins {
    /// The location of Claude Code's login, if there is one.
    pub(crate) claude_code: Option<CredentialLocation>,
    /// The variables that are set, and the account name for each.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl DetectedLogins {
    /// Detects the logins. No provider is called.
    pub(crate) async fn detect() -> Self {
        let copies = claude_code(None).discover().await;
        let copy =
            copies.iter().find(|copy| copy.is_active).or_else(|| copies.iter().find(|copy| exists(copy)));
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            claude_code: copy.map(|copy| copy.location.clone()),
            variables: VARIABLES.into_iter().filter(|(name, _)| is_set(name)).collect(),
        }
    }

    /// The logins, with names for their accounts.
    pub(crate) fn named(&self) -> Vec<(&'static str, LoginSource)> {
        let main = self.claude_code.is_some().then_some(("main", LoginSource::ClaudeCode));
        let variables = self.variables.iter();
        let variables =
            variables.map(|(variable, name)| (*name, LoginSource::TokenEnv((*variable).to_owned())));
        main.into_iter().chain(variables).collect()
    }
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

/// The text for a user without an account.
pub(crate) fn nothing_found(searched: &[String], config: Option<&Path>) -> String {
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
            Some(Path::new("/home/me/.config/quota/config.toml"))
        ));
    }

    #[test]
    fn a_missing_home_directory_is_reported() {
        insta::assert_snapshot!(nothing_found(&[], None));
    }
}
