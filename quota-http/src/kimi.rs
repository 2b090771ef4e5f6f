//! Kimi Code: the usage of its subscriptions. This module also parses documents that a user saved from the website.

mod write;

use std::time::Duration;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{OwnerId, Scope};
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, Percent, WindowId};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, after, flag, number, text, timestamp, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{OwnLogin, Provider};
use crate::report::{ReportBuilder, has_error, json_object};
use crate::request::UsageRequest;
use crate::saved::SavedDocument;
use crate::usage_endpoint::UsageEndpoint;
use crate::window_length::window_of_length;

/// Kimi Code's usage endpoint, with the login of Kimi Code or an API key.
pub static PROVIDER: Provider = Provider::new("kimi", "Kimi Code", request, parse_usage)
    .aliases(&["kimi-code"])
    .base_url("https://api.kimi.com")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .login(OwnLogin::File(LOGIN))
    .token_variables(&["KIMI_API_KEY"])
    .command_environment(
        CommandEnvironment::new()
            .token("KIMI_API_KEY", &[])
            .dir("KIMI_CODE_HOME", ".kimi-code")
            .remove(&["KIMI_BASE_URL"]),
    )
    .saved_documents(parse_saved);

static ENDPOINT: UsageEndpoint =
    UsageEndpoint::new("/coding/v1/usages", write::usage, write::failure).personal(&["user"]);

/// The login file of Kimi Code. Its token is valid for a few minutes, and Kimi Code renews it.
const LOGIN: ProgramLogin =
    ProgramLogin::new("Kimi Code", "kimi login", ".kimi-code", &["credentials/kimi-code.json"])
        .dir_variable("KIMI_CODE_HOME")
        .token(&["/access_token"])
        .account_id(&["/access_token#/user_id", "/access_token#/sub"])
        .expires_at(&["/expires_at", "/access_token#/exp"]);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("coding/v1/usages").bearer(&credential.secret)
}

/// Parses the response of the usage endpoint, which arrived at `now`.
///
/// A window with an unknown unit of time has the unit in its name, because the parser must not guess a length.
///
/// ```
/// use jiff::Timestamp;
/// use quota_core::WindowId;
/// use quota_http::kimi::parse_usage;
///
/// let body = br#"{ "usage": { "limit": "200", "used": "50" } }"#;
/// let parsed = parse_usage(body, Timestamp::UNIX_EPOCH)?;
///
/// let week = &parsed.usage.windows[0];
/// assert_eq!((&week.id, week.used.as_f64()), (&WindowId::seven_day(), 25.0));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is an error response, or has no usage.
pub fn parse_usage(body: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(body)?;
    if !root.contains_key("usage") && !root.contains_key("limits") {
        return Err(ParseError::NoUsage);
    }
    let mut report = ReportBuilder::default();
    add_week(root.get("usage"), "usage", now, &mut report);
    add_limits(root.get("limits"), "limits", now, &mut report);
    report.skip_unknown(&root, &["limits", "usage", "user"], "");
    let mut parsed = report.build(Field::Absent)?;
    let user = root.get("user");
    let level = user.and_then(|user| user.get("membership")?.get("level"));
    parsed.usage.plan = text(level).ok().map(str::to_owned);
    parsed.usage.owner_id = text(user.and_then(|user| user.get("userId"))).ok().map(OwnerId::new);
    Ok(parsed)
}

/// Parses a saved document: the response of the usage endpoint, or one of two responses that the website receives.
fn parse_saved(document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
    let root = object(document)?;
    if let Some(rows) = root.get("usages").and_then(Value::as_array) {
        return Ok(SavedDocument::new("web_usage", of_features(rows, now)?));
    }
    if SUBSCRIPTION.iter().any(|field| root.contains_key(field.name)) {
        return Ok(SavedDocument::new("subscription", subscription(&root)?));
    }
    Ok(SavedDocument::new("usage", parse_usage(document, now)?))
}

/// Parses a JSON object that is neither empty nor an error response.
fn object(body: &[u8]) -> Result<Object<'_>, ParseError> {
    let root = json_object(body)?;
    if has_error(&root) { Err(ParseError::ErrorResponse { kind: None }) } else { Ok(root) }
}

/// Adds the weekly window. Its length follows only from its position in the response.
fn add_week(usage: Option<&Value<'_>>, path: &str, now: Timestamp, report: &mut ReportBuilder) {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    if let Some(usage) = usage.filter(|usage| !usage.is_null()) {
        add(WindowId::seven_day(), Some(WEEK), usage, path, now, report);
    }
}

/// Adds the limits in a list, such as `{"window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}, "detail": {…}}`.
fn add_limits(limits: Option<&Value<'_>>, path: &str, now: Timestamp, report: &mut ReportBuilder) {
    let rows = match limits {
        None | Some(Value::Null) => return,
        Some(Value::Array(rows)) => rows,
        Some(_) => return report.mark_unnamed(path, "not a list"),
    };
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_null()) {
        let path = format!("{path}[{at}]");
        match name(row.get("window")) {
            Some((id, length)) => match row.get("detail").filter(|detail| !detail.is_null()) {
                Some(detail) => add(id, length, detail, &format!("{path}.detail"), now, report),
                // Without a `detail` object, the row itself has the amounts.
                None => add(id, length, row, &path, now, report),
            },
            None => report.mark_unnamed(path, "its window is unclear"),
        }
    }
}

/// The id of a window, and its length if it has a fixed one.
fn name(window: Option<&Value<'_>>) -> Option<(WindowId, Option<Duration>)> {
    let count = number(window?.get("duration")).ok().filter(|count| *count > 0.0)?;
    let unit = text(window?.get("timeUnit")).ok()?.to_ascii_lowercase();
    let seconds = match unit.strip_prefix("time_unit_").unwrap_or(&unit) {
        "second" => 1.0,
        "minute" => 60.0,
        "hour" => 3600.0,
        "day" => 24.0 * 3600.0,
        "week" => 7.0 * 24.0 * 3600.0,
        _ => return Some((WindowId::new(&format!("{count}_{unit}")).ok()?, None)),
    };
    let length = Duration::try_from_secs_f64(count * seconds).ok()?;
    Some((window_of_length(length)?, Some(length)))
}

/// Adds the window with these amounts.
fn add(
    id: WindowId,
    length: Option<Duration>,
    amounts: &Value<'_>,
    path: &str,
    now: Timestamp,
    report: &mut ReportBuilder,
) {
    let Some(fields) = amounts.as_object() else {
        return report.mark_unreadable(id, path, "not an object");
    };
    let amount = |name| number(fields.get(name));
    let used = used_share(amount("limit"), amount("used"), amount("remaining"));
    const RESETS: [&str; 4] = ["resetTime", "resetAt", "reset_at", "reset_time"];
    const RESETS_IN: [&str; 3] = ["reset_in", "resetIn", "ttl"];
    let wait = || after(RESETS_IN.into_iter().find_map(|name| amount(name).ok())?, now);
    let resets_at = RESETS.into_iter().find_map(|name| timestamp(fields.get(name))).or_else(wait);
    let known = [&RESETS[..], &RESETS_IN, &["limit", "name", "remaining", "title", "used"]].concat();
    report.skip_unknown(fields, &known, &format!("{path}."));
    report.add_used(id, used.and_then(Percent::from_percent), path, |reading| {
        reading.length(length).resets_at(resets_at)
    });
}

/// Parses the usage per feature, as the website receives it. Only one feature is Kimi Code.
fn of_features(rows: &[Value<'_>], now: Timestamp) -> Result<Parsed, ParseError> {
    let mut report = ReportBuilder::default();
    for (at, row) in rows.iter().enumerate() {
        if row.get("scope").and_then(Value::as_str) == Some("FEATURE_CODING") {
            add_week(row.get("detail"), &format!("usages[{at}].detail"), now, &mut report);
            add_limits(row.get("limits"), &format!("usages[{at}].limits"), now, &mut report);
        } else {
            report.skip(format!("usages[{at}]"), "the usage of another feature");
        }
    }
    report.build(Field::Absent)
}

/// Parses the state of a subscription, as the website receives it. Its usage values are fractions: 1 is 100 %.
fn subscription(root: &Object<'_>) -> Result<Parsed, ParseError> {
    let mut report = ReportBuilder::default();
    for SubscriptionField { name, used, resets_at, id, hours, scope } in &SUBSCRIPTION {
        let Some(window) = root.get(name).filter(|window| !window.is_null()) else { continue };
        if flag(window.get("enabled")) == Field::Present(false) {
            report.skip(*name, "the limit is disabled");
            continue;
        }
        let id = WindowId::new(id).expect("a constant name is valid");
        let used = number(window.get(used)).and_then(Percent::from_fraction);
        report.add_used(id, used, *name, |reading| {
            let length = hours.map(|hours| Duration::from_secs(hours * 3600));
            let reading = reading.length(length).resets_at(timestamp(window.get(resets_at)));
            reading.scope(scope.map(Scope::surface))
        });
    }
    report.skip_unknown(root, &SUBSCRIPTION.map(|field| field.name), "");
    report.build(Field::Absent)
}

/// A field of the subscription that is a window.
struct SubscriptionField {
    name: &'static str,
    /// The used fraction.
    used: &'static str,
    resets_at: &'static str,
    id: &'static str,
    hours: Option<u64>,
    scope: Option<&'static str>,
}

const SUBSCRIPTION: [SubscriptionField; 3] = [
    SubscriptionField {
        name: "ratelimitCode5h",
        used: "ratio",
        resets_at: "resetTime",
        id: "five_hour",
        hours: Some(5),
        scope: None,
    },
    SubscriptionField {
        name: "ratelimitCode7d",
        used: "ratio",
        resets_at: "resetTime",
        id: "seven_day",
        hours: Some(7 * 24),
        scope: None,
    },
    // The balance is for all features of Kimi.
    SubscriptionField {
        name: "subscriptionBalance",
        used: "amountUsedRatio",
        resets_at: "expireTime",
        id: "subscription_balance",
        hours: None,
        scope: Some("subscription_balance"),
    },
];

#[cfg(test)]
mod tests;
