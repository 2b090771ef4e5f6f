//! The result of a parser: the usage, and a list of the fields that were skipped.
//! This module repeats only the names of fields, never their values.

use quota_core::model::{Coverage, Credits};
use quota_core::{FetchError, UsageReport};
use serde_json::error::Category;

/// The usage in a response, and the fields that were skipped.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parsed {
    /// The parsed usage. If [`UsageReport::is_empty`], the response has no reading to store.
    pub usage: UsageReport,
    /// The fields that were skipped, and why. This explains to users why a value is missing.
    pub skipped: Vec<SkippedField>,
}

impl Parsed {
    pub(crate) fn new(usage: UsageReport, skipped: Vec<SkippedField>) -> Self {
        Self { usage, skipped }
    }

    pub(crate) fn skip(&mut self, field: &str, reason: &'static str) {
        self.skipped.push(SkippedField::new(field, reason));
    }

    /// Joins the reports of two responses about one account. If both have a value, the first one counts.
    pub(crate) fn join(mut self, other: Self) -> Self {
        let Self { usage, skipped } = other;
        self.skipped.extend(skipped);
        let mine = &mut self.usage;
        let is_unreadable = matches!(mine.coverage, Coverage::Complete { credits: false, .. });
        mine.coverage = match (std::mem::replace(&mut mine.coverage, Coverage::Reported), usage.coverage) {
            (
                Coverage::Complete { mut except, credits },
                Coverage::Complete { except: others, credits: other_credits },
            ) => {
                except.extend(others);
                Coverage::Complete { except, credits: credits && other_credits }
            }
            _ => Coverage::Reported,
        };
        for window in usage.windows {
            if !mine.windows.iter().any(|known| known.id == window.id) {
                mine.windows.push(window);
            }
        }
        mine.window_statuses.extend(usage.window_statuses);
        mine.plan = mine.plan.take().or(usage.plan);
        mine.owner_id = mine.owner_id.take().or(usage.owner_id);
        let mine_credits = mine.credits.take();
        // The amounts of two budgets must not be mixed.
        let has_spending = mine_credits.as_ref().map_or(is_unreadable, has_spending);
        let other = usage.credits.map(|other| if has_spending { without_spending(other) } else { other });
        let joined = mine_credits.unwrap_or_default().or(other.unwrap_or_default());
        mine.credits = Some(joined).filter(|joined| *joined != Credits::default());
        self
    }
}

/// Whether the credits state the spending or its limit.
fn has_spending(credits: &Credits) -> bool {
    credits.used.is_some() || credits.limit.is_some() || credits.unlimited.is_some()
}

fn without_spending(credits: Credits) -> Credits {
    let mut rest = credits;
    (rest.used, rest.limit, rest.unlimited) = (None, None, None);
    rest
}

/// A field of a response that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedField {
    /// The path of the field, or the name of the header, such as `limits[2]`.
    pub field: String,
    /// Why it was skipped.
    pub reason: &'static str,
}

impl SkippedField {
    const MAX_FIELD: usize = 96;

    /// Replaces a name that contains characters a terminal would interpret.
    pub(crate) fn new(field: impl Into<String>, reason: &'static str) -> Self {
        let field = field.into();
        let is_printable =
            field.len() <= Self::MAX_FIELD && field.bytes().all(|byte| byte.is_ascii_graphic());
        Self { field: if is_printable { field } else { "(unprintable name)".into() }, reason }
    }
}

/// Why a response has no usage. The text never repeats the response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not JSON, or truncated JSON.
    #[error("not JSON at line {line}, column {column}")]
    #[non_exhaustive]
    NotJson {
        /// The line of the first error, from 1.
        line: usize,
        /// The column of the first error.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// An error response.
    #[error("an error response ({}) instead of usage", kind.unwrap_or("unknown type"))]
    #[non_exhaustive]
    ErrorResponse {
        /// The type of the error, if it is one of the documented ones.
        kind: Option<&'static str>,
    },
    /// A response with a successful status whose body says that the login is invalid.
    #[error("the provider says that the login is invalid")]
    Unauthorized,
    /// A response with a successful status whose body says that there were too many requests.
    #[error("the provider says that there were too many requests")]
    RateLimited,
    /// A login, which must not be parsed or shared.
    #[error("this is a login, not a response; do not share this file")]
    Login,
    /// An empty object, or one without the expected fields.
    #[error("no usage found")]
    NoUsage,
    /// The time of the readings is missing. Without it they cannot be ordered.
    #[error("the timestamp of the readings is missing")]
    MissingTimestamp,
    /// More windows than any account has.
    #[error("more windows than an account can have")]
    TooManyWindows,
}

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        // The error text of serde may quote the document.
        match error.classify() {
            Category::Data => Self::NotAnObject,
            _ => Self::NotJson { line: error.line(), column: error.column() },
        }
    }
}

impl From<ParseError> for FetchError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Unauthorized => Self::Unauthorized,
            ParseError::RateLimited => Self::throttled(None),
            error => Self::malformed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unprintable_field_name_is_replaced() {
        for name in ["a\u{1b}[2J".to_owned(), "ü".to_owned(), "x".repeat(97)] {
            assert_eq!(SkippedField::new(name, "").field, "(unprintable name)");
        }
    }
}
