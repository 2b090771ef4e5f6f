use quota_core::WindowReading;
use quota_core::model::{Coverage, Scope, Source};
use serde_json::{Value, json};

use super::*;

fn noon() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

/// The time at which lines and events are read.
fn morning() -> Timestamp {
    "2026-07-01T09:00:00Z".parse().unwrap()
}

fn claude_json(file: Value) -> Result<CachedUsage, ParseError> {
    parse_claude_json(file.to_string().as_bytes())
}

fn statusline(line: Value) -> Result<Parsed, ParseError> {
    parse_statusline(line.to_string().as_bytes(), morning())
}

fn event(info: Value) -> Parsed {
    let line = json!({ "type": "rate_limit_event", "rate_limit_info": info });
    parse_rate_limit_event(line.to_string().as_bytes(), morning()).unwrap()
}

fn basis_points(windows: &[WindowReading]) -> Vec<(&str, u32)> {
    windows.iter().map(|window| (window.id.as_str(), window.used.basis_points())).collect()
}

fn cached(fetched_at: Value, body: Value) -> Value {
    json!({
        "numStartups": 7,
        "cachedUsageUtilization": { "fetchedAtMs": fetched_at, "accountUuid": "user-1", "utilization": body }
    })
}

#[test]
fn cached_usage_is_dated_by_the_file() {
    let body = json!({ "five_hour": { "utilization": 26 }, "extra_usage": { "is_enabled": false } });

    let cached = claude_json(cached(json!(1_782_907_200_000_i64), body)).unwrap();

    let usage = cached.parsed.usage;
    assert_eq!(basis_points(&usage.windows), [("five_hour", 2600)]);
    assert_eq!((usage.observed_at, usage.source), (Some(noon()), Source::Local));
    assert_eq!(usage.coverage, Coverage::Reported);
    assert!(usage.credits.is_some());
}

#[test]
fn the_user_of_the_cache_is_not_the_owner() {
    let cached =
        claude_json(cached(json!(1_782_907_200_000_i64), json!({ "five_hour": { "utilization": 1 } })))
            .unwrap();

    assert_eq!((cached.account.as_deref(), cached.parsed.usage.owner_id), (Some("user-1"), None));
}

#[test]
fn cached_usage_without_a_timestamp_is_rejected() {
    for fetched_at in [json!(null), json!("soon"), json!(0), json!(1e308)] {
        let result = claude_json(cached(fetched_at, json!({ "five_hour": { "utilization": 1 } })));

        assert_eq!(result, Err(ParseError::MissingTimestamp));
    }
}

#[test]
fn a_file_without_cached_usage_has_no_usage() {
    for file in [
        json!({}),
        json!({ "cachedUsageUtilization": null }),
        json!({ "cachedUsageUtilization": { "fetchedAtMs": 1 } }),
    ] {
        assert_eq!(claude_json(file), Err(ParseError::NoUsage));
    }
}

#[test]
fn a_truncated_file_is_not_json() {
    assert!(matches!(parse_claude_json(b"{ \"cachedUsage"), Err(ParseError::NotJson { .. })));
}

#[test]
fn a_file_that_is_not_an_object_is_rejected() {
    assert_eq!(claude_json(json!([])), Err(ParseError::NotAnObject));
    assert_eq!(claude_json(json!("text")), Err(ParseError::NotAnObject));
}

#[test]
fn a_status_line_reports_percents() {
    let parsed = statusline(json!({ "rate_limits": {
        "five_hour": { "used_percentage": 1, "resets_at": 1_782_907_200 }, "seven_day": { "used_percentage": 0.5 }
    }}));

    let usage = parsed.unwrap().usage;
    assert_eq!(basis_points(&usage.windows), [("five_hour", 100), ("seven_day", 50)]);
    assert_eq!(usage.windows[0].resets_at, Some(noon()));
    assert_eq!((usage.observed_at, usage.source), (Some(morning()), Source::Statusline));
}

/// The usage of the five-hour window of a status line, and the skipped fields.
fn five_hour_of(window: Value) -> (Vec<u32>, Vec<(String, &'static str)>) {
    let parsed = statusline(json!({ "rate_limits": { "five_hour": window } })).unwrap();
    let used = parsed.usage.windows.iter().map(|window| window.used.basis_points());
    (used.collect(), parsed.skipped.into_iter().map(|skipped| (skipped.field, skipped.reason)).collect())
}

#[test]
fn a_unix_time_as_usage_of_a_status_line_is_skipped() {
    for used in [json!(1_782_907_200), json!("1782907200"), json!(1_000.1), json!(-0.1)] {
        let (read, skipped) = five_hour_of(json!({ "used_percentage": used, "resets_at": 1_782_907_200 }));

        let reason = "its usage is not a percentage up to 1,000 %";
        assert_eq!((read, skipped), (vec![], vec![("rate_limits.five_hour".to_owned(), reason)]), "{used}");
    }
}

#[test]
fn a_status_line_window_with_a_past_reset_is_skipped() {
    let nine_hours_ago = morning().as_second() - 9 * 3600;

    let (used, skipped) = five_hour_of(json!({ "used_percentage": 97, "resets_at": nine_hours_ago }));

    let reason = "its reset is in the past, so its use belongs to an earlier period";
    assert_eq!((used, skipped), (vec![], vec![("five_hour".to_owned(), reason)]));
}

#[test]
fn a_status_line_window_with_a_too_late_reset_is_skipped() {
    let in_six_hours = morning().as_second() + 6 * 3600;

    let (used, skipped) = five_hour_of(json!({ "used_percentage": 97, "resets_at": in_six_hours }));

    let reason = "its reset is further in the future than the window is long";
    assert_eq!((used, skipped), (vec![], vec![("five_hour".to_owned(), reason)]));
}

#[test]
fn a_negative_cached_usage_is_skipped() {
    let body = json!({
        "five_hour": { "utilization": -1 }, "seven_day": { "utilization": 3 },
        "limits": [{ "kind": "session", "percent": -1 }]
    });

    let parsed = claude_json(cached(json!(1_782_907_200_000_i64), body)).unwrap().parsed;

    assert_eq!(basis_points(&parsed.usage.windows), [("seven_day", 300)]);
    assert_eq!(parsed.skipped.len(), 2);
}

#[test]
fn a_malformed_status_line_window_does_not_affect_the_others() {
    let parsed = statusline(json!({ "rate_limits": {
        "five_hour": { "used_percentage": "abc" }, "seven_day": { "used_percentage": 3 }
    }}));

    let parsed = parsed.unwrap();
    assert_eq!(basis_points(&parsed.usage.windows), [("seven_day", 300)]);
    assert_eq!(parsed.skipped[0].field, "rate_limits.five_hour");
}

#[test]
fn a_status_line_without_limits_has_no_usage() {
    assert_eq!(statusline(json!({ "model": { "id": "m" } })), Err(ParseError::NoUsage));
    assert_eq!(statusline(json!({ "rate_limits": null })), Err(ParseError::NoUsage));
}

#[test]
fn an_event_reports_fractions() {
    let parsed = event(json!({ "unifiedWindows": {
        "five_hour": { "utilization": 1, "resetsAt": 1_782_907_200 },
        "seven_day_overage_included": { "utilization": 0.88 }
    }}));

    let windows = parsed.usage.windows;
    assert_eq!(basis_points(&windows), [("five_hour", 10_000), ("seven_day_overage_included", 8_800)]);
    assert_eq!(windows[0].resets_at, Some(noon()));
    assert_eq!(windows[1].scope, Some(Scope::unknown_model()));
}

#[test]
fn an_event_status_applies_to_the_window_it_names() {
    let parsed =
        event(json!({ "status": "rejected", "rateLimitType": "seven_day_opus", "resetsAt": 1_782_907_200 }));

    let status = &parsed.usage.window_statuses[0];
    assert_eq!((status.window.as_str(), status.status), ("seven_day/opus", LimitStatus::Rejected));
    assert_eq!((status.scope.clone(), status.resets_at), (Some(Scope::model("Opus")), Some(noon())));
    assert!(parsed.usage.windows.is_empty());
}

#[test]
fn event_fields_about_money_are_listed() {
    let parsed = event(json!({ "status": "allowed", "overageStatus": "rejected", "isUsingOverage": false }));

    assert_eq!(parsed.skipped.len(), 2);
    assert!(parsed.usage.window_statuses.is_empty());
}

#[test]
fn a_line_of_another_type_has_no_usage() {
    let line = json!({ "type": "result", "rate_limit_info": { "status": "rejected" } }).to_string();

    assert_eq!(parse_rate_limit_event(line.as_bytes(), noon()), Err(ParseError::NoUsage));
}
