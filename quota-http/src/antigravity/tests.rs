use proptest::prelude::*;

use serde_json::Value;

use super::*;

fn parse(body: &Value) -> Parsed {
    parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn of_buckets(buckets: &Value) -> Parsed {
    parse(&json!({ "groups": [{ "displayName": "Some Models", "buckets": buckets }] }))
}

fn saved(body: &Value) -> SavedDocument {
    PROVIDER.parse_saved(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn readings(parsed: &Parsed) -> Vec<(&str, f64)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
}

#[test]
fn windows_are_named_by_their_length_and_group() {
    let parsed = of_buckets(&json!([
        { "bucketId": "gemini-5h", "window": "5h", "remainingFraction": 0.5, "resetTime": "2026-07-01T12:00:00Z" },
        { "bucketId": "gemini-weekly", "window": "weekly", "remainingFraction": "0.25" },
        { "bucketId": "3p-weekly", "remainingFraction": 1 },
        { "bucketId": "3p-hourly", "remainingFraction": 0.75 },
    ]));

    let expected =
        [("3p-hourly", 25.0), ("five_hour/gemini", 50.0), ("seven_day/gemini", 75.0), ("seven_day_3p", 0.0)];
    assert_eq!(readings(&parsed), expected);
    assert_eq!(parsed.usage.windows[1].resets_at, "2026-07-01T12:00:00Z".parse().ok());
    assert_eq!(parsed.usage.windows[2].length, Some(Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(parsed.usage.windows[3].scope, Some(Scope::surface("Some Models")));
    assert_eq!(parsed.skipped, []);
}

#[test]
fn the_remaining_fraction_has_three_forms() {
    let forms = [
        json!({ "remainingFraction": 0.5 }),
        json!({ "remaining": { "remainingFraction": 0.5 } }),
        json!({ "remaining": { "case": "remainingFraction", "value": 0.5 } }),
    ];
    for mut form in forms {
        form["bucketId"] = json!("gemini-5h");

        let parsed = parse(&json!({ "response": { "groups": [{ "buckets": [form] }] } }));

        assert_eq!(readings(&parsed), [("five_hour/gemini", 50.0)]);
    }
}

#[test]
fn a_missing_fraction_is_unknown_and_a_disabled_limit_is_none() {
    let parsed = of_buckets(&json!([
        { "bucketId": "gemini-weekly" },
        { "bucketId": "gemini-5h", "disabled": true, "remainingFraction": 0.5 },
        { "bucketId": "3p-5h", "remaining": { "case": "other", "value": 1 } },
    ]));

    assert!(parsed.usage.windows.is_empty());
    let reasons: Vec<_> = parsed.skipped.iter().map(|one| one.reason).collect();
    assert_eq!(reasons, ["it has no usage", "it is disabled", "it has no usage"]);
}

#[test]
fn a_list_of_models_has_one_limit_for_each() {
    let saved = saved(&json!({ "models": {
        "gemini-9": { "quotaInfo": { "remainingFraction": 0.25, "resetTime": 1_790_000_000 } },
        "claude-9": { "quotaInfoByTier": {
            "a": { "remainingFraction": 0.5, "resetTime": 5 }, "b": { "remainingFraction": 0.2, "resetTime": 7 },
        } },
        "gpt-9": { "quotaInfo": { "isExhausted": true } },
        "gpt-8": { "quotaInfo": { "resetTime": 1_790_000_000 } },
        "gpt-7": {},
        "completion": { "quotaInfo": { "remainingFraction": 0 } },
    } }));

    let expected = [("quota/claude-9", 80.0), ("quota/gemini-9", 75.0), ("quota/gpt-9", 100.0)];
    assert_eq!((saved.kind, readings(&saved.parsed)), ("models", expected.to_vec()));
    assert_eq!(saved.parsed.usage.windows[1].resets_at, Timestamp::from_second(1_790_000_000).ok());
    let mut listed: Vec<_> = saved.parsed.skipped.iter().map(|one| one.field.as_str()).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["models.completion", "models.gpt-7", "models.gpt-8"]);
}

#[test]
fn a_malformed_group_keeps_the_cached_windows() {
    let good = json!({ "buckets": [{ "bucketId": "gemini-5h", "remainingFraction": 0.5 }] });

    let parsed = parse(&json!({ "groups": [7, good] }));

    assert_eq!(readings(&parsed), [("five_hour/gemini", 50.0)]);
    assert_eq!(parsed.usage.coverage, quota_core::model::Coverage::Reported);
}

#[test]
fn a_fraction_of_null_does_not_hide_the_other_form() {
    let bucket = json!({ "bucketId": "gemini-5h", "remainingFraction": null, "remaining": { "remainingFraction": 0.5 } });

    assert_eq!(readings(&of_buckets(&json!([bucket]))), [("five_hour/gemini", 50.0)]);
}

#[test]
fn a_model_without_a_reset_only_helps_the_editor() {
    let saved = saved(&json!({ "models": {
        "gemini-tab": { "quotaInfo": { "remainingFraction": 1 } },
        "new-family-1": { "quotaInfo": { "remainingFraction": 0.5, "resetTime": 1_790_000_000 } },
        "autocomplete": { "quotaInfo": { "remainingFraction": 0.5, "resetTime": 1_790_000_000 } },
    } }));

    assert_eq!(readings(&saved.parsed), [("quota/new-family-1", 50.0)]);
    assert_eq!(saved.parsed.skipped.len(), 2);
}

#[test]
fn of_two_equal_limits_the_later_reset_counts() {
    let limit = |reset: i64| json!({ "remainingFraction": 0.5, "resetTime": reset });
    let saved = saved(&json!({ "models": { "m": { "quotaInfoByTier": { "a": limit(9), "b": limit(5) } } } }));

    assert_eq!(saved.parsed.usage.windows[0].resets_at, Timestamp::from_second(9).ok());
}

#[test]
fn an_error_is_not_usage() {
    let error = parse_usage(br#"{"error":{"status":"UNAUTHENTICATED"}}"#, Timestamp::UNIX_EPOCH);

    assert_eq!(error.unwrap_err(), ParseError::Unauthorized);
}

proptest! {
    #[test]
    fn there_are_never_more_windows_than_buckets(
        buckets in prop::collection::vec(("(gemini|3p|[a-z]{0,3})-(5h|weekly|[a-z]{0,3})", -2.0..9.0_f64), 0..12),
    ) {
        let some = buckets.iter().map(|(id, left)| json!({ "bucketId": id, "remainingFraction": left }));
        let buckets: Vec<_> = some.chain([json!({ "bucketId": "kept-1h", "remainingFraction": 0.75 })]).collect();

        let parsed = of_buckets(&json!(buckets));

        prop_assert!(parsed.usage.windows.len() <= buckets.len());
        prop_assert!(readings(&parsed).contains(&("kept-1h", 25.0)));
    }
}
