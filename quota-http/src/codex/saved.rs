//! Detects the kind of a saved document of Codex, and parses it.

use crate::json::Value;
use jiff::Timestamp;

use super::usage::{Limit, WindowFields, object, parse_usage};
use crate::lenient::Field;
use crate::parsed::ParseError;
use crate::report::ReportBuilder;
use crate::saved::SavedDocument;

/// The windows that Codex writes into its session files.
const SESSION_FIELDS: WindowFields = WindowFields {
    length: "window_minutes",
    unit: 60.0,
    resets_at: "resets_at",
    resets_in: "resets_in_seconds",
};

/// Parses a saved document.
///
/// # Errors
///
/// [`ParseError`] if it has no usage.
pub(super) fn parse(document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
    let root = object(document)?;
    if root.get("available_count").is_some() && root.get("credits").is_some_and(Value::is_array) {
        let mut report = ReportBuilder::default();
        report.skip("credits", "saved resets, which quota never uses");
        return Ok(SavedDocument::new("reset_credits", report.build(Field::Absent)?));
    }
    if ["primary", "secondary"].iter().any(|slot| root.get(slot).is_some_and(Value::is_object)) {
        let mut report = ReportBuilder::default();
        let limit = Limit { path: "rate_limits".to_owned(), scope: None, now, fields: &SESSION_FIELDS };
        limit.read(Some(&Value::Object(root)), &mut report);
        return Ok(SavedDocument::new("session", report.build(Field::Absent)?));
    }
    Ok(SavedDocument::new("usage", parse_usage(document, now)?))
}
