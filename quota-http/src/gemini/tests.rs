use proptest::prelude::*;
use quota_core::{Policy, Secret};

use serde_json::Value;

use super::*;

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn second(first: &Value) -> Result<Option<UsageRequest>, FetchError> {
    quota_request(&Credential::new(Secret::new("made-up")), first.to_string().as_bytes())
}

fn readings(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

#[test]
fn each_model_has_a_window_of_its_own() {
    let parsed = parse(&json!({ "buckets": [
        { "modelId": "gemini-9-pro", "remainingFraction": 0.8, "resetTime": "2026-07-01T12:00:00Z", "tokenType": "REQUESTS" },
        { "modelId": "gemini-9-flash", "remainingFraction": 1 },
    ] }));

    assert_eq!(readings(&parsed), [("quota/gemini-9-flash", 0.0), ("quota/gemini-9-pro", 20.0)]);
    let pro = &parsed.usage.windows[1];
    assert_eq!(pro.resets_at, "2026-07-01T12:00:00Z".parse().ok());
    assert!(pro.scope.as_ref().unwrap().applies_to(Some("gemini-9-pro")));
    assert_eq!((pro.length, parsed.skipped), (None, vec![]));
}

#[test]
fn the_emptiest_bucket_of_a_model_counts() {
    let bucket = |left: Value| json!({ "modelId": "m", "remainingFraction": left });

    let parsed =
        parse(&json!({ "buckets": [bucket(json!(0.9)), bucket(json!("0.25")), bucket(json!(0.5))] }));

    assert_eq!(readings(&parsed), [("quota/m", 75.0)]);
    assert_eq!(parsed.skipped, []);
}

#[test]
fn a_missing_fraction_is_unknown() {
    let parsed = parse(&json!({ "buckets": [
        { "modelId": "a", "remainingAmount": "5" },
        { "remainingFraction": 1 },
        { "modelId": "b", "remainingFraction": 1, "color": 1 },
    ] }));

    assert_eq!(readings(&parsed), [("quota/b", 0.0)]);
    let listed: Vec<_> = parsed.skipped.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(listed, ["buckets[0]", "buckets[1]", "buckets[2].color"]);
}

#[test]
fn the_first_response_has_the_plan() {
    let parsed = parse(&json!({ "currentTier": { "id": "made-up-tier" }, "paidTier": { "name": "Big" } }));
    assert_eq!(parsed.usage.plan.as_deref(), Some("Big"));

    let parsed = parse(&json!({ "currentTier": { "id": "made-up-tier" } }));
    assert_eq!(parsed.usage.plan.as_deref(), Some("made-up-tier"));
}

#[test]
fn of_two_equal_buckets_the_later_reset_counts() {
    let bucket = |reset| json!({ "modelId": "m", "remainingFraction": 0.5, "resetTime": reset });

    let parsed = parse(&json!({ "buckets": [bucket(json!(5)), bucket(json!(9)), bucket(json!(null))] }));

    assert_eq!(parsed.usage.windows[0].resets_at, Timestamp::from_second(9).ok());
}

#[test]
fn an_unknown_field_of_the_first_response_is_listed() {
    let parsed = parse(&json!({ "currentTier": { "id": "tier", "mascot": 1 }, "new": 1 }));

    let listed: Vec<_> = parsed.skipped.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(listed, ["new"]);
}

#[test]
fn the_second_request_names_the_project() {
    for project in [json!("made-up-1"), json!({ "id": "made-up-1" })] {
        let request = second(&json!({ "cloudaicompanionProject": project })).unwrap().unwrap();

        assert_eq!(request.path, "v1internal:retrieveUserQuota");
        assert!(request.body.is_some() && request.invalid.is_none());
    }
}

#[test]
fn an_account_without_a_project_is_forbidden() {
    let moved = json!({ "ineligibleTiers": [{ "reasonCode": "UNSUPPORTED_CLIENT" }] });
    let errors = [second(&json!({ "currentTier": {} })), second(&moved)].map(Result::unwrap_err);

    assert!(errors.iter().all(|error| matches!(error, FetchError::Forbidden { .. })), "{errors:?}");
    assert!(errors[1].to_string().contains("Antigravity"), "{}", errors[1]);
}

#[test]
fn a_call_costs_two_of_the_budget() {
    let policy = PROVIDER.policy(Policy::default());

    assert_eq!(policy.budget.per_hour, Policy::default().budget.per_hour / 2);
}

#[test]
fn an_error_is_not_usage() {
    let of = |error: Value| {
        let body = json!({ "error": error }).to_string();
        parse_usage(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err()
    };
    let other = |kind| ParseError::ErrorResponse { kind };

    assert_eq!(of(json!({ "code": 401 })), ParseError::Unauthorized);
    assert_eq!(of(json!({ "status": "RESOURCE_EXHAUSTED" })), ParseError::RateLimited);
    assert_eq!(of(json!({ "status": "UNAVAILABLE" })), other(Some("UNAVAILABLE")));
    let details = json!([{}, { "reason": "MODEL_CAPACITY_EXHAUSTED" }]);
    assert_eq!(of(json!({ "code": 503, "details": details })), other(Some("MODEL_CAPACITY_EXHAUSTED")));
    assert_eq!(of(json!({ "status": "n33dle" })), other(None));
}

proptest! {
    #[test]
    fn there_are_never_more_windows_than_buckets(
        buckets in prop::collection::vec(("[a-z-]{0,4}", prop_oneof![Just(json!(null)), (-2.0..9.0_f64).prop_map(|left| json!(left))]), 0..12),
    ) {
        let some = buckets.iter().map(|(model, left)| json!({ "modelId": model, "remainingFraction": left }));
        let buckets: Vec<_> = some.chain([json!({ "modelId": "kept", "remainingFraction": 0.75 })]).collect();

        let parsed = parse(&json!({ "buckets": buckets }));

        prop_assert!(parsed.usage.windows.len() <= buckets.len());
        prop_assert!(readings(&parsed).iter().any(|(id, used)| *id == "quota/kept" && *used >= 25.0));
    }
}
