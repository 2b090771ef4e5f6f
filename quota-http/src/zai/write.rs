//! Writes responses of z.ai's quota endpoint from the readings of an account.

use quota_core::model::Window;
use serde_json::{Map, Value, json};

use super::{PLANS, parse_usage};
use crate::usage_endpoint::{EndpointFailure, KnownUsage, window_of_limit};

/// The body of a successful response.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let last = known.last_fields().and_then(|last| last.get("data")?.as_object());
    let mut data = last.cloned().unwrap_or_default();
    let rows = data.remove("limits");
    let plan = PLANS.into_iter().find(|name| data.contains_key(*name)).unwrap_or(PLANS[0]);
    for name in PLANS {
        data.remove(name);
    }
    data.insert(plan.to_owned(), known.plan.into());
    data.insert("limits".to_owned(), limits(known, rows.as_ref()).into());
    let mut root = known.last_fields().cloned().unwrap_or_default();
    root.insert("code".to_owned(), 200.into());
    root.insert("success".to_owned(), true.into());
    root.entry("msg").or_insert_with(|| "Operation successful".into());
    root.insert("data".to_owned(), data.into());
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    json!({ "code": failure.status, "msg": failure.message, "success": false })
}

/// The limits: those of the last response in their order, then the others.
fn limits(known: &KnownUsage<'_>, last: Option<&Value>) -> Vec<Value> {
    let mut windows = known.windows.clone();
    let mut rows = Vec::new();
    for row in last.and_then(Value::as_array).into_iter().flatten() {
        let Some(id) = window_of_limit(row, parse_usage) else { continue };
        let Some(at) = windows.iter().position(|window| *window.id() == id) else { continue };
        rows.push(limit(row.as_object().cloned().unwrap_or_default(), windows.remove(at)));
    }
    rows.extend(windows.into_iter().filter_map(new_limit));
    rows
}

/// A limit with the known usage. Amounts that belong to another reading are omitted.
fn limit(mut fields: Map<String, Value>, window: &Window) -> Value {
    for name in ["currentValue", "nextResetTime", "remaining", "usageDetails"] {
        fields.remove(name);
    }
    fields.insert("percentage".to_owned(), window.used().as_f64().into());
    if let Some(at) = window.resets_at() {
        fields.insert("nextResetTime".to_owned(), at.as_millisecond().into());
    }
    Value::Object(fields)
}

/// A limit that the last response does not list; `None` if its unit cannot be written.
fn new_limit(window: &Window) -> Option<Value> {
    const HOUR: u64 = 3600;
    let kind = match window.scope() {
        None => "TOKENS_LIMIT".to_owned(),
        Some(scope) => match scope.surface.as_deref()? {
            "tools" => "TIME_LIMIT".to_owned(),
            other => other.to_ascii_uppercase(),
        },
    };
    let (unit, number) = match window.length().map(|length| length.as_secs()) {
        None => (5, 1),
        Some(604_800) => (6, 1),
        Some(seconds) if seconds % (24 * HOUR) == 0 => (1, seconds / (24 * HOUR)),
        Some(seconds) if seconds % HOUR == 0 => (3, seconds / HOUR),
        Some(_) => return None,
    };
    let fields = [("type", kind.into()), ("unit", unit.into()), ("number", number.into())];
    let row =
        limit(fields.map(|(name, value): (_, Value)| (name.to_owned(), value)).into_iter().collect(), window);
    (window_of_limit(&row, parse_usage).as_ref() == Some(window.id())).then_some(row)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use quota_core::{Credential, Snapshot, UsageReport};

    use super::*;
    use crate::usage_endpoint::testing::written;
    use crate::zai::PROVIDER;

    fn now() -> Timestamp {
        Timestamp::from_second(1_783_000_000).unwrap()
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

    fn reset(seconds: i64) -> i64 {
        (now().as_second() + seconds) * 1000
    }

    fn current() -> Value {
        json!({ "code": 200, "msg": "Operation successful", "success": true, "new": 1, "data": { "level": "pro", "limits": [
            { "type": "TIME_LIMIT", "unit": 5, "number": 1, "usage": 1000, "currentValue": 30, "remaining": 970,
              "percentage": 3, "nextResetTime": reset(500_000), "usageDetails": [] },
            { "type": "CREDIT_LIMIT", "unit": 3, "number": 5, "percentage": 25, "nextResetTime": reset(200) },
            { "type": "TOKENS_LIMIT", "unit": 9, "number": 2, "percentage": 4, "nextResetTime": reset(5000) },
        ] } })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        assert_eq!(write(&polled(&current()), Some(&current()), 60), current());
    }

    #[test]
    fn without_a_last_response_the_readings_are_the_same() {
        let mut body = current();
        // A unit that this version does not know cannot be written from a record.
        body["data"]["limits"].as_array_mut().unwrap().pop();

        let (written, original) = (parse(&write(&polled(&body), None, 0)), parse(&body));

        assert_eq!((written.windows, written.plan), (original.windows, original.plan));
    }

    #[test]
    fn a_window_that_has_ended_is_absent_and_the_others_stay() {
        let written = write(&polled(&current()), Some(&current()), 200);

        let limits = written["data"]["limits"].as_array().unwrap();
        let kinds: Vec<_> = limits.iter().map(|limit| limit["unit"].as_i64().unwrap()).collect();
        assert_eq!(kinds, [5, 9]);
        assert_eq!((&written["new"], &written["data"]["level"]), (&json!(1), &json!("pro")));
    }

    #[test]
    fn a_failure_is_an_error_response_for_the_parser() {
        for status in [401, 403, 429, 503] {
            let failure = EndpointFailure { status, message: "why", retry_after: None };
            let body = PROVIDER.endpoint().unwrap().failure(&failure);

            assert_eq!(body["msg"], "why");
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
            limits in proptest::collection::vec((prop_oneof![Just(1), Just(3), Just(6)], 1..9_u8, 0..12_000_u32, 60..3600_i64), 1..6),
            has_last in any::<bool>(),
        ) {
            let rows: Vec<_> = limits.iter().map(|(unit, number, used, seconds)| {
                json!({ "type": "TOKENS_LIMIT", "unit": unit, "number": number,
                    "percentage": f64::from(*used) / 100.0, "nextResetTime": reset(*seconds) })
            }).collect();
            let body = json!({ "code": 200, "data": { "planName": "max", "limits": rows } });

            let last = current();
            let written = write(&polled(&body), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written).windows, parse(&body).windows);
        }
    }
}
