//! How Anthropic names its windows, and how one that stands under its name is read.
//! Which of two statements about a window counts is decided in `usage`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quota_core::{Coverage, Percent, Scope, WindowId, WindowReading};
use serde_json::Value;

use crate::lenient::{Field, moment, number};
use crate::parsed::{Ignored, ParseError};

pub(super) const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);
pub(super) const SEVEN_DAYS: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the name of a window says about it.
pub(super) struct Named {
    pub(super) id: WindowId,
    pub(super) scope: Option<Scope>,
    pub(super) length: Option<Duration>,
}

impl Named {
    /// Reads a name as fields of the protocol have it; `None` if no window can have it.
    ///
    /// A name that is not known here becomes a window of its own that counts a surface: it must neither vanish nor block
    /// the whole account.
    pub(super) fn of(name: &str) -> Option<Self> {
        let week = |id, scope| Some(Self { id, scope, length: Some(SEVEN_DAYS) });
        let model = |name| week(WindowId::seven_day().for_model(name).ok()?, Some(Scope::model(name)));
        match name {
            "five_hour" => Some(Self { id: WindowId::five_hour(), scope: None, length: Some(FIVE_HOURS) }),
            "seven_day" => week(WindowId::seven_day(), None),
            "seven_day_opus" => model("Opus"),
            "seven_day_sonnet" => model("Sonnet"),
            "seven_day_overage_included" => week(WindowId::new(name).ok()?, Some(Scope::unnamed())),
            _ => {
                let id = WindowId::new(name).ok()?;
                match name.strip_prefix("seven_day_").filter(|surface| !surface.is_empty()) {
                    Some(surface) => week(id, Some(Scope::surface(surface))),
                    None => Some(Self { id, scope: Some(Scope::surface(name)), length: None }),
                }
            }
        }
    }

    pub(super) fn used(self, used: Percent) -> WindowReading {
        WindowReading::new(self.id, used).scope(self.scope).length(self.length)
    }
}

/// The fields of a window's object, and what its numbers mean: that is decided by where it stands, never by their size.
pub(super) struct Form {
    pub(super) used: &'static str,
    pub(super) resets_at: &'static str,
    pub(super) percent: ReadPercent,
}

/// Reads how much is used, if the source can have said so.
pub(super) type ReadPercent = fn(f64) -> Option<Percent>;

/// Why a number is no use of a window.
pub(super) const IMPLAUSIBLE: &str = "its use is not between 0 % and 1,000 %";

/// What was found in a document.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) windows: BTreeMap<WindowId, WindowReading>,
    /// Windows that stood there and could not be read.
    pub(super) unreadable: BTreeSet<WindowId>,
    /// A window stood there, and it cannot be told which: so it cannot be told either which ones are gone.
    pub(super) nameless: bool,
    pub(super) ignored: Vec<Ignored>,
}

impl Findings {
    /// The most windows that are believed. Accounts have about ten.
    const MAX_WINDOWS: usize = 128;
    /// What is listed as ignored is for people.
    const MAX_IGNORED: usize = 256;

    /// Reads `value`, which stands under the name of its window.
    pub(super) fn take_named(&mut self, name: &str, value: &Value, form: &Form, path: &str) {
        if value.is_null() {
            return;
        }
        let field = || format!("{path}{name}");
        let Some(named) = Named::of(name) else {
            return self.ignore(field(), "no window can have this name");
        };
        match number(value.get(form.used)).map(form.percent) {
            Field::Is(Some(used)) => {
                let reading = named.used(used).resets_at(moment(value.get(form.resets_at)));
                self.windows.insert(reading.id.clone(), reading);
            }
            Field::Is(None) => self.cannot_read(named.id, field(), IMPLAUSIBLE),
            // The provider knows the window and says nothing about it.
            Field::Absent if value.get(form.used).is_some() => {
                self.ignore(field(), "its use is null");
            }
            Field::Absent => self.cannot_read(named.id, field(), "it does not say how much is used"),
            Field::Unreadable => self.cannot_read(named.id, field(), "its use is not a number"),
        }
    }

    pub(super) fn cannot_read(&mut self, id: WindowId, field: String, why: &'static str) {
        self.unreadable.insert(id);
        self.ignore(field, why);
    }

    pub(super) fn ignore(&mut self, field: impl Into<String>, why: &'static str) {
        if self.ignored.len() < Self::MAX_IGNORED {
            self.ignored.push(Ignored::new(field, why));
        }
    }

    /// What the document speaks about, if it is one that speaks about everything.
    pub(super) fn coverage(&self, credits: bool) -> Coverage {
        if self.nameless {
            return Coverage::Reported;
        }
        let read = |id: &&WindowId| self.windows.contains_key(*id);
        let except = self.unreadable.iter().filter(|id| !read(id)).cloned().collect();
        Coverage::Complete { except, credits }
    }

    /// The windows, unless there are more than can be.
    pub(super) fn readings(&self) -> Result<Vec<WindowReading>, ParseError> {
        if self.windows.len() > Self::MAX_WINDOWS {
            return Err(ParseError::TooManyWindows);
        }
        Ok(self.windows.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named::of(name).unwrap()
    }

    #[test]
    fn the_windows_of_the_whole_account_have_no_scope() {
        assert_eq!(named("five_hour").scope, None);
        assert_eq!(named("seven_day").scope, None);
    }

    #[test]
    fn a_models_field_is_the_models_window() {
        let opus = named("seven_day_opus");

        assert_eq!(opus.id, WindowId::seven_day().for_model("Opus").unwrap());
        assert_eq!(opus.scope, Some(Scope::model("Opus")));
    }

    #[test]
    fn a_week_with_another_name_counts_a_surface() {
        let cowork = named("seven_day_cowork");

        assert_eq!(cowork.id.as_str(), "seven_day_cowork");
        assert_eq!(cowork.scope, Some(Scope::surface("cowork")));
        assert_eq!(cowork.length, Some(SEVEN_DAYS));
    }

    #[test]
    fn the_week_beside_the_overage_counts_a_model_that_is_not_named() {
        assert_eq!(named("seven_day_overage_included").scope, Some(Scope::unnamed()));
    }

    #[test]
    fn an_unknown_window_never_counts_the_whole_account() {
        let tangelo = named("tangelo");

        assert_eq!(tangelo.scope, Some(Scope::surface("tangelo")));
        assert_eq!(tangelo.length, None);
    }

    #[test]
    fn a_name_no_window_can_have_is_none() {
        assert!(Named::of("").is_none());
        assert!(Named::of("a\nb").is_none());
        assert!(Named::of(&"x".repeat(97)).is_none());
    }
}
