//! Parses the response of Anthropic's usage endpoint, and lists the fields it skips.

use crate::json::{Object, Value};
use quota_core::{Percent, WindowReading};

use super::windows::{FieldNames, add_named};
use super::{limits, money};
use crate::parsed::{ParseError, Parsed};
use crate::report::{ReportBuilder, json_object};

/// Windows at the root, in percent: 1 means 1 %.
pub(super) const ROOT_FIELDS: FieldNames =
    FieldNames { used: "utilization", resets_at: "resets_at", percent: Percent::from_percent };

/// Parses the response of the usage endpoint.
///
/// A window that is missing or null no longer exists. An unreadable window keeps its cached reading and does not affect the
/// others. Unknown windows keep their own names.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::anthropic::parse_usage;
///
/// let body = br#"{ "five_hour": { "utilization": 64.5, "resets_at": "2026-07-01T19:00:00Z" }, "tangelo": null }"#;
/// let parsed = parse_usage(body)?;
///
/// let window = &parsed.usage.windows[0];
/// assert_eq!(window.id, WindowId::five_hour());
/// assert_eq!(Some(window.used), Percent::from_percent(64.5));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, is an error response, or has too many windows.
pub fn parse_usage(body: &[u8]) -> Result<Parsed, ParseError> {
    read(&object(body)?, &ROOT_FIELDS)
}

/// Parses a JSON object that is neither empty nor an error response.
pub(super) fn object(body: &[u8]) -> Result<Object<'_>, ParseError> {
    let fields = json_object(body)?;
    match error_kind(&fields) {
        Some(kind) => Err(ParseError::ErrorResponse { kind }),
        None => Ok(fields),
    }
}

/// Parses the object of a response whose windows have these field names.
pub(super) fn read(root: &Object<'_>, fields: &FieldNames) -> Result<Parsed, ParseError> {
    let mut report = limits::read(root.get("limits").unwrap_or(&Value::Null), fields.percent);
    for (name, value) in root.iter() {
        add_field(&mut report, name, value, fields);
    }
    let credits = money::read(root, &mut report);
    report.build(credits)
}

/// Adds a root field, after the rows of `limits`.
fn add_field(report: &mut ReportBuilder, name: &str, value: &Value<'_>, fields: &FieldNames) {
    match name {
        "limits" | "spend" | "extra_usage" => {}
        _ if is_window(name, value) => {
            let mut flat = ReportBuilder::default();
            add_named(&mut flat, name, value, fields, "");
            merge(report, flat);
        }
        _ if value.is_null() => {}
        _ => report.skip(name, "not a window"),
    }
}

/// Whether a field is a window: it has a known name, or is an object with a usage.
pub(super) fn is_window(name: &str, value: &Value<'_>) -> bool {
    let is_known = name == "five_hour" || name.starts_with("seven_day") && name != "seven_day_breakdown";
    is_known || value.get(ROOT_FIELDS.used).is_some()
}

/// Merges a root field into the rows of `limits`, which take precedence.
fn merge(report: &mut ReportBuilder, flat: ReportBuilder) {
    for (id, reading) in flat.windows {
        match report.windows.get_mut(&id) {
            Some(row) => refine(row, &reading),
            None => {
                report.windows.insert(id, reading);
            }
        }
    }
    report.unreadable.extend(flat.unreadable);
    for skipped in flat.skipped {
        report.skip(skipped.field, skipped.reason);
    }
}

/// Rows are rounded to whole percent. If the root field rounds to the same number, it replaces the row, because it is more precise.
fn refine(row: &mut WindowReading, flat: &WindowReading) {
    const WHOLE: u32 = 100;
    let (coarse, fine) = (row.used.basis_points(), flat.used.basis_points());
    if coarse % WHOLE == 0 && coarse.abs_diff(fine) <= WHOLE / 2 {
        row.used = flat.used;
        row.resets_at = row.resets_at.or(flat.resets_at);
    }
}

/// The type of an error response; `Some(None)` if the type is unknown.
fn error_kind(root: &Object<'_>) -> Option<Option<&'static str>> {
    const KNOWN: [&str; 11] = [
        "api_error",
        "authentication_error",
        "billing_error",
        "invalid_client",
        "invalid_grant",
        "invalid_request_error",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "timeout_error",
    ];
    let error = root.get("error").filter(|error| error.is_object() || error.is_string());
    if error.is_none() && root.get("type").and_then(Value::as_str) != Some("error") {
        return None;
    }
    let kind = error.and_then(|error| error.as_str().or_else(|| error.get("type")?.as_str()));
    Some(KNOWN.into_iter().find(|known| Some(*known) == kind))
}

#[cfg(test)]
mod tests;
