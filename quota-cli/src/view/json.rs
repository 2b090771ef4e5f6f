//! The JSON documents that commands print, each with a line break at its end.

use serde::Serialize;

use crate::format::{LocalTime, rfc3339};

/// A document on several lines.
pub(crate) fn pretty(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).expect("all keys are strings") + "\n"
}

/// A document on one line.
pub(crate) fn one_line(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("all keys are strings") + "\n"
}

/// The document of a command that lists accounts.
pub(crate) fn accounts<T: Serialize>(version: u32, accounts: Vec<T>, local: &LocalTime) -> String {
    #[derive(Serialize)]
    struct Envelope<T> {
        version: u32,
        now: String,
        accounts: Vec<T>,
    }
    pretty(&Envelope { version, now: rfc3339(local.now), accounts })
}
