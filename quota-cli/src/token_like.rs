//! Detects tokens that were entered as a name, a path or a command, so that they are neither stored nor printed.

use std::borrow::Cow;

/// The prefixes of known tokens: Anthropic, OpenAI, GitHub, Google, and JSON Web Tokens.
pub(crate) const STARTS: [&str; 8] = ["sk-", "sk_", "gho_", "ghp_", "ghu_", "github_pat_", "ya29.", "eyJ"];
/// The minimum length of a token with such a prefix. Shorter words, such as `sk-tools`, are not tokens.
const SHORTEST_TOKEN: usize = 16;
/// The minimum length of a token without such a prefix. It must have upper case, lower case and digits.
const SHORTEST_MIXED_TOKEN: usize = 40;

/// Whether any word of the text looks like a token.
pub(crate) fn looks_like_a_token(text: &str) -> bool {
    text.split(|c: char| !in_word(c)).any(is_token)
}

/// The text, or `***` if it looks like a token.
pub(crate) fn masked(text: &str) -> &str {
    if looks_like_a_token(text) { "***" } else { text }
}

/// The text with `***` for each word that looks like a token.
pub(crate) fn without_tokens(text: &str) -> Cow<'_, str> {
    if !looks_like_a_token(text) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    // Each piece is a word and the character after it.
    for piece in text.split_inclusive(|c: char| !in_word(c)) {
        let word = piece.trim_end_matches(|c: char| !in_word(c));
        safe.push_str(masked(word));
        safe.push_str(&piece[word.len()..]);
    }
    Cow::Owned(safe)
}

/// The characters of a token. A slash is excluded, so each path component is checked separately.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.+~".contains(c)
}

fn is_token(word: &str) -> bool {
    // A token that was entered as an option has leading dashes.
    let word = word.trim_start_matches(['-', '.', '+', '~']);
    let has_known_prefix = STARTS.iter().any(|start| word.starts_with(start));
    let has = |is: fn(&char) -> bool| word.chars().any(|c| is(&c));
    let is_mixed =
        has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
    word.starts_with("sk-ant-")
        || (has_known_prefix && word.len() >= SHORTEST_TOKEN)
        || (is_mixed && word.len() >= SHORTEST_MIXED_TOKEN && !word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_detected_anywhere_in_a_text() {
        for text in [
            "sk-ant-oat01-abc",
            "sk-proj-0123456789abcdef",
            "--token=sk-ant-oat01-abc",
            "--sk-ant-oat01-abc",
            "echo 'sk-ant-oat01-abc'",
            "https://example.com/?key=sk-ant-api03-abc",
            "/tmp/sk-ant-oat01-abc",
            "eyJhbGciOiJIUzI1NiJ9.e30.abc",
            "ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "dGhpcyBpcyBhIHNlY3JldCB0b2tlbiBvZiBhIGtpbmQ",
        ] {
            assert!(looks_like_a_token(text), "{text}");
            assert_eq!(masked(text), "***");
        }
    }

    #[test]
    fn only_the_words_that_are_tokens_are_replaced() {
        let text =
            "could not read /home/me/sk-ant-oat01-abc/x: 'sk-ant-oat01-abc', --sk-ant-oat01-abc=3 and sk-ant";

        assert_eq!(without_tokens(text), "could not read /home/me/***/x: '***', ***=3 and sk-ant");
    }

    #[test]
    fn names_paths_and_commands_are_no_tokens() {
        for text in [
            "",
            "pass",
            "show",
            "claude/vault",
            "op://Private/Claude Code/credential",
            "/opt/sk-tools/bin/print-token",
            "sk-work",
            "/home/Me2/.config/quota/a-very-long-name-of-a-directory/another-name-of-one/token.txt",
            "550E8400-e29b-41d4-a716-446655440000",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "com.example.SomeVeryLongBundleIdentifier2.with.many.Parts.in.it",
            "QUOTA_WORK_TOKEN_OF_THE_SECOND_ACCOUNT_2",
            "~/.claude-work",
        ] {
            assert!(!looks_like_a_token(text), "{text}");
        }
    }
}
