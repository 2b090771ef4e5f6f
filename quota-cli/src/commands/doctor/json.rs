//! The JSON of `quota doctor`, which docs/doctor-json.md describes.

use serde::Serialize;

use super::{Area, Check, Level};
use crate::format::rfc3339;
use crate::view::json;

const VERSION: u32 = 2;

/// Renders the document with a final line break.
pub(super) fn render(checks: &[Check]) -> String {
    let checks = checks.iter().map(|check| CheckJson {
        area: check.area,
        subject: &check.subject,
        ok: check.level == Level::Ok,
        level: check.level,
        message: &check.message,
        hint: check.hint.as_deref(),
        reason: check.incident.as_ref().map(|incident| &*incident.reason),
        at: check.incident.as_ref().and_then(|incident| incident.at).map(rfc3339),
        until: check.incident.as_ref().and_then(|incident| incident.until).map(rfc3339),
        requested_seconds: check
            .incident
            .as_ref()
            .and_then(|incident| incident.requested)
            .map(|requested| requested.as_secs()),
    });
    let document = DoctorJson { version: VERSION, checks: checks.collect() };
    json::pretty(&document)
}

#[derive(Serialize)]
struct DoctorJson<'a> {
    version: u32,
    checks: Vec<CheckJson<'a>>,
}

#[derive(Serialize)]
struct CheckJson<'a> {
    area: Area,
    subject: &'a str,
    ok: bool,
    level: Level,
    message: &'a str,
    hint: Option<&'a str>,
    reason: Option<&'a str>,
    at: Option<String>,
    until: Option<String>,
    requested_seconds: Option<u64>,
}
