//! An error of the configuration in one line: the place, the cause, and what to do.
//! No value that could be a token is repeated.

use std::ops::Range;

use crate::token_like::STARTS;

/// What is wrong, and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigError {
    at: Option<Range<usize>>,
    what: String,
}

impl ConfigError {
    /// An error at this part of the text.
    pub(super) fn at(span: Range<usize>, what: impl Into<String>) -> Self {
        Self { at: Some(span), what: what.into() }
    }

    /// An error of the TOML parser.
    pub(super) fn of_toml(error: &toml::de::Error) -> Self {
        // Not the error's own text: it repeats the whole line, which may hold a token.
        Self { at: error.span(), what: with_hint(&redact(error.message())) }
    }

    /// The whole line.
    pub(super) fn message(&self, name: &str, text: &str) -> String {
        match &self.at {
            Some(span) => {
                let (line, column) = Lines::of(text).position(span.start);
                format!("{name}:{line}:{column}: {}", self.what)
            }
            None => format!("{name}: {}", self.what),
        }
    }
}

/// The starts of the lines of a text, so that the line of each account is found without reading the text again.
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

    /// The line of the byte at `at`, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Line and column, from 1, of the byte at `at`. Columns are counted in characters.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let at = self.text.floor_char_boundary(at);
        let line = self.line(at);
        (line, self.text[self.starts[line - 1]..at].chars().count() + 1)
    }
}

/// Words of other programs and former words of this one, with those of this one.
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

fn meant_by<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (_, now) = SYNONYMS.iter().find(|(other, _)| *other == word)?;
    known.iter().copied().find(|known| known == now)
}

/// The known word that is most like `word`. A word that is only accepted for old files is replaced by its successor.
fn nearest_known<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let nearest = nearest(word, known.iter().copied())?;
    Some(meant_by(nearest, known).unwrap_or(nearest))
}

/// The known words for a message, without those that are only accepted for old files.
fn listed(known: &[&str]) -> String {
    let current = known.iter().copied().filter(|word| meant_by(word, known).is_none());
    current.collect::<Vec<_>>().join(", ")
}

/// The message with a hint: what to do about an unknown key, or how to write a duration.
fn with_hint(message: &str) -> String {
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("{key} is missing here");
    }
    if message.contains("duration") {
        return "not a span of time; write it like \"5m\" or \"1m 30s\"".to_owned();
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let Some((word, expected)) = rest.split_once('`') else { return message };
        let known = between_ticks(expected);
        if let Some(now) = meant_by(word, &known) {
            return format!("unknown word \"{word}\"; write \"{now}\"");
        }
        return match nearest_known(word, &known) {
            Some(nearest) => format!("unknown word \"{word}\"; did you mean \"{nearest}\"?"),
            None => format!("unknown word \"{word}\"; expected one of: {}", listed(&known)),
        };
    }
    let Some(rest) = message.strip_prefix("unknown field `") else { return message };
    // The form of serde: unknown field `x`, expected `a` | `a` or `b` | one of `a`, `b`.
    let Some((key, expected)) = rest.split_once('`') else { return message };
    let known = between_ticks(expected);
    if matches!(key, "token" | "access_token" | "api_key" | "key") {
        return format!(
            "unknown key `{key}`: a token does not belong here, for this file is no secret; name an environment variable \
             (token_env) or a file of its own (token_file)"
        );
    }
    if key == "lease" && known.contains(&"fetch_timeout") {
        return "`lease` is no longer a setting: a lease always lasts 2 s longer than fetch_timeout; remove it here".to_owned();
    }
    if let Some(now) = meant_by(key, &known) {
        return format!("unknown key `{key}`; write `{now}`");
    }
    match nearest_known(key, &known) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`; expected one of: {}", listed(&known)),
    }
}

fn between_ticks(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The nearest of the possible words.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// The text without parts that could be tokens: known prefixes, and long words.
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
    fn a_slip_is_recognised() {
        let told = with_hint("unknown field `base_ulr`, expected one of `id`, `token_env`, `base_url`");

        assert_eq!(told, "unknown key `base_ulr`; did you mean `base_url`?");
    }

    #[test]
    fn a_word_that_is_like_no_other_is_answered_with_all_of_them() {
        let told = with_hint("unknown field `colour`, expected `id` or `base_url`");

        assert_eq!(told, "unknown key `colour`; expected one of: id, base_url");
    }

    #[test]
    fn a_word_from_elsewhere_is_answered_with_the_one_for_it() {
        let key = with_hint("unknown field `stop`, expected one of `id`, `min_remaining`, `killswitch`");
        let value = with_hint("unknown variant `closed`, expected `allow` or `deny`");

        assert_eq!(key, "unknown key `stop`; write `killswitch`");
        assert_eq!(value, "unknown word \"closed\"; write \"deny\"");
        assert!(with_hint("unknown field `stop`, expected `run` or `post`").contains("expected one of"));
    }

    #[test]
    fn a_former_key_of_routing_is_answered_with_the_present_one() {
        let text = with_hint("unknown field `pin_for`, expected one of `mode`, `session_ttl`");

        assert_eq!(text, "unknown key `pin_for`; write `session_ttl`");
    }

    #[test]
    fn a_hint_names_no_former_key_that_is_still_accepted() {
        let similar = with_hint("unknown field `freshnes`, expected one of `max_age`, `freshness`");
        let other = with_hint("unknown field `colour`, expected one of `max_age`, `freshness`");

        assert_eq!(similar, "unknown key `freshnes`; did you mean `max_age`?");
        assert_eq!(other, "unknown key `colour`; expected one of: max_age");
    }

    #[test]
    fn a_token_in_the_file_is_sent_elsewhere() {
        assert!(with_hint("unknown field `token`, expected one of `token_env`, `id`").contains("token_file"));
    }

    #[test]
    fn what_could_be_a_token_is_not_repeated() {
        let told =
            redact("invalid type: string \"sk-ant-oat01-x\", expected eyJhbGc or 0123456789abcdef0123456789");

        assert_eq!(told, "invalid type: string \"***\", expected *** or ***");
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
