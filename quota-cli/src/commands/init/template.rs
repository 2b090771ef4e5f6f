//! The text of a new configuration.
//! `save` writes it.

use std::fmt::Write as _;

use crate::detected_logins::DetectedLogins;
use crate::sanitize::sanitize;

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
# max_age = \"5m\"
# min_call_interval = \"1s\"
# budget = { per_hour = 28, interactive_reserve = 6 }
";

/// The text of a configuration of these logins.
pub(super) fn render(logins: &DetectedLogins) -> String {
    let mut text = HEAD.to_owned();
    let is_empty = logins.claude_code.is_none() && logins.variables.is_empty();
    if logins.claude_code.is_some() || is_empty {
        let place = match &logins.claude_code {
            // A line break in a path would end the comment.
            Some(place) => format!("found: {}", sanitize(&place.to_string())),
            None => "none was found; run `claude` and log in".to_owned(),
        };
        let _ = write!(text, "\n# The login of Claude Code, only read ({place}).\n");
        text.push_str("[[accounts]]\nid = \"anthropic/main\"\n");
    }
    for (name, account) in &logins.variables {
        let _ = write!(text, "\n[[accounts]]\nid = \"anthropic/{account}\"\ntoken_env = \"{name}\"\n");
    }
    text.push_str(TAIL);
    text
}
