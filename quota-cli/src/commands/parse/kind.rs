//! Detects the kind of a saved response by its JSON keys, and parses it.
//! Input of an unknown kind is parsed as a response from the usage endpoint.

use std::fmt::Display;

use quota::anthropic::{
    parse_claude_json, parse_profile, parse_rate_limit_event, parse_statusline, parse_usage,
};
use quota::{Clock, UsageReport};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::report::ParseReport;

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
    #[serde(rename = "claudeAiOauth")]
    login: Option<IgnoredAny>,
    #[serde(rename = "mcpOAuth")]
    other_logins: Option<IgnoredAny>,
}

/// The value of `type`.
#[derive(PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tag {
    RateLimitEvent,
    #[serde(other)]
    Other,
}

/// Detects the kind of a response and parses it.
///
/// # Errors
///
/// Why the input cannot be parsed. The error repeats no content of the input.
pub(super) fn detect(bytes: &[u8]) -> Result<ParseReport, String> {
    // Some editors write a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err("the file is empty".to_owned());
    }
    // The usage parser reports the position of a JSON error.
    let keys: Keys = serde_json::from_slice(bytes).unwrap_or_default();
    if keys.login.is_some() || keys.other_logins.is_some() {
        return Err("this is a login, not a response; do not share this file".to_owned());
    }
    if keys.cached_usage.is_some() {
        return claude_json(bytes);
    }
    let now = Clock::system().now();
    if keys.tag == Some(Tag::RateLimitEvent) {
        let parsed = parse_rate_limit_event(bytes, now).map_err(text)?;
        return Ok(report(
            "rate_limit_event",
            parsed.usage,
            parsed.skipped.into_iter().map(|one| (one.field, one.reason)),
        ));
    }
    if keys.rate_limits.is_some() {
        let parsed = parse_statusline(bytes, now).map_err(text)?;
        return Ok(report(
            "statusline",
            parsed.usage,
            parsed.skipped.into_iter().map(|one| (one.field, one.reason)),
        ));
    }
    if keys.account.is_some() || keys.organization.is_some() {
        return profile(bytes);
    }
    match parse_usage(bytes) {
        Ok(parsed) => {
            let ignored = parsed.skipped.into_iter().map(|one| (one.field, one.reason));
            Ok(report("usage", parsed.usage, ignored).without_implausible(now))
        }
        Err(error) if looks_like_headers(bytes) => {
            Err(format!("{error}; if the file contains headers, add --headers"))
        }
        Err(error) => Err(text(error)),
    }
}

fn claude_json(bytes: &[u8]) -> Result<ParseReport, String> {
    let cached = parse_claude_json(bytes).map_err(text)?;
    let (usage, ignored) = (cached.parsed.usage, cached.parsed.skipped);
    let observed_at = usage.observed_at;
    let report = report("claude_json", usage, ignored.into_iter().map(|one| (one.field, one.reason)));
    Ok(ParseReport { user: cached.account, observed_at, ..report })
}

fn profile(bytes: &[u8]) -> Result<ParseReport, String> {
    let profile = parse_profile(bytes).map_err(text)?;
    let usage = UsageReport::from_headers([]).plan(profile.plan).owner_id(profile.organization);
    Ok(ParseReport { user: profile.account, ..ParseReport::new("profile", usage) })
}

fn report(
    kind: &'static str,
    usage: UsageReport,
    ignored: impl Iterator<Item = (String, &'static str)>,
) -> ParseReport {
    ParseReport { ignored: ignored.collect(), ..ParseReport::new(kind, usage) }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn looks_like_headers(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    line.starts_with(b"HTTP/") || (name.len() < line.len() && !name.is_empty() && name.iter().all(is_name))
}
