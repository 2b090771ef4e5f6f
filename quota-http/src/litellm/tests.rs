use proptest::prelude::*;
use quota_core::Secret;
use quota_core::model::Coverage;
use serde_json::{Value, json};

use super::*;

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn of_key(info: &Value) -> Parsed {
    parse(&json!({ "key": "made-up", "info": info }))
}

fn of_user(info: &Value) -> Parsed {
    parse(&json!({ "user_id": "u-1", "user_info": info, "keys": [], "teams": [] }))
}

fn used(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

fn dollars(cents: i64) -> Option<Money> {
    Some(Money::new(cents, "USD", 2))
}

#[test]
fn a_budget_is_the_window_of_its_length() {
    for (duration, id) in [
        (json!("7d"), "seven_day"),
        (json!("1w"), "seven_day"),
        (json!("30d"), "monthly"),
        (json!("1mo"), "monthly"),
        (json!("24h"), "1440_minutes"),
        (json!("90m"), "90_minutes"),
        (json!(null), "key_budget"),
    ] {
        let parsed = of_key(&json!({ "spend": 3, "max_budget": "4", "budget_duration": duration }));

        assert_eq!(used(&parsed), [(id, 75.0)]);
    }
}

#[test]
fn a_period_that_cannot_be_read_keeps_the_cached_windows() {
    for duration in [json!("soon"), json!("0d"), json!("2mo"), json!("99999999999999999999d"), json!(7)] {
        let parsed = of_key(&json!({ "spend": 3, "max_budget": 4, "budget_duration": duration }));

        assert_eq!((parsed.usage.windows, parsed.usage.coverage), (vec![], Coverage::Reported), "{duration}");
    }
}

#[test]
fn the_reset_is_read_and_more_than_the_budget_stays() {
    let info = json!({ "spend": 12, "max_budget": 10, "budget_duration": "7d", "budget_reset_at": "2026-07-06T00:00:00Z" });

    let window = &of_key(&info).usage.windows[0];

    assert_eq!((window.used.as_f64(), window.resets_at), (120.0, "2026-07-06T00:00:00Z".parse().ok()));
    assert_eq!(window.length, Some(Duration::from_secs(7 * 24 * 3600)));
}

#[test]
fn no_budget_a_budget_of_zero_and_an_unknown_budget_differ() {
    let unlimited = of_key(&json!({ "spend": 3, "max_budget": null }));
    let zero = of_key(&json!({ "spend": 0, "max_budget": 0 }));
    let unknown = of_key(&json!({ "spend": 3 }));

    assert_eq!(unlimited.usage.windows, [WindowReading::unlimited(WindowId::new("key_budget").unwrap())]);
    assert_eq!(used(&zero), [("key_budget", 100.0)]);
    assert_eq!(used(&unknown), []);
    let limits = [unlimited, zero, unknown].map(|parsed| {
        let credits = parsed.usage.credits.unwrap();
        (credits.unlimited, credits.limit)
    });
    assert_eq!(limits, [(Some(true), None), (Some(false), dollars(0)), (None, None)]);
}

#[test]
fn the_budgets_of_the_key_and_the_user_are_two_windows() {
    let key = of_key(&json!({ "spend": 1.25, "max_budget": 5, "budget_duration": "30d", "user_id": "u-1" }));
    let user = of_user(&json!({ "spend": 30.499, "max_budget": 60, "budget_duration": "30d" }));

    let joined = key.join(user);

    assert_eq!(used(&joined), [("monthly", 25.0), ("monthly_user", 50.83)]);
    let credits = joined.usage.credits.unwrap();
    assert_eq!((credits.used, credits.limit), (dollars(125), dollars(500)));
}

#[test]
fn the_amounts_of_two_budgets_are_not_mixed() {
    let key = of_key(&json!({ "spend": 1, "max_budget": null, "user_id": "u-1" }));
    let user = of_user(&json!({ "spend": 30, "max_budget": 60 }));

    let credits = key.join(user).usage.credits.unwrap();

    assert_eq!((credits.used, credits.limit), (dollars(3000), dollars(6000)));
}

#[test]
fn a_team_has_a_window_of_its_own() {
    let info = json!({ "team_id": "t-1", "spend": 1, "max_budget": 4, "budget_duration": "7d" });
    let parsed = parse(&json!({ "team_id": "t-1", "team_info": info, "keys": [] }));

    assert_eq!(used(&parsed), [("seven_day_team", 25.0)]);
}

#[test]
fn a_shared_budget_applies_if_the_key_has_none_of_its_own() {
    let shared = json!({ "max_budget": 8, "budget_duration": "7d" });
    let of = |own: Value| {
        of_key(&json!({
            "spend": 2, "max_budget": own, "budget_duration": null, "litellm_budget_table": &shared,
        }))
    };

    assert_eq!(used(&of(json!(null))), [("seven_day", 25.0)]);
    assert_eq!(used(&of(json!(4))), [("seven_day", 50.0)]);
}

#[test]
fn a_missing_budget_keeps_the_cached_windows() {
    assert_eq!(of_key(&json!({ "spend": 3 })).usage.coverage, Coverage::Reported);
    assert_eq!(of_key(&json!({ "max_budget": null })).usage.coverage, Coverage::complete());
}

#[test]
fn a_month_has_no_fixed_length() {
    // The first day of a month with 31 days.
    let now = "2026-07-01T00:00:00Z".parse().unwrap();
    let reset = "2026-08-01T00:00:00Z";
    let info = json!({ "spend": 1, "max_budget": 4, "budget_duration": "30d", "budget_reset_at": reset });

    let mut usage = of_key(&info).usage;
    assert_eq!(usage.reject_implausible(now), []);

    assert_eq!(usage.windows[0].resets_at, reset.parse().ok());
}

#[test]
fn a_budget_with_an_unknown_use_does_not_get_that_of_its_owner() {
    let key = of_key(&json!({ "spend": null, "max_budget": 5, "user_id": "u-1" }));
    let user = of_user(&json!({ "spend": 30, "max_budget": 60 }));

    let usage = key.join(user).usage;

    assert_eq!(usage.credits, None);
    let except = vec![WindowId::new("key_budget").unwrap()];
    assert_eq!(usage.coverage, Coverage::Complete { except, credits: false });
    assert_eq!(usage.windows[0].id.as_str(), "user_budget");
}

#[test]
fn an_unknown_field_is_listed() {
    let parsed = of_key(&json!({ "spend": 1, "max_budget": 4, "tpm_limit": 5, "new": 1 }));

    let listed: Vec<_> = parsed.skipped.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(listed, ["info.new"]);
}

#[test]
fn a_blocked_key_is_disabled() {
    let credits = of_key(&json!({ "spend": 1, "max_budget": 4, "blocked": true })).usage.credits.unwrap();

    assert_eq!((credits.enabled, credits.disabled_reason.as_deref()), (Some(false), Some("blocked")));
}

#[test]
fn the_teams_of_a_user_are_listed() {
    let parsed =
        parse(&json!({ "user_info": { "spend": 1, "max_budget": 4 }, "teams": [{ "max_budget": 5 }] }));

    assert_eq!(used(&parsed), [("user_budget", 25.0)]);
    assert_eq!(parsed.skipped[0].field, "teams");
}

#[test]
fn unreadable_amounts_keep_the_cached_readings() {
    let parsed = of_key(&json!({ "spend": "much", "max_budget": 4 }));

    let except = vec![WindowId::new("key_budget").unwrap()];
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: false });
}

#[test]
fn an_error_in_a_successful_response_is_an_error() {
    let of = |body: &str| parse_usage(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err();

    assert_eq!(of(r#"{"error":{"message":"made up"}}"#), ParseError::ErrorResponse { kind: None });
    assert_eq!(of(r#"{"detail":"made up"}"#), ParseError::NoUsage);
}

#[test]
fn the_second_request_is_for_the_team_or_the_user() {
    let second = |info: Value| {
        let body = json!({ "info": info }).to_string();
        let request = owner_request(&Credential::new(Secret::new("made-up")), body.as_bytes()).unwrap()?;
        Some((request.path.to_string(), request.query[0].1.to_string()))
    };

    assert_eq!(second(json!({ "team_id": "t", "user_id": "u" })), Some(("team/info".into(), "t".into())));
    assert_eq!(second(json!({ "team_id": null, "user_id": "u" })), Some(("user/info".into(), "u".into())));
    assert_eq!(second(json!({ "user_id": null })), None);
}

proptest! {
    #[test]
    fn a_budget_never_has_more_than_one_window(
        spend in any::<f64>(), budget in any::<f64>(), duration in "[0-9]{0,6}(s|m|h|d|w|mo|x)?",
    ) {
        let parsed = of_user(&json!({ "spend": spend, "max_budget": budget, "budget_duration": duration }));

        prop_assert!(parsed.usage.windows.len() <= 1);
        prop_assert!(parsed.usage.windows.iter().all(|window| window.used <= Percent::MAX));
    }
}
