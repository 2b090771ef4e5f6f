//! Answers of Codex, by their headers and bodies alone.

use proptest::prelude::*;
use quota_core::WindowId;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn seen(status: u16, headers: &[(&str, &str)], body: &str) -> Seen {
    let named = |(name, value): &(&str, &str)| (format!("X-Codex-{name}"), (*value).to_owned());
    let headers: Vec<_> = headers.iter().map(named).collect();
    CodexTraffic.read(&Traffic::new(status, &headers, at(0)).body(body.as_bytes()))
}

fn windows(headers: &[(&str, &str)]) -> Vec<(String, f64)> {
    let windows = seen(200, headers, "").usage.windows;
    windows.into_iter().map(|window| (window.id.to_string(), window.used.as_f64())).collect()
}

const SPENT: &str = r#"{"error":{"type":"usage_limit_reached","message":"words"}}"#;

#[test]
fn a_good_answer_tells_both_windows_and_no_failure() {
    let headers = [
        ("Primary-Used-Percent", "42.5"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800003600"),
        ("Secondary-Used-Percent", "7"),
        ("Secondary-Window-Minutes", "10080"),
        ("Secondary-Reset-After-Seconds", "60"),
    ];

    let seen = seen(200, &headers, "");

    assert_eq!(seen.failure, None);
    let resets: Vec<_> = seen.usage.windows.iter().map(|window| window.resets_at).collect();
    assert_eq!(resets, [Some(at(3600)), Some(at(60))]);
    assert_eq!(windows(&headers), [("five_hour".into(), 42.5), ("seven_day".into(), 7.0)]);
}

#[test]
fn an_epoch_where_seconds_until_the_reset_belong_is_the_reset() {
    let headers = [
        ("Primary-Used-Percent", "42"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-After-Seconds", "1800003600"),
    ];

    let resets: Vec<_> =
        seen(200, &headers, "").usage.windows.iter().map(|window| window.resets_at).collect();

    assert_eq!(resets, [Some(at(3600))]);
}

#[test]
fn an_implausible_reset_is_left_out_and_the_window_kept() {
    let headers = [
        ("Primary-Used-Percent", "100"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800086400"),
    ];

    let seen = seen(429, &headers, SPENT);

    assert_eq!(seen.usage.windows[0].resets_at, None);
    assert_eq!(seen.failure.unwrap().resets_at, None);
}

#[test]
fn an_implausible_reset_of_a_body_ends_no_failure() {
    for told in [r#""resets_at":4000000000"#, r#""resets_in_seconds":100000000"#] {
        let body = format!(r#"{{"error":{{"type":"usage_limit_reached",{told}}}}}"#);

        assert_eq!(seen(429, &[], &body).failure.unwrap().resets_at, None, "{told}");
    }
}

#[test]
fn a_cloudflare_challenge_says_nothing_about_the_login() {
    let headers = [("cf-mitigated".to_owned(), "challenge".to_owned())];
    for status in [401, 403] {
        let seen = CodexTraffic.read(&Traffic::new(status, &headers, at(0)).body(b"<html>"));

        assert_eq!(seen.failure.map(|failure| failure.kind), Some(FailureKind::Overloaded), "{status}");
    }
}

// B71
#[test]
fn a_window_is_known_by_its_length_and_not_by_its_slot() {
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

// B72
#[test]
fn a_slot_of_zeros_is_no_window() {
    assert_eq!(windows(&[("Primary-Used-Percent", "0"), ("Primary-Window-Minutes", "0")]), []);
    assert_eq!(windows(&[("Primary-Used-Percent", "0"), ("Primary-Reset-At", "0")]), []);
    let begun = [("Primary-Used-Percent", "0"), ("Primary-Window-Minutes", "300")];
    assert_eq!(windows(&begun), [("five_hour".into(), 0.0)], "and one that is not used is one");
}

// B73
#[test]
fn a_bad_window_takes_no_good_one_down() {
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
fn a_window_whose_length_is_not_told_is_not_guessed() {
    assert_eq!(windows(&[("Primary-Used-Percent", "40")]), []);
}

// B63
#[test]
fn headers_of_another_limit_are_no_reading_of_the_account() {
    let headers = [
        ("Fast-Primary-Used-Percent", "100"),
        ("Fast-Primary-Window-Minutes", "300"),
        ("Credits-Balance", "12"),
    ];

    let seen = seen(200, &headers, "");

    assert!(seen.usage.is_empty() && seen.usage.credits.is_none());
}

#[test]
fn a_reached_limit_is_a_spent_quota_until_the_body_says() {
    for (body, until) in [
        (r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":120}}"#, 120),
        (r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":1800007200}}"#, 7200),
        (r#"{"error":{"type":"usage_limit_reached","resets_at":1800007200}}"#, 7200),
        (
            r#"{"type":"error","status":429,"body":{"error":{"type":"usage_limit_reached","resets_in_seconds":"7"}}}"#,
            7,
        ),
    ] {
        let failure = seen(429, &[], body).failure.unwrap();

        assert_eq!((failure.kind, failure.resets_at), (FailureKind::QuotaSpent, Some(at(until))), "{body}");
        assert_eq!(failure.scope, None);
    }
}

// B74
#[test]
fn of_several_full_windows_the_last_to_begin_anew_counts_with_its_own_reset() {
    let headers = [
        ("Primary-Used-Percent", "100"),
        ("Primary-Window-Minutes", "300"),
        ("Primary-Reset-At", "1800003600"),
        ("Secondary-Used-Percent", "100"),
        ("Secondary-Window-Minutes", "10080"),
        ("Secondary-Reset-At", "1800300000"),
    ];

    let failure = seen(429, &headers, SPENT).failure.unwrap();

    assert_eq!((failure.window, failure.resets_at), (Some(WindowId::seven_day()), Some(at(300_000))));
}

// B68
#[test]
fn a_reached_limit_of_one_model_leaves_the_others() {
    let headers = [
        ("Primary-Used-Percent", "40"),
        ("Primary-Window-Minutes", "300"),
        ("Active-Limit", "codex_fast"),
        ("Fast-Limit-Name", "made-up-fast"),
        ("Fast-Primary-Used-Percent", "100"),
        ("Fast-Primary-Reset-At", "1800003600"),
    ];

    let failure = seen(429, &headers, SPENT).failure.unwrap();

    assert_eq!(failure.scope, Some(Scope::model("made-up-fast")));
    assert_eq!(failure.resets_at, Some(at(3600)));
}

// B69
#[test]
fn any_other_429_is_a_pause() {
    for body in ["", "{}", r#"{"error":{"type":"rate_limit_exceeded"}}"#, "usage_limit_reached"] {
        let failure = seen(429, &[("Primary-Used-Percent", "100")], body).failure.unwrap();

        assert_eq!(failure.kind, FailureKind::Throttled, "{body}");
    }
}

#[test]
fn a_body_that_was_cut_off_says_what_it_says() {
    let failure = seen(429, &[], r#"{"error":{"type":"usage_limit_reached","mess"#).failure.unwrap();

    assert_eq!((failure.kind, failure.resets_at), (FailureKind::QuotaSpent, None));
}

#[test]
fn other_statuses_are_what_they_are_everywhere() {
    for (status, kind) in
        [(401, FailureKind::LoginDead), (403, FailureKind::NotAllowed), (503, FailureKind::Overloaded)]
    {
        assert_eq!(seen(status, &[], SPENT).failure.unwrap().kind, kind);
    }
}

proptest! {
    #[test]
    fn no_answer_breaks_the_reader(
        status in 0_u16..=999,
        headers in prop::collection::vec(("x-codex-(primary|secondary|active|fast-primary)-(used-percent|window-minutes|reset-at|reset-after-seconds|limit)", ".{0,20}|-?[0-9.e]{1,12}"), 0..12),
        body in any::<Vec<u8>>(),
    ) {
        let seen = CodexTraffic.read(&Traffic::new(status, &headers, at(0)).body(&body));

        prop_assert!(seen.usage.windows.iter().all(|window| window.used.as_f64().is_finite()));
    }
}
