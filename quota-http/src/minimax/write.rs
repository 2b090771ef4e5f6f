//! Writes responses of MiniMax's remaining quota endpoint from the readings of an account.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::WindowId;
use quota_core::model::Window;
use serde_json::{Map, Value, json};

use super::{NOT_INCLUDED, WINDOWS, WindowFields, parse_usage};
use crate::usage_endpoint::{EndpointFailure, KnownUsage, amount, amount_text, number_of, percent_left};

/// Windows of this length or longer are written into the weekly fields.
const LONG: Duration = Duration::from_secs(6 * 24 * 3600);

/// The body of a successful response.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let mut data = match root.get_mut("data").and_then(Value::as_object_mut) {
        Some(data) => std::mem::take(data),
        None => std::mem::take(&mut root),
    };
    let rows = rows(known, data.get("model_remains"));
    data.insert("model_remains".to_owned(), rows.into());
    data.insert("current_subscribe_title".to_owned(), known.plan.into());
    let balance = known.credits.and_then(|credits| credits.balance.as_ref());
    data.insert("points_balance".to_owned(), balance.map(amount_text).into());
    if root.is_empty() {
        root = data;
    } else {
        root.insert("data".to_owned(), data.into());
    }
    root.insert("base_resp".to_owned(), json!({ "status_code": 0, "status_msg": "success" }));
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    let code = match failure.status {
        401 => 1004,
        429 => 1002,
        _ => 1000,
    };
    json!({ "base_resp": { "status_code": code, "status_msg": failure.message } })
}

/// The rows of the models: those of the last response in their order, then the others.
fn rows(known: &KnownUsage<'_>, last: Option<&Value>) -> Vec<Value> {
    let mut windows = known.windows.clone();
    let mut rows = Vec::new();
    for row in last.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
        let mut row = row.clone();
        let mut is_known = false;
        for fields in &WINDOWS {
            if fields.is_not_included(&row) {
                continue;
            }
            let id = window_of(&row, fields);
            let at = id.and_then(|id| windows.iter().position(|window| *window.id() == id));
            let window = at.map(|at| windows.remove(at));
            is_known |= window.is_some();
            fields.write(&mut row, window, known.now);
        }
        if is_known {
            rows.push(row);
        }
    }
    for window in windows {
        let fields = &WINDOWS[usize::from(window.length().is_some_and(|length| length >= LONG))];
        let name = name(window);
        let is_free = |row: &&mut Map<String, Value>| {
            row.get("model_name").and_then(Value::as_str) == Some(name)
                && !fields.names().iter().any(|field| row.contains_key(*field))
        };
        let mut new = Map::from_iter([("model_name".to_owned(), name.into())]);
        fields.write(&mut new, Some(window), known.now);
        // A window without a reset or a length cannot be written.
        if window_of(&new, fields).as_ref() != Some(window.id()) {
            continue;
        }
        match rows.iter_mut().find(is_free) {
            Some(row) => fields.write(row, Some(window), known.now),
            None => rows.push(new),
        }
    }
    rows.into_iter().map(Value::Object).collect()
}

/// The name of the row with the scope of the window.
fn name(window: &Window) -> &str {
    let scope = window.scope();
    scope.and_then(|scope| scope.model.as_deref().or(scope.surface.as_deref())).unwrap_or("general")
}

/// The window into which the parser turns these fields of a row.
fn window_of(row: &Map<String, Value>, fields: &WindowFields) -> Option<WindowId> {
    let names = fields.names();
    let own = row.iter().filter(|(name, _)| *name == "model_name" || names.contains(&name.as_str()));
    let own: Map<_, _> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    let body = json!({ "model_remains": [own] }).to_string();
    let usage = parse_usage(body.as_bytes(), Timestamp::UNIX_EPOCH).ok()?.usage;
    usage.windows.into_iter().next().map(|reading| reading.id)
}

impl WindowFields {
    fn is_not_included(&self, row: &Map<String, Value>) -> bool {
        number_of(row.get(self.status)) == Some(NOT_INCLUDED)
    }

    /// Replaces the fields of the window. Amounts that belong to another reading are omitted.
    fn write(&self, row: &mut Map<String, Value>, window: Option<&Window>, now: Timestamp) {
        let status = row.get(self.status).cloned();
        for name in self.names() {
            row.remove(name);
        }
        let Some(window) = window else { return };
        let mut set = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
        set(self.status, status.unwrap_or_else(|| 1.into()));
        set(self.remaining_percent, amount(percent_left(window)));
        let Some(end) = window.resets_at() else { return };
        set(self.ends_at, end.as_millisecond().into());
        set(self.ends_in, milliseconds_until(end, now).into());
        let length = window.length().and_then(|length| SignedDuration::try_from(length).ok());
        if let Some(start) = length.and_then(|length| end.checked_sub(length).ok()) {
            set(self.starts_at, start.as_millisecond().into());
        }
    }
}

fn milliseconds_until(end: Timestamp, now: Timestamp) -> i64 {
    end.as_millisecond().saturating_sub(now.as_millisecond()).max(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quota_core::{Snapshot, UsageReport};

    use super::*;
    use crate::usage_endpoint::testing::written;

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

    fn at(seconds: i64) -> i64 {
        now().as_millisecond() + seconds * 1000
    }

    fn body(interval: f64, week: f64, reset: i64) -> Value {
        json!({ "new": 1, "points_balance": "1400", "current_subscribe_title": "Plus",
            "base_resp": { "status_code": 0, "status_msg": "success" },
            "model_remains": [
                { "model_name": "general", "new": 2,
                    "start_time": at(reset - 18_000), "end_time": at(reset), "current_interval_status": 1,
                    "current_interval_remaining_percent": 100.0 - interval,
                    "weekly_start_time": at(90_000 - 604_800), "weekly_end_time": at(90_000),
                    "current_weekly_status": 1, "current_weekly_remaining_percent": 100.0 - week },
                { "model_name": "video", "start_time": at(50_000 - 86_400), "end_time": at(50_000),
                    "current_interval_total_count": 200, "current_interval_usage_count": 138,
                    "current_interval_status": 1, "current_weekly_status": 3 },
            ] })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        let body = body(25.0, 50.0, 900);

        assert_eq!(write(&polled(&body), Some(&body), 60), body);
    }

    #[test]
    fn a_newer_reading_keeps_the_unknown_fields() {
        let written = write(&polled(&body(75.0, 50.0, 900)), Some(&body(25.0, 50.0, 900)), 60);

        let row = &written["model_remains"][0];
        assert_eq!((&written["new"], &row["new"]), (&json!(1), &json!(2)));
        assert_eq!(
            (&row["current_interval_remaining_percent"], &row["remains_time"]),
            (&json!(25), &json!(840_000))
        );
        assert_eq!(written["model_remains"][1]["current_weekly_status"], 3);
    }

    #[test]
    fn a_window_that_has_ended_is_absent() {
        let body = body(25.0, 50.0, 200);

        for last in [None, Some(&body)] {
            let written = write(&polled(&body), last, 200);

            let ids: Vec<_> =
                parse(&written).windows.into_iter().map(|window| window.id.to_string()).collect();
            assert_eq!(ids, ["1440_minutes_video", "seven_day"], "{written}");
        }
    }

    #[test]
    fn a_response_in_an_envelope_stays_in_it() {
        let last = json!({ "data": body(25.0, 50.0, 900), "base_resp": { "status_code": 0 } });

        let written = write(&polled(&body(75.0, 50.0, 900)), Some(&last), 60);

        assert_eq!(written["data"]["model_remains"][0]["current_interval_remaining_percent"], 25);
        assert!(written.get("model_remains").is_none());
    }

    proptest! {
        #[test]
        fn the_parser_reads_back_what_was_written(
            interval in 0_u32..20_000,
            week in 0_u32..20_000,
            reset in 60..17_000_i64,
            has_last in any::<bool>(),
        ) {
            let original = body(f64::from(interval) / 100.0, f64::from(week) / 100.0, reset);

            let last = body(25.0, 50.0, 900);
            let written = write(&polled(&original), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written), parse(&original));
        }
    }
}
