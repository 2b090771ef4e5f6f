//! Generic headers, parsed to windows.

use proptest::prelude::*;
use quota_core::provider::ResponseHeaders;

use super::*;
use crate::limit_headers::Skipped;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn read(headers: &[(&str, &str)]) -> HeaderReadings {
    let pairs: Vec<_> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = LimitHeaders::collect(ResponseHeaders::from(&pairs), is_generic);
    let mut readings = HeaderReadings::new(Skipped::new(true));
    add_generic(&headers, now(), &mut readings);
    readings
}

/// The id, the usage in percent, and the seconds until the reset and of the length of each window.
fn windows(headers: &[(&str, &str)]) -> Vec<(String, f64, Option<i64>, Option<u64>)> {
    let windows = read(headers).windows.into_iter().map(|window| {
        let wait = window.resets_at.map(|at| at.duration_since(now()).as_secs());
        (window.id.to_string(), window.used.as_f64(), wait, window.length.map(|length| length.as_secs()))
    });
    windows.collect()
}

fn skipped(headers: &[(&str, &str)]) -> Vec<String> {
    read(headers).skipped.fields.into_iter().map(|skipped| skipped.field).collect()
}

#[test]
fn x_ratelimit_headers_are_windows_by_their_unit() {
    let headers = [
        ("X-RateLimit-Limit-Requests", "60"),
        ("x-ratelimit-remaining-requests", "45"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ];

    assert_eq!(
        windows(&headers),
        [("requests".into(), 25.0, Some(1), None), ("tokens".into(), 100.0, Some(360), None)]
    );
    assert_eq!(read(&headers).replenished_at, Some(now() + Duration::from_secs(360)));
}

#[test]
fn headers_without_a_unit_are_one_window() {
    let headers = [("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "9")];

    assert_eq!(windows(&headers), [("rate_limit".into(), 10.0, None, None)]);
}

#[test]
fn go_durations_are_parsed() {
    for (text, ms) in [
        ("17ms", 17),
        ("1s", 1000),
        ("6m0s", 360_000),
        ("1h2m3.5s", 3_723_500),
        ("0s", 0),
        ("250us", 0),
        ("250µs", 0),
        ("0.5s", 500),
    ] {
        let parsed = parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(parsed, Some(ms), "{text}");
    }
    for text in ["", "-5s", "s", "soon", "1x"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn a_reset_may_be_seconds_a_unix_time_or_a_date() {
    for reset in ["90", "90.0", "1m30s", "1800000090", "1800000090000", "2027-01-15T08:01:30Z"] {
        let headers = [
            ("x-ratelimit-limit-requests", "2"),
            ("x-ratelimit-remaining-requests", "1"),
            ("x-ratelimit-reset-requests", reset),
        ];

        assert_eq!(windows(&headers), [("requests".into(), 50.0, Some(90), None)], "{reset}");
    }
}

#[test]
fn an_unreadable_reset_leaves_the_window() {
    let headers = [
        ("x-ratelimit-limit-requests", "2"),
        ("x-ratelimit-remaining-requests", "1"),
        ("x-ratelimit-reset-requests", "tomorrow"),
    ];

    assert_eq!(windows(&headers), [("requests".into(), 50.0, None, None)]);
    assert_eq!(skipped(&headers), ["x-ratelimit-reset-requests"]);
}

#[test]
fn a_limit_without_a_remaining_amount_is_not_a_window() {
    for headers in [
        [("x-ratelimit-limit-requests", "60"), ("x-ratelimit-reset-requests", "1s")],
        [("x-ratelimit-limit-requests", "0"), ("x-ratelimit-remaining-requests", "0")],
        [("x-ratelimit-limit-requests", "many"), ("x-ratelimit-remaining-requests", "1")],
    ] {
        assert_eq!(windows(&headers), []);
        assert_eq!(skipped(&headers), ["x-ratelimit-limit-requests"]);
    }
}

#[test]
fn a_policy_and_its_limit_are_a_window() {
    let headers = [
        ("RateLimit-Policy", r#""burst";q=100;w=60, "daily";q=1000;w=86400"#),
        ("RateLimit", r#""burst";r=25;t=30"#),
    ];

    assert_eq!(windows(&headers), [("burst".into(), 75.0, Some(30), Some(60))]);
    assert_eq!(skipped(&headers), ["ratelimit-policy"], "the daily limit has no remaining amount");
}

#[test]
fn policies_on_several_lines_belong_together() {
    let headers = [
        ("ratelimit-policy", r#""a,b";q=10;w=60"#),
        ("ratelimit-policy", r#""c";q=20;w=3600"#),
        ("ratelimit", r#""a,b";r=10, "c";r=5"#),
    ];

    assert_eq!(
        windows(&headers),
        [("a,b".into(), 0.0, None, Some(60)), ("c".into(), 75.0, None, Some(3600))]
    );
}

#[test]
fn the_fuller_partition_of_a_policy_counts() {
    let headers =
        [("ratelimit-policy", r#""p";q=10;w=60"#), ("ratelimit", r#""p";r=9;pk=:YQ==:, "p";r=1;pk=:Yg==:"#)];

    assert_eq!(windows(&headers), [("p".into(), 90.0, None, Some(60))]);
}

#[test]
fn the_windows_of_one_response_are_bounded() {
    let line = |line: usize| {
        let members: Vec<_> = (0..60).map(|at| format!(r#""p{line}-{at}";q=10;r=5"#)).collect();
        members.join(", ")
    };
    let lines: Vec<_> = (0..100).map(line).collect();
    let headers: Vec<_> = lines.iter().map(|line| ("ratelimit", line.as_str())).collect();

    assert_eq!(windows(&headers).len(), 128);
}

#[test]
fn the_length_of_an_unnamed_policy_is_that_of_the_same_quota() {
    for (limit, length) in [("1000", Some(3600)), ("100", Some(60)), ("7", None)] {
        let limit = format!("limit={limit}, remaining={limit}");
        let headers = [("ratelimit-policy", "100;w=60, 1000;w=3600"), ("ratelimit", limit.as_str())];

        assert_eq!(windows(&headers), [("rate_limit".into(), 0.0, None, length)], "{limit}");
    }
}

#[test]
fn a_malformed_member_leaves_the_others() {
    let headers =
        [("ratelimit-policy", r#"=, "p";q=10;w=60, "q";q="#), ("ratelimit", r#""p";r=5, 17;;, "q";r=1"#)];

    assert_eq!(windows(&headers), [("p".into(), 50.0, None, Some(60))]);
}

#[test]
fn the_three_older_headers_are_a_window() {
    for limit in ["100", "100, 100;w=60;comment=\"x\"", "100, 10;w=1, 100;w=60", "100;w=60"] {
        let headers = [("RateLimit-Limit", limit), ("RateLimit-Remaining", "50"), ("RateLimit-Reset", "5")];

        let length = (limit != "100").then_some(60);
        assert_eq!(windows(&headers), [("rate_limit".into(), 50.0, Some(5), length)], "{limit}");
    }
}

#[test]
fn the_dictionary_of_draft_07_is_a_window() {
    let headers = [("RateLimit-Policy", "100;w=60"), ("RateLimit", "limit=100, remaining=50, reset=5")];

    assert_eq!(windows(&headers), [("rate_limit".into(), 50.0, Some(5), Some(60))]);
}

#[test]
fn a_window_of_the_provider_has_precedence() {
    let pairs = [("x-ratelimit-limit-requests", "10"), ("x-ratelimit-remaining-requests", "0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = LimitHeaders::collect(ResponseHeaders::from(&pairs), is_generic);
    let mut readings = HeaderReadings::default();
    readings.add(WindowReading::new(WindowId::new("requests").unwrap(), quota_core::Percent::ZERO));

    add_generic(&headers, now(), &mut readings);

    assert_eq!(readings.windows.len(), 1);
    assert_eq!(readings.windows[0].used, quota_core::Percent::ZERO);
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "x-ratelimit-(limit|remaining|reset|used)(-(requests|tokens|[a-z-]{0,5}))?",
        "(?i)ratelimit(-policy|-limit|-remaining|-reset)?",
        any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,12}",
        "[0-9]{1,3}(h|m|s|ms|us)[0-9]{0,3}s?",
        r#"("[a-z]{1,3}"(;(q|r|t|w)=[0-9]{1,4}){0,3},? ?){1,3}"#,
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_header_panics_or_adds_a_window_that_it_does_not_name(
        headers in prop::collection::vec((name(), value()), 0..12),
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let windows = read(&headers).windows;

        // Each window needs a remaining amount, and one header names at most as many as it has members.
        let named: usize = headers.iter().map(|(_, value)| members(value).count().max(1)).sum();
        prop_assert!(windows.len() <= named);
        prop_assert!(windows.iter().all(|window| window.used.as_f64().is_finite()));
    }

    #[test]
    fn headers_without_a_remaining_amount_have_no_window(
        headers in prop::collection::vec((name(), value()), 0..12),
    ) {
        let is_amount = |name: &str, value: &str| {
            name.to_ascii_lowercase().contains("remaining") || value.contains("r=") || value.contains("remaining")
        };
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, value)| !is_amount(name, value))
            .collect();

        prop_assert!(read(&headers).windows.is_empty());
    }

    #[test]
    fn an_arbitrary_sibling_leaves_a_good_window(
        header in "(limit|remaining|reset)-[a-z]{1,5}",
        text in value(),
        member in "[^,\"]{0,12}",
    ) {
        let sibling = format!("x-ratelimit-{header}");
        let limits = format!(r#"{member}, "good";r=1"#);
        let headers = [
            (sibling.as_str(), text.as_str()),
            ("x-ratelimit-limit-good-one", "4"),
            ("x-ratelimit-remaining-good-one", "1"),
            ("ratelimit-policy", r#""good";q=4"#),
            ("ratelimit", limits.as_str()),
        ];

        let windows = read(&headers).windows;
        for id in ["good_one", "good"] {
            let window = windows.iter().find(|window| window.id.as_str() == id);
            prop_assert_eq!(window.map(|window| window.used.as_f64()), Some(75.0));
        }
    }
}
