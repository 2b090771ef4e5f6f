//! Parses documents that a user saved from Cursor's dashboard. quota does not request them, because they need a browser
//! session.

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{Credits, Scope};
use quota_core::{Percent, WindowId, WindowReading};

use super::usage::{Cycle, on_demand, parse_usage};
use crate::lenient::{Field, flag, number, text, used_share};
use crate::parsed::ParseError;
use crate::report::{ReportBuilder, credits_or_skip, json_object};
use crate::saved::SavedDocument;

/// Parses a saved document.
///
/// # Errors
///
/// [`ParseError`] if it has no usage.
pub(super) fn parse(document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
    let root = json_object(document)?;
    if root.contains_key("individualUsage") || root.contains_key("teamUsage") {
        return summary(&root);
    }
    if root.contains_key("usagePercent") {
        let mut report = ReportBuilder::default();
        bot(&root, &mut report);
        return Ok(SavedDocument::new("bot_usage", report.build(Field::Absent)?));
    }
    if root.values().any(|value| value.get("numRequests").is_some()) {
        let mut report = ReportBuilder::default();
        requests(&root, &mut report);
        return Ok(SavedDocument::new("requests", report.build(Field::Absent)?));
    }
    Ok(SavedDocument::new("usage", parse_usage(document, now)?))
}

fn summary(root: &Object<'_>) -> Result<SavedDocument, ParseError> {
    let mut report = ReportBuilder::default();
    let cycle = Cycle::of(root, "billingCycleStart", "billingCycleEnd", "billing_cycle");
    let part = |owner: &str, name: &str| {
        root.get(owner).and_then(|usage| usage.get(name)).filter(|part| !part.is_null())
    };
    let own = ["plan", "overall"].into_iter().find_map(|name| Some((name, part("individualUsage", name)?)));
    if flag(root.get("isUnlimited")) == Field::Present(true) {
        report.add(WindowReading::unlimited(cycle.window("")), "isUnlimited");
    } else if let Some((name, own)) = own {
        cycle.add("", None, used(own), format!("individualUsage.{name}"), &mut report);
    }
    if let Some(pooled) = part("teamUsage", "pooled") {
        cycle.add("_team", None, used(pooled), "teamUsage.pooled", &mut report);
    }
    if part("teamUsage", "onDemand").is_some() {
        report.skip("teamUsage.onDemand", "the spending of a team");
    }
    let credits = part("individualUsage", "onDemand").map_or(Ok(Credits::default()), on_demand);
    let credits = credits_or_skip(credits, "individualUsage.onDemand", &mut report);
    let mut parsed = report.build(credits)?;
    parsed.usage.plan = text(root.get("membershipType")).ok().map(str::to_owned);
    Ok(SavedDocument::new("usage_summary", parsed))
}

/// The stated share, or else that of the amounts.
fn used(part: &Value<'_>) -> Field<f64> {
    match number(part.get("totalPercentUsed")) {
        Field::Present(percent) => Field::Present(percent),
        _ => {
            let of = |name| number(part.get(name));
            used_share(of("limit"), of("used"), of("remaining"))
        }
    }
}

/// The allowance of a product. Its window has a scope, because requests continue after the allowance is used up.
fn bot(root: &Object<'_>, report: &mut ReportBuilder) {
    if flag(root.get("hasNonZeroIncludedLimit")) == Field::Present(false) {
        return report.skip("usagePercent", "the plan includes no such usage");
    }
    let cycle = Cycle::of(root, "currentPeriodStart", "nextResetTimestampUtc", "period");
    let scope = Some(Scope::surface("sand"));
    cycle.add("_sand", scope, number(root.get("usagePercent")), "usagePercent", report);
}

/// The requests of older plans, by model. A null limit means that there is no limit.
fn requests(root: &Object<'_>, report: &mut ReportBuilder) {
    let period = WindowId::new("requests").expect("a constant name is valid");
    for (model, counts) in root.iter().filter(|(_, counts)| counts.is_object()) {
        let Ok(id) = period.for_model(model) else {
            report.mark_unnamed(model, "not a valid window name");
            continue;
        };
        let limit = counts.get("maxRequestUsage");
        if limit.is_some_and(Value::is_null) {
            report.add(WindowReading::unlimited(id).scope(Scope::model(model)), model);
            continue;
        }
        let total = match number(counts.get("numRequestsTotal")) {
            Field::Present(total) => Field::Present(total),
            _ => number(counts.get("numRequests")),
        };
        let used = used_share(number(limit), total, Field::Absent).and_then(Percent::from_percent);
        report.add_used(id, used, model, |reading| reading.scope(Scope::model(model)));
    }
}

#[cfg(test)]
mod tests {
    use quota_core::model::Money;
    use serde_json::{Value, json};

    use super::*;

    fn parse_document(document: &Value) -> SavedDocument {
        parse(document.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn used(document: &Value) -> Vec<(String, f64)> {
        let windows = parse_document(document).parsed.usage.windows;
        windows.iter().map(|window| (window.id.to_string(), window.used.as_f64())).collect()
    }

    fn with_cycle(mut document: Value) -> Value {
        document["billingCycleStart"] = json!("2026-07-01T00:00:00Z");
        document["billingCycleEnd"] = json!("2026-08-01T00:00:00Z");
        document
    }

    #[test]
    fn a_summary_has_the_plan_and_the_spending() {
        let document = with_cycle(json!({
            "membershipType": "pro",
            "individualUsage": {
                "plan": { "used": 500, "limit": 2000 },
                "onDemand": { "enabled": true, "used": 250, "limit": null },
            },
        }));

        let usage = parse_document(&document).parsed.usage;

        assert_eq!(used(&document), [("monthly".to_owned(), 25.0)]);
        let credits = usage.credits.unwrap();
        assert_eq!((credits.enabled, credits.unlimited), (Some(true), Some(true)));
        assert_eq!((credits.used, credits.limit), (Some(Money::new(250, "USD", 2)), None));
        assert_eq!(usage.plan.as_deref(), Some("pro"));
    }

    #[test]
    fn only_enabled_spending_without_a_limit_is_unlimited() {
        let unlimited = |on_demand: Value| {
            let document = with_cycle(json!({ "individualUsage": {
                "plan": { "used": 1, "limit": 4 }, "onDemand": on_demand,
            } }));
            parse_document(&document).parsed.usage.credits.and_then(|credits| credits.unlimited)
        };

        assert_eq!(unlimited(json!({ "enabled": false, "limit": null, "used": 0 })), None);
        assert_eq!(unlimited(json!({ "enabled": true, "limit": null })), Some(true));
        assert_eq!(unlimited(json!({ "enabled": false, "limit": 5 })), Some(false));
    }

    #[test]
    fn a_team_has_a_window_of_its_own() {
        let document = with_cycle(json!({
            "individualUsage": { "overall": { "used": 30, "limit": 40 } },
            "teamUsage": { "pooled": { "used": 1, "limit": 4 }, "onDemand": { "used": 0 } },
        }));

        assert_eq!(used(&document), [("monthly".to_owned(), 75.0), ("monthly_team".to_owned(), 25.0)]);
        assert_eq!(parse_document(&document).parsed.skipped[0].field, "teamUsage.onDemand");
    }

    #[test]
    fn an_unlimited_plan_has_an_unlimited_window() {
        let document = with_cycle(json!({ "isUnlimited": true, "individualUsage": {} }));

        let windows = parse_document(&document).parsed.usage.windows;

        assert_eq!(windows, [WindowReading::unlimited(WindowId::monthly())]);
    }

    #[test]
    fn the_allowance_of_a_product_never_blocks_the_account() {
        let document = json!({
            "currentPeriodStart": "2026-07-01T00:00:00Z", "nextResetTimestampUtc": "2026-07-08T00:00:00Z",
            "usagePercent": 100, "hasAvailableUsage": true,
        });

        let window = &parse_document(&document).parsed.usage.windows[0];

        assert_eq!((window.id.as_str(), &window.scope), ("seven_day_sand", &Some(Scope::surface("sand"))));
    }

    #[test]
    fn requests_of_older_plans_are_counted_by_model() {
        let document = json!({
            "gpt-4": { "numRequests": 5, "numRequestsTotal": "20", "maxRequestUsage": 50 },
            "gpt-3": { "numRequests": 5, "maxRequestUsage": null },
            "other": { "numRequests": 5 },
            "startOfMonth": "2026-07-01T00:00:00Z",
        });

        let usage = parse_document(&document).parsed.usage;

        assert_eq!(
            used(&document),
            [("requests/gpt-3".to_owned(), 0.0), ("requests/gpt-4".to_owned(), 40.0)]
        );
        assert_eq!(usage.windows.iter().map(|window| window.is_unlimited).collect::<Vec<_>>(), [true, false]);
    }
}
