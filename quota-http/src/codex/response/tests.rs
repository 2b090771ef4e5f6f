//! Responses to Codex, parsed from their headers and body.

use jiff::Timestamp;
use proptest::prelude::*;
use quota_core::WindowId;
use quota_core::model::Scope;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn parse(status: u16, headers: &[(&str, &str)], body: &str) -> ParsedResponse {
    let named = |(name, value): &(&str, &str)| (format!("X-Codex-{name}"), (*value).to_owned());
    let headers: Vec<_> = headers.iter().map(named).collect();
    CodexResponseParser.parse(&ResponseMeta::new(status, &headers, at(0)).body(body.as_bytes()))
}

fn windows(headers: &[(&str, &str)]) -> Vec<(String, f64)> {
    let windows = parse(200, headers, "").usage.windows;
    windows.into_iter().map(|window| (window.id.to_string(), window.used.as_f64())).collect()
}

const EXHAUSTED: &str = r#"{"error":{"type":"usage_limit_reached","message":"words"}}"#;

#[test]
fn a_successful_response_has_both_windows_and_no_failure() {
    let headers = [
        ("Primary-Used-Percent", "42.5"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800003600"),
        ("Secondary-Used-Percent", "7"),
        ("Secondary-Window-Minutes", "10080"),
        ("Secondary-Reset-After-Seconds", "60"),
    ];

    let parsed = parse(200, &headers, "");

    assert_eq!(parsed.failure, None);
    let resets: Vec<_> = parsed.usage.windows.iter().map(|window| window.resets_at).collect();
    assert_eq!(resets, [Some(at(3600)), Some(at(60))]);
    assert_eq!(windows(&headers), [("five_hour".into(), 42.5), ("seven_day".into(), 7.0)]);
}

#[test]
fn a_unix_time_in_reset_after_seconds_is_the_reset() {
    let headers = [
        ("Primary-Used-Percent", "42"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-After-Seconds", "1800003600"),
    ];

    let resets: Vec<_> =
        parse(200, &headers, "").usage.windows.iter().map(|window| window.resets_at).collect();

    assert_eq!(resets, [Some(at(3600))]);
}

#[test]
fn an_implausible_reset_leaves_the_window() {
    let headers = [
        ("Primary-Used-Percent", "100"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800086400"),
    ];

    let parsed = parse(429, &headers, EXHAUSTED);

    assert_eq!(parsed.usage.windows[0].resets_at, None);
    assert_eq!(parsed.failure.unwrap().resets_at, None);
}

#[test]
fn an_implausible_reset_in_the_body_is_dropped() {
    for reset in [r#""resets_at":4000000000"#, r#""resets_in_seconds":100000000"#] {
        let body = format!(r#"{{"error":{{"type":"usage_limit_reached",{reset}}}}}"#);

        assert_eq!(parse(429, &[], &body).failure.unwrap().resets_at, None, "{reset}");
    }
}

#[test]
fn a_cloudflare_challenge_is_not_a_rejected_login() {
    let headers = [("cf-mitigated".to_owned(), "challenge".to_owned())];
    for status in [401, 403] {
        let parsed = CodexResponseParser.parse(&ResponseMeta::new(status, &headers, at(0)).body(b"<html>"));

        assert_eq!(parsed.failure.map(|failure| failure.kind), Some(RejectionKind::Overloaded), "{status}");
    }
}

#[test]
fn a_window_is_identified_by_its_length_not_its_slot() {
    for (minutes, id) in [
        ("10080", "seven_day"),
        ("300", "five_hour"),
        ("299", "five_hour"),
        ("43800", "monthly"),
        ("43200", "monthly"),
        ("540", "540_minutes"),
    ] {
        for slot in ["Primary", "Secondary"] {
            let used = format!("{slot}-Used-Percent");
            let length = format!("{slot}-Window-Minutes");

            assert_eq!(windows(&[(&used, "5"), (&length, minutes)]), [(id.to_owned(), 5.0)], "{minutes}");
        }
    }
}

#[test]
fn a_slot_of_zeros_is_not_a_window() {
    assert_eq!(windows(&[("Primary-Used-Percent", "0"), ("Primary-Window-Minutes", "0")]), []);
    assert_eq!(windows(&[("Primary-Used-Percent", "0"), ("Primary-Reset-At", "0")]), []);
    let unused = [("Primary-Used-Percent", "0"), ("Primary-Window-Minutes", "300")];
    assert_eq!(windows(&unused), [("five_hour".into(), 0.0)], "a window without use is still a window");
}

#[test]
fn an_invalid_window_does_not_affect_the_others() {
    for bad in ["abc", "", "NaN", "Infinity"] {
        let headers = [
            ("Primary-Used-Percent", bad),
            ("Primary-Window-Minutes", "300"),
            ("Secondary-Used-Percent", "13"),
            ("Secondary-Window-Minutes", "10080"),
        ];

        assert_eq!(windows(&headers), [("seven_day".into(), 13.0)], "{bad}");
    }
}

#[test]
fn a_window_without_a_length_is_skipped() {
    assert_eq!(windows(&[("Primary-Used-Percent", "40")]), []);
}

#[test]
fn a_window_of_another_limit_counts_only_its_models() {
    let headers = [
        ("Primary-Used-Percent", "40"),
        ("Primary-Window-Minutes", "300"),
        ("Fast-Primary-Used-Percent", "100"),
        ("Fast-Primary-Window-Minutes", "300"),
        ("Fast-Limit-Name", "made-up-fast"),
    ];

    let usage = parse(200, &headers, "").usage;

    let windows: Vec<_> = usage.windows.iter().map(|window| (window.id.as_str(), &window.scope)).collect();
    let fast = Some(Scope::model("made-up-fast"));
    assert_eq!(windows, [("five_hour", &None), ("five_hour/made-up-fast", &fast)]);
}

#[test]
fn the_credits_are_those_of_the_usage_endpoint() {
    let headers = [
        ("Credits-Has-Credits", "True"),
        ("Credits-Unlimited", "perhaps"),
        ("Credits-Balance", "12.345"),
        ("Credits-Color", "red"),
    ];

    let credits = parse(200, &headers, "").usage.credits.unwrap();

    assert_eq!((credits.enabled, credits.unlimited), (Some(true), None));
    assert_eq!(credits.balance.unwrap().to_string(), "12.35 credits");
    assert_eq!(parse(200, &[("Credits-Balance", "none")], "").usage.credits, None);
}

#[test]
fn a_limit_need_not_begin_with_codex() {
    let pairs = [
        ("x-night-primary-used-percent".to_owned(), "7".to_owned()),
        ("x-night-primary-window-minutes".to_owned(), "10080".to_owned()),
        ("x-night-secondary-used-percent".to_owned(), "0".to_owned()),
    ];

    let usage = CodexResponseParser.parse(&ResponseMeta::new(200, &pairs, at(0))).usage;

    assert_eq!(usage.windows.len(), 1);
    assert_eq!(usage.windows[0].id.as_str(), "seven_day/night");
    assert_eq!(usage.windows[0].scope, Some(Scope::model("night")));
}

#[test]
fn a_full_window_without_a_length_still_has_its_reset() {
    let headers = [("Primary-Used-Percent", "100"), ("Primary-Reset-At", "1800003600")];

    let failure = parse(429, &headers, EXHAUSTED).failure.unwrap();

    assert_eq!((failure.window, failure.resets_at), (None, Some(at(3600))));
}

#[test]
fn a_reached_limit_is_exhausted_until_the_reset_in_the_body() {
    for (body, until) in [
        (r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":120}}"#, 120),
        (r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":1800007200}}"#, 7200),
        (r#"{"error":{"type":"usage_limit_reached","resets_at":1800007200}}"#, 7200),
        (
            r#"{"type":"error","status":429,"body":{"error":{"type":"usage_limit_reached","resets_in_seconds":"7"}}}"#,
            7,
        ),
    ] {
        let failure = parse(429, &[], body).failure.unwrap();

        assert_eq!(
            (failure.kind, failure.resets_at),
            (RejectionKind::QuotaExhausted, Some(at(until))),
            "{body}"
        );
        assert_eq!(failure.scope, None);
    }
}

#[test]
fn the_exhausted_window_that_resets_last_counts() {
    let headers = [
        ("Primary-Used-Percent", "100"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800003600"),
        ("Secondary-Used-Percent", "100"),
        ("Secondary-Window-Minutes", "10080"),
        ("Secondary-Reset-At", "1800300000"),
    ];

    let failure = parse(429, &headers, EXHAUSTED).failure.unwrap();

    assert_eq!((failure.window, failure.resets_at), (Some(WindowId::seven_day()), Some(at(300_000))));
}

#[test]
fn a_reached_limit_of_one_model_does_not_affect_the_others() {
    let headers = [
        ("Primary-Used-Percent", "40"),
        ("Primary-Window-Minutes", "300"),
        ("Active-Limit", "codex_fast"),
        ("Fast-Limit-Name", "made-up-fast"),
        ("Fast-Primary-Used-Percent", "100"),
        ("Fast-Primary-Reset-At", "1800003600"),
    ];

    let failure = parse(429, &headers, EXHAUSTED).failure.unwrap();

    assert_eq!(failure.scope, Some(Scope::model("made-up-fast")));
    assert_eq!(failure.resets_at, Some(at(3600)));
}

#[test]
fn an_active_limit_without_headers_is_the_whole_account() {
    let headers = [
        ("Active-Limit", "premium"),
        ("Primary-Used-Percent", "100"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800003600"),
        ("Secondary-Used-Percent", "40"),
        ("Secondary-Window-Minutes", "10080"),
    ];

    let failure = parse(429, &headers, EXHAUSTED).failure.unwrap();

    assert_eq!((failure.scope, failure.window), (None, Some(WindowId::five_hour())));
    assert_eq!(failure.resets_at, Some(at(3600)));
}

#[test]
fn the_numbers_of_another_active_limit_are_not_those_of_the_account() {
    let headers = [
        ("Active-Limit", "codex_fast"),
        ("Primary-Used-Percent", "100"),
        ("Primary-Window-Minutes", "300"),
        ("Fast-Limit-Name", "made-up-fast"),
        ("Fast-Primary-Used-Percent", "100"),
        ("Fast-Primary-Window-Minutes", "300"),
    ];

    assert_eq!(windows(&headers), [("five_hour/made-up-fast".into(), 100.0)]);
}

#[test]
fn other_numbers_beside_an_active_limit_are_those_of_the_account() {
    let headers = [
        ("Active-Limit", "codex_fast"),
        ("Primary-Used-Percent", "40"),
        ("Primary-Window-Minutes", "300"),
        ("Fast-Limit-Name", "made-up-fast"),
        ("Fast-Primary-Used-Percent", "100"),
        ("Fast-Primary-Window-Minutes", "300"),
    ];

    assert_eq!(windows(&headers), [("five_hour".into(), 40.0), ("five_hour/made-up-fast".into(), 100.0)]);
}

#[test]
fn any_other_429_is_throttling() {
    for body in ["", "{}", r#"{"error":{"type":"rate_limit_exceeded"}}"#, "usage_limit_reached"] {
        let failure = parse(429, &[("Primary-Used-Percent", "100")], body).failure.unwrap();

        assert_eq!(failure.kind, RejectionKind::Throttled, "{body}");
    }
}

#[test]
fn a_truncated_body_is_still_recognized() {
    let failure = parse(429, &[], r#"{"error":{"type":"usage_limit_reached","mess"#).failure.unwrap();

    assert_eq!((failure.kind, failure.resets_at), (RejectionKind::QuotaExhausted, None));
}

#[test]
fn other_statuses_have_their_usual_meaning() {
    for (status, kind) in [
        (401, RejectionKind::Unauthorized),
        (403, RejectionKind::Forbidden),
        (503, RejectionKind::Overloaded),
    ] {
        assert_eq!(parse(status, &[], EXHAUSTED).failure.unwrap().kind, kind);
    }
}

proptest! {
    #[test]
    fn no_response_panics(
        status in 0_u16..=999,
        headers in prop::collection::vec(("x-codex-(primary|secondary|active|fast-primary)-(used-percent|window-minutes|reset-at|reset-after-seconds|limit)", ".{0,20}|-?[0-9.e]{1,12}"), 0..12),
        body in any::<Vec<u8>>(),
    ) {
        let parsed = CodexResponseParser.parse(&ResponseMeta::new(status, &headers, at(0)).body(&body));

        prop_assert!(parsed.usage.windows.iter().all(|window| window.used.as_f64().is_finite()));
    }
}
