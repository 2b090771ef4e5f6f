//! The answer of Anthropic's usage endpoint: what it says, and what in it is not understood.
//! It is read here from bytes alone; asking for it is the fetcher's business.

use quota_core::{Percent, Usage, WindowReading};
use serde_json::{Map, Value};

use super::windows::{Findings, Form};
use super::{limits, money};
use crate::lenient::Field;
use crate::parsed::{ParseError, Parsed};

/// Windows at the root: 1 means one percent.
pub(super) const AT_THE_ROOT: Form =
    Form { used: "utilization", resets_at: "resets_at", percent: Percent::from_percent };

/// Reads the answer of the usage endpoint.
///
/// A window that is missing or null is gone; one that cannot be read keeps what was known of it, and takes no other
/// down with it. Unknown windows are kept under their own names.
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
/// [`ParseError`] if it is not JSON, not an object, tells of an error, has nothing in it, or has more windows than an
/// account can have.
pub fn parse_usage(body: &[u8]) -> Result<Parsed, ParseError> {
    read(&object(body)?, &AT_THE_ROOT)
}

/// Reads a JSON object with something in it that is no error.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, ParseError> {
    match serde_json::from_slice(body)? {
        Value::Object(fields) if fields.is_empty() => Err(ParseError::NothingKnown),
        Value::Object(fields) => match error_kind(&fields) {
            Some(kind) => Err(ParseError::ErrorAnswer { kind }),
            None => Ok(fields),
        },
        _ => Err(ParseError::NotAnObject),
    }
}

/// Reads the answer from its object. `form` is that of its windows.
pub(super) fn read(root: &Map<String, Value>, form: &Form) -> Result<Parsed, ParseError> {
    let mut findings = limits::read(root.get("limits").unwrap_or(&Value::Null), form.percent);
    for (name, value) in root {
        take_field(&mut findings, name, value, form);
    }
    let credits = money::read(root, &mut findings);
    let usage = Usage::polled(findings.readings()?)
        .coverage(findings.coverage(credits != Field::Unreadable))
        .credits(credits.known());
    Ok(Parsed::new(usage, findings.ignored))
}

/// Takes a field of the root, after the rows of `limits` were taken.
fn take_field(findings: &mut Findings, name: &str, value: &Value, form: &Form) {
    match name {
        "limits" | "spend" | "extra_usage" => {}
        _ if is_window(name, value) => {
            let mut flat = Findings::default();
            flat.take_named(name, value, form, "");
            join(findings, flat);
        }
        _ if value.is_null() => {}
        _ => findings.ignore(name, "not a window"),
    }
}

/// The protocol's own windows are windows whatever stands there; anything else is one if it says how much is used.
fn is_window(name: &str, value: &Value) -> bool {
    let is_known = name == "five_hour" || name.starts_with("seven_day") && name != "seven_day_breakdown";
    is_known || value.get(AT_THE_ROOT.used).is_some()
}

/// Joins what a field of the root says to what the rows of `limits` say: the rows count.
fn join(findings: &mut Findings, flat: Findings) {
    for (id, reading) in flat.windows {
        match findings.windows.get_mut(&id) {
            Some(row) => refine(row, &reading),
            None => {
                findings.windows.insert(id, reading);
            }
        }
    }
    findings.unreadable.extend(flat.unreadable);
    for ignored in flat.ignored {
        findings.ignore(ignored.field, ignored.why);
    }
}

/// Rows have whole percents; where the field at the root is the same number before it was rounded, it is the finer one.
fn refine(row: &mut WindowReading, flat: &WindowReading) {
    const WHOLE: u32 = 100;
    let (coarse, fine) = (row.used.basis_points(), flat.used.basis_points());
    if coarse % WHOLE == 0 && coarse.abs_diff(fine) <= WHOLE / 2 {
        row.used = flat.used;
        row.resets_at = row.resets_at.or(flat.resets_at);
    }
}

/// The kind of error an answer tells of, if it does; `Some(None)` if the kind is not a known one.
fn error_kind(root: &Map<String, Value>) -> Option<Option<&'static str>> {
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
    let said = error.and_then(|error| error.as_str().or_else(|| error.get("type")?.as_str()));
    Some(KNOWN.into_iter().find(|known| Some(*known) == said))
}

#[cfg(test)]
mod tests;
