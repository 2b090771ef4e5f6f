//! What Claude Code writes down on this machine: its cache of the usage answer, the input of a status line, and the
//! events of its output stream.
//! Where these lie, and reading them, is the caller's business; here are bytes alone.

use jiff::Timestamp;
use quota_core::{Ruling, Source, Usage, Verdict, plausible_percent};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::headers::ruling;
use super::usage::{self, object};
use super::windows::{Findings, Form, Named};
use crate::lenient::{epoch, moment, number, text};
use crate::parsed::{Ignored, ParseError, Parsed};

/// The windows of the cached answer: those of the usage endpoint, without what only the provider may say.
const CACHED: Form =
    Form { percent: |percent| plausible_percent(percent, Source::Local), ..usage::AT_THE_ROOT };
/// The windows of a status line: 1 means one percent.
const STATUSLINE: Form = Form {
    used: "used_percentage",
    resets_at: "resets_at",
    percent: |percent| plausible_percent(percent, Source::Statusline),
};
/// The windows of an event: 1 means all.
const EVENT: Form = Form {
    used: "utilization",
    resets_at: "resetsAt",
    percent: |fraction| plausible_percent(fraction * 100.0, Source::Local),
};

/// The usage answer that Claude Code keeps in `~/.claude.json`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CachedUsage {
    /// What the answer said, as old as the file says.
    pub parsed: Parsed,
    /// The id of the user it is about. It is not the organization's, which the usage endpoint names.
    pub account: Option<String>,
}

/// Reads the usage answer in `~/.claude.json`.
///
/// ```
/// use quota_core::Source;
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
/// [`ParseError::NothingKnown`] if there is none in the file, [`ParseError::Undated`] if it does not say how old it is,
/// or as [`parse_usage`](super::parse_usage) has it.
pub fn parse_claude_json(file: &[u8]) -> Result<CachedUsage, ParseError> {
    let File { cached } = serde_json::from_slice(file)?;
    let cached = cached.ok_or(ParseError::NothingKnown)?;
    let body = cached.get("utilization").and_then(Value::as_object).ok_or(ParseError::NothingKnown)?;
    let fetched_at = number(cached.get("fetchedAtMs")).and_then(epoch);
    let fetched_at = fetched_at.known().ok_or(ParseError::Undated)?;
    let Parsed { usage, ignored } = usage::read(body, &CACHED)?;
    let usage = Usage::from_local(usage.windows, fetched_at).credits(usage.credits);
    let account = text(cached.get("accountUuid")).known().map(Into::into);
    Ok(CachedUsage { parsed: judged(usage, ignored, fetched_at), account })
}

/// The one field of the file that matters here; the others may be many megabytes and are skipped.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "cachedUsageUtilization")]
    cached: Option<Value>,
}

/// Reads the `rate_limits` that Claude Code hands to a status line.
///
/// The line does not say how old its numbers are: they are those of the session's last answer. `observed_at` is when the line
/// was read. A window with an implausible use, or a reset that is past or too far ahead, is left out; so do lines look after
/// `/clear`, or in a terminal that was left open overnight.
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
/// [`ParseError`] if it is not a JSON object, or has no `rate_limits`: before the first answer of a session it has none.
pub fn parse_statusline(line: &[u8], observed_at: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(line)?;
    let limits = root.get("rate_limits").and_then(Value::as_object).ok_or(ParseError::NothingKnown)?;
    let findings = take_all(limits, &STATUSLINE, "rate_limits.");
    let usage = Usage::from_statusline(findings.readings()?, observed_at);
    Ok(judged(usage, findings.ignored, observed_at))
}

/// Reads a line of the type `rate_limit_event` from Claude Code's output stream, seen at `observed_at`.
///
/// ```
/// use quota_core::{Percent, Ruling};
/// use quota_http::anthropic::parse_rate_limit_event;
///
/// let line = br#"{ "type": "rate_limit_event", "rate_limit_info": {
///     "status": "allowed_warning", "rateLimitType": "five_hour", "resetsAt": 1782907200,
///     "unifiedWindows": { "five_hour": { "utilization": 0.91, "resetsAt": 1782907200 } }
/// } }"#;
/// let usage = parse_rate_limit_event(line, "2026-07-01T09:00:00Z".parse().unwrap())?.usage;
///
/// assert_eq!(Some(usage.windows[0].used), Percent::from_percent(91.0));
/// assert_eq!(usage.verdicts[0].ruling, Ruling::Warned);
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if it is not a JSON object, or a line of another type.
pub fn parse_rate_limit_event(line: &[u8], observed_at: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(line)?;
    if root.get("type").and_then(Value::as_str) != Some("rate_limit_event") {
        return Err(ParseError::NothingKnown);
    }
    let info = root.get("rate_limit_info").and_then(Value::as_object).ok_or(ParseError::NothingKnown)?;
    let windows = info.get("unifiedWindows").and_then(Value::as_object);
    let mut findings =
        windows.map(|windows| take_all(windows, &EVENT, "unifiedWindows.")).unwrap_or_default();
    for (name, value) in info {
        let is_read = matches!(name.as_str(), "status" | "resetsAt" | "rateLimitType" | "unifiedWindows");
        if !is_read && !value.is_null() {
            findings.ignore(name, "not a reading");
        }
    }
    let usage = Usage::from_local(findings.readings()?, observed_at).verdicts(verdict(info));
    Ok(judged(usage, findings.ignored, observed_at))
}

/// Leaves out what cannot be true of something read at that time, and lists it with the rest.
fn judged(mut usage: Usage, mut ignored: Vec<Ignored>, read_at: Timestamp) -> Parsed {
    let rejected = usage.reject_implausible(read_at);
    ignored.extend(rejected.iter().map(|rejected| Ignored::new(rejected.field(), rejected.why)));
    Parsed::new(usage, ignored)
}

/// The verdict of an event, on the window that it is said to rest on.
fn verdict(info: &Map<String, Value>) -> Option<Verdict> {
    let word = |field| text(info.get(field)).known();
    let named = Named::of(word("rateLimitType")?)?;
    let ruling: Ruling = ruling(word("status")?)?;
    Some(Verdict::new(named.id, ruling).scope(named.scope).resets_at(moment(info.get("resetsAt"))))
}

fn take_all(windows: &Map<String, Value>, form: &Form, path: &str) -> Findings {
    let mut findings = Findings::default();
    for (name, value) in windows {
        findings.take_named(name, value, form, path);
    }
    findings
}

#[cfg(test)]
mod tests;
