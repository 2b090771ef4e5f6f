//! Writes responses of OpenRouter's key endpoint from the readings of an account.
//!
//! The credits endpoint reports two totals, but a record stores only their difference. So its response cannot be
//! written.

use quota_core::model::{Credits, Window};
use serde_json::{Map, Value, json};

use super::{FREE_MODELS, Period, parse_usage};
use crate::usage_endpoint::{
    EndpointFailure, KnownUsage, amount, decimal, number_of, percent_left, spent_and_left,
};

/// Fields that belong to one reading.
const READINGS: [&str; 13] = [
    "byok_usage",
    "byok_usage_daily",
    "byok_usage_monthly",
    "byok_usage_weekly",
    "free_model_daily_requests",
    "limit",
    "limit_remaining",
    "limit_reset",
    "rate_limit",
    "usage",
    "usage_daily",
    "usage_monthly",
    "usage_weekly",
];

/// The body of a successful response.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let mut data = match root.remove("data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    let free_models = free_models(known, data.get("free_model_daily_requests"));
    for name in READINGS {
        data.remove(name);
    }
    data.extend(free_models.map(|requests| ("free_model_daily_requests".to_owned(), requests)));
    data.extend(limit(known).into_iter().map(|(name, value)| (name.to_owned(), value)));
    if known.plan == Some("free") {
        data.insert("is_free_tier".to_owned(), true.into());
    }
    root.insert("data".to_owned(), data.into());
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    json!({ "error": { "code": failure.status, "message": failure.message } })
}

/// The limit and the usage of the key. Both amounts must be known, because a percentage alone gives no amount.
fn limit(known: &KnownUsage<'_>) -> Vec<(&'static str, Value)> {
    let Some(credits) = known.credits else { return Vec::new() };
    if credits.unlimited == Some(true) {
        let used = credits.used.as_ref().map(decimal);
        return vec![
            ("limit", Value::Null),
            ("limit_remaining", Value::Null),
            ("limit_reset", Value::Null),
            (Period::Month.usage(), used.into()),
        ];
    }
    let Some((period, window)) = key_window(known) else { return Vec::new() };
    let Some((limit, left)) = limit_and_left(credits, window) else { return Vec::new() };
    vec![("limit", limit), ("limit_remaining", left), ("limit_reset", period.name().into())]
}

fn limit_and_left(credits: &Credits, window: &Window) -> Option<(Value, Value)> {
    let limit = decimal(credits.limit.as_ref()?);
    let used = credits.used.as_ref().and_then(|used| number_of(Some(&decimal(used))));
    let (_, left) = spent_and_left(number_of(Some(&limit))?, used, window.used());
    Some((limit, left.into()))
}

/// The window of the key's limit. After a change of the period there may be two windows; the newer one counts.
fn key_window<'a>(known: &KnownUsage<'a>) -> Option<(Period, &'a Window)> {
    let windows = known.windows.iter().filter_map(|window| {
        let period = Period::ALL.into_iter().find(|period| period.window() == *window.id())?;
        Some((period, *window))
    });
    windows.max_by_key(|(_, window)| window.observed_at())
}

/// The daily requests to free models, relative to the limit of the last response, or to 100 if there is none.
fn free_models(known: &KnownUsage<'_>, last: Option<&Value>) -> Option<Value> {
    let is_free =
        |window: &&&Window| window.scope().is_some_and(|scope| scope.surface.as_deref() == Some(FREE_MODELS));
    let window = known.windows.iter().find(is_free)?;
    let limit =
        last.and_then(|last| number_of(last.get("limit"))).filter(|limit| *limit > 0.0).unwrap_or(100.0);
    let left = limit * percent_left(window) / 100.0;
    Some(json!({ "limit": amount(limit), "used": amount(limit - left), "remaining": amount(left) }))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
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

    fn body(limit: f64, left: f64, reset: &Value) -> Value {
        json!({ "new": 1, "data": { "new": 2, "is_free_tier": false, "limit": limit, "limit_remaining": left,
            "limit_reset": reset, "usage": 900.5, "usage_daily": 5,
            "free_model_daily_requests": { "limit": 50, "used": 6, "remaining": 44 } } })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        let body = body(80.0, 46.0, &"weekly".into());

        assert_eq!(write(&polled(&body), Some(&body), 60), body);
    }

    #[test]
    fn a_newer_reading_keeps_the_unknown_fields_without_other_amounts() {
        let (older, newer) = (body(80.0, 46.0, &"weekly".into()), body(80.0, 20.0, &"weekly".into()));

        let written = write(&polled(&newer), Some(&older), 60);

        let data = &written["data"];
        assert_eq!(
            (&written["new"], &data["new"], &data["limit_remaining"]),
            (&json!(1), &json!(2), &json!(20.0))
        );
        assert_eq!(data["free_model_daily_requests"]["limit"], 50);
        assert!(data.get("usage").is_none() && data.get("usage_daily").is_none(), "{written}");
    }

    #[test]
    fn a_window_that_has_ended_is_absent() {
        let body = body(80.0, 46.0, &"daily".into());
        let snapshot = polled(&body);
        let end = snapshot.windows()[0].resets_at().unwrap().as_second() - now().as_second();

        // Until then no reading is too old.
        let windows: Vec<_> = snapshot.windows().iter().collect();
        let known = KnownUsage {
            windows: Vec::new(),
            plan: None,
            credits: snapshot.credits(),
            now: now(),
            last_response: None,
        };

        assert!(end > 0 && windows.len() == 2);
        assert_eq!(usage(&known)["data"], json!({}));
    }

    #[test]
    fn a_key_without_a_limit_is_read_back() {
        let body = json!({ "data": { "limit": null, "limit_remaining": null, "limit_reset": null, "usage_monthly": 12.5 } });

        assert_eq!(parse(&write(&polled(&body), None, 60)), parse(&body));
    }

    #[test]
    fn a_balance_alone_is_not_written_as_two_totals() {
        let body = json!({ "data": { "total_credits": 100.0, "total_usage": 40.0 } });

        assert_eq!(write(&polled(&body), None, 60), json!({ "data": {} }));
    }

    proptest! {
        #[test]
        fn the_parser_reads_back_what_was_written(
            limit in 1_u32..1_000_000,
            share in 0_u32..20_000,
            reset in prop_oneof![Just(json!("daily")), Just(json!("weekly")), Just(json!("monthly")), Just(Value::Null)],
            has_last in any::<bool>(),
        ) {
            let limit = f64::from(limit) / 100.0;
            let left = ((limit - limit * f64::from(share) / 10_000.0) * 100.0).round() / 100.0;
            let original = body(limit, left, &reset);

            let last = body(80.0, 46.0, &"weekly".into());
            let written = write(&polled(&original), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written), parse(&original));
        }
    }
}
