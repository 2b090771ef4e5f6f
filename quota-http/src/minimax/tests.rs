use proptest::prelude::*;
use quota_core::model::Money;
use serde_json::{Value, json};

use super::*;

const HOUR: i64 = 3_600_000;
const START: i64 = 1_790_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_millisecond(START + HOUR).unwrap()
}

/// A row with an interval of this many hours.
fn row(name: &str, hours: i64, fields: &Value) -> Value {
    let mut row = json!({ "model_name": name, "start_time": START, "end_time": START + hours * HOUR });
    row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    row
}

fn parse(rows: &[Value]) -> Parsed {
    let body = json!({ "model_remains": rows, "base_resp": { "status_code": 0 } });
    parse_usage(body.to_string().as_bytes(), now()).unwrap()
}

fn readings(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

fn error_of(body: &Value) -> ParseError {
    parse_usage(body.to_string().as_bytes(), now()).unwrap_err()
}

#[test]
fn the_remaining_percentage_counts_even_with_amounts() {
    let parsed = parse(&[row(
        "general",
        5,
        &json!({
            "current_interval_remaining_percent": "75",
            "current_interval_total_count": 0, "current_interval_usage_count": 0,
            "current_weekly_remaining_percent": 40, "weekly_boost_permille": 1500,
            "weekly_start_time": START, "weekly_end_time": START + 168 * HOUR,
        }),
    )]);

    assert_eq!(readings(&parsed), [("five_hour", 25.0), ("seven_day", 60.0)]);
    let week = &parsed.usage.windows[1];
    assert_eq!(week.length, Some(Duration::from_secs(168 * 3600)));
    assert_eq!(week.resets_at, Timestamp::from_millisecond(START + 168 * HOUR).ok());
    assert_eq!(parsed.skipped, []);
}

#[test]
fn without_a_percentage_the_usage_count_is_what_remains() {
    let amounts = json!({ "current_interval_total_count": 200, "current_interval_usage_count": "150" });

    let parsed = parse(&[row("MiniMax-M*", 5, &amounts)]);

    assert!(readings(&parsed).contains(&("five_hour", 25.0)));
}

#[test]
fn a_total_of_zero_without_a_percentage_is_unknown() {
    let amounts = json!({ "current_interval_total_count": 0, "current_interval_usage_count": 0 });

    let parsed = parse(&[row("general", 5, &amounts)]);

    assert!(parsed.usage.windows.is_empty());
    assert_eq!(parsed.skipped[0].reason, "it has no usage");
}

#[test]
fn a_window_that_the_plan_excludes_does_not_exist() {
    let none = json!({ "current_interval_status": 3, "current_interval_remaining_percent": 100 });

    let parsed = parse(&[row("video", 24, &none)]);

    assert!(parsed.usage.windows.is_empty());
    assert_eq!(parsed.skipped, []);
}

#[test]
fn the_last_interval_of_a_day_is_the_five_hour_window() {
    let parsed = parse(&[row("general", 4, &json!({ "current_interval_remaining_percent": 90 }))]);

    assert_eq!(readings(&parsed), [("five_hour", 10.0)]);
    assert_eq!(parsed.usage.windows[0].length, Some(Duration::from_secs(4 * 3600)));
}

#[test]
fn models_and_media_have_windows_of_their_own() {
    let half = json!({ "current_interval_remaining_percent": 50 });

    let parsed = parse(&[row("MiniMax-M9", 5, &half), row("video", 24, &half)]);

    assert_eq!(readings(&parsed), [("1440_minutes_video", 50.0), ("five_hour/minimax-m9", 50.0)]);
    let [video, model] = &*parsed.usage.windows else { panic!("two windows") };
    assert!(!video.scope.as_ref().unwrap().applies_to(Some("video")));
    assert!(model.scope.as_ref().unwrap().applies_to(Some("MiniMax-M9")));
}

#[test]
fn a_row_without_a_name_or_a_length_leaves_the_others() {
    let half = json!({ "current_interval_remaining_percent": 50 });

    let parsed =
        parse(&[row("", 5, &half), json!({ "model_name": "x", "end_time": 5 }), row("general", 5, &half)]);

    assert_eq!(readings(&parsed), [("five_hour", 50.0)]);
    assert_eq!(parsed.skipped.len(), 2);
}

#[test]
fn the_plan_and_the_points_are_read() {
    let body = json!({ "data": {
        "current_subscribe_title": "Big", "points_balance": "1400.5", "mascot": 1, "model_remains": [],
    } });

    let parsed = parse_usage(body.to_string().as_bytes(), now()).unwrap();

    assert_eq!(parsed.usage.plan.as_deref(), Some("Big"));
    assert_eq!(parsed.usage.credits.unwrap().balance, Some(Money::new(14_005, UNIT, 1)));
    assert_eq!(parsed.skipped[0].field, "data.mascot");
}

#[test]
fn a_successful_status_may_contain_an_error() {
    let of = |code: i64| error_of(&json!({ "base_resp": { "status_code": code, "status_msg": "n33dle" } }));

    assert_eq!([of(1004), of(2049)], [ParseError::Unauthorized, ParseError::Unauthorized]);
    assert_eq!(of(1002), ParseError::RateLimited);
    assert_eq!(of(1000), ParseError::ErrorResponse { kind: None });
    assert_eq!(of(0), ParseError::NoUsage);
}

proptest! {
    #[test]
    fn there_are_at_most_two_windows_in_a_row(
        rows in prop::collection::vec(("[a-zA-Z*-]{0,9}", 0..200_i64, -50.0..200.0_f64, 0..5_i64), 0..8),
    ) {
        let some = rows.iter().map(|(name, hours, left, status)| {
            let fields = json!({ "current_interval_remaining_percent": left, "current_interval_status": status });
            row(name, *hours, &fields)
        });
        let kept = row("kept:", 9, &json!({ "current_interval_remaining_percent": 75 }));
        let rows: Vec<_> = some.chain([kept]).collect();

        let parsed = parse(&rows);

        prop_assert!(parsed.usage.windows.len() <= 2 * rows.len());
        prop_assert!(readings(&parsed).contains(&("540_minutes_kept:", 25.0)));
    }
}
