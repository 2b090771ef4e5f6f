//! Writes responses of Copilot's user endpoint from the readings of an account. `usage` parses them.

use jiff::Timestamp;
use quota_core::WindowId;
use quota_core::model::{Credits, Window};
use serde_json::{Map, Value, json};

use super::usage::{PREMIUM, parse_usage};
use crate::usage_endpoint::{EndpointFailure, KnownUsage, amount, decimal, number_of, percent_left};

/// The body of a successful response.
///
/// Without a last response, it has the format of a paid plan without amounts, because a record stores only percentages.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    root.insert("copilot_plan".to_owned(), known.plan.into());
    let resets_at = known.windows.iter().find_map(|window| window.resets_at());
    if let Some((totals, left)) = counts(known, &root) {
        root.insert("monthly_quotas".to_owned(), totals.into());
        root.insert("limited_user_quotas".to_owned(), left.into());
        root.insert("limited_user_reset_date".to_owned(), resets_at.map(date).into());
        return root;
    }
    let last = root.get("quota_snapshots").and_then(Value::as_object).cloned().unwrap_or_default();
    let quotas = known.windows.iter().filter_map(|window| {
        let name = quota(window)?;
        let credits = known.credits.filter(|_| name == PREMIUM);
        Some((name.to_owned(), snapshot(last.get(name), window, credits)))
    });
    let quotas: Map<_, _> = quotas.collect();
    root.insert("quota_snapshots".to_owned(), quotas.into());
    root.insert("quota_reset_date".to_owned(), resets_at.map(date).into());
    root.insert("quota_reset_date_utc".to_owned(), resets_at.map(time).into());
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    json!({
        "message": failure.message,
        "documentation_url": "https://docs.github.com/rest",
        "status": failure.status.to_string(),
    })
}

/// The quota that a window shows.
fn quota(window: &Window) -> Option<&str> {
    if *window.id() == WindowId::monthly() {
        return Some(PREMIUM);
    }
    window.scope()?.surface.as_deref()
}

/// The totals and remaining counts of the free plan. The last response must have counts for each known window.
fn counts(
    known: &KnownUsage<'_>,
    last: &Map<String, Value>,
) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let is_paid =
        last.get("quota_snapshots").and_then(Value::as_object).is_some_and(|quotas| !quotas.is_empty());
    let totals = last.get("monthly_quotas").and_then(Value::as_object).filter(|_| !is_paid)?;
    let (mut all, mut left) = (Map::new(), Map::new());
    for window in &known.windows {
        let name = quota(window)?;
        let total = number_of(totals.get(name)).filter(|total| *total > 0.0)?;
        all.insert(name.to_owned(), totals.get(name)?.clone());
        left.insert(name.to_owned(), amount(total * percent_left(window) / 100.0));
    }
    Some((all, left))
}

/// One quota. Its total is that of the last response.
fn snapshot(last: Option<&Value>, window: &Window, credits: Option<&Credits>) -> Value {
    let mut fields = last.and_then(Value::as_object).cloned().unwrap_or_default();
    // These fields belong to the readings of the last response.
    for name in [
        "credits_used",
        "overage_count",
        "overage_permitted",
        "quota_remaining",
        "remaining",
        "timestamp_utc",
    ] {
        fields.remove(name);
    }
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    set("unlimited", window.is_unlimited().into());
    set("percent_remaining", if window.is_unlimited() { 100.into() } else { amount(percent_left(window)) });
    if let Some(credits) = credits {
        if let Some(enabled) = credits.enabled {
            set("overage_permitted", enabled.into());
        }
        if let Some(used) = &credits.used {
            set(if used.currency == "requests" { "overage_count" } else { "credits_used" }, decimal(used));
        }
    }
    match number_of(fields.get("entitlement")).filter(|total| *total > 0.0) {
        Some(total) => {
            let left = amount(total * percent_left(window) / 100.0);
            fields.insert("remaining".to_owned(), left.clone());
            fields.insert("quota_remaining".to_owned(), left);
        }
        None => drop(fields.remove("entitlement")),
    }
    Value::Object(fields)
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A date, or a time if it is not midnight.
fn date(at: Timestamp) -> String {
    const DAY: i64 = 24 * 3600 * 1000;
    if at.as_millisecond() % DAY == 0 { at.strftime("%Y-%m-%d").to_string() } else { time(at) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quota_core::{Credential, Snapshot, UsageReport};

    use super::*;
    use crate::copilot::PROVIDER;
    use crate::usage_endpoint::testing::written;

    fn now() -> Timestamp {
        "2026-07-10T12:00:00Z".parse().unwrap()
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

    fn paid() -> Value {
        json!({
            "copilot_plan": "individual", "login": "made-up", "chat_enabled": true, "new_field": { "a": 1 },
            "quota_reset_date": "2026-08-01", "quota_reset_date_utc": "2026-08-01T00:00:00.000Z",
            "quota_snapshots": {
                "premium_interactions": { "entitlement": 300, "remaining": 201, "quota_remaining": 201.0,
                    "percent_remaining": 67.0, "unlimited": false, "overage_permitted": true, "overage_count": 4,
                    "quota_id": "premium_interactions", "timestamp_utc": "2026-07-10T12:00:00Z" },
                "chat": { "entitlement": 50, "percent_remaining": 90.0, "unlimited": false },
            },
        })
    }

    fn free() -> Value {
        json!({ "copilot_plan": "free", "monthly_quotas": { "chat": 500, "completions": 4000 },
            "limited_user_quotas": { "chat": 410, "completions": 4000 }, "limited_user_reset_date": "2026-08-01" })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        for body in [paid(), free()] {
            assert_eq!(write(&polled(&body), Some(&body), 60), body);
        }
    }

    #[test]
    fn without_a_last_response_the_readings_are_the_same() {
        for body in [paid(), free()] {
            let (written, original) = (parse(&write(&polled(&body), None, 0)), parse(&body));

            assert_eq!((written.windows, written.plan), (original.windows, original.plan));
            assert_eq!(written.credits, original.credits);
        }
    }

    #[test]
    fn a_newer_reading_keeps_the_total_and_the_unknown_fields() {
        let (mut newer_paid, mut newer_free) = (paid(), free());
        newer_paid["quota_snapshots"]["premium_interactions"] = json!({ "percent_remaining": 50 });
        newer_free["limited_user_quotas"]["chat"] = json!(250);
        let paid = write(&polled(&newer_paid), Some(&paid()), 60);
        let free = write(&polled(&newer_free), Some(&free()), 60);

        assert_eq!(paid["quota_snapshots"]["premium_interactions"]["remaining"], 150);
        assert_eq!(paid["new_field"], json!({ "a": 1 }));
        assert_eq!(free["limited_user_quotas"], json!({ "chat": 250, "completions": 4000 }));
        assert_eq!(parse(&free).windows, parse(&newer_free).windows);
    }

    #[test]
    fn a_window_that_has_ended_is_absent() {
        let mut body = paid();
        body["quota_reset_date_utc"] = json!("2026-07-10T12:05:00Z");
        body["quota_snapshots"]["chat"] = json!({ "unlimited": true });

        for last in [None, Some(&body)] {
            let written = write(&polled(&body), last, 299);
            assert!(written["quota_snapshots"]["premium_interactions"].is_object(), "{written}");
            let written = write(&polled(&body), last, 300);
            assert!(written["quota_snapshots"]["premium_interactions"].is_null(), "{written}");
        }
    }

    #[test]
    fn a_failure_has_no_usage_for_the_parser() {
        for status in [401, 403, 429, 503] {
            let failure = EndpointFailure { status, message: "why", retry_after: None };
            let body = PROVIDER.endpoint().unwrap().failure(&failure);

            assert_eq!(body["message"], "why");
            let parsed = parse_usage(body.to_string().as_bytes(), now());
            assert!(parsed.is_ok_and(|parsed| parsed.usage.windows.is_empty()));
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
            used in proptest::collection::vec(0_u32..12_000, 3),
            has_last in any::<bool>(),
            overage in 0..50_i64,
        ) {
            let left = |at: usize| (10_000.0 - f64::from(used[at])) / 100.0;
            let body = json!({ "copilot_plan": "pro", "quota_reset_date_utc": "2026-08-01T00:00:00Z",
                "quota_snapshots": {
                    "premium_interactions": { "percent_remaining": left(0), "overage_permitted": false, "overage_count": overage },
                    "chat": { "percent_remaining": left(1) }, "completions": { "percent_remaining": left(2) },
                } });

            let last = paid();
            let written = write(&polled(&body), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written).windows, parse(&body).windows);
            prop_assert_eq!(parse(&written).credits, parse(&body).credits);
        }
    }
}
