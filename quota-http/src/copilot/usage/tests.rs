use proptest::prelude::*;
use quota_core::model::{Coverage, Money};
use serde_json::{Value, json};

use super::*;

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), "2026-07-01T12:00:00Z".parse().unwrap()).unwrap()
}

fn of_quotas(quotas: Value) -> Parsed {
    parse(&json!({ "copilot_plan": "individual", "quota_snapshots": quotas }))
}

fn used(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

fn skipped(parsed: &Parsed) -> Vec<&str> {
    parsed.skipped.iter().map(|skipped| skipped.field.as_str()).collect()
}

#[test]
fn premium_requests_are_the_window_of_the_whole_account() {
    let parsed = parse(&json!({
        "copilot_plan": "business", "login": "octo", "quota_reset_date": "2026-08-01",
        "quota_snapshots": {
            "premium_interactions": { "entitlement": 300, "remaining": 240 },
            "chat": { "entitlement": 50, "remaining": 45 },
        },
    }));

    assert_eq!(used(&parsed), [("monthly", 20.0), ("monthly_chat", 10.0)]);
    let [premium, chat] = &parsed.usage.windows[..] else { panic!("two windows") };
    assert_eq!((&premium.scope, &chat.scope), (&None, &Some(Scope::surface("chat"))));
    assert_eq!(premium.resets_at, "2026-08-01T00:00:00Z".parse().ok());
    assert_eq!(parsed.usage.plan.as_deref(), Some("business"));
    assert_eq!(parsed.usage.owner_id, Some(OwnerId::new("octo")));
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except: vec![], credits: true });
    assert_eq!(parsed.skipped, []);
}

#[test]
fn a_negative_rest_is_more_than_the_limit() {
    let parsed = of_quotas(json!({
        "premium_interactions": { "entitlement": 100, "remaining": -50, "percent_remaining": 0 },
        "chat": { "percent_remaining": -15 },
    }));

    assert_eq!(used(&parsed), [("monthly", 150.0), ("monthly_chat", 115.0)]);
}

#[test]
fn the_exact_rest_counts_before_the_rounded_one() {
    let parsed = of_quotas(json!({
        "premium_interactions": { "entitlement": "300", "remaining": "240", "quota_remaining": "240.75" },
    }));

    assert_eq!(used(&parsed), [("monthly", 19.75)]);
}

#[test]
fn unlimited_is_neither_zero_nor_unknown() {
    for quota in [
        json!({ "unlimited": true, "entitlement": 0, "remaining": 0 }),
        json!({ "entitlement": -1, "remaining": -1 }),
    ] {
        let parsed = of_quotas(json!({ "premium_interactions": quota }));

        assert_eq!(parsed.usage.windows, [WindowReading::unlimited(WindowId::monthly())]);
    }
}

#[test]
fn an_entitlement_of_zero_is_no_quota() {
    let quota = json!({ "entitlement": 0, "remaining": 0, "percent_remaining": 100 });
    let parsed = of_quotas(json!({ "premium_interactions": quota }));

    assert_eq!(used(&parsed), []);
    assert_eq!(skipped(&parsed), ["quota_snapshots.premium_interactions"]);
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except: vec![], credits: true });
}

#[test]
fn a_quota_without_usage_keeps_its_cached_reading() {
    for quota in [json!({}), json!({ "entitlement": 5 }), json!({ "percent_remaining": "most" }), json!(7)] {
        let parsed = of_quotas(json!({ "chat": quota }));

        let except = vec![WindowId::new("monthly_chat").unwrap()];
        assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: true }, "{quota}");
        assert_eq!(used(&parsed), [], "{quota}");
    }
}

#[test]
fn the_free_plan_has_counts() {
    let parsed = parse(&json!({
        "copilot_plan": "free", "limited_user_reset_date": "2026-07-20",
        "monthly_quotas": { "chat": 50, "completions": "2000" },
        "limited_user_quotas": { "chat": "10", "completions": 500 },
    }));

    assert_eq!(used(&parsed), [("monthly_chat", 80.0), ("monthly_completions", 75.0)]);
    assert_eq!(parsed.usage.windows[0].resets_at, "2026-07-20T00:00:00Z".parse().ok());
}

#[test]
fn the_counts_are_read_beside_empty_snapshots() {
    for snapshots in [json!({}), json!({ "premium_interactions": { "entitlement": 0 } }), json!([])] {
        let parsed = parse(&json!({
            "quota_snapshots": snapshots,
            "monthly_quotas": { "chat": 50 }, "limited_user_quotas": { "chat": 10 },
        }));

        assert_eq!(used(&parsed), [("monthly_chat", 80.0)]);
    }
}

#[test]
fn a_count_without_its_limit_keeps_the_cached_reading() {
    let of = |limits: Value| {
        parse(&json!({ "monthly_quotas": limits, "limited_user_quotas": { "chat": 10 } })).usage.coverage
    };

    let except = vec![WindowId::new("monthly_chat").unwrap()];
    let expected = Coverage::Complete { except, credits: true };
    assert_eq!(of(json!(null)), expected);
    assert_eq!(of(json!({ "chat": null })), expected);
    assert_eq!(parse(&json!({ "limited_user_quotas": 7 })).usage.coverage, Coverage::Reported);
}

#[test]
fn an_entitlement_of_zero_with_some_use_is_a_quota() {
    let parsed = of_quotas(json!({ "chat": { "entitlement": 0, "percent_remaining": 40 } }));

    assert_eq!(used(&parsed), [("monthly_chat", 60.0)]);
}

#[test]
fn an_empty_reset_date_is_missing() {
    let parsed = parse(&json!({
        "quota_reset_date": "", "quota_snapshots": { "chat": { "percent_remaining": 40 } },
    }));

    assert_eq!(parsed.usage.windows[0].resets_at, None);
}

#[test]
fn requests_beyond_the_quota_are_credits() {
    let of = |premium: Value| of_quotas(json!({ "premium_interactions": premium })).usage.credits;
    let extra = of(json!({ "unlimited": true, "overage_permitted": true, "overage_count": 12 })).unwrap();
    let billed = of(json!({ "unlimited": true, "credits_used": 31 })).unwrap();

    assert_eq!((extra.enabled, extra.used), (Some(true), Some(Money::new(12, "requests", 0))));
    assert_eq!((billed.enabled, billed.used), (None, Some(Money::new(3100, "credits", 2))));
    assert_eq!(of(json!({ "unlimited": true })), None);
}

#[test]
fn unreadable_credits_keep_the_cached_ones() {
    let parsed = of_quotas(json!({ "premium_interactions": { "unlimited": true, "credits_used": [] } }));

    assert_eq!(parsed.usage.coverage, Coverage::Complete { except: vec![], credits: false });
}

#[test]
fn an_unknown_field_is_listed() {
    let parsed =
        parse(&json!({ "new": 1, "quota_snapshots": { "chat": { "unlimited": true, "also_new": 2 } } }));

    assert_eq!(skipped(&parsed), ["quota_snapshots.chat.also_new", "new"]);
}

proptest! {
    #[test]
    fn a_malformed_quota_never_affects_another_one(
        sibling in prop_oneof![Just(json!(null)), Just(json!([])), Just(json!({ "entitlement": {} })), Just(json!("x"))],
        name in "[a-z_]{1,20}",
    ) {
        prop_assume!(name != "kept");
        let parsed = of_quotas(json!({ name: sibling, "kept": { "entitlement": 8, "remaining": 6 } }));

        prop_assert_eq!(used(&parsed), [("monthly_kept", 25.0)]);
    }
}
