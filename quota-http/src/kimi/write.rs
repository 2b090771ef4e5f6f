//! Writes responses of Kimi Code's usage endpoint from the readings of an account.

use quota_core::WindowId;
use quota_core::model::Window;
use serde_json::{Map, Value, json};

use super::parse_usage;
use crate::usage_endpoint::{EndpointFailure, KnownUsage, amount, number_of, percent_left, window_of_limit};

/// The body of a successful response. If the last response has no amounts, they are relative to a limit of 100.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let mut windows = known.windows.clone();
    let week = windows.iter().position(|window| *window.id() == WindowId::seven_day());
    let week = week.map(|at| detail(root.get("usage"), windows.remove(at)));
    root.insert("usage".to_owned(), week.into());
    let mut rows = Vec::new();
    for row in root.get("limits").and_then(Value::as_array).into_iter().flatten() {
        let Some(at) = window_of_limit(row, parse_usage)
            .and_then(|id| windows.iter().position(|window| *window.id() == id))
        else {
            continue;
        };
        rows.push(
            json!({ "window": row["window"], "detail": detail(row.get("detail"), windows.remove(at)) }),
        );
    }
    rows.extend(windows.into_iter().filter_map(new_limit));
    root.insert("limits".to_owned(), rows.into());
    if let Some(plan) = known.plan {
        let user = root.entry("user").or_insert_with(|| json!({}));
        if user.is_object() {
            user["membership"] = json!({ "level": plan });
        }
    }
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    let kind = match failure.status {
        401 => "invalid_authentication_error",
        429 => "rate_limit_reached_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({ "error": { "message": failure.message, "type": kind } })
}

/// The amounts of a window, relative to the limit of the last response.
fn detail(last: Option<&Value>, window: &Window) -> Value {
    let limit =
        last.and_then(|last| number_of(last.get("limit"))).filter(|limit| *limit > 0.0).unwrap_or(100.0);
    let left = limit * percent_left(window) / 100.0;
    let text = |value: f64| amount(value).to_string();
    let mut fields = json!({ "limit": text(limit), "used": text(limit - left), "remaining": text(left) });
    if let Some(at) = window.resets_at() {
        fields["resetTime"] = at.to_string().into();
    }
    fields
}

/// A limit that the last response does not list; `None` if its unit cannot be written.
fn new_limit(window: &Window) -> Option<Value> {
    let minutes = window.length().map(|length| length.as_secs() / 60)?;
    let unit = json!({ "duration": minutes, "timeUnit": "TIME_UNIT_MINUTE" });
    let row = json!({ "window": unit, "detail": detail(None, window) });
    (window_of_limit(&row, parse_usage).as_ref() == Some(window.id())).then_some(row)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use quota_core::{Credential, Snapshot, UsageReport};

    use super::*;
    use crate::kimi::PROVIDER;
    use crate::usage_endpoint::testing::written;

    fn now() -> Timestamp {
        Timestamp::from_second(1_783_000_000).unwrap()
    }

    fn at(seconds: i64) -> String {
        (now() + jiff::SignedDuration::from_secs(seconds)).to_string()
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

    fn amounts(limit: u64, used: f64, reset: i64) -> Value {
        json!({ "limit": limit.to_string(), "used": used.to_string(), "resetTime": at(reset) })
    }

    fn body(week: f64, five_hour: f64, reset: i64) -> Value {
        json!({ "new": 1, "user": { "userId": "made-up", "membership": { "level": "LEVEL_PRO" } },
            "usage": amounts(2048, week, 90_000),
            "limits": [{ "window": { "duration": 300, "timeUnit": "TIME_UNIT_MINUTE" }, "detail": amounts(200, five_hour, reset) }] })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        let body = body(512.0, 50.0, 900);

        assert_eq!(write(&polled(&body), Some(&body), 60), body);
    }

    #[test]
    fn a_newer_reading_keeps_the_limits_and_the_unknown_fields() {
        let written = write(&polled(&body(1024.0, 50.0, 900)), Some(&body(512.0, 50.0, 900)), 60);

        assert_eq!((&written["usage"]["used"], &written["new"]), (&json!("1024"), &json!(1)));
    }

    #[test]
    fn a_window_that_has_ended_is_absent() {
        let body = body(512.0, 50.0, 200);

        for last in [None, Some(&body)] {
            let written = write(&polled(&body), last, 200);

            assert_eq!(written["limits"], json!([]));
            assert!(written["usage"].is_object(), "{written}");
        }
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
        let request = PROVIDER.usage_request(&Credential::none());

        assert_eq!(PROVIDER.endpoint().unwrap().path(), format!("/{}", request.path));
    }

    proptest! {
        #[test]
        fn the_parser_reads_back_each_window(
            week in 0_u32..24_000,
            five_hour in 0_u32..24_000,
            reset in 60..17_000_i64,
            has_last in any::<bool>(),
        ) {
            let original = body(f64::from(week) / 10.0, f64::from(five_hour) / 100.0, reset);

            let last = body(512.0, 50.0, 900);
            let written = write(&polled(&original), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written).windows, parse(&original).windows);
            prop_assert_eq!(parse(&written).plan, parse(&original).plan);
        }
    }
}
