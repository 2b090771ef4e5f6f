//! Parses the response of the Codex usage endpoint, and lists the fields it skips. A window is identified by its
//! length, not by its field: the first field may contain a weekly window.

use std::time::Duration;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::Scope;
use quota_core::{Percent, WindowId, WindowReading};

use super::money;
use crate::lenient::{Field, after, number, text, timestamp};
use crate::parsed::{ParseError, Parsed};
use crate::report::{Place, ReportBuilder, json_object, text_or_skip};
use crate::window_length::{scoped_id, window_of_length};

/// The fields of a window: its usage in percent, its length, and its reset.
pub(super) struct WindowFields {
    pub(super) length: &'static str,
    /// The number of seconds per unit of the length.
    pub(super) unit: f64,
    pub(super) resets_at: &'static str,
    pub(super) resets_in: &'static str,
}

pub(super) const FIELDS: WindowFields = WindowFields {
    length: "limit_window_seconds",
    unit: 1.0,
    resets_at: "reset_at",
    resets_in: "reset_after_seconds",
};

/// The limit that a workspace sets for one user: the field and the window.
pub(super) const INDIVIDUAL: &str = "individual_limit";

/// Fields that are not readings. They are neither parsed nor listed as skipped.
const KNOWN: [&str; 10] = [
    "account_id",
    "additional_rate_limits",
    "code_review_rate_limit",
    "credits",
    "email",
    "plan_type",
    "rate_limit",
    "rate_limit_reset_credits",
    "spend_control",
    "user_id",
];

/// Parses the response of the usage endpoint, which arrived at `now`.
///
/// A window that is missing or null no longer exists. An unreadable window keeps its cached reading and does not affect
/// the others. A window without a length has the name of its field, because the parser must not guess a length.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::codex::parse_usage;
///
/// let body = br#"{ "plan_type": "plus", "rate_limit": {
///     "primary_window": { "used_percent": 40, "limit_window_seconds": 604800, "reset_at": 1783000000 },
///     "secondary_window": null
/// } }"#;
/// let parsed = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?;
///
/// assert_eq!(parsed.usage.windows[0].id, WindowId::seven_day());
/// assert_eq!(parsed.usage.plan.as_deref(), Some("plus"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, is an error response, or has too many windows.
pub fn parse_usage(body: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(body)?;
    let mut report = ReportBuilder::default();
    let limit = Limit { path: "rate_limit".to_owned(), scope: None, now, fields: &FIELDS };
    limit.read(root.get("rate_limit"), &mut report);
    let individual = root.get("spend_control").and_then(|control| control.get("individual_limit"));
    individual_limit(individual, "spend_control.individual_limit", now, &mut report);
    let review = Scope::surface("code_review");
    let limit = Limit { path: "code_review_rate_limit".to_owned(), scope: Some(review), ..limit };
    limit.read(root.get("code_review_rate_limit"), &mut report);
    additional(root.get("additional_rate_limits"), now, &mut report);
    report.skip_unknown(&root, &KNOWN, "");
    let plan = text_or_skip(&root, "plan_type", "", &mut report);
    let credits = money::read(&root, &mut report);
    let mut parsed = report.build(credits)?;
    parsed.usage.plan = plan;
    Ok(parsed)
}

/// Parses a JSON object that is neither empty nor an error response.
pub(super) fn object(body: &[u8]) -> Result<Object<'_>, ParseError> {
    let root = json_object(body)?;
    // In a WebSocket frame, the body is wrapped in another object.
    let frame = root.get("body").and_then(Value::as_object);
    for object in std::iter::once(&root).chain(frame) {
        if let Some(error) = object.get("error").filter(|error| !error.is_null()) {
            return Err(ParseError::ErrorResponse { kind: known_error(error) });
        }
    }
    if root.len() == 1 && root.contains_key("detail") {
        return Err(ParseError::ErrorResponse { kind: None });
    }
    Ok(root)
}

/// The type of an error, if it is a documented one. An unknown type is not repeated.
fn known_error(error: &Value<'_>) -> Option<&'static str> {
    const KNOWN: [&str; 7] = [
        "invalid_request_error",
        "rate_limit_exceeded",
        "rate_limit_reached",
        "server_error",
        "token_expired",
        "usage_limit_reached",
        "usage_not_included",
    ];
    let kind = error.as_str().or_else(|| error.get("type")?.as_str()).or_else(|| error.get("code")?.as_str());
    KNOWN.into_iter().find(|known| Some(*known) == kind)
}

/// One object with windows.
pub(super) struct Limit<'a> {
    pub(super) path: String,
    /// The scope of its windows; `None` for the whole account.
    pub(super) scope: Option<Scope>,
    pub(super) now: Timestamp,
    pub(super) fields: &'a WindowFields,
}

impl Limit<'_> {
    /// Adds the windows of the object. Null and missing objects have none.
    pub(super) fn read(&self, limit: Option<&Value<'_>>, report: &mut ReportBuilder) {
        let fields = match limit {
            None | Some(Value::Null) => return,
            Some(Value::Object(fields)) => fields,
            Some(_) => return report.mark_unnamed(&self.path, "not an object"),
        };
        for (name, value) in fields.iter() {
            let field = Place(|| format!("{}.{name}", self.path));
            match name {
                "allowed" | "limit_reached" | INDIVIDUAL => {}
                _ if value.is_null() => {}
                _ if value.get("used_percent").is_some() || self.length(value).is_some() => {
                    self.window(name, value, field, report);
                }
                _ if name.ends_with("_window") => report.mark_unnamed(field, "its window is unclear"),
                _ => report.skip(field, "not a window"),
            }
        }
        if self.scope.is_none() {
            let field = Place(|| format!("{}.{INDIVIDUAL}", self.path));
            individual_limit(fields.get(INDIVIDUAL), field, self.now, report);
        }
    }

    /// Adds one window of the object.
    pub(super) fn window(
        &self,
        name: &str,
        value: &Value<'_>,
        field: impl Into<String>,
        report: &mut ReportBuilder,
    ) {
        let length = self.length(value);
        let resets_at = reset(value, self.fields, self.now);
        let used = number(value.get("used_percent")).and_then(Percent::from_percent);
        if used == Field::Present(Percent::ZERO) && length.is_none() && resets_at.is_none() {
            // All zeros mean that the limit does not exist.
            return;
        }
        let Some(id) = self.id(length, name) else {
            return report.mark_unnamed(field, "not a valid window name");
        };
        match used {
            Field::Present(used) => {
                let reading = WindowReading::new(id, used).length(length).resets_at(resets_at);
                report.add(reading.scope(self.scope.clone()), field);
            }
            // All nulls mean that the limit does not exist.
            Field::Absent if length.is_none() && resets_at.is_none() => {
                report.skip(field, "its usage is null")
            }
            used => report.add_used(id, used, field, |reading| reading),
        }
    }

    fn length(&self, value: &Value<'_>) -> Option<Duration> {
        let length = number(value.get(self.fields.length)).ok().filter(|length| *length > 0.0)?;
        Duration::try_from_secs_f64(length * self.fields.unit).ok()
    }

    /// The window's id, from its length and scope. Without a length, it is the name of its field.
    fn id(&self, length: Option<Duration>, name: &str) -> Option<WindowId> {
        let whole = match length.and_then(window_of_length) {
            Some(id) => id,
            None => WindowId::new(name).ok()?,
        };
        match &self.scope {
            None => Some(whole),
            Some(scope) => scoped_id(&whole, scope).ok(),
        }
    }
}

/// Adds the limits of single models.
fn additional(limits: Option<&Value<'_>>, now: Timestamp, report: &mut ReportBuilder) {
    let rows = match limits {
        None | Some(Value::Null) => return,
        Some(Value::Array(rows)) => rows,
        Some(_) => return report.mark_unnamed("additional_rate_limits", "not a list"),
    };
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_null()) {
        let path = format!("additional_rate_limits[{at}]");
        let name = text(row.get("limit_name")).ok().or_else(|| text(row.get("metered_feature")).ok());
        match name {
            Some(name) => {
                let scope = Some(Scope::model(name));
                let limit = Limit { path: format!("{path}.rate_limit"), scope, now, fields: &FIELDS };
                limit.read(row.get("rate_limit"), report);
            }
            None => report.mark_unnamed(path, "it has no name"),
        }
    }
}

/// Adds the limit that a workspace sets for one user. Its amounts are credits, which `money` reads.
///
/// It becomes a window only if `report` has no account-wide window so far, because a limit on money must not block an
/// account that still has capacity. Its length is not reported, so the window has the name of its field.
fn individual_limit(
    limit: Option<&Value<'_>>,
    field: impl Into<String>,
    now: Timestamp,
    report: &mut ReportBuilder,
) {
    let Some(limit) = limit.filter(|limit| !limit.is_null()) else { return };
    let id = WindowId::new(INDIVIDUAL).expect("a constant name is valid");
    let mut known = report.windows.keys().chain(&report.unreadable);
    if report.has_unnamed || known.any(|known| *known != id) {
        return;
    }
    let percent = |name| number(limit.get(name));
    let used = match percent("used_percent") {
        Field::Absent => percent("remaining_percent").map(|left| 100.0 - left),
        used => used,
    };
    let used = match used {
        Field::Absent => share(limit),
        used => used,
    };
    report.add_used(id, used.and_then(Percent::from_percent), field, |reading| {
        reading.resets_at(reset(limit, &FIELDS, now).or_else(|| timestamp(limit.get("resets_at"))))
    });
}

/// The used share of an amount, in percent.
fn share(limit: &Value<'_>) -> Field<f64> {
    match (number(limit.get("used")), number(limit.get("limit"))) {
        (Field::Present(used), Field::Present(limit)) if limit > 0.0 => Field::Present(used / limit * 100.0),
        (Field::Unreadable, _) | (_, Field::Unreadable) => Field::Unreadable,
        _ => Field::Absent,
    }
}

/// When a window resets, from a time or from a number of seconds.
fn reset(window: &Value<'_>, fields: &WindowFields, now: Timestamp) -> Option<Timestamp> {
    timestamp(window.get(fields.resets_at)).or_else(|| after(number(window.get(fields.resets_in)).ok()?, now))
}

#[cfg(test)]
mod tests;
