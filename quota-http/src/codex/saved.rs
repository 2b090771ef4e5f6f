//! Detects the kind of a saved document of Codex, and parses it.

use crate::json::Value;
use jiff::Timestamp;

use super::session::{parse_limits, parse_session};
use super::usage::{object, parse_usage};
use crate::lenient::Field;
use crate::parsed::{ParseError, Parsed};
use crate::report::ReportBuilder;
use crate::saved::SavedDocument;

/// Parses a saved document.
///
/// # Errors
///
/// [`ParseError`] if it has no usage.
pub(super) fn parse(document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
    if let Some(session) = session_file(document) {
        return Ok(session);
    }
    let root = object(document)?;
    if root.get("available_count").is_some() && root.get("credits").is_some_and(Value::is_array) {
        let mut report = ReportBuilder::default();
        report.skip("credits", "saved resets, which quota never uses");
        return Ok(SavedDocument::new("reset_credits", report.build(Field::Absent)?));
    }
    if ["primary", "secondary"].iter().any(|slot| root.get(slot).is_some_and(Value::is_object)) {
        return Ok(SavedDocument::new("session", parse_limits(&root, now)?));
    }
    Ok(SavedDocument::new("usage", parse_usage(document, now)?))
}

/// The newest readings of a session file, which has one JSON object per line; `None` if the document is not a session
/// file.
fn session_file(document: &[u8]) -> Option<SavedDocument> {
    let mut readings = parse_session(document).into_iter();
    let newest = readings.next()?;
    Some(SavedDocument::new("session_file", readings.fold(newest, Parsed::join)))
}
