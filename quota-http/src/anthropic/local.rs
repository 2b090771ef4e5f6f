//! Parses the data that Claude Code writes on this machine: its cached usage response, status line input, and output stream
//! events. Callers read the files; these functions parse bytes.

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::UsageReport;
use quota_core::model::{LimitStatus, Source, WindowStatus, plausible_percent};
use serde::Deserialize;

use super::headers::parse_status;
use super::usage::{self, object};
use super::windows::{FieldNames, WindowDef, add_named};
use crate::lenient::{from_epoch, number, text, timestamp};
use crate::parsed::{ParseError, Parsed, SkippedField};
use crate::report::ReportBuilder;

/// The windows of the cached response, named as in the usage endpoint. The checks are stricter, as for every local source.
const CACHED_FIELDS: FieldNames =
    FieldNames { percent: |percent| plausible_percent(percent, Source::Local), ..usage::ROOT_FIELDS };
/// The windows of a status line, in percent: 1 means 1 %.
const STATUSLINE_FIELDS: FieldNames = FieldNames {
    used: "used_percentage",
    resets_at: "resets_at",
    percent: |percent| plausible_percent(percent, Source::Statusline),
};
/// The windows of an event, as fractions: 1 means 100 %.
const EVENT_FIELDS: FieldNames = FieldNames {
    used: "utilization",
    resets_at: "resetsAt",
    percent: |fraction| plausible_percent(fraction * 100.0, Source::Local),
};

/// The usage response that Claude Code cached in `~/.claude.json`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CachedUsage {
    /// The parsed response, dated by the file's `fetchedAtMs`.
    pub parsed: Parsed,
    /// The id of the user. The owner that the usage endpoint names is the id of the organization.
    pub account: Option<String>,
}

/// Parses the cached usage response in `~/.claude.json`.
///
/// ```
/// use quota_core::model::Source;
/// use quota_http::anthropic::parse_claude_json;
///
/// let file = br#"{ "cachedUsageUtilization": {
///     "fetchedAtMs": 1782907200000, "accountUuid": "user-1",
///     "utilization": { "five_hour": { "utilization": 26 } }
/// } }"#;
/// let cached = parse_claude_json(file)?;
///
/// assert_eq!(cached.parsed.usage.source, Source::Local);
/// assert_eq!(cached.parsed.usage.observed_at, Some("2026-07-01T12:00:00Z".parse().unwrap()));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError::NoUsage`] if the file has no cached response, [`ParseError::MissingTimestamp`] if `fetchedAtMs` is missing or
/// invalid, and the errors of [`parse_usage`](super::parse_usage).
pub fn parse_claude_json(file: &[u8]) -> Result<CachedUsage, ParseError> {
    let File { cached } = serde_json::from_slice(file)?;
    let cached = cached.ok_or(ParseError::NoUsage)?;
    let body = cached.get("utilization").and_then(Value::as_object).ok_or(ParseError::NoUsage)?;
    let fetched_at = number(cached.get("fetchedAtMs")).and_then(from_epoch);
    let fetched_at = fetched_at.ok().ok_or(ParseError::MissingTimestamp)?;
    let Parsed { usage, skipped } = usage::read(body, &CACHED_FIELDS)?;
    let usage = UsageReport::from_local(usage.windows, fetched_at).credits(usage.credits);
    let account = text(cached.get("accountUuid")).ok().map(Into::into);
    Ok(CachedUsage { parsed: without_implausible(Parsed::new(usage, skipped), fetched_at), account })
}

/// The only field that the parser needs. serde skips the others, which may be megabytes long.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, rename = "cachedUsageUtilization")]
    cached: Option<Value<'a>>,
}

/// Parses the `rate_limits` that Claude Code passes to a status line.
///
/// The input has no timestamp: its values come from the last response of the session. `observed_at` is the time at which the
/// input was read. A window is skipped if its usage is implausible, or if its reset is in the past or too far in the future.
/// Such input occurs after `/clear`, and in a terminal that was left open overnight.
///
/// ```
/// use quota_core::Percent;
/// use quota_http::anthropic::parse_statusline;
///
/// let line = br#"{ "rate_limits": { "five_hour": { "used_percentage": 42.5, "resets_at": 1782907200 } } }"#;
/// let parsed = parse_statusline(line, "2026-07-01T09:00:00Z".parse().unwrap())?;
///
/// assert_eq!(Some(parsed.usage.windows[0].used), Percent::from_percent(42.5));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the input is not a JSON object or has no `rate_limits`. They are missing before the first response
/// of a session.
pub fn parse_statusline(line: &[u8], observed_at: Timestamp) -> Result<Parsed, ParseError> {
    Ok(without_implausible(saved_statusline(line, observed_at)?, observed_at))
}

/// Parses the same input, saved at an unknown time before `now`. Its resets may be long past.
pub(super) fn saved_statusline(line: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(line)?;
    let limits = root.get("rate_limits").and_then(Value::as_object).ok_or(ParseError::NoUsage)?;
    let report = add_all(limits, &STATUSLINE_FIELDS, "rate_limits.");
    let usage = UsageReport::from_statusline(report.readings()?, now);
    Ok(Parsed::new(usage, report.skipped))
}

/// Parses a `rate_limit_event` line of Claude Code's output stream, received at `observed_at`.
///
/// ```
/// use quota_core::Percent;
/// use quota_core::model::LimitStatus;
/// use quota_http::anthropic::parse_rate_limit_event;
///
/// let line = br#"{ "type": "rate_limit_event", "rate_limit_info": {
///     "status": "allowed_warning", "rateLimitType": "five_hour", "resetsAt": 1782907200,
///     "unifiedWindows": { "five_hour": { "utilization": 0.91, "resetsAt": 1782907200 } }
/// } }"#;
/// let usage = parse_rate_limit_event(line, "2026-07-01T09:00:00Z".parse().unwrap())?.usage;
///
/// assert_eq!(Some(usage.windows[0].used), Percent::from_percent(91.0));
/// assert_eq!(usage.window_statuses[0].status, LimitStatus::Warning);
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the line is not a JSON object or has another type.
pub fn parse_rate_limit_event(line: &[u8], observed_at: Timestamp) -> Result<Parsed, ParseError> {
    Ok(without_implausible(saved_rate_limit_event(line, observed_at)?, observed_at))
}

/// Parses the same line, saved at an unknown time before `now`. Its resets may be long past.
pub(super) fn saved_rate_limit_event(line: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(line)?;
    if root.get("type").and_then(Value::as_str) != Some("rate_limit_event") {
        return Err(ParseError::NoUsage);
    }
    let info = root.get("rate_limit_info").and_then(Value::as_object).ok_or(ParseError::NoUsage)?;
    let windows = info.get("unifiedWindows").and_then(Value::as_object);
    let mut report =
        windows.map(|windows| add_all(windows, &EVENT_FIELDS, "unifiedWindows.")).unwrap_or_default();
    for (name, value) in info.iter() {
        let is_handled = matches!(name, "status" | "resetsAt" | "rateLimitType" | "unifiedWindows");
        if !is_handled && !value.is_null() {
            report.skip(name, "not a reading");
        }
    }
    let usage = UsageReport::from_local(report.readings()?, now).window_statuses(window_status(info));
    Ok(Parsed::new(usage, report.skipped))
}

/// Removes implausible readings, and adds them to the skipped fields.
fn without_implausible(mut parsed: Parsed, read_at: Timestamp) -> Parsed {
    let rejected = parsed.usage.reject_implausible(read_at);
    let rejected = rejected.iter().map(|rejected| SkippedField::new(rejected.field(), rejected.reason));
    parsed.skipped.extend(rejected);
    parsed
}

/// The status of an event, for the window that it names.
fn window_status(info: &Object<'_>) -> Option<WindowStatus> {
    let field = |name| text(info.get(name)).ok();
    let named = WindowDef::parse(field("rateLimitType")?)?;
    let status: LimitStatus = parse_status(field("status")?)?;
    Some(WindowStatus::new(named.id, status).scope(named.scope).resets_at(timestamp(info.get("resetsAt"))))
}

fn add_all(windows: &Object<'_>, fields: &FieldNames, path: &str) -> ReportBuilder {
    let mut report = ReportBuilder::default();
    for (name, value) in windows.iter() {
        add_named(&mut report, name, value, fields, path);
    }
    report
}

#[cfg(test)]
mod tests;
