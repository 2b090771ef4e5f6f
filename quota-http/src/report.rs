//! Collects the windows of a response and the fields that were skipped, and builds the report with its coverage.

use std::collections::{BTreeMap, BTreeSet};

use crate::json::{Object, Value};
use quota_core::model::{Coverage, Credits};
use quota_core::{Percent, UsageReport, WindowId, WindowReading};

use crate::lenient::{Field, Unreadable, text};
use crate::parsed::{ParseError, Parsed, SkippedField};

/// Why a number is not the usage of a window.
pub(crate) const IMPLAUSIBLE: &str = "its usage is not a percentage up to 1,000 %";

/// The path of a field. It is formatted only if the field is listed: `Place(|| format!("{path}.{name}"))`.
pub(crate) struct Place<F>(pub(crate) F);

impl<F: FnOnce() -> String> From<Place<F>> for String {
    fn from(Place(write): Place<F>) -> Self {
        write()
    }
}

/// Builds the report of a response that lists all windows of an account.
///
/// A window that is not added no longer exists. A window that exists but cannot be read must be added with
/// [`mark_unreadable`](Self::mark_unreadable): its cached reading then stays. A malformed window never affects the others.
///
/// ```
/// use quota_core::{Percent, WindowId, WindowReading};
/// use quota_http::lenient::Field;
/// use quota_http::ReportBuilder;
///
/// let mut report = ReportBuilder::default();
/// let used = Percent::from_percent(12.5).unwrap();
/// report.add(WindowReading::new(WindowId::five_hour(), used), "windows[0]");
/// report.mark_unreadable(WindowId::seven_day(), "windows[1]", "its usage is not a number");
///
/// let parsed = report.build(Field::Absent)?;
/// assert_eq!((parsed.usage.windows.len(), parsed.skipped.len()), (1, 1));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
#[derive(Debug, Default)]
pub struct ReportBuilder {
    pub(crate) windows: BTreeMap<WindowId, WindowReading>,
    /// Windows whose usage could not be read.
    pub(crate) unreadable: BTreeSet<WindowId>,
    /// Whether a window has no readable name, so that a missing window may still exist.
    pub(crate) has_unnamed: bool,
    pub(crate) skipped: Vec<SkippedField>,
}

impl ReportBuilder {
    /// The maximum number of windows, read and unreadable. Accounts have about ten.
    pub(crate) const MAX_WINDOWS: usize = 128;
    /// Bounds the list, so that it stays readable.
    const MAX_SKIPPED: usize = 256;

    /// Adds a window, which the response names `field`.
    ///
    /// If it was added before, the larger usage counts, because the other one may be for a part of the window. If the
    /// usages are equal, the later reset counts.
    pub fn add(&mut self, reading: WindowReading, field: impl Into<String>) {
        match self.windows.get_mut(&reading.id) {
            None => {
                self.windows.insert(reading.id.clone(), reading);
            }
            Some(existing) => {
                if (reading.used, reading.resets_at) > (existing.used, existing.resets_at) {
                    *existing = reading;
                }
                self.skip(field, "two rows for one window; the larger usage counts");
            }
        }
    }

    /// Adds a window whose usage may be missing or unreadable. `complete` sets the other fields of its reading.
    pub fn add_used(
        &mut self,
        id: WindowId,
        used: Field<Percent>,
        field: impl Into<String>,
        complete: impl FnOnce(WindowReading) -> WindowReading,
    ) {
        match used {
            Field::Present(used) => self.add(complete(WindowReading::new(id, used)), field),
            Field::Absent => self.mark_unreadable(id, field, "it has no usage"),
            Field::Unreadable => {
                self.mark_unreadable(id, field, IMPLAUSIBLE);
            }
        }
    }

    /// Adds a window that exists but cannot be read, with the reason. Its cached reading is kept.
    pub fn mark_unreadable(&mut self, id: WindowId, field: impl Into<String>, reason: &'static str) {
        self.unreadable.insert(id);
        self.skip(field, reason);
    }

    /// Adds a window whose name cannot be read, with the reason. All cached readings are kept, because any of them may
    /// belong to this window.
    pub fn mark_unnamed(&mut self, field: impl Into<String>, reason: &'static str) {
        self.has_unnamed = true;
        self.skip(field, reason);
    }

    /// Lists a skipped field, with the reason.
    pub fn skip(&mut self, field: impl Into<String>, reason: &'static str) {
        if self.skipped.len() < Self::MAX_SKIPPED {
            self.skipped.push(SkippedField::new(field, reason));
        }
    }

    /// Lists the fields of an object that the parser does not know, so that a change of the format becomes visible. `path` is the
    /// path of the object, such as `rate_limit.`; empty for the root. Null fields are not listed.
    pub fn skip_unknown(&mut self, object: &Object<'_>, known: &[&str], path: &str) {
        for (name, value) in object.iter() {
            if !value.is_null() && !known.contains(&name) {
                self.skip(format!("{path}{name}"), "an unknown field");
            }
        }
    }

    /// Builds the report. `credits` are the account's credits. If they are unreadable, the cached credits are kept.
    ///
    /// # Errors
    ///
    /// [`ParseError::TooManyWindows`] if there are more windows than any account has.
    pub fn build(self, credits: Field<Credits>) -> Result<Parsed, ParseError> {
        let coverage = self.coverage(credits != Field::Unreadable);
        let usage = UsageReport::polled(self.readings()?).coverage(coverage).credits(credits.ok());
        Ok(Parsed::new(usage, self.skipped))
    }

    /// The coverage of a document that lists all windows.
    fn coverage(&self, credits: bool) -> Coverage {
        if self.has_unnamed {
            return Coverage::Reported;
        }
        let read = |id: &&WindowId| self.windows.contains_key(*id);
        let except = self.unreadable.iter().filter(|id| !read(id)).cloned().collect();
        Coverage::Complete { except, credits }
    }

    /// Returns the windows, or an error if there are too many.
    pub(crate) fn readings(&self) -> Result<Vec<WindowReading>, ParseError> {
        if self.windows.len() + self.unreadable.len() > Self::MAX_WINDOWS {
            return Err(ParseError::TooManyWindows);
        }
        Ok(self.windows.values().cloned().collect())
    }
}

/// The object `data` of a response and the beginning of its paths. Older responses have no such object around their fields.
pub(crate) fn unwrapped<'a, 'b>(root: &'a Object<'b>) -> (&'a Object<'b>, &'static str) {
    root.get("data").and_then(Value::as_object).map_or((root, ""), |data| (data, "data."))
}

/// Parses a JSON object that is not empty. The parser of a provider decides which objects are errors.
///
/// # Errors
///
/// [`ParseError`] if the body is not JSON, not an object, or empty.
pub fn json_object(body: &[u8]) -> Result<Object<'_>, ParseError> {
    let root = match str::from_utf8(body) {
        // Checking the whole body once is faster than checking each string.
        Ok(text) => serde_json::from_str(text),
        // The error contains the position.
        Err(_) => serde_json::from_slice(body),
    };
    match root? {
        Value::Object(fields) if fields.is_empty() => Err(ParseError::NoUsage),
        Value::Object(fields) => Ok(fields),
        _ => Err(ParseError::NotAnObject),
    }
}

/// Whether the object is an error response: its field `error` has a value.
pub(crate) fn has_error(root: &Object<'_>) -> bool {
    root.get("error").is_some_and(|error| !error.is_null())
}

/// The short text in this field of the object at `path`, for a plan or an owner. Other values are skipped and listed.
pub(crate) fn text_or_skip(
    object: &Object<'_>,
    name: &str,
    path: &str,
    report: &mut ReportBuilder,
) -> Option<String> {
    let field = text(object.get(name));
    if field == Field::Unreadable {
        report.skip(format!("{path}{name}"), "not a short text");
    }
    field.ok().map(str::to_owned)
}

/// The credits with these amounts; absent if there are no amounts. If they cannot be read, `field` is listed.
pub(crate) fn credits_or_skip(
    credits: Result<Credits, Unreadable>,
    field: &str,
    report: &mut ReportBuilder,
) -> Field<Credits> {
    match credits {
        Ok(credits) if credits == Credits::default() => Field::Absent,
        Ok(credits) => Field::Present(credits),
        Err(Unreadable) => {
            report.skip(field, "its amounts are invalid");
            Field::Unreadable
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn week(percent: f64) -> WindowReading {
        WindowReading::new(WindowId::seven_day(), Percent::from_percent(percent).unwrap())
    }

    #[test]
    fn the_larger_of_two_readings_of_a_window_counts() {
        let mut report = ReportBuilder::default();
        for percent in [5.0, 40.0, 7.0] {
            report.add(week(percent), "row");
        }

        let parsed = report.build(Field::Absent).unwrap();

        assert_eq!(parsed.usage.windows, [week(40.0)]);
        assert_eq!(parsed.skipped.len(), 2);
    }

    #[test]
    fn of_two_equal_readings_the_later_reset_counts() {
        let at = |second| jiff::Timestamp::from_second(second).ok();
        let mut report = ReportBuilder::default();
        for reset in [at(5), None, at(9), at(7)] {
            report.add(week(40.0).resets_at(reset), "row");
        }

        assert_eq!(report.build(Field::Absent).unwrap().usage.windows[0].resets_at, at(9));
    }

    #[test]
    fn a_text_that_is_skipped_is_listed_with_its_path() {
        let mut report = ReportBuilder::default();
        let object = json!({ "plan": 7 });

        let plan = text_or_skip(&object.as_object().unwrap().into(), "plan", "data.", &mut report);

        assert_eq!((plan, report.skipped[0].field.as_str()), (None, "data.plan"));
    }

    #[test]
    fn an_unreadable_window_is_not_covered() {
        let mut report = ReportBuilder::default();
        report.mark_unreadable(WindowId::five_hour(), "a", "no number");
        report.add(week(1.0), "b");

        let coverage = report.build(Field::Unreadable).unwrap().usage.coverage;

        assert_eq!(coverage, Coverage::Complete { except: vec![WindowId::five_hour()], credits: false });
    }

    #[test]
    fn too_many_unreadable_windows_are_an_error() {
        let mut report = ReportBuilder::default();
        for at in 0..200 {
            report.mark_unreadable(WindowId::new(&format!("w{at}")).unwrap(), "row", "no number");
        }

        assert!(matches!(report.build(Field::Absent), Err(ParseError::TooManyWindows)));
    }

    #[test]
    fn an_unnamed_window_leaves_every_other_one_uncovered() {
        let mut report = ReportBuilder::default();
        report.mark_unnamed("a", "no name");

        assert_eq!(report.build(Field::Absent).unwrap().usage.coverage, Coverage::Reported);
    }

    #[test]
    fn only_unknown_fields_with_a_value_are_listed() {
        let mut report = ReportBuilder::default();
        let object = json!({ "known": 1, "new": 2, "empty": null });

        report.skip_unknown(&object.as_object().unwrap().into(), &["known"], "root.");

        let listed: Vec<_> = report.skipped.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(listed, ["root.new"]);
    }
}
