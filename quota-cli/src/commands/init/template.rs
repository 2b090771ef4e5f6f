//! The text of a new configuration.

use std::fmt::Write as _;

use crate::config;
use crate::detected_logins::DetectedLogins;
use crate::sanitize::sanitize;

const HEAD: &str = "\
# The accounts of `quota`. This file contains no token, only where each token is found.
# See: quota status --help, quota providers
# For completion in an editor: quota init --schema > config.schema.json, and a first line #:schema ./config.schema.json
";

const TAIL: &str = "
# Another account; set one of these for its login.
# [[accounts]]
# id = \"anthropic/work\"
# login_dir = \"~/.claude-work\"          # another directory of Claude Code, or of the provider's program
# token_env = \"QUOTA_WORK\"              # an environment variable
# token_file = \"work.token\"             # a file with mode 600
# token_command = [\"pass\", \"show\", \"work\"]  # a command that prints it
# keyring = { service = \"quota\" }      # an item of the keyring, whose user is the id
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
    if logins.logins.is_empty() {
        text.push_str(
            "\n# Claude Code's login, which quota never changes (none found; run `claude` and log in).\n",
        );
        text.push_str("[[accounts]]\nid = \"anthropic/main\"\n");
    }
    for one in &logins.logins {
        // A line break in a path would end the comment.
        let location = sanitize(&one.location);
        if let Some(other) = &one.same_as {
            let _ = write!(text, "\n# {location} has the same login as {other}.\n");
            continue;
        }
        text.push('\n');
        if let Some(program) = one.login.program() {
            let _ = writeln!(text, "# {program}'s login, which quota never changes (found: {location}).");
        }
        text.push_str(&config::new_account(&one.id, &one.login));
    }
    text.push_str(TAIL);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::assert_valid;

    #[test]
    fn the_template_is_valid_with_and_without_its_examples() {
        let text = render(&DetectedLogins::default());
        // An example is a key or a table after `# `.
        let uncommented = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(example) if example.starts_with('[') || example.contains(" = ") => example,
            _ => line,
        });

        assert_valid(&text);
        assert_valid(&uncommented.collect::<Vec<_>>().join("\n"));
    }
}
