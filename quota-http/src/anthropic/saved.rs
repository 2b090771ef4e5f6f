//! Detects the kind of a saved document by its JSON keys, and parses it. A document of an unknown kind is parsed as a response
//! from the usage endpoint.

use jiff::Timestamp;
use quota_core::UsageReport;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::local::{parse_claude_json, saved_rate_limit_event, saved_statusline};
use super::profile::parse_profile;
use super::usage::parse_usage;
use crate::parsed::{ParseError, Parsed};
use crate::saved::SavedDocument;

/// The keys that identify the kind. Their values are skipped, because such files can be large.
#[derive(Default, Deserialize)]
struct Keys {
    #[serde(rename = "type")]
    tag: Option<Tag>,
    #[serde(rename = "cachedUsageUtilization")]
    cached_usage: Option<IgnoredAny>,
    rate_limits: Option<IgnoredAny>,
    account: Option<IgnoredAny>,
    organization: Option<IgnoredAny>,
}

/// The value of `type`.
#[derive(PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tag {
    RateLimitEvent,
    #[serde(other)]
    Other,
}

/// Parses a saved document.
///
/// # Errors
///
/// [`ParseError`] if it has no usage and no profile.
pub(super) fn parse(document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
    // The usage parser reports the position of a JSON error.
    let keys: Keys = serde_json::from_slice(document).unwrap_or_default();
    if keys.cached_usage.is_some() {
        let cached = parse_claude_json(document)?;
        return Ok(SavedDocument::new("claude_json", cached.parsed).user(cached.account));
    }
    if keys.tag == Some(Tag::RateLimitEvent) {
        return Ok(SavedDocument::new("rate_limit_event", saved_rate_limit_event(document, now)?));
    }
    if let Some(parsed) = last_event(document, now) {
        return Ok(SavedDocument::new("stream", parsed));
    }
    if keys.rate_limits.is_some() {
        return Ok(SavedDocument::new("statusline", saved_statusline(document, now)?));
    }
    if keys.account.is_some() || keys.organization.is_some() {
        let profile = parse_profile(document)?;
        let usage = UsageReport::from_headers([]).plan(profile.plan).owner_id(profile.organization);
        return Ok(SavedDocument::of_usage("profile", usage).user(profile.account));
    }
    Ok(SavedDocument::new("usage", parse_usage(document)?))
}

/// Parses the last event with rate limits in the output of `claude -p --output-format stream-json`, which has one JSON
/// object per line.
fn last_event(document: &[u8], now: Timestamp) -> Option<Parsed> {
    const EVENT: &[u8] = b"rate_limit_event";
    let is_event = |line: &&[u8]| line[..line.len().min(512)].windows(EVENT.len()).any(|part| part == EVENT);
    let mut events = document.rsplit(|byte| *byte == b'\n').filter(is_event);
    events.find_map(|line| saved_rate_limit_event(line, now).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_of_a_stream_counts() {
        let event = |used: f64| {
            format!(
                r#"{{"type":"rate_limit_event","rate_limit_info":{{"unifiedWindows":{{"five_hour":{{"utilization":{used}}}}}}}}}"#
            )
        };
        let stream = format!(
            "{{\"type\":\"system\"}}\n{}\n{}\n{{\"type\":\"result\"}}\n{{\"type\":\"rate_limit_event\",\"ra",
            event(0.25),
            event(0.5)
        );

        let saved = parse(stream.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();

        assert_eq!(saved.kind, "stream");
        assert_eq!(saved.parsed.usage.windows[0].used.as_f64(), 50.0);
    }
}
