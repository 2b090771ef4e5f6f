//! Parses the session files that Codex writes on this machine. After each response, Codex appends an event with the rate limits.
//! Callers read the files; these functions parse bytes.

use std::borrow::Cow;

use jiff::Timestamp;
use quota_core::UsageReport;
use quota_core::model::Scope;
use serde::Deserialize;

use super::money;
use super::usage::{Limit, WindowFields};
use crate::json::{Object, Value};
use crate::lenient::{Field, text, timestamp};
use crate::parsed::{ParseError, Parsed, SkippedField};
use crate::report::{ReportBuilder, text_or_skip};

/// The windows of an event.
const FIELDS: WindowFields = WindowFields {
    length: "window_minutes",
    unit: 60.0,
    resets_at: "resets_at",
    resets_in: "resets_in_seconds",
};

/// The limit of the whole account. Older versions write no id.
const ACCOUNT_LIMIT: &str = "codex";
/// The common part of the account's limit and the limit of a model.
const KNOWN: [&str; 7] =
    ["credits", "limit_id", "limit_name", "plan_type", "primary", "secondary", "spend_control"];
/// The name of the event, which selects the lines to parse.
const EVENT: &[u8] = b"token_count";
/// How many events are parsed, starting from the end. The last few contain the newest event of each limit.
const MAX_EVENTS: usize = 32;

/// Parses the first line of a session file, and returns when the session began.
///
/// `None` if a provider other than OpenAI served the session, or if the session continues a copy of another session.
/// Codex then repeats the old events with new timestamps.
///
/// ```
/// use quota_http::codex::parse_session_start;
///
/// let line = br#"{"timestamp":"2026-07-01T12:00:00Z","type":"session_meta","payload":{"model_provider":"openai"}}"#;
/// assert_eq!(parse_session_start(line), Some("2026-07-01T12:00:00Z".parse()?));
/// # Ok::<(), jiff::Error>(())
/// ```
#[must_use]
pub fn parse_session_start(line: &[u8]) -> Option<Timestamp> {
    let line: Line<'_, SessionMeta<'_>> = serde_json::from_slice(line).ok()?;
    let meta = &line.payload;
    let is_own = meta.model_provider.as_deref().is_none_or(|provider| provider == "openai");
    let is_copy = meta.forked_from_id.as_ref().is_some_and(|id| !id.is_null());
    if line.kind != "session_meta" || !is_own || is_copy {
        return None;
    }
    timestamp(Some(&line.timestamp))
}

/// Parses lines of a session file, and returns the newest reading of each limit: the account's, and those of models.
///
/// Each reading has the time of the first event with its values, because Codex repeats them. Lines that are cut off or damaged are
/// skipped. A window is skipped if its usage or reset was implausible at that time.
///
/// ```
/// use quota_core::Percent;
/// use quota_http::codex::parse_session;
///
/// let lines = br#"{"timestamp":"2026-07-01T12:00:00Z","type":"event_msg","payload":{"type":"token_count","rate_limits":{
///     "primary":{"used_percent":42.5,"window_minutes":300,"resets_at":1782914400}}}}"#;
/// # let lines: Vec<u8> = lines.iter().copied().filter(|byte| *byte != b'\n').collect();
/// let readings = parse_session(&lines);
///
/// assert_eq!(readings[0].usage.observed_at, Some("2026-07-01T12:00:00Z".parse()?));
/// assert_eq!(Some(readings[0].usage.windows[0].used), Percent::from_percent(42.5));
/// # Ok::<(), jiff::Error>(())
/// ```
#[must_use]
pub fn parse_session(lines: &[u8]) -> Vec<Parsed> {
    let mut found: Vec<Latest<'_>> = Vec::new();
    let events = lines.rsplit(|byte| *byte == b'\n').filter(|line| has_event(line));
    for (at, limits) in events.take(MAX_EVENTS).filter_map(event) {
        let id = text(limits.get("limit_id")).ok().unwrap_or(ACCOUNT_LIMIT);
        match found.iter_mut().find(|latest| latest.id == id) {
            Some(latest) if latest.is_dated => {}
            Some(latest) if latest.limits == limits => latest.at = at,
            Some(latest) => latest.is_dated = true,
            None if parse_limits(&limits, at).is_ok_and(|parsed| !parsed.usage.is_empty()) => {
                found.push(Latest { id: id.to_owned(), at, limits, is_dated: false });
            }
            None => {}
        }
    }
    found.into_iter().filter_map(|latest| latest.parsed()).collect()
}

/// The newest values of one limit.
struct Latest<'a> {
    id: String,
    /// The time of the first event with these values. Codex repeats values in later events, for example at the end of a
    /// response or after compaction, when they may be hours old.
    at: Timestamp,
    limits: Object<'a>,
    /// Whether an older event has other values, so that `at` is final.
    is_dated: bool,
}

impl Latest<'_> {
    fn parsed(&self) -> Option<Parsed> {
        let mut parsed = parse_limits(&self.limits, self.at).ok()?;
        let rejected = parsed.usage.reject_implausible(self.at);
        let rejected = rejected.iter().map(|rejected| SkippedField::new(rejected.field(), rejected.reason));
        parsed.skipped.extend(rejected);
        (!parsed.usage.is_empty()).then_some(parsed)
    }
}

/// Parses the rate limits of an event at this time, without removing implausible readings.
pub(super) fn parse_limits(limits: &Object<'_>, at: Timestamp) -> Result<Parsed, ParseError> {
    let mut report = ReportBuilder::default();
    let scope = match text(limits.get("limit_id")).ok() {
        None | Some(ACCOUNT_LIMIT) => None,
        Some(id) => Some(Scope::model(text(limits.get("limit_name")).ok().unwrap_or(id))),
    };
    let is_account = scope.is_none();
    let limit = Limit { path: "rate_limits".to_owned(), scope, now: at, fields: &FIELDS };
    for slot in ["primary", "secondary"] {
        if let Some(window) = limits.get(slot).filter(|window| !window.is_null()) {
            limit.window(slot, window, format!("{}.{slot}", limit.path), &mut report);
        }
    }
    report.skip_unknown(limits, &KNOWN, "rate_limits.");
    let plan = text_or_skip(limits, "plan_type", "rate_limits.", &mut report);
    // An event about a model repeats the credits of the account.
    let credits = if is_account { money::read(limits, &mut report) } else { Field::Absent };
    let usage = UsageReport::from_local(report.readings()?, at).plan(plan).credits(credits.ok());
    Ok(Parsed::new(usage, report.skipped))
}

/// Whether a line may be an event with rate limits. Most lines are long and are not.
fn has_event(line: &[u8]) -> bool {
    let start = &line[..line.len().min(512)];
    start.windows(EVENT.len()).any(|part| part == EVENT)
}

/// The time and the rate limits of an event; `None` if the line is damaged or has none.
fn event(line: &[u8]) -> Option<(Timestamp, Object<'_>)> {
    let line: Line<'_, Event<'_>> = serde_json::from_slice(line).ok()?;
    if line.payload.kind.as_bytes() != EVENT {
        return None;
    }
    let Some(Value::Object(limits)) = line.payload.rate_limits else { return None };
    Some((timestamp(Some(&line.timestamp))?, limits))
}

/// One line of a session file. serde skips the other fields, which may be large.
#[derive(Deserialize)]
struct Line<'a, T> {
    #[serde(borrow)]
    timestamp: Value<'a>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    payload: T,
}

#[derive(Deserialize)]
struct SessionMeta<'a> {
    #[serde(borrow)]
    model_provider: Option<Cow<'a, str>>,
    #[serde(borrow)]
    forked_from_id: Option<Value<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    rate_limits: Option<Value<'a>>,
}

#[cfg(test)]
mod tests {
    use quota_core::WindowId;
    use quota_core::model::Source;
    use serde_json::{Value, json};

    use super::{Parsed, Scope, parse_session, parse_session_start};

    fn line(at: &str, limits: &Value) -> String {
        let payload = json!({ "type": "token_count", "info": null, "rate_limits": limits });
        json!({ "timestamp": at, "type": "event_msg", "payload": payload }).to_string()
    }

    fn limits(used: f64) -> Value {
        json!({
            "primary": { "used_percent": used, "window_minutes": 300, "resets_at": 1_782_914_400 },
            "secondary": { "used_percent": 7, "window_minutes": 10080, "resets_at": 1_783_000_000 },
            "plan_type": "plus",
        })
    }

    fn used(parsed: &Parsed) -> Vec<(&str, f64)> {
        parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
    }

    #[test]
    fn the_newest_event_counts_at_its_own_time() {
        let lines =
            [line("2026-07-01T11:00:00Z", &limits(10.0)), line("2026-07-01T12:00:00Z", &limits(20.0))];

        let found = parse_session(lines.join("\n").as_bytes());

        assert_eq!(found.len(), 1);
        assert_eq!(used(&found[0]), [("five_hour", 20.0), ("seven_day", 7.0)]);
        let usage = &found[0].usage;
        assert_eq!(usage.observed_at, Some("2026-07-01T12:00:00Z".parse().unwrap()));
        assert_eq!((usage.source, usage.plan.as_deref()), (Source::Local, Some("plus")));
    }

    #[test]
    fn repeated_values_have_the_time_of_their_first_event() {
        let lines = [
            line("2026-07-01T11:00:00Z", &limits(10.0)),
            line("2026-07-01T12:00:00Z", &limits(20.0)),
            line("2026-07-01T14:00:00Z", &limits(20.0)),
        ];

        let found = parse_session(lines.join("\n").as_bytes());

        assert_eq!(used(&found[0])[0], ("five_hour", 20.0));
        assert_eq!(found[0].usage.observed_at, Some("2026-07-01T12:00:00Z".parse().unwrap()));
    }

    #[test]
    fn damaged_and_unfinished_lines_are_skipped() {
        let good = line("2026-07-01T12:00:00Z", &limits(20.0));
        let half = &good[..good.len() - 9];
        let lines = format!("0,\"token_count\"}}\n{good}\n{{\"token_count\n\u{0}token_count\n{half}");

        assert_eq!(used(&parse_session(lines.as_bytes())[0])[0], ("five_hour", 20.0));
    }

    #[test]
    fn events_without_limits_or_time_are_skipped() {
        let without_time =
            json!({ "type": "event_msg", "payload": { "type": "token_count", "rate_limits": limits(1.0) } });
        let lines = [
            line("2026-07-01T12:00:00Z", &Value::Null),
            line("yesterday", &limits(1.0)),
            line("2026-07-01T12:00:00Z", &json!({ "primary": null, "secondary": null })),
            without_time.to_string(),
        ];

        assert_eq!(parse_session(lines.join("\n").as_bytes()), []);
    }

    #[test]
    fn the_limit_of_a_model_is_a_window_of_that_model() {
        let mut spark = limits(90.0);
        spark["limit_id"] = json!("codex_bengalfox");
        spark["limit_name"] = json!("Spark");
        let mut account = limits(20.0);
        account["limit_id"] = json!("codex");
        let lines = [line("2026-07-01T12:00:00Z", &account), line("2026-07-01T12:01:00Z", &spark)];

        let found = parse_session(lines.join("\n").as_bytes());

        assert_eq!(found.len(), 2);
        assert_eq!(found[0].usage.windows[0].scope, Some(Scope::model("Spark")));
        assert_eq!(found[1].usage.windows[0].id, WindowId::five_hour());
    }

    #[test]
    fn a_relative_reset_counts_from_the_event() {
        let limits =
            json!({ "primary": { "used_percent": 5, "window_minutes": 300, "resets_in_seconds": 60 } });

        let found = parse_session(line("2026-07-01T12:00:00Z", &limits).as_bytes());

        let reset = found[0].usage.windows[0].resets_at;
        assert_eq!(reset, Some("2026-07-01T12:01:00Z".parse().unwrap()));
    }

    #[test]
    fn an_implausible_window_is_dropped_alone() {
        let mut odd = limits(20.0);
        odd["primary"]["resets_at"] = json!(1_882_914_400);

        let found = parse_session(line("2026-07-01T12:00:00Z", &odd).as_bytes());

        assert_eq!(used(&found[0]), [("seven_day", 7.0)]);
        assert!(found[0].skipped.iter().any(|skipped| skipped.field == "five_hour"));
    }

    #[test]
    fn a_copy_or_another_provider_has_no_start() {
        let start = |payload: Value| {
            let line =
                json!({ "timestamp": "2026-07-01T12:00:00Z", "type": "session_meta", "payload": payload });
            parse_session_start(line.to_string().as_bytes())
        };

        assert!(start(json!({ "id": "x", "model_provider": "openai" })).is_some());
        assert!(start(json!({ "id": "x" })).is_some());
        assert_eq!(start(json!({ "model_provider": "ollama" })), None);
        assert_eq!(start(json!({ "forked_from_id": "y" })), None);
        assert_eq!(
            parse_session_start(b"{\"timestamp\":\"2026-07-01T12:00:00Z\",\"type\":\"session_me"),
            None
        );
    }
}
