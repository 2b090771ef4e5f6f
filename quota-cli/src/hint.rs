//! Commands in advice. They repeat the `--config` and `--store` of this command: otherwise they would concern another configuration
//! or store.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::token_like::looks_like_a_token;

static GIVEN: OnceLock<Given> = OnceLock::new();

/// Sets what the command line of this process names. Only the first call counts.
pub(crate) fn set(config: Option<PathBuf>, store: Option<String>) {
    let _ = GIVEN.set(Given { config, store });
}

/// `quota` with these words, for a command that reads a configuration and a store.
pub(crate) fn command(words: &str) -> String {
    GIVEN.get_or_init(Given::default).repeat(words, true)
}

/// `quota` with these words, for a command that takes no `--store`.
pub(crate) fn command_without_store(words: &str) -> String {
    GIVEN.get_or_init(Given::default).repeat(words, false)
}

/// A path as a shell reads it as one word.
pub(crate) fn quoted(path: &Path) -> String {
    one_word(&path.display().to_string())
}

#[derive(Debug, Default)]
struct Given {
    config: Option<PathBuf>,
    store: Option<String>,
}

impl Given {
    fn repeat(&self, words: &str, takes_store: bool) -> String {
        let mut line = format!("quota {words}");
        if let Some(config) = &self.config {
            line.push_str(" --config ");
            line.push_str(&plain_or_quoted(&config.display().to_string()));
        }
        if let Some(store) = self.store.as_ref().filter(|_| takes_store) {
            line.push_str(" --store ");
            // Before an @ there may be a password.
            let is_secret = store.contains('@') || looks_like_a_token(store);
            line.push_str(&if is_secret { "URL".to_owned() } else { plain_or_quoted(store) });
        }
        line
    }
}

fn plain_or_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:=,%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { one_word(text) }
}

fn one_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(config: Option<&str>, store: Option<&str>) -> Given {
        Given { config: config.map(PathBuf::from), store: store.map(str::to_owned) }
    }

    #[test]
    fn a_command_repeats_the_options_that_were_given() {
        let both = given(Some("work.toml"), Some("redis://127.0.0.1:6379"));

        assert_eq!(
            both.repeat("explain", true),
            "quota explain --config work.toml --store redis://127.0.0.1:6379"
        );
        assert_eq!(both.repeat("accounts enable a", false), "quota accounts enable a --config work.toml");
        assert_eq!(given(None, None).repeat("explain", true), "quota explain");
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_split_it() {
        assert_eq!(
            given(Some("my files/it's.toml"), None).repeat("doctor", true),
            r"quota doctor --config 'my files/it'\''s.toml'"
        );
    }

    #[test]
    fn a_store_with_a_password_is_not_repeated() {
        let secret = given(None, Some("redis://me:hunter2@host"));

        assert_eq!(secret.repeat("budget", true), "quota budget --store URL");
    }
}
