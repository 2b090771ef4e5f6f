//! Parses the rows of `limits`: the 5-hour window, the 7-day window, and the 7-day windows of single models or surfaces.
//! `usage` parses the root fields that repeat some of them.

use crate::json::Value;
use quota_core::model::{InvalidId, Scope};
use quota_core::{Percent, WindowId, WindowReading};

use super::windows::{FIVE_HOURS, ReadPercent, SEVEN_DAYS, WindowDef};
use crate::lenient::{Field, Unreadable, number, text, timestamp};
use crate::report::{IMPLAUSIBLE, Place, ReportBuilder};
use crate::window_length::scoped_id;

/// Parses all rows; `percent` converts and checks each usage.
pub(super) fn read(limits: &Value<'_>, percent: ReadPercent) -> ReportBuilder {
    let mut report = ReportBuilder::default();
    match limits {
        Value::Null => {}
        Value::Array(rows) => {
            for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_null()) {
                add_row(&mut report, row, Place(|| format!("limits[{at}]")), percent);
            }
        }
        _ => {
            report.mark_unnamed("limits", "not a list");
        }
    }
    report
}

fn add_row(report: &mut ReportBuilder, row: &Value<'_>, field: impl Into<String>, percent: ReadPercent) {
    let named = match parse_name(row) {
        Ok(named) => named,
        Err(NameError::Invalid(why)) => return report.skip(field, why),
        Err(NameError::Unreadable) => {
            return report.mark_unnamed(field, "its window is unclear");
        }
    };
    let resets_at = timestamp(row.get("resets_at"));
    match number(row.get("percent")).map(percent) {
        Field::Present(Some(used)) => report.add(named.used(used).resets_at(resets_at), field),
        Field::Present(None) => report.mark_unreadable(named.id, field, IMPLAUSIBLE),
        // A row with a reset is a window, even if its usage is unknown.
        Field::Absent if row.get("percent").is_some() && resets_at.is_none() => {
            report.skip(field, "its usage is null");
        }
        Field::Absent => report.mark_unreadable(named.id, field, "it has no usage"),
        Field::Unreadable => report.mark_unreadable(named.id, field, "its usage is not a number"),
    }
}

/// The window of a row and its reading; `None` for a part that cannot be read.
pub(super) fn read_row(row: &Value<'_>) -> (Option<WindowId>, Option<WindowReading>) {
    let mut report = ReportBuilder::default();
    add_row(&mut report, row, String::new(), Percent::from_percent);
    let reading = report.windows.into_values().next();
    (parse_name(row).ok().map(|named| named.id), reading)
}

/// Why a row has no usable window name.
enum NameError {
    /// The row is not a window that can be named.
    Invalid(&'static str),
    /// The row may be a window, but its name cannot be read.
    Unreadable,
}

impl From<Unreadable> for NameError {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

impl From<InvalidId> for NameError {
    fn from(_: InvalidId) -> Self {
        Self::Invalid("not a valid window name")
    }
}

/// Returns the window of a row. An unknown kind becomes the window of a surface: it must neither be dropped nor block the
/// account.
fn parse_name(row: &Value<'_>) -> Result<WindowDef, NameError> {
    let kind = text(row.get("kind")).into_result()?.ok_or(NameError::Unreadable)?;
    let (whole, length) = match kind {
        "session" => (WindowId::five_hour(), Some(FIVE_HOURS)),
        "weekly_all" | "weekly_scoped" => (WindowId::seven_day(), Some(SEVEN_DAYS)),
        _ => (WindowId::new(kind)?, None),
    };
    let (id, scope) = match (scope(row.get("scope"))?, kind) {
        (Some(scope), _) => (scoped_id(&whole, &scope)?, Some(scope)),
        (None, "session" | "weekly_all") => (whole, None),
        (None, "weekly_scoped") => return Err(NameError::Invalid("it names no model and no surface")),
        (None, _) => (whole, Some(Scope::surface(kind))),
    };
    Ok(WindowDef { id, scope, length })
}

/// The scope of a row; `None` for the whole account.
fn scope(scope: Option<&Value<'_>>) -> Result<Option<Scope>, NameError> {
    let fields = match scope {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(NameError::Unreadable),
    };
    match (display_name(fields.get("model"))?, display_name(fields.get("surface"))?) {
        (Some(model), surface) => {
            let mut scope = Scope::model(model);
            scope.surface = surface.map(Into::into);
            Ok(Some(scope))
        }
        (None, Some(surface)) => Ok(Some(Scope::surface(surface))),
        (None, None) if fields.values().all(Value::is_null) => Ok(None),
        (None, None) => Err(NameError::Invalid("it names no model and no surface")),
    }
}

/// The display name. The id is not a fallback, because it would be a second name for the same window.
fn display_name<'a>(part: Option<&'a Value<'_>>) -> Result<Option<&'a str>, Unreadable> {
    match part {
        Some(Value::Object(fields)) => text(fields.get("display_name")).into_result(),
        part => text(part).into_result(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(limits: &Value) -> ReportBuilder {
        super::read(&limits.into(), Percent::from_percent)
    }

    fn week_of(model: &str, percent: f64) -> Value {
        json!({ "kind": "weekly_scoped", "percent": percent, "scope": { "model": { "display_name": model } } })
    }

    fn only_window(row: Value) -> WindowReading {
        let report = read(&json!([row]));
        assert_eq!(report.skipped, []);
        report.windows.into_values().next().unwrap()
    }

    #[test]
    fn session_is_the_five_hour_window() {
        let row =
            json!({ "kind": "session", "percent": 11, "resets_at": "2026-07-01T12:00:00Z", "scope": null });

        let window = only_window(row);

        assert_eq!((window.id, window.used), (WindowId::five_hour(), Percent::from_basis_points(1100)));
        assert_eq!((window.length, window.scope), (Some(FIVE_HOURS), None));
        assert_eq!(window.resets_at, "2026-07-01T12:00:00Z".parse().ok());
    }

    #[test]
    fn weekly_all_is_the_seven_day_window() {
        let window = only_window(json!({ "kind": "weekly_all", "percent": 7.5, "scope": { "model": null } }));

        assert_eq!((window.id, window.scope), (WindowId::seven_day(), None));
    }

    #[test]
    fn a_model_week_is_named_by_its_display_name() {
        let window = only_window(week_of("Big Model 5", 5.0));

        assert_eq!(window.id.as_str(), "seven_day/big-model-5");
        assert_eq!(window.scope, Some(Scope::model("Big Model 5")));
        assert_eq!(window.length, Some(SEVEN_DAYS));
    }

    #[test]
    fn a_surface_week_has_the_name_of_its_root_field() {
        let window = only_window(json!({
            "kind": "weekly_scoped", "percent": 5, "scope": { "model": null, "surface": "Oauth Apps" }
        }));

        assert_eq!(window.id.as_str(), "seven_day_oauth_apps");
        assert_eq!(window.scope, Some(Scope::surface("Oauth Apps")));
    }

    #[test]
    fn a_model_on_one_surface_is_a_window_of_its_own() {
        let window = only_window(json!({
            "kind": "weekly_scoped", "percent": 5, "scope": { "model": { "display_name": "Big" }, "surface": "web" }
        }));

        assert_eq!(window.id.as_str(), "seven_day/big-web");
        assert_eq!(window.scope.unwrap().surface.as_deref(), Some("web"));
    }

    #[test]
    fn an_unknown_kind_never_covers_the_whole_account() {
        let window = only_window(json!({ "kind": "monthly_all", "percent": 99 }));

        assert_eq!(window.id.as_str(), "monthly_all");
        assert_eq!(window.scope, Some(Scope::surface("monthly_all")));
    }

    #[test]
    fn a_scoped_week_without_a_name_is_skipped() {
        for scope in
            [json!(null), json!({ "model": null }), json!({ "model": { "id": "m-1", "display_name": null } })]
        {
            let report = read(&json!([{ "kind": "weekly_scoped", "percent": 5, "scope": scope }]));

            assert!(report.windows.is_empty() && !report.has_unnamed);
            assert_eq!(report.skipped[0].field, "limits[0]");
        }
    }

    #[test]
    fn weekly_all_with_an_unknown_scope_is_not_the_whole_account() {
        let report = read(&json!([{ "kind": "weekly_all", "percent": 99, "scope": { "workspace": "w" } }]));

        assert!(report.windows.is_empty());
    }

    #[test]
    fn a_row_without_a_readable_name_sets_has_unnamed() {
        let rows = [
            json!(5),
            json!({ "percent": 5 }),
            json!({ "kind": 7, "percent": 5 }),
            json!({ "kind": "session", "scope": 3 }),
        ];
        for row in rows {
            assert!(read(&json!([row])).has_unnamed, "{row}");
        }
        assert!(read(&json!({})).has_unnamed);
    }

    #[test]
    fn an_unreadable_usage_marks_the_window_unreadable() {
        for percent in [json!("abc"), json!({}), json!(true)] {
            let report = read(&json!([{ "kind": "session", "percent": percent }, week_of("Big", 5.0)]));

            assert_eq!(report.unreadable.into_iter().collect::<Vec<_>>(), [WindowId::five_hour()]);
            assert_eq!(report.windows.len(), 1);
        }
    }

    #[test]
    fn a_null_usage_is_not_reported() {
        let report = read(&json!([{ "kind": "session", "percent": null }]));

        assert!(report.windows.is_empty() && report.unreadable.is_empty());
        assert_eq!(report.skipped.len(), 1);
    }

    #[test]
    fn a_null_usage_with_a_reset_is_unknown() {
        let report =
            read(&json!([{ "kind": "session", "percent": null, "resets_at": "2026-07-01T12:00:00Z" }]));

        assert_eq!(report.unreadable.into_iter().collect::<Vec<_>>(), [WindowId::five_hour()]);
    }

    #[test]
    fn the_larger_of_two_usages_of_one_window_counts() {
        let report = read(&json!([week_of("Big", 5.0), week_of("big", 40.0), week_of("BIG", 7.0)]));

        let window = report.windows.into_values().next().unwrap();
        assert_eq!(window.used, Percent::from_basis_points(4000));
    }

    #[test]
    fn null_and_empty_lists_have_no_windows() {
        for limits in [json!(null), json!([]), json!([null])] {
            let report = read(&limits);

            assert!(report.windows.is_empty() && report.skipped.is_empty() && !report.has_unnamed);
        }
    }
}
