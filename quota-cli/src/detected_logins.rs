//! Finds the logins of this machine without a configuration: Claude Code's, and tokens in environment variables.
//! It checks only whether they exist. `quota doctor` checks whether they can be used.

use std::fmt::Write as _;
use std::path::Path;

use quota::CredentialError;
use quota::credentials::{ClaudeCode, CredentialLocation, DiscoveredCredential};

use crate::config::LoginSource;

/// The variables in which people keep a token of Claude, and the names of their accounts.
const VARIABLES: [(&str, &str); 2] = [("ANTHROPIC_AUTH_TOKEN", "token"), ("QUOTA_MAIN", "quota-main")];

/// The logins of this machine.
#[derive(Debug, Default)]
pub(crate) struct DetectedLogins {
    /// Where the login of Claude Code is, if there is one.
    pub(crate) claude_code: Option<CredentialLocation>,
    /// Variables that are set, and the names of their accounts.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl DetectedLogins {
    /// Finds them. No provider is called.
    pub(crate) async fn detect() -> Self {
        let copies = ClaudeCode::from_env().discover().await;
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

/// Checks whether Claude Code has a login.
///
/// # Errors
///
/// The places without a login, each with the reason.
pub(crate) async fn find_claude_code() -> Result<(), Vec<String>> {
    let copies = ClaudeCode::from_env().discover().await;
    if copies.iter().any(exists) { Ok(()) } else { Err(copies.iter().map(missing).collect()) }
}

/// A damaged login counts: it is shown as an account with an error, and `quota doctor` says how to fix it.
fn exists(copy: &DiscoveredCredential) -> bool {
    !matches!(copy.result, Err(CredentialError::NotLoggedIn { .. }))
}

/// Why a place has no login, without the advice that would be repeated on every line.
fn missing(copy: &DiscoveredCredential) -> String {
    let error = copy.result.as_ref().map_or_else(ToString::to_string, |_| String::new());
    error.rsplit_once("; run `claude`").map_or(error.clone(), |(place, _)| place.to_owned())
}

/// The text for a user who has no account yet.
pub(crate) fn nothing_found(looked_for: &[String], config: Option<&Path>) -> String {
    let mut text = "No account was found. Looked for:\n".to_owned();
    match config {
        Some(path) => {
            let _ = writeln!(text, "  {} does not exist", path.display());
        }
        None => text.push_str("  a configuration: neither XDG_CONFIG_HOME nor HOME is set\n"),
    }
    if looked_for.is_empty() {
        text.push_str("  a login of Claude Code: neither CLAUDE_CONFIG_DIR nor HOME is set\n");
    }
    for place in looked_for {
        let _ = writeln!(text, "  {place}");
    }
    text.push_str(
        "\nTo add one, run `claude` and log in; or run:\n\n  \
         quota accounts add main --token-env QUOTA_MAIN    # an environment variable that holds a token\n\n\
         or name an account in that configuration:\n\n  \
         [[accounts]]\n  id = \"anthropic/main\"\n  token_env = \"QUOTA_MAIN\"    # an environment variable that holds a token\n\n\
         More: quota status --help. To see how it looks without an account: quota demo\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searched_places_are_named() {
        let looked_for = ["/home/me/.claude/.credentials.json does not exist".to_owned()];

        insta::assert_snapshot!(nothing_found(
            &looked_for,
            Some(Path::new("/home/me/.config/quota/config.toml"))
        ));
    }

    #[test]
    fn a_missing_home_directory_is_named() {
        insta::assert_snapshot!(nothing_found(&[], None));
    }
}
