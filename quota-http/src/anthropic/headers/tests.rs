use jiff::Timestamp;
use quota_core::model::{Coverage, Scope, Source};

use std::time::Duration;

use super::*;

const RESET: &str = "1785634800";

/// Parses unified headers with these names and values.
fn parse(headers: &[(&str, &str)]) -> ParsedHeaders {
    let named: Vec<_> = headers.iter().map(|(name, value)| (format!("{UNIFIED}{name}"), *value)).collect();
    parse_headers(Some(200), named.iter().map(|(name, value)| (name.as_str(), *value)))
}

fn basis_points(parsed: &ParsedHeaders) -> Vec<(&str, u32)> {
    parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.basis_points())).collect()
}

fn statuses(parsed: &ParsedHeaders) -> Vec<(&str, LimitStatus)> {
    parsed.usage.window_statuses.iter().map(|status| (status.window.as_str(), status.status)).collect()
}

fn skipped(parsed: &ParsedHeaders) -> Vec<&str> {
    parsed
        .skipped
        .iter()
        .map(|skipped| skipped.field.strip_prefix(UNIFIED).unwrap_or(&skipped.field))
        .collect()
}

#[test]
fn both_windows_are_parsed_with_their_resets() {
    let parsed = parse(&[
        ("5h-utilization", "0.03"),
        ("5h-reset", RESET),
        ("7d-utilization", "0.12"),
        ("7d-reset", "soon"),
    ]);

    assert_eq!(basis_points(&parsed), [("five_hour", 300), ("seven_day", 1200)]);
    assert_eq!(parsed.usage.windows[0].resets_at, Timestamp::from_second(1_785_634_800).ok());
    assert_eq!(parsed.usage.windows[1].resets_at, None);
}

#[test]
fn headers_cover_only_the_windows_they_report() {
    let usage = parse(&[("5h-utilization", "0.03")]).usage;

    assert_eq!((usage.coverage, usage.source, usage.credits), (Coverage::Reported, Source::Headers, None));
}

#[test]
fn an_invalid_fraction_is_skipped() {
    for text in ["", "NaN", "Infinity", "-inf", "abc", "1e999", "1785634800", "-1.1"] {
        let parsed = parse(&[("5h-utilization", text), ("7d-utilization", "0.5")]);

        assert_eq!(basis_points(&parsed), [("seven_day", 5000)], "{text:?}");
        assert_eq!(skipped(&parsed), ["5h-utilization"], "{text:?}");
    }
}

#[test]
fn a_negative_fraction_is_zero_and_one_above_1_is_preserved() {
    let parsed = parse(&[("5h-utilization", "-0.1"), ("7d-utilization", "1.7")]);

    assert_eq!(basis_points(&parsed), [("five_hour", 0), ("seven_day", 17_000)]);
}

#[test]
fn an_invalid_reset_leaves_the_window() {
    for reset in ["1e308", "not-a-number", "", "-1"] {
        let parsed = parse(&[("5h-utilization", "0.5"), ("5h-reset", reset)]);

        assert_eq!(parsed.usage.windows[0].resets_at, None, "{reset:?}");
    }
}

#[test]
fn a_status_without_a_usage_is_not_a_reading() {
    let parsed = parse(&[("5h-status", "rejected"), ("7d-status", "allowed"), ("7d-utilization", "0.4")]);

    assert_eq!(basis_points(&parsed), [("seven_day", 4000)]);
    assert_eq!(
        statuses(&parsed),
        [("five_hour", LimitStatus::Rejected), ("seven_day", LimitStatus::Allowed)]
    );
}

#[test]
fn a_rejected_model_window_does_not_reject_the_account() {
    let parsed = parse(&[
        ("status", "rejected"),
        ("reset", RESET),
        ("representative-claim", "five_hour"),
        ("5h-status", "allowed"),
        ("7d-status", "allowed"),
        ("7d_oi-status", "rejected"),
        ("7d_oi-reset", "1785232800"),
    ]);

    let rejected: Vec<_> =
        parsed.usage.window_statuses.iter().filter(|status| status.status == LimitStatus::Rejected).collect();
    let [only] = rejected[..] else { panic!("one window is rejected") };
    assert_eq!(only.window.as_str(), "seven_day_overage_included");
    assert_eq!(only.scope, Some(Scope::unknown_model()));
    assert_eq!(only.resets_at, Timestamp::from_second(1_785_232_800).ok());
}

#[test]
fn a_status_never_has_the_reset_of_another_window() {
    let parsed = parse(&[("5h-status", "rejected"), ("reset", RESET), ("7d-reset", RESET)]);

    assert_eq!(parsed.usage.window_statuses[0].resets_at, None);
}

#[test]
fn the_overall_status_applies_if_no_window_has_one() {
    let parsed = parse(&[("status", "rejected"), ("reset", RESET), ("representative-claim", "seven_day")]);

    assert_eq!(statuses(&parsed), [("seven_day", LimitStatus::Rejected)]);
    assert_eq!(parsed.usage.window_statuses[0].resets_at, Timestamp::from_second(1_785_634_800).ok());
}

#[test]
fn the_overall_status_has_the_reset_of_its_window() {
    let parsed = parse(&[
        ("status", "rejected"),
        ("reset", "5"),
        ("representative-claim", "seven_day"),
        ("7d-reset", RESET),
    ]);

    assert_eq!(parsed.usage.window_statuses[0].resets_at, Timestamp::from_second(1_785_634_800).ok());
}

#[test]
fn an_overall_status_without_a_window_is_dropped() {
    assert_eq!(statuses(&parse(&[("status", "rejected"), ("reset", RESET)])), []);
    assert_eq!(statuses(&parse(&[("status", "rejected"), ("representative-claim", "")])), []);
}

#[test]
fn an_unknown_status_is_listed() {
    let parsed = parse(&[("5h-status", "pondering")]);

    assert_eq!(statuses(&parsed), []);
    assert_eq!(skipped(&parsed), ["5h-status"]);
}

#[test]
fn the_share_of_extra_usage_is_a_window_that_blocks_no_request() {
    let parsed = parse(&[
        ("5h-status", "allowed"),
        ("overage-status", "rejected"),
        ("overage-utilization", "1.0"),
        ("overage-reset", RESET),
        ("overage-disabled-reason", "out_of_credits"),
    ]);

    assert_eq!(basis_points(&parsed), [("overage", 10_000)]);
    assert_eq!(parsed.usage.windows[0].scope, Some(Scope::surface("overage")));
    assert_eq!(parsed.usage.windows[0].resets_at, Timestamp::from_second(1_785_634_800).ok());
    assert_eq!(statuses(&parsed), [("five_hour", LimitStatus::Allowed)]);
    assert_eq!(skipped(&parsed), ["overage-status", "overage-disabled-reason"]);
}

#[test]
fn grace_windows_are_apart_from_the_windows_of_the_account() {
    let parsed = parse(&[
        ("grace-status", "rejected"),
        ("grace-5h-utilization", "0.4"),
        ("5h-utilization", "1"),
        ("grace-7d-utilization", "0"),
    ]);

    assert_eq!(basis_points(&parsed), [("five_hour", 10_000), ("grace-5h", 4000), ("grace-7d", 0)]);
    assert_eq!(parsed.usage.windows[1].scope, Some(Scope::surface("grace-5h")));
    assert_eq!(statuses(&parsed), []);
}

#[test]
fn a_model_window_has_the_id_and_scope_of_the_usage_endpoint() {
    let parsed = parse(&[
        ("7d_sonnet-utilization", "0.1"),
        ("7d_opus-utilization", "0.2"),
        ("7d_oi-utilization", "1.01"),
        ("7d_cowork-utilization", "0.3"),
    ]);

    assert_eq!(
        basis_points(&parsed),
        [
            ("seven_day_cowork", 3000),
            ("seven_day_overage_included", 10_100),
            ("seven_day/opus", 2000),
            ("seven_day/sonnet", 1000)
        ]
    );
    let scopes: Vec<_> = parsed.usage.windows.iter().map(|window| window.scope.clone().unwrap()).collect();
    let expected =
        [Scope::surface("cowork"), Scope::unknown_model(), Scope::model("Opus"), Scope::model("Sonnet")];
    assert_eq!(scopes, expected);
}

#[test]
fn headers_that_are_not_readings_are_listed() {
    let parsed =
        parse(&[("5h-surpassed-threshold", "0.9"), ("fallback", "available"), ("upgrade-paths", "max")]);

    assert_eq!(skipped(&parsed), ["5h-surpassed-threshold", "fallback", "upgrade-paths"]);
}

#[test]
fn an_unknown_window_is_kept_and_never_account_wide() {
    let parsed = parse(&[("30d_x-utilization", "0.5"), ("30d_x-status", "rejected")]);

    assert_eq!(basis_points(&parsed), [("30d_x", 5000)]);
    assert_eq!(parsed.usage.windows[0].scope, Some(Scope::surface("30d_x")));
    assert_eq!(parsed.usage.window_statuses[0].scope, Some(Scope::surface("30d_x")));
}

#[test]
fn names_are_case_insensitive_and_the_first_value_counts() {
    let name = "ANTHROPIC-RateLimit-Unified-5H-Utilization";

    let parsed = parse_headers(None, [(name, "0.25"), (&*name.to_lowercase(), "0.75")]);

    assert_eq!(basis_points(&parsed), [("five_hour", 2500)]);
}

#[test]
fn api_key_windows_are_computed_from_the_remaining_amount() {
    let parsed = parse_headers(
        Some(200),
        [
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-07-01T12:00:00Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "9000"),
        ],
    );

    assert_eq!(basis_points(&parsed), [("requests", 200), ("output_tokens", 0)]);
    assert_eq!(parsed.usage.windows[0].resets_at, "2026-07-01T12:00:00Z".parse().ok());
    assert_eq!(parsed.usage.windows[0].scope, None);
}

#[test]
fn a_limit_without_a_fraction_is_listed() {
    let limits = [("0", Some("0")), ("-5", Some("1")), ("abc", Some("1")), ("50", None), ("50", Some("abc"))];
    for (limit, remaining) in limits {
        let limit = Some(("anthropic-ratelimit-tokens-limit", limit));
        let remaining = remaining.map(|remaining| ("anthropic-ratelimit-tokens-remaining", remaining));

        let parsed = parse_headers(None, limit.into_iter().chain(remaining));

        assert_eq!(basis_points(&parsed), []);
        assert_eq!(skipped(&parsed), ["anthropic-ratelimit-tokens-limit"]);
    }
}

#[test]
fn an_unknown_header_family_is_listed() {
    let parsed = parse_headers(None, [("anthropic-ratelimit-images-limit", "5")]);

    assert_eq!(skipped(&parsed), ["anthropic-ratelimit-images-limit"]);
}

#[test]
fn retry_after_counts_only_for_rejected_requests() {
    let wait = |status| parse_headers(status, [("Retry-After", "60")]).retry_after;

    assert_eq!(wait(Some(429)), Some(Duration::from_secs(60)));
    assert_eq!(wait(None), Some(Duration::from_secs(60)));
    assert_eq!(wait(Some(200)), None);
}

#[test]
fn a_retry_after_date_is_relative_to_the_date_header() {
    let headers =
        [("date", "Wed, 01 Jul 2026 12:00:00 GMT"), ("retry-after", "Wed, 01 Jul 2026 12:01:00 GMT")];

    assert_eq!(parse_headers(Some(429), headers).retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn the_organization_header_is_the_owner() {
    let owner_id = |id| parse_headers(None, [("anthropic-organization-id", id)]).usage.owner_id;

    assert_eq!(owner_id("org-1"), Some(OwnerId::new("org-1")));
    assert_eq!(owner_id(""), None);
    assert_eq!(owner_id("a\u{1b}b"), None);
}

#[test]
fn unrelated_headers_yield_nothing() {
    let parsed = parse_headers(Some(429), [("content-type", "application/json"), ("x-request-id", "r")]);

    assert!(parsed.usage.is_empty() && parsed.usage.window_statuses.is_empty() && parsed.skipped.is_empty());
}

#[test]
fn the_number_of_headers_is_bounded() {
    let headers: Vec<_> = (0..10_000).map(|at| format!("{UNIFIED}{at}-utilization")).collect();

    let parsed = parse_headers(None, headers.iter().map(|name| (name.as_str(), "0.5")));

    assert_eq!(parsed.usage.windows.len(), HeaderReadings::MAX_WINDOWS);
}
