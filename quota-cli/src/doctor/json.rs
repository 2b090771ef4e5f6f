//! The JSON of `quota doctor`: a shape with a number, told in docs/doctor-json.md.

use serde::Serialize;

use super::{Area, Check};

const VERSION: u32 = 1;

/// The whole document, with a line break at its end.
pub(super) fn render(checks: &[Check]) -> String {
    let checks = checks.iter().map(|check| CheckJson {
        area: check.area,
        subject: &check.subject,
        ok: check.advice.is_none(),
        told: &check.told,
        advice: check.advice.as_deref(),
    });
    let document = Document { version: VERSION, checks: checks.collect() };
    let mut text = serde_json::to_string_pretty(&document).expect("it has only text keys");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    checks: Vec<CheckJson<'a>>,
}

#[derive(Serialize)]
struct CheckJson<'a> {
    area: Area,
    subject: &'a str,
    ok: bool,
    told: &'a str,
    advice: Option<&'a str>,
}
