//! Parses the response of GitHub Copilot's user endpoint.

use std::collections::BTreeMap;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{Credits, OwnerId, Scope};
use quota_core::{Percent, WindowId, WindowReading};

use crate::lenient::{Decimal, Field, Unreadable, decimal, flag, number, timestamp, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::report::{ReportBuilder, credits_or_skip, json_object, text_or_skip};

/// The quota that counts requests to models. Its window applies to the whole account.
pub(super) const PREMIUM: &str = "premium_interactions";

/// The known fields, which are not listed as skipped.
const KNOWN: [&str; 23] = [
    "access_type_sku",
    "analytics_tracking_id",
    "assigned_date",
    "can_signup_for_limited",
    "can_upgrade_plan",
    "chat_enabled",
    "codex_agent_enabled",
    "copilot_plan",
    "copilotignore_enabled",
    "endpoints",
    "is_mcp_enabled",
    "limited_user_quotas",
    "limited_user_reset_date",
    "limited_user_subscribed_day",
    "login",
    "monthly_quotas",
    "organization_list",
    "organization_login_list",
    "quota_reset_date",
    "quota_reset_date_utc",
    "quota_snapshots",
    "restricted_telemetry",
    "token_based_billing",
];

const KNOWN_OF_SNAPSHOT: [&str; 12] = [
    "credits_used",
    "entitlement",
    "has_quota",
    "overage_count",
    "overage_permitted",
    "percent_remaining",
    "quota_id",
    "quota_remaining",
    "remaining",
    "timestamp_utc",
    "token_based_billing",
    "unlimited",
];

/// Parses the response of the user endpoint.
///
/// All quotas are monthly. `premium_interactions` is the window `monthly`; any other quota is a window of its surface.
/// A quota with `unlimited`, or with an entitlement of -1, has no limit. An entitlement of zero without any usage is
/// not a quota.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::copilot::parse_usage;
///
/// let body = br#"{ "copilot_plan": "individual", "quota_reset_date": "2026-08-01", "quota_snapshots": {
///     "premium_interactions": { "entitlement": 300, "remaining": 75 }, "chat": { "unlimited": true }
/// } }"#;
/// let parsed = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?;
///
/// let [premium, chat] = &parsed.usage.windows[..] else { panic!("two windows") };
/// assert_eq!((&premium.id, Some(premium.used)), (&WindowId::monthly(), Percent::from_percent(75.0)));
/// assert!(chat.is_unlimited);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, or has too many windows.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    let mut report = ReportBuilder::default();
    match root.get("quota_snapshots") {
        None | Some(Value::Null) => {}
        Some(Value::Object(quotas)) => {
            let resets_at = ["quota_reset_date_utc", "quota_reset_date"];
            let resets_at = resets_at.into_iter().find_map(|name| timestamp(root.get(name)));
            for (name, quota) in quotas.iter().filter(|(_, quota)| !quota.is_null()) {
                snapshot(name, quota, resets_at, &mut report);
            }
        }
        Some(_) => report.mark_unnamed("quota_snapshots", "not an object"),
    }
    if report.windows.is_empty() {
        counts(&root, &mut report);
    }
    report.skip_unknown(&root, &KNOWN, "");
    let plan = text_or_skip(&root, "copilot_plan", "", &mut report);
    let owner = text_or_skip(&root, "login", "", &mut report);
    let credits = credits(&root, &mut report);
    let mut parsed = report.build(credits)?;
    parsed.usage.plan = plan;
    parsed.usage.owner_id = owner.as_deref().map(OwnerId::new);
    Ok(parsed)
}

/// The id of a quota's window, and its scope unless it is the whole account.
fn window(quota: &str) -> Option<(WindowId, Option<Scope>)> {
    match quota {
        PREMIUM => Some((WindowId::monthly(), None)),
        _ => Some((WindowId::new(&format!("monthly_{quota}")).ok()?, Some(Scope::surface(quota)))),
    }
}

fn snapshot(name: &str, quota: &Value<'_>, resets_at: Option<Timestamp>, report: &mut ReportBuilder) {
    let field = format!("quota_snapshots.{name}");
    let Some((id, scope)) = window(name) else {
        return report.mark_unnamed(field, "not a valid window name");
    };
    let Some(fields) = quota.as_object() else {
        return report.mark_unreadable(id, field, "not an object");
    };
    report.skip_unknown(fields, &KNOWN_OF_SNAPSHOT, &format!("{field}."));
    let entitlement = number(fields.get("entitlement"));
    if flag(fields.get("unlimited")) == Field::Present(true) || entitlement == Field::Present(-1.0) {
        return report.add(WindowReading::unlimited(id).scope(scope), field);
    }
    let remaining = number(fields.get("percent_remaining"));
    if entitlement == Field::Present(0.0) && matches!(remaining, Field::Absent | Field::Present(100.0)) {
        // Accounts that are billed by tokens have such quotas.
        return report.skip(field, "an entitlement of zero is no quota");
    }
    let used = used(fields, entitlement).and_then(Percent::from_percent);
    report.add_used(id, used, field, |reading| reading.scope(scope).resets_at(resets_at));
}

/// The used share, in percent. Amounts take precedence, because the percentage of some responses never goes below 0 %.
fn used(quota: &Object<'_>, entitlement: Field<f64>) -> Field<f64> {
    let remaining = match number(quota.get("quota_remaining")) {
        Field::Present(remaining) => Field::Present(remaining),
        _ => number(quota.get("remaining")),
    };
    let percent = number(quota.get("percent_remaining")).map(|percent| 100.0 - percent);
    match (used_share(entitlement, Field::Absent, remaining), percent) {
        (Field::Present(share), _) => Field::Present(share),
        (_, Field::Present(percent)) => Field::Present(percent),
        (Field::Absent, percent) => percent,
        (share, _) => share,
    }
}

/// Adds the quotas of the free plan. `limited_user_quotas` is what remains of `monthly_quotas`.
fn counts(root: &Object<'_>, report: &mut ReportBuilder) {
    let mut names = BTreeMap::new();
    for field in ["limited_user_quotas", "monthly_quotas"] {
        match root.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(counts)) => {
                let counts = counts.iter().filter(|(_, count)| !count.is_null());
                names.extend(counts.map(|(name, _)| (name, field)));
            }
            Some(_) => report.mark_unnamed(field, "not an object"),
        }
    }
    let resets_at = timestamp(root.get("limited_user_reset_date"));
    let count = |field: &str, name: &str| number(root.get(field).and_then(|counts| counts.get(name)));
    for (name, field) in names {
        let field = format!("{field}.{name}");
        let Some((id, scope)) = window(name) else {
            report.mark_unnamed(field, "not a valid window name");
            continue;
        };
        let (limit, remaining) = (count("monthly_quotas", name), count("limited_user_quotas", name));
        let used = used_share(limit, Field::Absent, remaining).and_then(Percent::from_percent);
        report.add_used(id, used, field, |reading| reading.scope(scope).resets_at(resets_at));
    }
}

/// The requests beyond the entitlement, or the credits of an account that is billed by tokens.
fn credits(root: &Object<'_>, report: &mut ReportBuilder) -> Field<Credits> {
    let premium = root.get("quota_snapshots").and_then(|quotas| quotas.get(PREMIUM));
    let extra = premium.and_then(Value::as_object).map_or(Ok(Credits::default()), extra);
    credits_or_skip(extra, &format!("quota_snapshots.{PREMIUM}"), report)
}

fn extra(premium: &Object<'_>) -> Result<Credits, Unreadable> {
    let amount = |name| decimal(premium.get(name)).into_result();
    let mut credits = Credits::default();
    credits.enabled = flag(premium.get("overage_permitted")).into_result()?;
    let requests = amount("overage_count")?.map(|count: Decimal| count.money("requests"));
    let used = amount("credits_used")?.map(|used| used.rounded(2).money("credits"));
    credits.used = used.or(requests);
    Ok(credits)
}

#[cfg(test)]
mod tests;
