//! The commands that hints suggest. They repeat this command's `--config` and `--store`. Otherwise they would use
//! another configuration or store.

use std::path::Path;
use std::sync::OnceLock;

use crate::cli::GlobalOptions;
use crate::token_like::looks_like_a_token;

static GIVEN: OnceLock<GlobalOptions> = OnceLock::new();

/// Sets the options of this process. Only the first call has an effect.
pub(crate) fn set(given: &GlobalOptions) {
    let _ = GIVEN.set(given.clone());
}

/// A `quota` command line with these arguments, for a command that reads a configuration and a store.
pub(crate) fn command(words: &str) -> String {
    repeat(GIVEN.get_or_init(GlobalOptions::default), words, true)
}

/// A `quota` command line with these arguments, for a command without `--store`.
pub(crate) fn command_without_store(words: &str) -> String {
    repeat(GIVEN.get_or_init(GlobalOptions::default), words, false)
}

/// Quotes a path for a shell.
pub(crate) fn quoted(path: &Path) -> String {
    one_word(&path.display().to_string())
}

fn repeat(given: &GlobalOptions, words: &str, takes_store: bool) -> String {
    let mut line = format!("quota {words}");
    if let Some(config) = &given.config {
        line.push_str(" --config ");
        line.push_str(&plain_or_quoted(&config.display().to_string()));
    }
    if let Some(store) = given.store.as_ref().filter(|_| takes_store) {
        line.push_str(" --store ");
        // A URL with an @ may contain a password.
        let is_secret = store.contains('@') || looks_like_a_token(store);
        line.push_str(&if is_secret { "URL".to_owned() } else { plain_or_quoted(store) });
    }
    line
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
    use std::path::PathBuf;

    use super::*;

    fn given(config: Option<&str>, store: Option<&str>) -> GlobalOptions {
        GlobalOptions { config: config.map(PathBuf::from), store: store.map(str::to_owned), json: false }
    }

    #[test]
    fn a_command_repeats_the_given_options() {
        let both = given(Some("work.toml"), Some("redis://127.0.0.1:6379"));

        assert_eq!(
            repeat(&both, "explain", true),
            "quota explain --config work.toml --store redis://127.0.0.1:6379"
        );
        assert_eq!(repeat(&both, "accounts enable a", false), "quota accounts enable a --config work.toml");
        assert_eq!(repeat(&given(None, None), "explain", true), "quota explain");
    }

    #[test]
    fn a_path_with_spaces_is_quoted() {
        assert_eq!(
            repeat(&given(Some("my files/it's.toml"), None), "doctor", true),
            r"quota doctor --config 'my files/it'\''s.toml'"
        );
    }

    #[test]
    fn a_store_with_a_password_is_not_repeated() {
        let secret = given(None, Some("redis://me:hunter2@host"));

        assert_eq!(repeat(&secret, "budget", true), "quota budget --store URL");
    }
}
