//! Writes responses of LiteLLM's key endpoint from the readings of an account.
//!
//! The endpoints for a user and a team report amounts. If the key has its own budget, a record stores only percentages
//! of these. So such responses cannot be written.

use std::time::Duration;

use quota_core::WindowId;
use quota_core::model::{Credits, Window};
use serde_json::{Map, Value, json};

use super::{BUDGETS, parse_usage};
use crate::usage_endpoint::{EndpointFailure, KnownUsage, decimal, number_of, spent_and_left};

/// Fields that belong to one reading. The table contains the budget that several keys share.
const READINGS: [&str; 6] =
    ["budget_reset_at", "litellm_budget_table", "max_budget", "model_spend", "soft_budget", "spend"];
const DURATION: &str = "budget_duration";

/// The body of a successful response.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let mut info = match root.remove("info") {
        Some(Value::Object(info)) => info,
        _ => Map::new(),
    };
    for name in READINGS {
        info.remove(name);
    }
    let duration = info.remove(DURATION);
    if let Some(window) = key_window(known) {
        info.extend(budget(known, window, duration));
    }
    if known.credits.is_some_and(|credits| credits.disabled_reason.as_deref() == Some("blocked")) {
        info.insert("blocked".to_owned(), true.into());
    }
    root.insert("info".to_owned(), info.into());
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    let kind = match failure.status {
        401 => "auth_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "internal_server_error",
    };
    let code = failure.status.to_string();
    json!({ "error": { "message": failure.message, "type": kind, "param": null, "code": code } })
}

/// The window of the key's own budget.
fn key_window<'a>(known: &KnownUsage<'a>) -> Option<&'a Window> {
    known.windows.iter().copied().find(|window| !is_of_owner(window))
}

/// Whether the budget belongs to the user or the team.
fn is_of_owner(window: &Window) -> bool {
    let id = window.id().as_str();
    BUDGETS[1..].iter().any(|owner| id.ends_with(owner.suffix) || *window.id() == owner.window(None))
}

/// The fields of the key's budget. Both amounts must be known, because a percentage alone gives no amount.
fn budget(known: &KnownUsage<'_>, window: &Window, duration: Option<Value>) -> Vec<(String, Value)> {
    let amounts = match (known.credits, window.is_unlimited()) {
        (credits, true) => {
            // If the key has an owner, the amounts are the owner's.
            let is_own = !known.windows.iter().any(|window| is_of_owner(window));
            let credits = credits.filter(|credits| is_own && credits.unlimited == Some(true));
            let spend = credits.and_then(|credits| credits.used.as_ref()).map(decimal);
            Some((Value::Null, spend.map_or(Value::Null, Into::into)))
        }
        (Some(credits), false) => limit_and_spend(credits, window),
        (None, false) => None,
    };
    let Some((limit, spend)) = amounts else { return Vec::new() };
    let duration = duration.filter(|duration| is_of(duration, window));
    let duration = duration.or_else(|| self::duration(window).map(Value::String));
    let fields = [
        ("max_budget", limit),
        ("spend", spend),
        (DURATION, duration.into()),
        ("budget_reset_at", window.resets_at().map(|at| at.to_string()).into()),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

fn limit_and_spend(credits: &Credits, window: &Window) -> Option<(Value, Value)> {
    let limit = decimal(credits.limit.as_ref()?);
    let used = credits.used.as_ref().and_then(|used| number_of(Some(&decimal(used))));
    let (spend, _) = spent_and_left(number_of(Some(&limit))?, used, window.used());
    Some((limit, spend.into()))
}

/// The duration of the window, as LiteLLM writes it; `None` for a budget that never resets.
fn duration(window: &Window) -> Option<String> {
    if *window.id() == WindowId::monthly() {
        return Some("1mo".to_owned());
    }
    let seconds = window.length().as_ref().map(Duration::as_secs)?;
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds % unit == 0)?;
    Some(format!("{}{name}", seconds / unit))
}

/// Whether the parser turns a budget with this duration into this window.
fn is_of(duration: &Value, window: &Window) -> bool {
    let body = json!({ "info": { "max_budget": 1, "spend": 0, DURATION: duration } }).to_string();
    let parsed = parse_usage(body.as_bytes(), window.observed_at());
    let reading = parsed.ok().and_then(|parsed| parsed.usage.windows.into_iter().next());
    reading.is_some_and(|reading| (&reading.id, reading.length) == (window.id(), window.length()))
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
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

    fn body(limit: f64, spend: f64, duration: &Value, reset: i64) -> Value {
        let reset = (now() + SignedDuration::from_secs(reset)).to_string();
        json!({ "key": "made-up", "info": { "key_alias": "made-up", "new": 2, "spend": spend, "max_budget": limit,
            "budget_duration": duration, "budget_reset_at": reset } })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        let body = body(80.0, 34.0, &"7d".into(), 900);

        assert_eq!(write(&polled(&body), Some(&body), 60), body);
    }

    #[test]
    fn a_newer_reading_keeps_the_unknown_fields_and_the_duration() {
        let of = |spend| body(80.0, spend, &"1w".into(), 900);

        let info = &write(&polled(&of(60.0)), Some(&of(34.0)), 60)["info"];

        assert_eq!(
            (&info["spend"], &info["new"], &info["budget_duration"]),
            (&json!(60.0), &json!(2), &json!("1w"))
        );
    }

    #[test]
    fn a_window_that_has_ended_is_absent() {
        let body = body(80.0, 34.0, &"7d".into(), 200);

        for last in [None, Some(&body)] {
            let written = write(&polled(&body), last, 200);

            assert!(
                written["info"].get("max_budget").is_none() && written["info"].get("spend").is_none(),
                "{written}"
            );
        }
    }

    #[test]
    fn a_key_without_a_budget_is_read_back() {
        let body = json!({ "key": "made-up", "info": { "spend": 12.5, "max_budget": null, "budget_duration": null } });

        assert_eq!(parse(&write(&polled(&body), None, 60)), parse(&body));
    }

    #[test]
    fn the_amounts_of_a_user_are_not_those_of_the_key() {
        let key = json!({ "info": { "max_budget": null, "user_id": "made-up" } });
        let user = json!({ "user_info": { "max_budget": 10, "spend": 4, "user_id": "made-up" } });
        let read = |body: &Value| parse_usage(body.to_string().as_bytes(), now()).unwrap();
        let snapshot = Snapshot::of(&read(&key).join(read(&user)).usage, now());
        assert_eq!(snapshot.windows().len(), 2);

        let info = &write(&snapshot, None, 60)["info"];

        assert_eq!((&info["max_budget"], &info["spend"]), (&Value::Null, &Value::Null));
    }

    proptest! {
        #[test]
        fn the_parser_reads_back_what_was_written(
            limit in 1_u32..1_000_000,
            share in 0_u32..20_000,
            duration in prop_oneof![Just("5h"), Just("90m"), Just("24h"), Just("7d"), Just("30d"), Just("1mo")],
            reset in 60..5000_i64,
            has_last in any::<bool>(),
        ) {
            let limit = f64::from(limit) / 100.0;
            let spend = (limit * f64::from(share) / 10_000.0 * 100.0).round() / 100.0;
            let original = body(limit, spend, &duration.into(), reset);

            let last = body(80.0, 34.0, &"7d".into(), 900);
            let written = write(&polled(&original), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written), parse(&original));
        }
    }
}
