use proptest::prelude::*;
use quota_core::model::{Coverage, Money};
use serde_json::{Value, json};

use std::time::Duration;

use super::*;

fn parse(config: &Value) -> Parsed {
    parse_usage(json!({ "config": config }).to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn used(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

fn week() -> Value {
    json!({ "type": "USAGE_PERIOD_TYPE_WEEKLY", "start": "2026-07-01T02:00:00.5Z", "end": "2026-07-08T02:00:00.5Z" })
}

#[test]
fn the_credits_are_the_window_of_the_periods_length() {
    let parsed = parse(&json!({ "creditUsagePercent": "104.2", "currentPeriod": week() }));

    assert_eq!(used(&parsed), [("seven_day", 104.2)]);
    let window = &parsed.usage.windows[0];
    assert_eq!(window.resets_at, "2026-07-08T02:00:00.5Z".parse().ok());
    assert_eq!((window.length, &window.scope), (Some(Duration::from_secs(7 * 24 * 3600)), &None));
    assert_eq!(parsed.skipped, []);
}

#[test]
fn without_times_the_type_names_the_window() {
    let of = |kind: &str| {
        let parsed = parse(&json!({ "creditUsagePercent": 1, "currentPeriod": { "type": kind } }));
        parsed.usage.windows[0].id.to_string()
    };

    assert_eq!(of("USAGE_PERIOD_TYPE_MONTHLY"), "monthly");
    assert_eq!(of("USAGE_PERIOD_TYPE_OTHER"), "credit_usage");
}

#[test]
fn no_length_is_invented_from_the_end_of_the_billing_period() {
    let parsed = parse(&json!({ "creditUsagePercent": 9, "billingPeriodEnd": "2026-08-01T00:00:00Z" }));

    assert_eq!(used(&parsed), [("credit_usage", 9.0)]);
    let window = &parsed.usage.windows[0];
    assert_eq!((window.length, window.resets_at), (None, "2026-08-01T00:00:00Z".parse().ok()));
}

#[test]
fn the_end_of_the_billing_period_is_not_that_of_the_current_period() {
    let week = json!({ "type": "USAGE_PERIOD_TYPE_WEEKLY" });
    let parsed = parse(&json!({
        "creditUsagePercent": 9, "currentPeriod": week, "billingPeriodEnd": "2026-08-01T00:00:00Z",
    }));

    assert_eq!((used(&parsed), parsed.usage.windows[0].resets_at), (vec![("seven_day", 9.0)], None));
}

#[test]
fn a_product_is_a_window_of_its_surface() {
    let products = json!([{ "product": "Api", "usagePercent": 5 }, { "product": "Chat" }]);
    let parsed =
        parse(&json!({ "creditUsagePercent": 7, "currentPeriod": week(), "productUsage": products }));

    assert_eq!(used(&parsed), [("seven_day", 7.0), ("seven_day_api", 5.0)]);
    assert_eq!(parsed.usage.windows[1].scope, Some(Scope::surface("Api")));
    let except = vec![WindowId::new("seven_day_chat").unwrap()];
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: true });
}

#[test]
fn a_missing_use_is_unknown() {
    let parsed = parse(&json!({ "currentPeriod": week() }));

    let except = vec![WindowId::seven_day()];
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: true });
    assert_eq!(used(&parsed), []);
}

#[test]
fn amounts_on_demand_are_credits() {
    let config =
        json!({ "creditUsagePercent": 1, "onDemandCap": { "val": 50 }, "onDemandUsed": { "val": "2.5" } });
    let credits = parse(&config).usage.credits.unwrap();

    assert_eq!(credits.limit, Some(Money::new(5000, "credits", 2)));
    assert_eq!(credits.used, Some(Money::new(250, "credits", 2)));
}

#[test]
fn an_error_response_is_an_error() {
    let of = |body: &str| parse_usage(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err();

    assert_eq!(of(r#"{"error":"made up"}"#), ParseError::ErrorResponse { kind: None });
    assert_eq!(of(r#"{"config":null}"#), ParseError::NoUsage);
}

proptest! {
    #[test]
    fn a_malformed_product_keeps_the_credits(
        row in prop_oneof![Just(json!(7)), Just(json!({})), Just(json!({ "product": "x", "usagePercent": [] }))],
    ) {
        let parsed = parse(&json!({ "creditUsagePercent": 3, "currentPeriod": week(), "productUsage": [row] }));

        prop_assert_eq!(used(&parsed), [("seven_day", 3.0)]);
    }
}
