use std::time::Duration;

use jiff::Timestamp;
use quota_core::WindowId;
use quota_core::model::{Coverage, Scope};
use serde_json::{Value, json};

use super::*;

fn parse(body: Value) -> Parsed {
    parse_usage(body.to_string().as_bytes()).unwrap()
}

fn error_of(body: &str) -> ParseError {
    parse_usage(body.as_bytes()).unwrap_err()
}

fn window(parsed: &Parsed, id: &str) -> WindowReading {
    parsed.usage.windows.iter().find(|window| window.id.as_str() == id).unwrap().clone()
}

fn ids(parsed: &Parsed) -> Vec<&str> {
    parsed.usage.windows.iter().map(|window| window.id.as_str()).collect()
}

fn skipped(parsed: &Parsed) -> Vec<&str> {
    parsed.skipped.iter().map(|skipped| skipped.field.as_str()).collect()
}

fn percent(value: f64) -> Percent {
    Percent::from_percent(value).unwrap()
}

fn complete_except(ids: &[&str], credits: bool) -> Coverage {
    let except = ids.iter().map(|id| WindowId::new(id).unwrap()).collect();
    Coverage::Complete { except, credits }
}

#[test]
fn root_fields_are_windows() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 64.5, "resets_at": "2026-07-01T19:00:00Z" },
        "seven_day": { "utilization": 37, "resets_at": null },
        "seven_day_opus": { "utilization": 12.0 }
    }));

    assert_eq!(ids(&parsed), ["five_hour", "seven_day", "seven_day/opus"]);
    assert_eq!(window(&parsed, "five_hour").resets_at, "2026-07-01T19:00:00Z".parse().ok());
    assert_eq!(window(&parsed, "seven_day/opus").scope, Some(Scope::model("Opus")));
    assert_eq!(parsed.usage.coverage, Coverage::complete());
}

#[test]
fn one_percent_is_not_100_percent() {
    let parsed = parse(json!({ "five_hour": { "utilization": 1.0 }, "seven_day": { "utilization": 0.42 } }));

    assert_eq!(window(&parsed, "five_hour").used, percent(1.0));
    assert_eq!(window(&parsed, "seven_day").used, percent(0.42));
}

#[test]
fn negative_usage_is_zero_and_usage_above_100_is_preserved() {
    let parsed = parse(json!({ "five_hour": { "utilization": -3 }, "seven_day": { "utilization": 104.2 } }));

    assert_eq!(window(&parsed, "five_hour").used, Percent::ZERO);
    assert_eq!(window(&parsed, "seven_day").used, percent(104.2));
}

#[test]
fn known_windows_have_lengths() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 1 }, "seven_day_cowork": { "utilization": 1 }, "tangelo": { "utilization": 1 }
    }));

    assert_eq!(window(&parsed, "five_hour").length, Some(Duration::from_secs(5 * 3600)));
    assert_eq!(window(&parsed, "seven_day_cowork").length, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(window(&parsed, "tangelo").length, None);
}

#[test]
fn an_invalid_reset_leaves_the_window() {
    for reset in [json!(null), json!("soon"), json!(1e308), json!({}), json!(false)] {
        let parsed = parse(json!({ "five_hour": { "utilization": 5, "resets_at": reset } }));

        assert_eq!(window(&parsed, "five_hour").resets_at, None);
    }
}

#[test]
fn a_reset_may_be_a_number_or_lack_an_offset() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 5, "resets_at": 1_782_907_200 },
        "seven_day": { "utilization": 5, "resets_at": "2026-07-01T12:00:00.123456" }
    }));

    let noon: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
    assert_eq!(window(&parsed, "five_hour").resets_at, Some(noon));
    assert_eq!(window(&parsed, "seven_day").resets_at, Some(noon + Duration::from_micros(123_456)));
}

#[test]
fn null_windows_are_not_reported_and_not_listed() {
    let parsed = parse(json!({ "five_hour": { "utilization": 1 }, "seven_day_opus": null, "tangelo": null }));

    assert_eq!(ids(&parsed), ["five_hour"]);
    assert_eq!(skipped(&parsed), [""; 0]);
}

#[test]
fn a_window_with_null_usage_and_a_reset_is_unknown() {
    let parsed = parse(json!({
        "five_hour": { "utilization": null, "resets_at": "2026-07-01T12:00:00Z" }, "seven_day": { "utilization": 1 }
    }));

    assert_eq!(parsed.usage.coverage, Coverage::complete_except([WindowId::five_hour()]));
}

#[test]
fn a_window_with_null_usage_is_not_reported_but_listed() {
    let parsed = parse(json!({ "five_hour": { "utilization": null }, "seven_day": { "utilization": 1 } }));

    assert_eq!(ids(&parsed), ["seven_day"]);
    assert_eq!(skipped(&parsed), ["five_hour"]);
    assert_eq!(parsed.usage.coverage, Coverage::complete());
}

#[test]
fn a_malformed_window_is_not_covered_and_leaves_the_others() {
    for broken in
        [json!({ "utilization": "abc" }), json!({ "utilization": {} }), json!({}), json!(7), json!([])]
    {
        let parsed = parse(json!({ "five_hour": broken, "seven_day": { "utilization": 1 } }));

        assert_eq!(ids(&parsed), ["seven_day"]);
        assert_eq!(skipped(&parsed), ["five_hour"]);
        assert_eq!(parsed.usage.coverage, complete_except(&["five_hour"], true));
    }
}

#[test]
fn an_implausible_usage_is_not_covered_and_listed() {
    for used in [json!(1_782_907_200), json!(1_000.1), json!(-100.1)] {
        let rows = json!([{ "kind": "weekly_all", "percent": used }]);
        let parsed = parse(json!({ "five_hour": { "utilization": used }, "limits": rows }));

        assert_eq!(ids(&parsed), [""; 0], "{used}");
        assert_eq!(parsed.skipped.len(), 2);
        assert!(parsed.skipped.iter().all(|one| one.reason == "its usage is not a percentage up to 1,000 %"));
        assert_eq!(parsed.usage.coverage, complete_except(&["five_hour", "seven_day"], true));
    }
}

#[test]
fn fields_that_are_not_windows_are_listed() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 1 }, "member_dashboard_available": true, "seven_day_breakdown": { "web": 3 },
        "weekly_scoped_shares": [], "cedar_ember": { "eligible": true }
    }));

    assert_eq!(ids(&parsed), ["five_hour"]);
    assert_eq!(parsed.skipped.len(), 4);
    assert_eq!(parsed.usage.coverage, Coverage::complete());
}

#[test]
fn a_response_without_windows_is_empty() {
    let parsed = parse(json!({ "cedar_ember": { "eligible": true } }));

    assert!(parsed.usage.is_empty());
    assert_eq!(skipped(&parsed), ["cedar_ember"]);
}

#[test]
fn rows_alone_are_enough() {
    let parsed = parse(json!({ "limits": [{ "kind": "weekly_all", "percent": 7.5 }], "juniper_tide": null }));

    assert_eq!(ids(&parsed), ["seven_day"]);
}

#[test]
fn a_row_has_precedence_over_a_different_field() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 40.0, "resets_at": "2026-07-01T19:00:00Z" },
        "limits": [{ "kind": "session", "percent": 11, "resets_at": null }]
    }));

    assert_eq!(window(&parsed, "five_hour").used, percent(11.0));
    assert_eq!(window(&parsed, "five_hour").resets_at, None);
}

#[test]
fn a_field_that_rounds_to_its_row_is_more_precise() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 11.4, "resets_at": "2026-07-01T19:00:00Z" },
        "limits": [{ "kind": "session", "percent": 11, "resets_at": null }]
    }));

    assert_eq!(window(&parsed, "five_hour").used, percent(11.4));
    assert!(window(&parsed, "five_hour").resets_at.is_some());
}

#[test]
fn a_row_more_precise_than_its_field_counts() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 11.0 }, "limits": [{ "kind": "session", "percent": 11.4 }]
    }));

    assert_eq!(window(&parsed, "five_hour").used, percent(11.4));
}

#[test]
fn a_valid_field_replaces_a_malformed_row() {
    let parsed = parse(json!({
        "five_hour": { "utilization": 11.0 }, "limits": [{ "kind": "session", "percent": "abc" }]
    }));

    assert_eq!(window(&parsed, "five_hour").used, percent(11.0));
    assert_eq!(parsed.usage.coverage, Coverage::complete());
    assert_eq!(skipped(&parsed), ["limits[0]"]);
}

#[test]
fn an_unnamed_row_removes_no_window() {
    let parsed = parse(json!({ "five_hour": { "utilization": 11.0 }, "limits": [{ "percent": 5 }] }));

    assert_eq!(parsed.usage.coverage, Coverage::Reported);
}

#[test]
fn money_alone_is_usage() {
    let parsed =
        parse(json!({ "extra_usage": { "is_enabled": true, "used_credits": 763, "utilization": 38.15 } }));

    assert!(parsed.usage.windows.is_empty() && !parsed.usage.is_empty());
}

#[test]
fn unreadable_money_is_not_covered() {
    let parsed =
        parse(json!({ "five_hour": { "utilization": 1 }, "extra_usage": { "used_credits": "many" } }));

    assert_eq!(parsed.usage.credits, None);
    assert_eq!(parsed.usage.coverage, complete_except(&[], false));
}

#[test]
fn too_many_windows_are_an_error() {
    let with = |count: usize| {
        let windows = (0..count).map(|at| (format!("w{at}"), json!({ "utilization": 1 })));
        parse_usage(Value::Object(windows.collect()).to_string().as_bytes())
    };

    assert_eq!(with(128).unwrap().usage.windows.len(), 128);
    assert_eq!(with(129), Err(ParseError::TooManyWindows));
}

#[test]
fn an_error_response_is_named_by_its_type() {
    let kinds = [
        (r#"{"error":{"type":"rate_limit_error","message":"m"}}"#, Some("rate_limit_error")),
        (r#"{"type":"error","error":{"type":"sk-ant-echo"}}"#, None),
        (r#"{"error":"invalid_grant"}"#, Some("invalid_grant")),
        (r#"{"type":"error"}"#, None),
    ];

    for (body, kind) in kinds {
        assert_eq!(error_of(body), ParseError::ErrorResponse { kind }, "{body}");
    }
}

#[test]
fn a_null_error_field_is_not_an_error() {
    assert_eq!(ids(&parse(json!({ "error": null, "five_hour": { "utilization": 1 } }))), ["five_hour"]);
}

#[test]
fn an_empty_object_has_no_usage() {
    assert_eq!(error_of("{}"), ParseError::NoUsage);
}

#[test]
fn a_non_object_is_rejected_without_repeating_it() {
    for body in ["[1]", "null", "\"sk-ant-echo\""] {
        assert_eq!(error_of(body), ParseError::NotAnObject);
    }
}

#[test]
fn truncated_json_is_reported_by_position() {
    let error = error_of("{ \"five_hour\":\n{ \"sk-ant-echo");

    assert!(matches!(error, ParseError::NotJson { line: 2, .. }));
    assert!(!format!("{error} {error:?}").contains("echo"));
}

#[test]
fn the_list_of_skipped_fields_is_bounded() {
    let fields = (0..10_000).map(|at| (format!("f{at}"), json!(true)));

    let parsed = parse(Value::Object(fields.collect()));

    assert_eq!(parsed.skipped.len(), 256);
}
