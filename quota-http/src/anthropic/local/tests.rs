use quota_core::{Coverage, Scope, Source, WindowReading};
use serde_json::json;

use super::*;

fn noon() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

/// When lines and events are read.
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
fn the_cache_of_claude_code_is_as_old_as_it_says() {
    let body = json!({ "five_hour": { "utilization": 26 }, "extra_usage": { "is_enabled": false } });

    let cached = claude_json(cached(json!(1_782_907_200_000_i64), body)).unwrap();

    let usage = cached.parsed.usage;
    assert_eq!(basis_points(&usage.windows), [("five_hour", 2600)]);
    assert_eq!((usage.observed_at, usage.source), (Some(noon()), Source::Local));
    assert_eq!(usage.coverage, Coverage::Reported);
    assert!(usage.credits.is_some());
}

#[test]
fn the_user_of_the_cache_is_not_taken_for_the_organization() {
    let cached =
        claude_json(cached(json!(1_782_907_200_000_i64), json!({ "five_hour": { "utilization": 1 } })))
            .unwrap();

    assert_eq!((cached.account.as_deref(), cached.parsed.usage.identity), (Some("user-1"), None));
}

#[test]
fn a_cache_without_a_date_is_refused() {
    for fetched_at in [json!(null), json!("soon"), json!(0), json!(1e308)] {
        let refused = claude_json(cached(fetched_at, json!({ "five_hour": { "utilization": 1 } })));

        assert_eq!(refused, Err(ParseError::Undated));
    }
}

#[test]
fn a_file_without_a_cache_says_nothing() {
    for file in [
        json!({}),
        json!({ "cachedUsageUtilization": null }),
        json!({ "cachedUsageUtilization": { "fetchedAtMs": 1 } }),
    ] {
        assert_eq!(claude_json(file), Err(ParseError::NothingKnown));
    }
}

#[test]
fn a_file_that_was_cut_off_is_not_json() {
    assert!(matches!(parse_claude_json(b"{ \"cachedUsage"), Err(ParseError::NotJson { .. })));
}

#[test]
fn a_file_of_another_shape_is_told() {
    assert_eq!(claude_json(json!([])), Err(ParseError::NotAnObject));
    assert_eq!(claude_json(json!("text")), Err(ParseError::NotAnObject));
}

#[test]
fn a_status_line_counts_in_percent() {
    let parsed = statusline(json!({ "rate_limits": {
        "five_hour": { "used_percentage": 1, "resets_at": 1_782_907_200 }, "seven_day": { "used_percentage": 0.5 }
    }}));

    let usage = parsed.unwrap().usage;
    assert_eq!(basis_points(&usage.windows), [("five_hour", 100), ("seven_day", 50)]);
    assert_eq!(usage.windows[0].resets_at, Some(noon()));
    assert_eq!((usage.observed_at, usage.source), (Some(morning()), Source::Statusline));
}

/// What is left of the five-hour window of a status line, and what was left out.
fn five_hour_of(window: Value) -> (Vec<u32>, Vec<(String, &'static str)>) {
    let parsed = statusline(json!({ "rate_limits": { "five_hour": window } })).unwrap();
    let used = parsed.usage.windows.iter().map(|window| window.used.basis_points());
    (used.collect(), parsed.ignored.into_iter().map(|ignored| (ignored.field, ignored.why)).collect())
}

#[test]
fn an_epoch_in_the_place_of_a_use_is_left_out_of_a_status_line() {
    for used in [json!(1_782_907_200), json!("1782907200"), json!(1_000.1), json!(-0.1)] {
        let (left, ignored) = five_hour_of(json!({ "used_percentage": used, "resets_at": 1_782_907_200 }));

        let why = "its use is not between 0 % and 1,000 %";
        assert_eq!((left, ignored), (vec![], vec![("rate_limits.five_hour".to_owned(), why)]), "{used}");
    }
}

#[test]
fn a_window_of_a_status_line_whose_reset_is_past_is_left_out() {
    let nine_hours_ago = morning().as_second() - 9 * 3600;

    let (left, ignored) = five_hour_of(json!({ "used_percentage": 97, "resets_at": nine_hours_ago }));

    let why = "its reset is past, so its use is of an earlier period";
    assert_eq!((left, ignored), (vec![], vec![("five_hour".to_owned(), why)]));
}

#[test]
fn a_window_of_a_status_line_whose_reset_is_too_far_ahead_is_left_out() {
    let in_six_hours = morning().as_second() + 6 * 3600;

    let (left, ignored) = five_hour_of(json!({ "used_percentage": 97, "resets_at": in_six_hours }));

    let why = "its reset is further ahead than the window is long";
    assert_eq!((left, ignored), (vec![], vec![("five_hour".to_owned(), why)]));
}

#[test]
fn a_cached_use_below_nothing_is_left_out() {
    let body = json!({
        "five_hour": { "utilization": -1 }, "seven_day": { "utilization": 3 },
        "limits": [{ "kind": "session", "percent": -1 }]
    });

    let parsed = claude_json(cached(json!(1_782_907_200_000_i64), body)).unwrap().parsed;

    assert_eq!(basis_points(&parsed.usage.windows), [("seven_day", 300)]);
    assert_eq!(parsed.ignored.len(), 2);
}

#[test]
fn a_malformed_window_of_a_status_line_spares_the_others() {
    let parsed = statusline(json!({ "rate_limits": {
        "five_hour": { "used_percentage": "abc" }, "seven_day": { "used_percentage": 3 }
    }}));

    let parsed = parsed.unwrap();
    assert_eq!(basis_points(&parsed.usage.windows), [("seven_day", 300)]);
    assert_eq!(parsed.ignored[0].field, "rate_limits.five_hour");
}

#[test]
fn a_status_line_without_limits_says_nothing() {
    assert_eq!(statusline(json!({ "model": { "id": "m" } })), Err(ParseError::NothingKnown));
    assert_eq!(statusline(json!({ "rate_limits": null })), Err(ParseError::NothingKnown));
}

#[test]
fn an_event_counts_in_fractions() {
    let parsed = event(json!({ "unifiedWindows": {
        "five_hour": { "utilization": 1, "resetsAt": 1_782_907_200 },
        "seven_day_overage_included": { "utilization": 0.88 }
    }}));

    let windows = parsed.usage.windows;
    assert_eq!(basis_points(&windows), [("five_hour", 10_000), ("seven_day_overage_included", 8_800)]);
    assert_eq!(windows[0].resets_at, Some(noon()));
    assert_eq!(windows[1].scope, Some(Scope::unnamed()));
}

#[test]
fn an_event_rules_on_the_window_it_names() {
    let parsed =
        event(json!({ "status": "rejected", "rateLimitType": "seven_day_opus", "resetsAt": 1_782_907_200 }));

    let verdict = &parsed.usage.verdicts[0];
    assert_eq!((verdict.window.as_str(), verdict.ruling), ("seven_day/opus", Ruling::Rejected));
    assert_eq!((verdict.scope.clone(), verdict.resets_at), (Some(Scope::model("Opus")), Some(noon())));
    assert!(parsed.usage.windows.is_empty());
}

#[test]
fn what_an_event_says_about_money_is_listed() {
    let parsed = event(json!({ "status": "allowed", "overageStatus": "rejected", "isUsingOverage": false }));

    assert_eq!(parsed.ignored.len(), 2);
    assert!(parsed.usage.verdicts.is_empty());
}

#[test]
fn a_line_of_another_type_says_nothing() {
    let line = json!({ "type": "result", "rate_limit_info": { "status": "rejected" } }).to_string();

    assert_eq!(parse_rate_limit_event(line.as_bytes(), noon()), Err(ParseError::NothingKnown));
}
