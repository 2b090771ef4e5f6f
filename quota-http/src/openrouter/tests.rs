use proptest::prelude::*;
use quota_core::model::{Coverage, Money};
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-07-01T12:00:00Z";

fn of_key(data: &Value) -> Parsed {
    parse_usage(json!({ "data": data }).to_string().as_bytes(), NOW.parse().unwrap()).unwrap()
}

fn window(data: &Value) -> (String, f64) {
    let parsed = of_key(data);
    let [window] = &parsed.usage.windows[..] else { panic!("{parsed:?}") };
    (window.id.to_string(), window.used.as_f64())
}

fn dollars(cents: i64) -> Option<Money> {
    Some(Money::new(cents, "USD", 2))
}

#[test]
fn a_limit_is_the_window_of_its_period() {
    let of = |reset| window(&json!({ "limit": 20, "limit_remaining": 5, "limit_reset": reset }));

    assert_eq!(of(json!("daily")), ("1440_minutes".to_owned(), 75.0));
    assert_eq!(of(json!("weekly")), ("seven_day".to_owned(), 75.0));
    assert_eq!(of(json!("monthly")), ("monthly".to_owned(), 75.0));
    assert_eq!(of(json!(null)), ("limit".to_owned(), 75.0));
}

#[test]
fn a_period_ends_at_midnight_in_utc() {
    let end = |period: Period, now: &str| period.end(now.parse().unwrap()).unwrap().to_string();

    assert_eq!(end(Period::Day, NOW), "2026-07-02T00:00:00Z");
    assert_eq!(end(Period::Week, NOW), "2026-07-06T00:00:00Z");
    assert_eq!(end(Period::Week, "2026-07-06T00:00:00Z"), "2026-07-13T00:00:00Z");
    assert_eq!(end(Period::Month, "2026-12-31T23:59:59Z"), "2027-01-01T00:00:00Z");
    assert_eq!(Period::Never.end(NOW.parse().unwrap()), None);
}

#[test]
fn all_use_since_the_key_was_created_is_not_that_of_the_period() {
    let data = json!({ "limit": 50, "limit_remaining": "40", "limit_reset": "monthly", "usage": 433.2 });

    assert_eq!(window(&data), ("monthly".to_owned(), 20.0));
}

#[test]
fn without_the_rest_the_use_of_the_period_counts() {
    let weekly = json!({ "limit": 8, "limit_reset": "weekly", "usage": 7, "usage_weekly": 2 });
    let never = json!({ "limit": 8, "limit_remaining": null, "usage": 7, "usage_weekly": 2 });

    assert_eq!(window(&weekly), ("seven_day".to_owned(), 25.0));
    assert_eq!(window(&never), ("limit".to_owned(), 87.5));
}

#[test]
fn a_negative_rest_is_more_than_the_limit() {
    let parsed = of_key(&json!({ "limit": 50, "limit_remaining": -5, "limit_reset": "monthly" }));

    assert_eq!(parsed.usage.windows[0].used.as_f64(), 110.0);
    assert_eq!(parsed.usage.credits.unwrap().used, dollars(5500));
}

#[test]
fn a_key_without_a_limit_is_unlimited() {
    let parsed =
        of_key(&json!({ "limit": null, "limit_remaining": null, "usage": 9, "usage_monthly": 1.005 }));

    let credits = parsed.usage.credits.unwrap();
    assert_eq!((credits.unlimited, credits.limit, credits.used), (Some(true), None, dollars(101)));
    assert_eq!(parsed.usage.windows, []);
}

#[test]
fn a_limit_of_zero_is_used_up() {
    let parsed = of_key(&json!({ "limit": 0, "limit_remaining": 0, "limit_reset": "daily" }));

    assert_eq!(parsed.usage.windows[0].used, Percent::FULL);
    let credits = parsed.usage.credits.unwrap();
    assert_eq!((credits.unlimited, credits.limit), (Some(false), dollars(0)));
}

#[test]
fn an_unknown_period_keeps_the_cached_windows() {
    let parsed = of_key(&json!({ "limit": 5, "limit_remaining": 5, "limit_reset": "hourly" }));

    assert_eq!((parsed.usage.windows, parsed.usage.coverage), (vec![], Coverage::Reported));
}

#[test]
fn requests_to_free_models_are_a_window_of_their_own() {
    let parsed =
        of_key(&json!({ "free_model_daily_requests": { "used": 10, "limit": 50, "remaining": 40 } }));

    let free = &parsed.usage.windows[0];
    assert_eq!((free.id.as_str(), free.used.as_f64()), ("1440_minutes_free_models", 20.0));
    assert_eq!(free.scope, Some(Scope::surface("free_models")));
}

#[test]
fn the_balance_is_what_remains_of_the_credits() {
    let credits = of_key(&json!({ "total_credits": 100.5, "total_usage": 25.75 })).usage.credits.unwrap();

    assert_eq!((credits.balance, credits.used, credits.unlimited), (dollars(7475), None, None));
}

#[test]
fn the_key_and_the_balance_are_joined() {
    let key = of_key(&json!({ "limit": 20, "limit_remaining": 15, "limit_reset": "daily" }));
    let balance = of_key(&json!({ "total_credits": 9, "total_usage": "1.5" }));

    let joined = key.join(balance).usage;

    let credits = joined.credits.unwrap();
    assert_eq!((credits.used, credits.limit, credits.balance), (dollars(500), dollars(2000), dollars(750)));
    assert_eq!(joined.windows.len(), 1);
}

#[test]
fn only_a_management_key_requests_the_balance() {
    let requests = |data: Value| {
        let body = json!({ "data": data }).to_string();
        let credential = Credential::new(quota_core::Secret::new("made-up"));
        credits_request(&credential, body.as_bytes()).unwrap().is_some()
    };

    assert!(!requests(json!({ "is_management_key": false })));
    assert!(!requests(json!({ "is_management_key": false, "is_provisioning_key": false })));
    assert!(requests(json!({ "is_management_key": true })));
    assert!(requests(json!({ "is_management_key": false, "is_provisioning_key": true })));
    assert!(requests(json!({})), "an older response does not state it");
}

#[test]
fn a_missing_limit_is_not_a_key_without_a_limit() {
    let balance = of_key(&json!({ "total_credits": 9, "total_usage": 1 }));

    assert_eq!(balance.usage.coverage, Coverage::complete());
    assert_eq!(of_key(&json!({})).join(balance).usage.coverage, Coverage::Reported);
    assert_eq!(of_key(&json!({ "limit": null })).usage.coverage, Coverage::complete());
}

#[test]
fn unreadable_amounts_keep_the_cached_readings() {
    let parsed = of_key(&json!({ "limit": 20, "limit_remaining": "some", "limit_reset": "daily" }));

    let except = vec![WindowId::new("1440_minutes").unwrap()];
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: false });
}

#[test]
fn an_error_in_a_successful_response_is_an_error() {
    let of = |body: &str| parse_usage(body.as_bytes(), NOW.parse().unwrap()).unwrap_err();

    assert_eq!(of(r#"{"error":{"code":401,"message":"made up"}}"#), ParseError::Unauthorized);
    assert_eq!(of(r#"{"error":{"code":429}}"#), ParseError::RateLimited);
    assert_eq!(of(r#"{"error":"made up"}"#), ParseError::ErrorResponse { kind: None });
    assert_eq!(of(r#"{"data":[]}"#), ParseError::NoUsage);
}

#[test]
fn the_owner_and_the_free_plan_are_read_and_an_unknown_field_is_listed() {
    let parsed =
        of_key(&json!({ "limit": null, "is_free_tier": true, "creator_user_id": "user_1", "new": 1 }));

    assert_eq!(parsed.usage.plan.as_deref(), Some("free"));
    assert_eq!(parsed.usage.owner_id, Some(OwnerId::new("user_1")));
    assert_eq!(parsed.skipped.len(), 1);
}

proptest! {
    #[test]
    fn a_malformed_sibling_keeps_the_limit(
        sibling in prop_oneof![Just(json!([])), Just(json!({ "used": "x", "limit": 1 })), Just(json!("x"))],
    ) {
        let parsed = of_key(&json!({
            "limit": 8, "limit_remaining": 6, "limit_reset": "daily", "free_model_daily_requests": sibling,
        }));

        prop_assert_eq!(parsed.usage.windows[0].used.as_f64(), 25.0);
    }

    #[test]
    fn the_end_of_a_period_is_after_now(seconds in 0..4_000_000_000_i64) {
        let now = Timestamp::from_second(seconds).unwrap();
        for period in [Period::Day, Period::Week, Period::Month] {
            prop_assert!(period.end(now).unwrap() > now);
        }
    }
}
