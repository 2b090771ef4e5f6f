use std::time::Duration;

use proptest::prelude::*;
use quota_core::model::{Coverage, Credits, Money};
use serde_json::{Value, json};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), now()).unwrap()
}

fn error_of(body: &str) -> ParseError {
    parse_usage(body.as_bytes(), now()).unwrap_err()
}

fn ids(parsed: &Parsed) -> Vec<&str> {
    parsed.usage.windows.iter().map(|window| window.id.as_str()).collect()
}

fn skipped(parsed: &Parsed) -> Vec<&str> {
    parsed.skipped.iter().map(|skipped| skipped.field.as_str()).collect()
}

fn window(used: f64, hours: u64) -> Value {
    json!({ "used_percent": used, "limit_window_seconds": hours * 3600, "reset_at": 1_782_925_200 })
}

fn credits_of(body: &Value) -> Option<Credits> {
    parse(body).usage.credits
}

fn amount(minor: i64) -> Option<Money> {
    Some(Money::new(minor, "credits", 2))
}

#[test]
fn windows_are_named_by_their_length() {
    let body = json!({ "rate_limit": {
        "allowed": true, "limit_reached": false,
        "primary_window": window(28.0, 5), "secondary_window": window(73.5, 168), "tertiary_window": window(1.0, 720),
    } });

    let parsed = parse(&body);

    assert_eq!(ids(&parsed), ["five_hour", "monthly", "seven_day"]);
    let week = &parsed.usage.windows[2];
    assert_eq!((week.used.as_f64(), week.length, &week.scope), (73.5, Some(HOUR * 168), &None));
    assert_eq!(week.resets_at, "2026-07-01T17:00:00Z".parse().ok());
    assert_eq!(parsed.skipped, []);
}

#[test]
fn a_week_in_the_first_field_is_the_seven_day_window() {
    let body = json!({ "rate_limit": { "primary_window": window(63.0, 168), "secondary_window": null } });

    assert_eq!(ids(&parse(&body)), ["seven_day"]);
}

#[test]
fn a_window_with_null_usage_is_unknown_and_an_empty_one_absent() {
    let coverage = |window: Value| {
        parse(&json!({ "plan_type": "pro", "rate_limit": { "primary_window": window } })).usage.coverage
    };

    let unknown = json!({ "used_percent": null, "limit_window_seconds": 18_000, "reset_at": 1_782_907_200 });
    assert_eq!(coverage(unknown), Coverage::complete_except([WindowId::five_hour()]));
    let empty = json!({ "used_percent": null, "limit_window_seconds": null, "reset_at": null });
    assert_eq!(coverage(empty), Coverage::complete());
}

#[test]
fn an_unusual_length_becomes_the_name() {
    let body = json!({ "rate_limit": { "secondary_window": window(17.0, 9) } });

    assert_eq!(ids(&parse(&body)), ["540_minutes"]);
}

#[test]
fn a_window_without_a_length_has_the_name_of_its_field() {
    let body =
        json!({ "rate_limit": { "primary_window": { "used_percent": 9, "reset_after_seconds": 7200 } } });

    let parsed = parse(&body);

    assert_eq!(ids(&parsed), ["primary_window"]);
    assert_eq!(parsed.usage.windows[0].length, None);
    assert_eq!(parsed.usage.windows[0].resets_at, "2026-07-01T14:00:00Z".parse().ok());
}

#[test]
fn a_window_of_zeros_does_not_exist() {
    let body = json!({ "plan_type": "free", "rate_limit": {
        "primary_window": { "used_percent": 0, "limit_window_seconds": 0, "reset_at": 0 }
    } });

    assert_eq!(ids(&parse(&body)), [""; 0]);
}

#[test]
fn a_malformed_window_keeps_its_cached_reading_and_the_other_one() {
    let body = json!({ "rate_limit": {
        "primary_window": window(18.0, 5),
        "secondary_window": { "used_percent": "bad", "limit_window_seconds": 604_800 },
    } });

    let parsed = parse(&body);

    assert_eq!(ids(&parsed), ["five_hour"]);
    assert_eq!(skipped(&parsed), ["rate_limit.secondary_window"]);
    assert_eq!(parsed.usage.coverage, Coverage::complete_except([WindowId::seven_day()]));
}

#[test]
fn a_window_that_cannot_be_named_covers_nothing() {
    for malformed in [json!(7), json!([]), json!({ "used_percentage": 5 }), json!("soon")] {
        let body =
            json!({ "rate_limit": { "primary_window": window(18.0, 5), "secondary_window": malformed } });

        let parsed = parse(&body);

        assert_eq!(parsed.usage.coverage, Coverage::Reported, "{malformed}");
        assert_eq!(ids(&parsed), ["five_hour"], "{malformed}");
    }
}

#[test]
fn the_limit_of_a_model_is_its_own_window() {
    let body = json!({
        "rate_limit": { "primary_window": window(63.0, 168) },
        "additional_rate_limits": [
            { "limit_name": "Tiny Model", "metered_feature": "tiny", "rate_limit": { "primary_window": window(5.0, 168) } },
            { "limit_name": null, "metered_feature": "codex_small", "rate_limit": { "primary_window": window(6.0, 5) } },
        ],
    });

    let parsed = parse(&body);

    assert_eq!(ids(&parsed), ["five_hour/codex_small", "seven_day", "seven_day/tiny-model"]);
    assert_eq!(parsed.usage.windows[2].scope, Some(Scope::model("Tiny Model")));
}

#[test]
fn the_limit_of_code_reviews_is_a_surface() {
    let body = json!({ "code_review_rate_limit": { "primary_window": window(5.0, 168) } });

    let parsed = parse(&body);

    assert_eq!(ids(&parsed), ["seven_day_code_review"]);
    assert_eq!(parsed.usage.windows[0].scope, Some(Scope::surface("code_review")));
}

#[test]
fn a_limit_of_one_user_is_a_window_and_credits() {
    let body = json!({ "rate_limit": null, "spend_control": { "reached": false, "individual_limit": {
        "limit": "1000", "used": "36.79748725891113", "used_percent": 4, "reset_at": 1_782_925_200
    } } });

    let parsed = parse(&body);

    assert_eq!(ids(&parsed), ["individual_limit"]);
    assert_eq!((parsed.usage.windows[0].used.as_f64(), parsed.usage.windows[0].length), (4.0, None));
    let credits = parsed.usage.credits.unwrap();
    assert_eq!((credits.used, credits.limit, credits.balance), (amount(3680), amount(100_000), None));
}

#[test]
fn the_use_of_an_individual_limit_is_read_in_every_form() {
    for (limit, used) in [
        (json!({ "remaining_percent": 92.25 }), 7.75),
        (json!({ "limit": 400, "used": "100" }), 25.0),
        (json!({ "used_percent": 4, "remaining_percent": 50 }), 4.0),
    ] {
        let parsed = parse(&json!({ "rate_limit": { "individual_limit": limit } }));

        assert_eq!(parsed.usage.windows[0].used.as_f64(), used, "{limit}");
    }
}

#[test]
fn an_individual_limit_beside_windows_is_only_credits() {
    let limit = json!({ "limit": "1000", "used": "990", "used_percent": 99 });
    for body in [
        json!({ "rate_limit": { "individual_limit": limit, "primary_window": window(5.0, 5) } }),
        json!({
            "rate_limit": { "primary_window": window(5.0, 5) }, "spend_control": { "individual_limit": limit }
        }),
    ] {
        let parsed = parse(&body);

        assert_eq!((ids(&parsed), skipped(&parsed)), (vec!["five_hour"], vec![]), "{body}");
        assert_eq!(parsed.usage.credits.unwrap().used, amount(99_000));
    }
    let of_a_model = json!({
        "spend_control": { "individual_limit": limit },
        "additional_rate_limits": [{ "limit_name": "Tiny", "rate_limit": { "primary_window": window(5.0, 168) } }],
    });
    assert_eq!(ids(&parse(&of_a_model)), ["individual_limit", "seven_day/tiny"]);
}

#[test]
fn an_individual_limit_without_use_is_unknown() {
    let parsed = parse(&json!({ "rate_limit": { "individual_limit": { "limit": "1000" } } }));

    assert_eq!(ids(&parsed), [""; 0]);
    let except = WindowId::new("individual_limit").unwrap();
    assert_eq!(parsed.usage.coverage, Coverage::complete_except([except]));
}

#[test]
fn unlimited_zero_unknown_and_absent_credits_differ() {
    let of = |credits: Value| credits_of(&json!({ "plan_type": "pro", "credits": credits }));
    let mut unlimited = Credits::default();
    unlimited.unlimited = Some(true);
    let mut zero = Credits::default();
    zero.balance = Some(Money::new(0, "credits", 2));
    let mut unknown = Credits::default();
    unknown.enabled = Some(true);

    assert_eq!(of(json!({ "unlimited": true, "balance": null })), Some(unlimited));
    assert_eq!(of(json!({ "balance": "0" })), Some(zero));
    assert_eq!(of(json!({ "has_credits": true, "balance": null })), Some(unknown));
    assert_eq!(of(json!(null)), None);
}

#[test]
fn an_unreadable_balance_keeps_the_cached_credits() {
    let body = json!({
        "rate_limit": { "primary_window": window(22.0, 5) }, "credits": { "has_credits": false, "balance": [] }
    });

    let parsed = parse(&body);

    assert_eq!((ids(&parsed), skipped(&parsed)), (vec!["five_hour"], vec!["credits"]));
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except: Vec::new(), credits: false });
}

#[test]
fn the_plan_is_read_and_unknown_fields_are_listed() {
    let body = json!({
        "plan_type": "prolite", "email": "me@example.com", "new_limit": { "used": 1 }, "nothing": null,
        "rate_limit": { "burst": { "count": 3 } },
    });

    let parsed = parse(&body);

    assert_eq!(parsed.usage.plan.as_deref(), Some("prolite"));
    assert_eq!(skipped(&parsed), ["rate_limit.burst", "new_limit"]);
}

#[test]
fn an_error_response_has_its_type() {
    for (body, kind) in [
        (r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":7}}"#, Some("usage_limit_reached")),
        (r#"{"type":"error","body":{"error":{"type":"usage_limit_reached"}}}"#, Some("usage_limit_reached")),
        (r#"{"error":{"code":"token_expired"}}"#, Some("token_expired")),
        (r#"{"error":"n33dle"}"#, None),
        (r#"{"detail":"Unauthorized"}"#, None),
    ] {
        let error = error_of(body);

        assert_eq!(error, ParseError::ErrorResponse { kind }, "{body}");
        assert!(!error.to_string().contains("n33dle"));
    }
}

#[test]
fn a_body_that_is_not_an_object_is_an_error() {
    assert_eq!((error_of("{}"), error_of("[]")), (ParseError::NoUsage, ParseError::NotAnObject));
    assert!(matches!(error_of("<html>"), ParseError::NotJson { .. }));
}

#[test]
fn more_windows_than_an_account_has_are_an_error() {
    let rows: Vec<_> = (0..200)
        .map(|at| json!({ "limit_name": format!("m{at}"), "rate_limit": { "primary_window": window(1.0, 5) } }))
        .collect();

    let body = json!({ "additional_rate_limits": rows }).to_string();

    assert_eq!(error_of(&body), ParseError::TooManyWindows);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(field_name(), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "used_percent",
        "limit_window_seconds",
        "reset_at",
        "reset_after_seconds",
        "primary_window",
        "secondary_window",
        "individual_limit",
        "limit_name",
        "rate_limit",
        "credits",
        "balance",
        "unlimited",
        "limit",
        "used",
        "new",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn a_malformed_sibling_never_changes_a_good_window(sibling in any_json(), used in 0.0..100.0_f64) {
        let body = json!({
            "rate_limit": { "primary_window": window(used, 5), "secondary_window": sibling.clone() },
            "additional_rate_limits": [sibling.clone()], "credits": sibling.clone(), "spend_control": sibling,
        });

        let Ok(parsed) = parse_usage(body.to_string().as_bytes(), now()) else {
            return Err(TestCaseError::fail("the good window was lost"));
        };

        let good = parsed.usage.windows.iter().find(|window| window.id == WindowId::five_hour());
        prop_assert!(good.is_some_and(|good| good.used >= Percent::from_percent(used).unwrap()));
    }

    #[test]
    fn no_body_panics_or_gives_more_windows_than_it_names(body in any_json()) {
        let text = body.to_string();

        if let Ok(parsed) = parse_usage(text.as_bytes(), now()) {
            let named = text.matches("used_percent").count() + text.matches("remaining_percent").count()
                + text.matches("individual_limit").count();
            prop_assert!(parsed.usage.windows.len() <= named);
        }
    }

    #[test]
    fn a_missing_use_is_unknown_and_never_zero_or_full(hours in 1..800_u64, null in any::<bool>()) {
        let mut window = window(0.0, hours);
        window.as_object_mut().unwrap().remove("used_percent");
        if null {
            window["used_percent"] = Value::Null;
        }

        let parsed = parse(&json!({ "plan_type": "pro", "rate_limit": { "primary_window": window } }));

        prop_assert_eq!(&parsed.usage.windows, &[]);
        prop_assert_eq!(parsed.skipped.len(), 1);
    }

    #[test]
    fn an_unknown_window_keeps_its_own_name(name in "[a-z][a-z_]{0,20}", used in 1.0..100.0_f64) {
        prop_assume!(!["allowed", "limit_reached", "individual_limit"].contains(&&*name));

        let parsed = parse(&json!({ "rate_limit": { name.as_str(): { "used_percent": used } } }));

        prop_assert_eq!(ids(&parsed), [name.as_str()]);
    }

    #[test]
    fn numbers_may_be_texts(used in 0.0..1_000.0_f64, hours in 1..800_u64, reset in 1_700_000_000..1_900_000_000_i64) {
        let numbers = json!({ "used_percent": used, "limit_window_seconds": hours * 3600, "reset_at": reset });
        let texts = json!({
            "used_percent": used.to_string(), "limit_window_seconds": (hours * 3600).to_string(),
            "reset_at": reset.to_string(),
        });
        let of = |window: Value| parse(&json!({ "rate_limit": { "primary_window": window } }));

        prop_assert_eq!(of(numbers), of(texts));
    }
}
