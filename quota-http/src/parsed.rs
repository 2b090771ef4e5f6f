//! What a parser makes of a provider's answer: the usage it could read, and a list of what it could not.
//! No text in here repeats what an answer held; only the names of its fields are shown.

use quota_core::{FetchError, Usage};
use serde_json::error::Category;

/// What an answer says, and what in it was not understood.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parsed {
    /// What could be read. It may say nothing: then [`Usage::is_empty`] is true, and the answer is not worth keeping.
    pub usage: Usage,
    /// What stood there and was left out, and why. It is for people who wonder what is missing.
    pub ignored: Vec<Ignored>,
}

impl Parsed {
    pub(crate) fn new(usage: Usage, ignored: Vec<Ignored>) -> Self {
        Self { usage, ignored }
    }
}

/// A part of an answer that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ignored {
    /// Where it stood: the name of a field or a header, such as `limits[2]`.
    pub field: String,
    /// Why it was left out.
    pub why: &'static str,
}

impl Ignored {
    const MAX_FIELD: usize = 96;

    /// Names a part and the reason. A name that could garble a terminal is replaced.
    pub(crate) fn new(field: impl Into<String>, why: &'static str) -> Self {
        let field = field.into();
        let shows = field.len() <= Self::MAX_FIELD && field.bytes().all(|byte| byte.is_ascii_graphic());
        Self { field: if shows { field } else { "(a name that cannot be shown)".into() }, why }
    }
}

/// Why an answer says nothing about usage. It never repeats the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is not JSON, or was cut off.
    #[error("not JSON at line {line}, column {column}")]
    #[non_exhaustive]
    NotJson {
        /// The line where it stops being JSON, from 1.
        line: usize,
        /// The column where it stops being JSON.
        column: usize,
    },
    /// It is JSON of another shape.
    #[error("not a JSON object")]
    NotAnObject,
    /// It tells of an error.
    #[error("an error answer ({}) and not usage", kind.unwrap_or("of an unknown kind"))]
    #[non_exhaustive]
    ErrorAnswer {
        /// The kind of error, if it is a known one.
        kind: Option<&'static str>,
    },
    /// There is nothing in it, or nothing of what was looked for.
    #[error("nothing in it that is known here")]
    NothingKnown,
    /// It does not say when its numbers were true, and they cannot be ordered without.
    #[error("no moment is given for its numbers")]
    Undated,
    /// No account has that many windows.
    #[error("more windows than an account can have")]
    TooManyWindows,
}

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        // The error's own text may quote the document.
        match error.classify() {
            Category::Data => Self::NotAnObject,
            _ => Self::NotJson { line: error.line(), column: error.column() },
        }
    }
}

impl From<ParseError> for FetchError {
    fn from(error: ParseError) -> Self {
        Self::malformed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_garble_a_terminal_is_not_shown() {
        for name in ["a\u{1b}[2J".to_owned(), "ü".to_owned(), "x".repeat(97)] {
            assert_eq!(Ignored::new(name, "").field, "(a name that cannot be shown)");
        }
    }
}
