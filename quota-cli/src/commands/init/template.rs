//! The text of a new configuration.

use std::fmt::Write as _;

use crate::detected_logins::DetectedLogins;
use crate::sanitize::sanitize;

const HEAD: &str = "\
# The accounts of `quota`. This file contains no token, only where each token is found.
# See: quota status --help
";

const TAIL: &str = "
# Another account; set one of these for its login.
# [[accounts]]
# id = \"anthropic/work\"
# login_dir = \"~/.claude-work\"          # another directory of Claude Code, or of the provider's program
# token_env = \"QUOTA_WORK\"              # an environment variable
# token_file = \"work.token\"             # a file with mode 600
# token_command = [\"pass\", \"show\", \"work\"]  # a command that prints it
# disabled = true                       # listed, but not refreshed or used

# Which account is preferred. See: quota explain --help
# [routing]
# min_remaining = 20                    # skip an account below this percentage
# killswitch = 5                        # never use it below this percentage

# When accounts are refreshed; these are the defaults.
# [policy]
# max_age = \"5m\"
# min_call_interval = \"1s\"
# budget = { per_hour = 28, interactive_reserve = 6 }
";

/// Renders a configuration of these logins.
pub(super) fn render(logins: &DetectedLogins) -> String {
    let mut text = HEAD.to_owned();
    let is_empty = logins.claude_code.is_none() && logins.programs.is_empty() && logins.variables.is_empty();
    if logins.claude_code.is_some() || is_empty {
        let location = match &logins.claude_code {
            // A line break in a path would end the comment.
            Some(location) => format!("found: {}", sanitize(&location.to_string())),
            None => "none found; run `claude` and log in".to_owned(),
        };
        let _ = write!(text, "\n# Claude Code's login, which quota never changes ({location}).\n");
        text.push_str("[[accounts]]\nid = \"anthropic/main\"\n");
    }
    for (program, path) in &logins.programs {
        let (name, id) = (program.login.program, program.provider.id());
        let path = sanitize(&path.display().to_string());
        let _ = write!(text, "\n# {name}'s login, which quota never changes (found: {path}).\n");
        let _ = write!(text, "[[accounts]]\nid = \"{id}/main\"\n");
    }
    for (name, id) in &logins.variables {
        let _ = write!(text, "\n[[accounts]]\nid = \"{id}\"\ntoken_env = \"{name}\"\n");
    }
    text.push_str(TAIL);
    text
}
