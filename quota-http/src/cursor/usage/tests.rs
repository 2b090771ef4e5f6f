use proptest::prelude::*;
use quota_core::model::Coverage;
use serde_json::{Value, json};

use super::*;

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn used(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

fn of_plan(plan: Value) -> Parsed {
    parse(&json!({
        "billingCycleStart": "1782864000000", "billingCycleEnd": 1_785_456_000_000_i64, "planUsage": plan,
    }))
}

#[test]
fn the_included_usage_is_the_window_of_the_cycle() {
    let parsed = of_plan(json!({
        "limit": 2000, "remaining": 900, "totalPercentUsed": 15.5, "autoPercentUsed": 0, "apiPercentUsed": "104",
    }));

    assert_eq!(used(&parsed), [("monthly", 15.5), ("monthly_api", 104.0), ("monthly_auto", 0.0)]);
    let [month, api, _] = &parsed.usage.windows[..] else { panic!("three windows") };
    assert_eq!((&month.scope, &api.scope), (&None, &Some(Scope::surface("api"))));
    assert_eq!(month.resets_at, Timestamp::from_second(1_785_456_000).ok());
    assert_eq!(parsed.skipped, []);
}

#[test]
fn without_a_percentage_the_rest_of_the_limit_counts() {
    assert_eq!(used(&of_plan(json!({ "limit": 2000, "remaining": "-500" }))), [("monthly", 125.0)]);
    assert_eq!(
        used(&of_plan(json!({ "limit": 8, "remaining": 2, "totalPercentUsed": [] }))),
        [("monthly", 75.0)]
    );
}

#[test]
fn no_length_is_invented_without_the_start_of_the_cycle() {
    let parsed =
        parse(&json!({ "billingCycleEnd": "2026-08-01T00:00:00Z", "planUsage": { "totalPercentUsed": 30 } }));

    assert_eq!(used(&parsed), [("billing_cycle", 30.0)]);
    assert_eq!(parsed.usage.windows[0].length, None);
}

#[test]
fn a_plan_without_usage_is_unknown() {
    let parsed = of_plan(json!({ "limit": 2000 }));

    let except = vec![WindowId::monthly()];
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: true });
}

#[test]
fn spending_beyond_the_plan_is_credits_in_cents() {
    let parsed = parse(&json!({ "spendLimitUsage": { "individualLimit": 5000, "individualUsed": "249.6" } }));

    let credits = parsed.usage.credits.unwrap();
    assert_eq!(credits.limit, Some(Money::new(5000, "USD", 2)));
    assert_eq!(credits.used, Some(Money::new(250, "USD", 2)));
}

#[test]
fn unreadable_spending_keeps_the_cached_credits() {
    let parsed = parse(&json!({ "planUsage": { "totalPercentUsed": 1 }, "spendLimitUsage": [] }));

    assert_eq!(parsed.usage.coverage, Coverage::Complete { except: vec![], credits: false });
    assert_eq!(used(&parsed), [("billing_cycle", 1.0)]);
}

#[test]
fn an_error_of_the_protocol_is_an_error() {
    let of = |body: &str| parse_usage(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err();

    assert_eq!(of(r#"{"code":"unauthenticated","message":"made up"}"#), ParseError::Unauthorized);
    assert_eq!(of(r#"{"code":"resource_exhausted"}"#), ParseError::RateLimited);
    assert_eq!(of(r#"{"code":"internal"}"#), ParseError::ErrorResponse { kind: None });
}

#[test]
fn what_remains_states_the_use_too() {
    let spend = json!({ "individualLimit": 5000, "individualRemaining": 4750 });
    let credits = parse(&json!({ "spendLimitUsage": spend })).usage.credits.unwrap();
    assert_eq!(credits.used, Some(Money::new(250, "USD", 2)));

    let plan = json!({ "limit": 2000, "includedSpend": 500 });
    assert_eq!(parse(&json!({ "planUsage": plan })).usage.windows[0].used.as_f64(), 25.0);
}

#[test]
fn an_unknown_field_of_the_plan_is_listed() {
    let parsed = parse(&json!({ "planUsage": { "totalPercentUsed": 1, "new": 2 } }));

    assert_eq!(parsed.skipped[0].field, "planUsage.new");
}

proptest! {
    #[test]
    fn a_malformed_part_keeps_the_whole(
        part in prop_oneof![Just(json!([])), Just(json!("x")), Just(json!(1e9)), Just(json!(null))],
    ) {
        let parsed = of_plan(json!({ "totalPercentUsed": 30, "autoPercentUsed": part }));

        prop_assert_eq!(used(&parsed), [("monthly", 30.0)]);
    }
}
