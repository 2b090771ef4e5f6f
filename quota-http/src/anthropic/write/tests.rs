use proptest::prelude::*;
use quota_core::model::Scope;
use quota_core::{Percent, Snapshot, UsageReport, WindowReading};

use super::*;
use crate::anthropic::{PROVIDER, parse_usage};
use crate::usage_endpoint::testing::written;

const DAY: i64 = 24 * 3600;

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

/// What is written of a snapshot of now, after some seconds.
fn write(snapshot: &Snapshot, last: Option<&Value>, seconds: i64) -> Value {
    written(usage, snapshot, last, now(), seconds)
}

fn parse(body: &Value) -> UsageReport {
    parse_usage(body.to_string().as_bytes()).unwrap().usage
}

fn polled(body: &Value) -> Snapshot {
    Snapshot::of(&parse(body), now())
}

fn current() -> Value {
    json!({
        "five_hour": { "utilization": 64.5, "resets_at": "2026-07-01T14:00:00.000000+00:00", "limit_dollars": null },
        "seven_day": { "utilization": 37.0, "resets_at": "2026-07-03T00:00:00.000000+00:00" },
        "seven_day_opus": null,
        "tangelo": null,
        "member_dashboard_available": true,
        "limits": [
            { "kind": "session", "group": "session", "percent": 65, "severity": "normal",
              "resets_at": "2026-07-01T14:00:00.000000+00:00", "scope": null, "is_active": true },
            { "kind": "weekly_all", "group": "weekly", "percent": 37, "severity": "normal",
              "resets_at": "2026-07-03T00:00:00.000000+00:00", "scope": null, "is_active": false },
            { "kind": "weekly_scoped", "group": "weekly", "percent": 5, "severity": "normal",
              "resets_at": "2026-07-03T00:00:00.000000+00:00", "is_active": false,
              "scope": { "model": { "id": null, "display_name": "Fable" }, "surface": null } },
        ],
        "spend": null,
        "extra_usage": { "is_enabled": true, "monthly_limit": 4000, "used_credits": 1000, "utilization": 25.0,
            "currency": "EUR", "decimal_places": 2, "disabled_reason": null, "daily": null },
    })
}

#[test]
fn an_unchanged_response_is_passed_on_as_it_was() {
    let body = current();

    let mut written = write(&polled(&body), Some(&body), 60);

    // The provider sends this window as null, or not at all.
    assert_eq!(written.as_object_mut().unwrap().remove("seven_day_sonnet"), Some(Value::Null));
    assert_eq!(written, body);
}

#[test]
fn without_a_last_response_the_readings_are_the_same() {
    let body = current();

    let written = parse(&write(&polled(&body), None, 60));

    let original = parse(&body);
    assert_eq!(written.windows, original.windows);
    assert_eq!(written.credits, original.credits);
}

#[test]
fn a_window_that_has_ended_is_null_and_not_listed() {
    let body = current();
    for last in [None, Some(&body)] {
        let known = json!({ "five_hour": { "utilization": 10, "resets_at": "2026-07-01T12:05:00Z" },
            "seven_day": { "utilization": 20, "resets_at": "2026-07-03T00:00:00Z" } });
        let written = write(&polled(&known), last, 301);

        assert!(written["five_hour"].is_null(), "{written}");
        let kinds: Vec<_> = written["limits"].as_array().unwrap().iter().map(|row| &row["kind"]).collect();
        assert_eq!(kinds, ["weekly_all"]);
    }
}

#[test]
fn a_changed_window_has_the_new_numbers_and_no_old_severity() {
    let body = current();
    let mut snapshot = polled(&body);
    let newer = WindowReading::new(WindowId::five_hour(), Percent::from_percent(91.0).unwrap())
        .resets_at("2026-07-01T14:00:00Z".parse::<Timestamp>().unwrap());
    snapshot.join(&Snapshot::of(&UsageReport::from_headers([newer]), after(30)));

    let written = write(&snapshot, Some(&body), 60);

    assert_eq!(written["five_hour"]["utilization"], 91.0);
    assert_eq!(written["limits"][0]["percent"], 91.0);
    assert_eq!(written["limits"][0].get("severity"), None);
    assert_eq!(written["limits"][1], body["limits"][1]);
}

#[test]
fn unknown_fields_of_the_last_response_are_passed_on() {
    let body =
        json!({ "five_hour": { "utilization": 1, "resets_at": null }, "cedar_ember": { "eligible": true } });

    let written = write(&polled(&body), Some(&body), 0);

    assert_eq!(written["cedar_ember"], json!({ "eligible": true }));
    // The last response had no rows, so its clients expect none.
    assert_eq!(written.get("limits"), None);
}

#[test]
fn a_window_that_the_record_no_longer_has_is_null() {
    let last = current();
    let only = json!({ "seven_day": { "utilization": 20, "resets_at": "2026-07-03T00:00:00Z" } });

    let written = write(&polled(&only), Some(&last), 0);

    assert!(written["five_hour"].is_null());
    assert_eq!(written["limits"].as_array().unwrap().len(), 1);
    assert!(written["extra_usage"].is_null());
}

#[test]
fn times_have_microseconds_and_an_offset() {
    let body = json!({ "five_hour": { "utilization": 1, "resets_at": "2026-07-01T14:00:00Z" } });

    let written = write(&polled(&body), None, 0);

    assert_eq!(written["five_hour"]["resets_at"], "2026-07-01T14:00:00.000000+00:00");
}

#[test]
fn a_failure_is_an_error_response_for_the_parser() {
    for status in [401, 403, 429, 503] {
        let failure = EndpointFailure { status, message: "why", retry_after: None };
        let body = PROVIDER.endpoint().unwrap().failure(&failure);

        assert_eq!((&body["type"], &body["error"]["message"]), (&json!("error"), &json!("why")));
        assert!(parse_usage(body.to_string().as_bytes()).is_err());
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
        used in proptest::collection::vec(0_u32..=100_000, 6),
        resets in proptest::collection::vec(proptest::option::of(60..6 * DAY), 6),
        has_last in any::<bool>(),
    ) {
        let opus = WindowId::seven_day().for_model("Opus").unwrap();
        let fable = WindowId::seven_day().for_model("Fable 5").unwrap();
        let ids = [
            (WindowId::five_hour(), None),
            (WindowId::seven_day(), None),
            (opus, Some(Scope::model("Opus"))),
            (fable, Some(Scope::model("Fable 5"))),
            (WindowId::new("seven_day_cowork").unwrap(), Some(Scope::surface("cowork"))),
            (WindowId::new("tangelo").unwrap(), Some(Scope::surface("tangelo"))),
        ];
        let readings = ids.into_iter().zip(used).zip(resets).map(|(((id, scope), used), reset)| {
            let reset = if id == WindowId::five_hour() { reset.map(|reset| reset % 18_000 + 60) } else { reset };
            WindowReading::new(id, Percent::from_basis_points(used)).scope(scope).resets_at(reset.map(after))
        });
        let snapshot = Snapshot::of(&UsageReport::polled(readings), now());

        let last = current();
        let written = parse(&write(&snapshot, has_last.then_some(&last), 30));

        for window in snapshot.windows() {
            let read = written.windows.iter().find(|read| read.id == *window.id());
            let read = read.map(|read| (read.used, read.resets_at, read.scope.as_ref()));
            prop_assert_eq!(read, Some((window.used(), window.resets_at(), window.scope())), "{}", window.id());
        }
        prop_assert_eq!(written.windows.len(), snapshot.windows().len());
    }
}
