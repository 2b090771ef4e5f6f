//! Whether there is a login without any configuration, and what to say if there is none.
//! The login itself is not taken from here.

use std::fmt::Write as _;
use std::path::Path;

use quota::CredentialError;
use quota::credentials::{ClaudeCode, FoundLogin};

/// Looks for a login of Claude Code.
///
/// # Errors
///
/// What was looked for and is not there.
pub(crate) async fn claude_code() -> Result<(), Vec<String>> {
    let copies = ClaudeCode::from_env().copies().await;
    // A login that is there and cannot be read is shown as an account with its trouble, not as no account.
    let is_there = |copy: &FoundLogin| !matches!(copy.state, Err(CredentialError::NotLoggedIn { .. }));
    if copies.iter().any(is_there) {
        return Ok(());
    }
    Err(copies.iter().map(missing).collect())
}

/// Why a place is none, without the advice that would be repeated on every line.
fn missing(copy: &FoundLogin) -> String {
    let told = copy.state.as_ref().map_or_else(ToString::to_string, |_| String::new());
    told.rsplit_once("; run `claude`").map_or(told.clone(), |(place, _)| place.to_owned())
}

/// The text for somebody who has no account yet.
pub(super) fn nothing_found(looked_for: &[String], config: Option<&Path>) -> String {
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
    fn what_was_looked_for_is_named() {
        let looked_for = ["/home/me/.claude/.credentials.json does not exist".to_owned()];

        insta::assert_snapshot!(nothing_found(
            &looked_for,
            Some(Path::new("/home/me/.config/quota/config.toml"))
        ));
    }

    #[test]
    fn without_a_home_it_says_so() {
        insta::assert_snapshot!(nothing_found(&[], None));
    }
}
