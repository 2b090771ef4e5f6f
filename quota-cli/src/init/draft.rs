//! The text of a new configuration, and what it is made from.
//! Where it is written is in `save`.

use std::fmt::Write as _;

use quota::CredentialError;
use quota::credentials::{ClaudeCode, LoginPlace};

use crate::config::LoginSource;
use crate::harmless::harmless;

/// The variables in which people keep a token of Claude.
const VARIABLES: [(&str, &str); 2] = [("ANTHROPIC_AUTH_TOKEN", "token"), ("QUOTA_MAIN", "quota-main")];

const HEAD: &str = "\
# Which accounts `quota` asks about. Whatever begins with # is a comment.
# No token stands in here: only where one is found. See: quota status --help
";

const TAIL: &str = "
# Another account: its login is in one of these.
# [[accounts]]
# id = \"anthropic/work\"
# claude_config_dir = \"~/.claude-work\"  # another place of Claude Code's
# token_env = \"QUOTA_WORK\"              # an environment variable
# token_file = \"work.token\"             # a file of its own, chmod 600
# token_command = [\"pass\", \"show\", \"work\"]  # a program that prints it
# disabled = true                       # shown, and not asked about

# Which of several accounts is preferred. See: quota explain --help
# [routing]
# min_remaining = 20                    # below this percentage another is taken
# killswitch = 5                        # below this one it is never used

# By which rules they are asked; these are the defaults.
# [policy]
# freshness = \"5m\"
# gap = \"1s\"
# budget = { per_hour = 28, reserve = 6 }
";

/// What there is to make a configuration from.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Where the login of Claude Code is, if there is one.
    claude_code: Option<String>,
    /// Variables that are set, and the names of their accounts.
    variables: Vec<(&'static str, &'static str)>,
}

impl Found {
    /// The logins, with names for their accounts.
    pub(super) fn logins(&self) -> Vec<(&'static str, LoginSource)> {
        let main = self.claude_code.is_some().then_some(("main", LoginSource::ClaudeCode));
        let variables = self.variables.iter();
        let variables =
            variables.map(|(variable, name)| (*name, LoginSource::TokenEnv((*variable).to_owned())));
        main.into_iter().chain(variables).collect()
    }
}

/// Looks for logins. Whether they still open anything is not asked.
pub(super) async fn found() -> Found {
    let copies = ClaudeCode::from_env().copies().await;
    // One that is there and damaged is a login all the same: `quota doctor` says what to do about it.
    let is_there = |state: &Result<_, _>| !matches!(state, Err(CredentialError::NotLoggedIn { .. }));
    let copy =
        copies.iter().find(|copy| copy.used).or_else(|| copies.iter().find(|copy| is_there(&copy.state)));
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    Found {
        claude_code: copy.map(|copy| described(&copy.place)),
        variables: VARIABLES.into_iter().filter(|(name, _)| is_set(name)).collect(),
    }
}

/// A place, such that it stays within the line of a comment.
fn described(place: &LoginPlace) -> String {
    harmless(&place.to_string())
}

/// The text of the configuration.
pub(super) fn of(found: &Found) -> String {
    let mut text = HEAD.to_owned();
    let is_nothing = found.claude_code.is_none() && found.variables.is_empty();
    if found.claude_code.is_some() || is_nothing {
        let place = match &found.claude_code {
            Some(place) => format!("found: {place}"),
            None => "none was found; run `claude` and log in".to_owned(),
        };
        let _ = write!(text, "\n# The login of Claude Code, only read ({place}).\n");
        text.push_str("[[accounts]]\nid = \"anthropic/main\"\n");
    }
    for (name, account) in &found.variables {
        let _ = write!(text, "\n[[accounts]]\nid = \"anthropic/{account}\"\ntoken_env = \"{name}\"\n");
    }
    text.push_str(TAIL);
    text
}
