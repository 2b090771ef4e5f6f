//! A configuration error in one line: the position, the cause, and what to do.
//! It never repeats a value that could be a token.

use std::ops::Range;

use crate::token_like::STARTS;

/// A problem, and its position in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigError {
    at: Option<Range<usize>>,
    message: String,
}

impl ConfigError {
    /// An error at this part of the text.
    pub(super) fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { at: Some(span), message: message.into() }
    }

    /// An error of the TOML parser.
    pub(super) fn of_toml(error: &toml::de::Error) -> Self {
        // Use only `message()`, because the full error text repeats the whole line, which may contain a token.
        Self { at: error.span(), message: with_hint(&redact(error.message())) }
    }

    /// The error as one line.
    pub(super) fn message(&self, name: &str, text: &str) -> String {
        match &self.at {
            Some(span) => {
                let (line, column) = Lines::of(text).position(span.start);
                format!("{name}:{line}:{column}: {}", self.message)
            }
            None => format!("{name}: {}", self.message),
        }
    }
}

/// An index of line starts. It finds the line of each account without scanning the text again.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The line number of the byte at `at`, starting at 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// The line and column of the byte at `at`, both starting at 1. Columns are counted in characters.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let at = self.text.floor_char_boundary(at);
        let line = self.line(at);
        (line, self.text[self.starts[line - 1]..at].chars().count() + 1)
    }
}

/// Keys and values of other programs and of earlier versions, each with its current name.
const SYNONYMS: [(&str, &str); 28] = [
    ("minimum", "min_remaining"),
    ("stop", "killswitch"),
    ("open", "allow"),
    ("closed", "deny"),
    ("triggers", "fallback_on"),
    ("pause", "throttle_cooldown"),
    ("spent_pause", "exhausted_cooldown"),
    ("not_allowed_pause", "forbidden_cooldown"),
    ("pin_for", "session_ttl"),
    ("most_pins", "max_sessions"),
    ("wait_for_reset", "max_session_wait"),
    ("freshness", "max_age"),
    ("complete_every", "full_refresh_interval"),
    ("gap", "min_call_interval"),
    ("parallel", "max_concurrent_calls"),
    ("backoff", "rate_limit_backoff"),
    ("transient", "error_backoff"),
    ("quiet", "cooldown"),
    ("flush", "flush_interval"),
    ("keep", "record_ttl"),
    ("store_patience", "store_timeout"),
    ("when_away", "on_store_unavailable"),
    ("recheck", "poll_interval"),
    ("first", "initial"),
    ("cap", "max"),
    ("span", "duration"),
    ("go_alone", "standalone"),
    ("refuse", "fail_closed"),
];

fn current_name<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (_, current) = SYNONYMS.iter().find(|(other, _)| *other == word)?;
    known.iter().copied().find(|known| known == current)
}

/// The most similar known word. A former name is replaced by its current one.
fn nearest_known<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let nearest = nearest(word, known.iter().copied())?;
    Some(current_name(nearest, known).unwrap_or(nearest))
}

/// The known words for a message, without former names.
fn listed(known: &[&str]) -> String {
    let current = known.iter().copied().filter(|word| current_name(word, known).is_none());
    current.collect::<Vec<_>>().join(", ")
}

/// The message with a hint: what to do about an unknown key, or how to write a duration.
fn with_hint(message: &str) -> String {
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("missing key {key}");
    }
    if message.contains("duration") {
        return "not a duration; write it like \"5m\" or \"1m 30s\"".to_owned();
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let Some((word, expected)) = rest.split_once('`') else { return message };
        let known = between_ticks(expected);
        if let Some(now) = current_name(word, &known) {
            return format!("invalid value \"{word}\"; write \"{now}\"");
        }
        return match nearest_known(word, &known) {
            Some(nearest) => format!("invalid value \"{word}\"; did you mean \"{nearest}\"?"),
            None => format!("invalid value \"{word}\" (expected one of: {})", listed(&known)),
        };
    }
    let Some(rest) = message.strip_prefix("unknown field `") else { return message };
    // serde's form: unknown field `x`, expected `a` | `a` or `b` | one of `a`, `b`.
    let Some((key, expected)) = rest.split_once('`') else { return message };
    let known = between_ticks(expected);
    if matches!(key, "token" | "access_token" | "api_key" | "key") {
        return format!(
            "unknown key `{key}`: do not put a token into this file, because it is not secret; use token_env (an \
             environment variable) or token_file (a separate file)"
        );
    }
    if key == "lease" && known.contains(&"fetch_timeout") {
        return "`lease` is no longer a setting: a lease always lasts 2 s longer than fetch_timeout; remove it".to_owned();
    }
    if let Some(now) = current_name(key, &known) {
        return format!("unknown key `{key}`; write `{now}`");
    }
    match nearest_known(key, &known) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}` (expected one of: {})", listed(&known)),
    }
}

fn between_ticks(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The most similar of the possible words, if any is similar enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MIN_SIMILARITY: f64 = 0.8;
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// Masks words that could be tokens: those with a known prefix, and long ones.
fn redact(text: &str) -> String {
    const LONGEST_WORD: usize = 24;
    let in_word = |c: char| c.is_ascii_alphanumeric() || "-_.+/=".contains(c);
    let mut clean = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let secret = word.len() > LONGEST_WORD || STARTS.iter().any(|start| word.starts_with(start));
        clean.push_str(if secret { "***" } else { word });
        let next = after.find(in_word).unwrap_or(after.len());
        clean.push_str(&after[..next]);
        rest = &after[next..];
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_a_suggestion() {
        let text = with_hint("unknown field `base_ulr`, expected one of `id`, `token_env`, `base_url`");

        assert_eq!(text, "unknown key `base_ulr`; did you mean `base_url`?");
    }

    #[test]
    fn a_dissimilar_key_gets_the_list_of_keys() {
        let text = with_hint("unknown field `color`, expected `id` or `base_url`");

        assert_eq!(text, "unknown key `color` (expected one of: id, base_url)");
    }

    #[test]
    fn a_synonym_gets_the_current_name() {
        let key = with_hint("unknown field `stop`, expected one of `id`, `min_remaining`, `killswitch`");
        let value = with_hint("unknown variant `closed`, expected `allow` or `deny`");

        assert_eq!(key, "unknown key `stop`; write `killswitch`");
        assert_eq!(value, "invalid value \"closed\"; write \"deny\"");
        assert!(with_hint("unknown field `stop`, expected `run` or `post`").contains("expected one of"));
    }

    #[test]
    fn a_former_routing_key_gets_the_current_name() {
        let text = with_hint("unknown field `pin_for`, expected one of `mode`, `session_ttl`");

        assert_eq!(text, "unknown key `pin_for`; write `session_ttl`");
    }

    #[test]
    fn a_hint_omits_former_keys() {
        let similar = with_hint("unknown field `freshnes`, expected one of `max_age`, `freshness`");
        let other = with_hint("unknown field `color`, expected one of `max_age`, `freshness`");

        assert_eq!(similar, "unknown key `freshnes`; did you mean `max_age`?");
        assert_eq!(other, "unknown key `color` (expected one of: max_age)");
    }

    #[test]
    fn a_token_key_gets_a_hint_to_token_file() {
        assert!(with_hint("unknown field `token`, expected one of `token_env`, `id`").contains("token_file"));
    }

    #[test]
    fn possible_tokens_are_masked() {
        let text =
            redact("invalid type: string \"sk-ant-oat01-x\", expected eyJhbGc or 0123456789abcdef0123456789");

        assert_eq!(text, "invalid type: string \"***\", expected *** or ***");
    }

    #[test]
    fn a_position_is_counted_in_characters() {
        let lines = Lines::of("a = 1\nü = 2 # é\n");

        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(6), (2, 1));
        assert_eq!(lines.position(13), (2, 7));
        assert_eq!(lines.position(usize::MAX), (3, 1));
    }
}
