use proptest::prelude::*;
use quota_core::{Snapshot, UsageReport, WindowId};

use super::*;
use crate::codex::{PROVIDER, parse_usage};
use crate::usage_endpoint::testing::written;

fn now() -> Timestamp {
    Timestamp::from_second(1_783_000_000).unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

fn write(snapshot: &Snapshot, last: Option<&Value>, seconds: i64) -> Value {
    written(usage, snapshot, last, now(), seconds)
}

fn parse(body: &Value) -> UsageReport {
    parse_usage(body.to_string().as_bytes(), now()).unwrap().usage
}

fn polled(body: &Value) -> Snapshot {
    Snapshot::of(&parse(body), now())
}

fn window(used: u64, length: u64, reset: i64) -> Value {
    json!({ "used_percent": used, "limit_window_seconds": length, "reset_after_seconds": reset,
        "reset_at": after(reset).as_second() })
}

fn current() -> Value {
    json!({
        "user_id": "user-made-up", "email": "made-up@example.com",
        "plan_type": "plus",
        "rate_limit": { "allowed": true, "limit_reached": false,
            "primary_window": window(40, 604_800, 90_000), "secondary_window": null },
        "code_review_rate_limit": null,
        "additional_rate_limits": [{ "limit_name": "Spark", "metered_feature": "codex_made_up",
            "rate_limit": { "allowed": true, "limit_reached": false,
                "primary_window": window(7, 18_000, 9000), "secondary_window": null } }],
        "credits": { "has_credits": true, "unlimited": false, "balance": "12.50", "approx_local_messages": [1, 2] },
        "spend_control": null,
        "promo": { "id": 1 },
    })
}

#[test]
fn an_unchanged_response_is_passed_on_with_its_countdown() {
    let mut body = current();
    let written = write(&polled(&body), Some(&body), 60);

    body["rate_limit"]["primary_window"]["reset_after_seconds"] = json!(89_940);
    let spark = &mut body["additional_rate_limits"][0]["rate_limit"]["primary_window"];
    spark["reset_after_seconds"] = json!(8940);
    assert_eq!(written, body);
}

#[test]
fn without_a_last_response_the_readings_are_the_same() {
    let body = current();

    let written = parse(&write(&polled(&body), None, 0));

    let original = parse(&body);
    assert_eq!((written.windows, written.plan), (original.windows, original.plan));
    assert_eq!(written.credits, original.credits);
}

#[test]
fn a_window_stays_in_the_field_of_the_last_response() {
    let body = json!({ "plan_type": "plus", "rate_limit": { "allowed": true, "limit_reached": false,
        "primary_window": window(40, 604_800, 90_000), "secondary_window": window(1, 18_000, 100) } });

    let written = write(&polled(&body), Some(&body), 0);

    assert_eq!(written["rate_limit"]["primary_window"]["limit_window_seconds"], 604_800);
}

#[test]
fn the_shortest_window_is_the_first_one() {
    let body = json!({ "plan_type": "plus", "rate_limit": {
        "primary_window": window(40, 604_800, 90_000), "secondary_window": window(1, 18_000, 100) } });

    let written = write(&polled(&body), None, 0);

    assert_eq!(written["rate_limit"]["primary_window"]["limit_window_seconds"], 18_000);
    assert_eq!(written["rate_limit"]["secondary_window"]["used_percent"], 40);
}

#[test]
fn a_window_that_has_ended_is_null() {
    let body = json!({ "plan_type": "plus", "rate_limit": { "allowed": false, "limit_reached": true,
        "primary_window": window(100, 18_000, 200), "secondary_window": window(50, 604_800, 9000) } });

    for last in [None, Some(&body)] {
        let written = write(&polled(&body), last, 200);

        let windows = ["primary_window", "secondary_window"].map(|name| &written["rate_limit"][name]);
        let shown: Vec<_> = windows.into_iter().filter(|window| !window.is_null()).collect();
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0]["used_percent"], 50);
        assert_eq!(written["rate_limit"]["limit_reached"], false, "{written}");
    }
}

#[test]
fn an_exhausted_window_is_a_reached_limit() {
    let body = current();
    let mut snapshot = polled(&body);
    let full = WindowReading::new(WindowId::seven_day(), Percent::FULL).resets_at(after(90_000));
    snapshot.join(&Snapshot::of(&UsageReport::from_headers([full]), after(30)));

    let written = write(&snapshot, Some(&body), 60);

    assert_eq!(written["rate_limit"]["primary_window"]["used_percent"], 100);
    assert_eq!(
        (&written["rate_limit"]["allowed"], &written["rate_limit"]["limit_reached"]),
        (&json!(false), &json!(true))
    );
}

#[test]
fn a_limit_for_one_user_is_written() {
    let body = json!({ "plan_type": "enterprise", "rate_limit": null, "spend_control": { "reached": false,
        "individual_limit": { "used": "36.79", "limit": "100", "used_percent": 37, "reset_at": 1_783_090_000 } } });

    let written = write(&polled(&body), None, 0);

    let read = parse(&written);
    assert_eq!((read.windows, read.credits), (parse(&body).windows, parse(&body).credits));
}

#[test]
fn a_failure_is_an_error_response_for_the_parser() {
    for status in [401, 403, 429, 503] {
        let failure = EndpointFailure { status, message: "why", retry_after: None };
        let body = PROVIDER.endpoint().unwrap().failure(&failure);

        assert_eq!(body["error"]["message"], "why");
        assert!(parse_usage(body.to_string().as_bytes(), now()).is_err());
    }
}

#[test]
fn the_path_is_that_of_the_request() {
    let request = PROVIDER.usage_request(&quota_core::Credential::none());

    assert_eq!(PROVIDER.endpoint().unwrap().path(), format!("/{}", request.path));
}

proptest! {
    #[test]
    fn the_parser_reads_back_each_window(
        used in proptest::collection::vec(0_u64..=1000, 4),
        resets in proptest::collection::vec(60..17_000_i64, 4),
        has_last in any::<bool>(),
    ) {
        let limit = |one: usize, two: usize| json!({
            "primary_window": window(used[one], 18_000, resets[one]),
            "secondary_window": window(used[two], 604_800, resets[two]),
        });
        let body = json!({ "plan_type": "pro", "rate_limit": limit(0, 1),
            "additional_rate_limits": [{ "limit_name": "Spark", "rate_limit": limit(2, 3) }] });
        let snapshot = polled(&body);

        let last = current();
        let written = write(&snapshot, has_last.then_some(&last), 30);

        prop_assert_eq!(parse(&written).windows, parse(&body).windows);
    }
}
