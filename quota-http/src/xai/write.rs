//! Writes responses of xAI's billing endpoint from the readings of an account.

use jiff::SignedDuration;
use quota_core::WindowId;
use quota_core::model::{Money, Window};
use serde_json::{Map, Value, json};

use super::{CREDIT_USAGE, parse_usage};
use crate::usage_endpoint::{EndpointFailure, KnownUsage, decimal};

/// Fields that belong to one reading.
const READINGS: [&str; 8] = [
    "billingPeriodEnd",
    "billingPeriodStart",
    "creditUsagePercent",
    "currentPeriod",
    "onDemandCap",
    "onDemandUsed",
    "productUsage",
    "subscriptionTier",
];

/// The body of a successful response. All its windows have the same period, so a product with another period is
/// omitted.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let mut config = match root.remove("config") {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    for name in READINGS {
        config.remove(name);
    }
    let whole = known.windows.iter().copied().find(|window| window.scope().is_none());
    if let Some(window) = whole {
        config.insert("creditUsagePercent".to_owned(), window.used().as_f64().into());
    }
    if let Some((id, window)) =
        whole.map(|window| (window.id().to_string(), window)).or_else(|| first_product(known))
    {
        config.extend(period(&id, window));
        config.insert("productUsage".to_owned(), products(known, &id, window).into());
    }
    if let Some(credits) = known.credits {
        let amount = |money: &Option<Money>| money.as_ref().map(|money| json!({ "val": decimal(money) }));
        config.insert("onDemandCap".to_owned(), amount(&credits.limit).into());
        config.insert("onDemandUsed".to_owned(), amount(&credits.used).into());
    }
    root.insert("config".to_owned(), config.into());
    root.insert("subscriptionTier".to_owned(), known.plan.into());
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    json!({ "code": failure.status, "error": failure.message })
}

/// The product of a window, and the name of the window of all credits with its period.
fn product(window: &Window) -> Option<(&str, String)> {
    let product = window.scope()?.surface.as_deref()?;
    let whole = window.id().as_str().strip_suffix(&format!("_{}", product.to_lowercase()))?;
    Some((product, whole.to_owned()))
}

fn first_product<'a>(known: &KnownUsage<'a>) -> Option<(String, &'a Window)> {
    known.windows.iter().find_map(|window| Some((product(window)?.1, *window)))
}

/// The fields that state the period of a window.
fn period(id: &str, window: &Window) -> Map<String, Value> {
    let end = window.resets_at().map(|at| at.to_string());
    if id == CREDIT_USAGE {
        return end.map(|end| ("billingPeriodEnd".to_owned(), end.into())).into_iter().collect();
    }
    let mut period = Map::new();
    let kind = [(WindowId::seven_day(), "WEEKLY"), (WindowId::monthly(), "MONTHLY")];
    if let Some((_, kind)) = kind.iter().find(|(known, _)| known.as_str() == id) {
        period.insert("type".to_owned(), format!("USAGE_PERIOD_TYPE_{kind}").into());
    }
    let length = window.length().and_then(|length| SignedDuration::try_from(length).ok());
    if let Some(start) = window.resets_at().zip(length).and_then(|(end, length)| end.checked_sub(length).ok())
    {
        period.insert("start".to_owned(), start.to_string().into());
    }
    period.extend(end.map(|end| ("end".to_owned(), end.into())));
    Map::from_iter([("currentPeriod".to_owned(), period.into())])
}

/// The products with this period.
fn products(known: &KnownUsage<'_>, id: &str, whole: &Window) -> Vec<Value> {
    let rows = known.windows.iter().filter_map(|window| {
        let (product, of) = product(window)?;
        let is_same =
            of == id && (window.resets_at(), window.length()) == (whole.resets_at(), whole.length());
        is_same.then(|| json!({ "product": product, "usagePercent": window.used().as_f64() }))
    });
    rows.collect()
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

    fn at(seconds: i64) -> String {
        (now() + SignedDuration::from_secs(seconds)).to_string()
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

    fn body(used: f64, product: f64, period: &Value) -> Value {
        json!({ "new": 1, "subscriptionTier": "made-up", "config": {
            "isUnifiedBillingUser": true, "creditUsagePercent": used, "currentPeriod": period,
            "productUsage": [{ "product": "Api", "usagePercent": product }],
            "onDemandCap": { "val": 5000 }, "onDemandUsed": { "val": 12.25 } } })
    }

    fn week(reset: i64) -> Value {
        json!({ "type": "USAGE_PERIOD_TYPE_WEEKLY", "start": at(reset - 604_800), "end": at(reset) })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        let body = body(25.0, 50.0, &week(900));

        assert_eq!(write(&polled(&body), Some(&body), 60), body);
    }

    #[test]
    fn a_newer_reading_keeps_the_unknown_fields() {
        let written = write(&polled(&body(75.0, 50.0, &week(900))), Some(&body(25.0, 50.0, &week(900))), 60);

        assert_eq!((&written["config"]["creditUsagePercent"], &written["new"]), (&json!(75.0), &json!(1)));
        assert_eq!(written["config"]["isUnifiedBillingUser"], true);
    }

    #[test]
    fn a_window_that_has_ended_is_absent() {
        let body = body(25.0, 50.0, &week(200));

        for last in [None, Some(&body)] {
            let written = write(&polled(&body), last, 200);

            assert!(parse(&written).windows.is_empty(), "{written}");
            assert_eq!(written["config"]["onDemandCap"]["val"], 5000.0);
        }
    }

    #[test]
    fn each_kind_of_period_is_read_back() {
        let month = json!({ "start": at(900 - 30 * 86_400), "end": at(900) });
        for period in [week(900), month, json!({ "type": "USAGE_PERIOD_TYPE_MONTHLY" }), Value::Null] {
            let body = body(25.0, 50.0, &period);

            assert_eq!(parse(&write(&polled(&body), None, 60)), parse(&body), "{period}");
        }
    }

    #[test]
    fn a_product_alone_is_read_back() {
        let mut body = body(25.0, 50.0, &week(900));
        body["config"]["creditUsagePercent"] = Value::Null;

        assert_eq!(parse(&write(&polled(&body), None, 60)).windows, parse(&body).windows);
    }

    proptest! {
        #[test]
        fn the_parser_reads_back_what_was_written(
            used in 0_u32..20_000,
            product in 0_u32..20_000,
            reset in 60..600_000_i64,
            has_last in any::<bool>(),
        ) {
            let original = body(f64::from(used) / 100.0, f64::from(product) / 100.0, &week(reset));

            let last = body(25.0, 50.0, &week(900));
            let written = write(&polled(&original), has_last.then_some(&last), 30);

            prop_assert_eq!(parse(&written), parse(&original));
        }
    }
}
