//! Anthropic's window names, and the parser for an object that contains windows by name. `usage` decides which of two
//! readings of a window counts.

use std::time::Duration;

use crate::json::Value;
use quota_core::model::Scope;
use quota_core::{Percent, WindowId, WindowReading};

use crate::lenient::{Field, number, timestamp};
use crate::report::{IMPLAUSIBLE, ReportBuilder};

pub(super) const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);
pub(super) const SEVEN_DAYS: Duration = Duration::from_secs(7 * 24 * 3600);

/// A window's id, scope and length, derived from its name.
pub(super) struct WindowDef {
    pub(super) id: WindowId,
    pub(super) scope: Option<Scope>,
    pub(super) length: Option<Duration>,
}

impl WindowDef {
    /// Parses a field name of the protocol; `None` if it is not a valid window name.
    ///
    /// An unknown name becomes the window of a surface: it must neither be dropped nor block the whole account.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let week = |id, scope| Some(Self { id, scope, length: Some(SEVEN_DAYS) });
        let model = |name| week(WindowId::seven_day().for_model(name).ok()?, Some(Scope::model(name)));
        match name {
            "five_hour" => Some(Self { id: WindowId::five_hour(), scope: None, length: Some(FIVE_HOURS) }),
            "seven_day" => week(WindowId::seven_day(), None),
            "seven_day_opus" => model("Opus"),
            "seven_day_sonnet" => model("Sonnet"),
            "seven_day_overage_included" => week(WindowId::new(name).ok()?, Some(Scope::unknown_model())),
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

/// The field names of a window object, and the unit of its usage. The unit depends on the source, never on the value.
pub(super) struct FieldNames {
    pub(super) used: &'static str,
    pub(super) resets_at: &'static str,
    pub(super) percent: ReadPercent,
}

/// Converts a number to a percentage; `None` if it is implausible for the source.
pub(super) type ReadPercent = fn(f64) -> Option<Percent>;

/// Adds the window `name` with this value.
pub(super) fn add_named(
    report: &mut ReportBuilder,
    name: &str,
    value: &Value<'_>,
    fields: &FieldNames,
    path: &str,
) {
    if value.is_null() {
        return;
    }
    let field = || format!("{path}{name}");
    let Some(named) = WindowDef::parse(name) else {
        return report.skip(field(), "not a valid window name");
    };
    let resets_at = timestamp(value.get(fields.resets_at));
    match number(value.get(fields.used)).map(fields.percent) {
        Field::Present(Some(used)) => {
            let reading = named.used(used).resets_at(resets_at);
            report.windows.insert(reading.id.clone(), reading);
        }
        Field::Present(None) => report.mark_unreadable(named.id, field(), IMPLAUSIBLE),
        // The provider lists the name, but the account has no such window. A window with a reset exists.
        Field::Absent if value.get(fields.used).is_some() && resets_at.is_none() => {
            report.skip(field(), "its usage is null");
        }
        Field::Absent => report.mark_unreadable(named.id, field(), "it has no usage"),
        Field::Unreadable => report.mark_unreadable(named.id, field(), "its usage is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> WindowDef {
        WindowDef::parse(name).unwrap()
    }

    #[test]
    fn account_windows_have_no_scope() {
        assert_eq!(named("five_hour").scope, None);
        assert_eq!(named("seven_day").scope, None);
    }

    #[test]
    fn a_model_field_is_the_model_window() {
        let opus = named("seven_day_opus");

        assert_eq!(opus.id, WindowId::seven_day().for_model("Opus").unwrap());
        assert_eq!(opus.scope, Some(Scope::model("Opus")));
    }

    #[test]
    fn an_unknown_seven_day_window_is_scoped_to_a_surface() {
        let cowork = named("seven_day_cowork");

        assert_eq!(cowork.id.as_str(), "seven_day_cowork");
        assert_eq!(cowork.scope, Some(Scope::surface("cowork")));
        assert_eq!(cowork.length, Some(SEVEN_DAYS));
    }

    #[test]
    fn seven_day_overage_included_is_scoped_to_an_unknown_model() {
        assert_eq!(named("seven_day_overage_included").scope, Some(Scope::unknown_model()));
    }

    #[test]
    fn an_unknown_window_is_never_account_wide() {
        let tangelo = named("tangelo");

        assert_eq!(tangelo.scope, Some(Scope::surface("tangelo")));
        assert_eq!(tangelo.length, None);
    }

    #[test]
    fn an_invalid_window_name_is_none() {
        assert!(WindowDef::parse("").is_none());
        assert!(WindowDef::parse("a\nb").is_none());
        assert!(WindowDef::parse(&"x".repeat(97)).is_none());
    }
}
