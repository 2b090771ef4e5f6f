use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), now()).unwrap()
}

fn saved(body: &Value) -> SavedDocument {
    PROVIDER.parse_saved(body.to_string().as_bytes(), now()).unwrap()
}

fn readings(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

fn limit(duration: u32, unit: &str, detail: &Value) -> Value {
    json!({ "window": { "duration": duration, "timeUnit": unit }, "detail": detail })
}

#[test]
fn numbers_may_be_texts_and_times_have_nanoseconds() {
    let parsed = parse(&json!({
        "usage": { "limit": "400", "used": "100", "remaining": "300", "resetTime": "2026-07-03T00:00:00.123456789Z" },
        "limits": [limit(300, "TIME_UNIT_MINUTE", &json!({ "limit": 50, "used": 60, "reset_at": 1_782_910_800 }))],
    }));

    assert_eq!(readings(&parsed), [("five_hour", 120.0), ("seven_day", 25.0)]);
    let [five_hour, week] = &*parsed.usage.windows else { panic!("two windows") };
    assert_eq!(five_hour.resets_at, "2026-07-01T13:00:00Z".parse().ok());
    assert_eq!(week.resets_at, "2026-07-03T00:00:00.123456789Z".parse().ok());
    assert_eq!(parsed.skipped, []);
}

#[test]
fn without_the_used_amount_the_remaining_one_counts() {
    let parsed = parse(&json!({ "usage": { "limit": 200, "remaining": 150, "resetIn": 60 } }));

    assert_eq!(readings(&parsed), [("seven_day", 25.0)]);
    assert_eq!(parsed.usage.windows[0].resets_at, "2026-07-01T12:01:00Z".parse().ok());
}

#[test]
fn a_detail_of_null_does_not_hide_the_amounts_of_the_row() {
    let mut row = limit(300, "TIME_UNIT_MINUTE", &json!(null));
    row.as_object_mut().unwrap().extend([("limit".to_owned(), json!(4)), ("used".to_owned(), json!(1))]);

    assert_eq!(readings(&parse(&json!({ "limits": [row] }))), [("five_hour", 25.0)]);
}

#[test]
fn an_unknown_unit_invents_no_length() {
    let detail = json!({ "limit": 100, "used": 25 });
    let parsed = parse(&json!({ "limits": [limit(5, "TIME_UNIT_UNKNOWN", &detail)] }));

    assert_eq!(readings(&parsed), [("5_time_unit_unknown", 25.0)]);
    assert_eq!(parsed.usage.windows[0].length, None);
}

#[test]
fn a_limit_of_zero_has_no_share() {
    let parsed = parse(&json!({ "usage": { "limit": 0, "used": 0 } }));

    assert!(parsed.usage.windows.is_empty());
    assert_eq!(parsed.skipped[0].field, "usage");
}

#[test]
fn a_malformed_limit_leaves_the_others() {
    let parsed = parse(&json!({
        "usage": "soon",
        "limits": [7, limit(300, "TIME_UNIT_MINUTE", &json!({ "limit": 4, "used": 1 })), { "detail": {} }],
    }));

    assert_eq!(readings(&parsed), [("five_hour", 25.0)]);
    let listed: Vec<_> = parsed.skipped.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(listed, ["usage", "limits[0]", "limits[2]"]);
}

#[test]
fn the_plan_and_the_owner_are_read() {
    let parsed = parse(&json!({
        "user": { "userId": "u-1", "membership": { "level": "LEVEL_TEST" } },
        "usage": { "limit": 1, "used": 0 },
        "mascot": 1,
    }));

    assert_eq!(parsed.usage.plan.as_deref(), Some("LEVEL_TEST"));
    assert_eq!(parsed.usage.owner_id, Some(OwnerId::new("u-1")));
    assert_eq!(parsed.skipped[0].field, "mascot");
}

#[test]
fn the_usage_of_the_website_is_that_of_the_coding_feature() {
    let saved = saved(&json!({ "usages": [
        { "scope": "FEATURE_OTHER", "detail": { "limit": 1, "used": 1 } },
        { "scope": "FEATURE_CODING", "detail": { "limit": 4, "used": 1 },
          "limits": [limit(300, "TIME_UNIT_MINUTE", &json!({ "limit": 2, "used": 2 }))] },
    ] }));

    assert_eq!(readings(&saved.parsed), [("five_hour", 100.0), ("seven_day", 25.0)]);
    assert_eq!((saved.kind, &*saved.parsed.skipped[0].field), ("web_usage", "usages[0]"));
}

#[test]
fn the_shares_of_a_subscription_are_fractions() {
    let saved = saved(&json!({
        "ratelimitCode5h": { "ratio": 0.5, "enabled": true },
        "ratelimitCode7d": { "ratio": 1, "enabled": false },
        "subscriptionBalance": { "amountUsedRatio": 1, "expireTime": "2026-08-01T00:00:00Z" },
    }));

    assert_eq!(readings(&saved.parsed), [("five_hour", 50.0), ("subscription_balance", 100.0)]);
    let [five_hour, balance] = &*saved.parsed.usage.windows else { panic!("two windows") };
    assert_eq!(five_hour.length, Some(Duration::from_secs(18_000)));
    assert_eq!((balance.length, &balance.scope), (None, &Some(Scope::surface("subscription_balance"))));
}

#[test]
fn an_error_is_not_usage() {
    let error = parse_usage(br#"{"error":{"type":"made_up"}}"#, now()).unwrap_err();

    assert_eq!(error, ParseError::ErrorResponse { kind: None });
}

proptest! {
    #[test]
    fn there_are_never_more_windows_than_rows(
        rows in prop::collection::vec((0..400_u32, "TIME_UNIT_(MINUTE|HOUR|DAY|X)", -5.0..2000.0_f64), 0..8),
    ) {
        let limits = rows.iter().map(|(count, unit, used)| limit(*count, unit, &json!({ "limit": 10, "used": used })));
        let limits: Vec<_> = limits.chain([limit(7, "TIME_UNIT_KEPT", &json!({ "limit": 4, "used": 1 }))]).collect();

        let parsed = parse(&json!({ "limits": limits }));

        prop_assert!(parsed.usage.windows.len() <= rows.len() + 1);
        prop_assert!(readings(&parsed).contains(&("7_time_unit_kept", 25.0)));
    }
}
