//! The rows of `limits`, where Anthropic says what counts today: the session, the week, and the weeks of single models.
//! The fields that repeat some of it at the root are in `usage`.

use quota_core::{InvalidId, Scope, WindowId, WindowReading};
use serde_json::Value;

use super::windows::{FIVE_HOURS, Findings, IMPLAUSIBLE, Named, ReadPercent, SEVEN_DAYS};
use crate::lenient::{Field, Unreadable, moment, number, text};

/// Reads all rows, the used share of each by `percent`.
pub(super) fn read(limits: &Value, percent: ReadPercent) -> Findings {
    let mut findings = Findings::default();
    match limits {
        Value::Null => {}
        Value::Array(rows) => {
            for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_null()) {
                take(&mut findings, row, format!("limits[{at}]"), percent);
            }
        }
        _ => {
            findings.nameless = true;
            findings.ignore("limits", "not a list");
        }
    }
    findings
}

fn take(findings: &mut Findings, row: &Value, field: String, percent: ReadPercent) {
    let named = match name(row) {
        Ok(named) => named,
        Err(Nameless::None(why)) => return findings.ignore(field, why),
        Err(Nameless::Unreadable) => {
            findings.nameless = true;
            return findings.ignore(field, "it cannot be told which window it is");
        }
    };
    match number(row.get("percent")).map(percent) {
        Field::Is(Some(used)) => {
            let reading = named.used(used).resets_at(moment(row.get("resets_at")));
            keep_larger(findings, reading, field);
        }
        Field::Is(None) => findings.cannot_read(named.id, field, IMPLAUSIBLE),
        Field::Absent if row.get("percent").is_some() => findings.ignore(field, "its use is null"),
        Field::Absent => findings.cannot_read(named.id, field, "it does not say how much is used"),
        Field::Unreadable => findings.cannot_read(named.id, field, "its use is not a number"),
    }
}

/// Of two rows about one window the one that leaves less stands: the other may be about something finer.
fn keep_larger(findings: &mut Findings, reading: WindowReading, field: String) {
    match findings.windows.get_mut(&reading.id) {
        None => {
            findings.windows.insert(reading.id.clone(), reading);
        }
        Some(known) => {
            if reading.used > known.used {
                *known = reading;
            }
            findings.ignore(field, "two rows are about one window; the larger use stands");
        }
    }
}

/// Why a row has no window.
enum Nameless {
    /// There is none that could be kept under a name.
    None(&'static str),
    /// There may be one, and it cannot be told which.
    Unreadable,
}

impl From<Unreadable> for Nameless {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

impl From<InvalidId> for Nameless {
    fn from(_: InvalidId) -> Self {
        Self::None("no window can have this name")
    }
}

/// Which window a row is about. A kind that is not known here must neither vanish nor block the whole account.
fn name(row: &Value) -> Result<Named, Nameless> {
    let kind = text(row.get("kind")).ok()?.ok_or(Nameless::Unreadable)?;
    let (whole, length) = match kind {
        "session" => (WindowId::five_hour(), Some(FIVE_HOURS)),
        "weekly_all" | "weekly_scoped" => (WindowId::seven_day(), Some(SEVEN_DAYS)),
        _ => (WindowId::new(kind)?, None),
    };
    let (id, scope) = match (scope(row.get("scope"))?, kind) {
        (Some(scope), _) => (part(&whole, &scope)?, Some(scope)),
        (None, "session" | "weekly_all") => (whole, None),
        (None, "weekly_scoped") => return Err(Nameless::None("it names neither a model nor a surface")),
        (None, _) => (whole, Some(Scope::surface(kind))),
    };
    Ok(Named { id, scope, length })
}

/// The part of `whole` that counts `scope` only, under the name that the fields at the root have for it.
fn part(whole: &WindowId, scope: &Scope) -> Result<WindowId, InvalidId> {
    match (&scope.model, &scope.surface) {
        (Some(model), Some(surface)) => whole.for_model(&format!("{model} {surface}")),
        (Some(model), None) => whole.for_model(model),
        (None, surface) => {
            let surface = surface.as_deref().unwrap_or_default();
            let words: Vec<_> = surface.split_whitespace().collect();
            WindowId::new(&format!("{whole}_{}", words.join("_").to_lowercase()))
        }
    }
}

/// What a row counts; `None` if it sets no bounds.
fn scope(scope: Option<&Value>) -> Result<Option<Scope>, Nameless> {
    let fields = match scope {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(Nameless::Unreadable),
    };
    match (shown_name(fields.get("model"))?, shown_name(fields.get("surface"))?) {
        (Some(model), surface) => {
            let mut scope = Scope::model(model);
            scope.surface = surface.map(Into::into);
            Ok(Some(scope))
        }
        (None, Some(surface)) => Ok(Some(Scope::surface(surface))),
        (None, None) if fields.values().all(Value::is_null) => Ok(None),
        (None, None) => Err(Nameless::None("it names neither a model nor a surface")),
    }
}

/// The name that people are shown. An id alone is none: it would be a second name for the same window.
fn shown_name(part: Option<&Value>) -> Result<Option<&str>, Unreadable> {
    match part {
        Some(Value::Object(fields)) => text(fields.get("display_name")).ok(),
        part => text(part).ok(),
    }
}

#[cfg(test)]
mod tests {
    use quota_core::Percent;
    use serde_json::json;

    use super::*;

    fn read(limits: &Value) -> Findings {
        super::read(limits, Percent::from_percent)
    }

    fn week_of(model: &str, percent: f64) -> Value {
        json!({ "kind": "weekly_scoped", "percent": percent, "scope": { "model": { "display_name": model } } })
    }

    fn only_window(row: Value) -> WindowReading {
        let findings = read(&json!([row]));
        assert_eq!(findings.ignored, []);
        findings.windows.into_values().next().unwrap()
    }

    #[test]
    fn the_session_is_the_window_of_five_hours() {
        let row =
            json!({ "kind": "session", "percent": 11, "resets_at": "2026-07-01T12:00:00Z", "scope": null });

        let window = only_window(row);

        assert_eq!((window.id, window.used), (WindowId::five_hour(), Percent::from_basis_points(1100)));
        assert_eq!((window.length, window.scope), (Some(FIVE_HOURS), None));
        assert_eq!(window.resets_at, "2026-07-01T12:00:00Z".parse().ok());
    }

    #[test]
    fn the_week_of_all_is_the_window_of_seven_days() {
        let window = only_window(json!({ "kind": "weekly_all", "percent": 7.5, "scope": { "model": null } }));

        assert_eq!((window.id, window.scope), (WindowId::seven_day(), None));
    }

    #[test]
    fn a_models_week_is_named_as_people_see_it() {
        let window = only_window(week_of("Big Model 5", 5.0));

        assert_eq!(window.id.as_str(), "seven_day/big-model-5");
        assert_eq!(window.scope, Some(Scope::model("Big Model 5")));
        assert_eq!(window.length, Some(SEVEN_DAYS));
    }

    #[test]
    fn a_surfaces_week_has_the_name_of_its_field_at_the_root() {
        let window = only_window(json!({
            "kind": "weekly_scoped", "percent": 5, "scope": { "model": null, "surface": "Oauth Apps" }
        }));

        assert_eq!(window.id.as_str(), "seven_day_oauth_apps");
        assert_eq!(window.scope, Some(Scope::surface("Oauth Apps")));
    }

    #[test]
    fn a_model_on_one_surface_is_apart_from_the_model() {
        let window = only_window(json!({
            "kind": "weekly_scoped", "percent": 5, "scope": { "model": { "display_name": "Big" }, "surface": "web" }
        }));

        assert_eq!(window.id.as_str(), "seven_day/big-web");
        assert_eq!(window.scope.unwrap().surface.as_deref(), Some("web"));
    }

    #[test]
    fn a_kind_nobody_knows_never_counts_the_whole_account() {
        let window = only_window(json!({ "kind": "monthly_all", "percent": 99 }));

        assert_eq!(window.id.as_str(), "monthly_all");
        assert_eq!(window.scope, Some(Scope::surface("monthly_all")));
    }

    #[test]
    fn a_scoped_week_without_a_name_is_left_out() {
        for scope in
            [json!(null), json!({ "model": null }), json!({ "model": { "id": "m-1", "display_name": null } })]
        {
            let findings = read(&json!([{ "kind": "weekly_scoped", "percent": 5, "scope": scope }]));

            assert!(findings.windows.is_empty() && !findings.nameless);
            assert_eq!(findings.ignored[0].field, "limits[0]");
        }
    }

    #[test]
    fn a_week_of_all_that_is_bounded_by_something_unknown_is_not_the_whole_account() {
        let findings = read(&json!([{ "kind": "weekly_all", "percent": 99, "scope": { "workspace": "w" } }]));

        assert!(findings.windows.is_empty());
    }

    #[test]
    fn a_row_that_cannot_be_named_leaves_open_what_is_gone() {
        let rows = [
            json!(5),
            json!({ "percent": 5 }),
            json!({ "kind": 7, "percent": 5 }),
            json!({ "kind": "session", "scope": 3 }),
        ];
        for row in rows {
            assert!(read(&json!([row])).nameless, "{row}");
        }
        assert!(read(&json!({})).nameless);
    }

    #[test]
    fn a_use_that_cannot_be_read_leaves_the_window_as_it_was() {
        for percent in [json!("abc"), json!({}), json!(true)] {
            let findings = read(&json!([{ "kind": "session", "percent": percent }, week_of("Big", 5.0)]));

            assert_eq!(findings.unreadable.into_iter().collect::<Vec<_>>(), [WindowId::five_hour()]);
            assert_eq!(findings.windows.len(), 1);
        }
    }

    #[test]
    fn a_use_of_null_is_not_reported() {
        let findings = read(&json!([{ "kind": "session", "percent": null }]));

        assert!(findings.windows.is_empty() && findings.unreadable.is_empty());
        assert_eq!(findings.ignored.len(), 1);
    }

    #[test]
    fn of_two_rows_about_one_window_the_larger_use_stands() {
        let findings = read(&json!([week_of("Big", 5.0), week_of("big", 40.0), week_of("BIG", 7.0)]));

        let window = findings.windows.into_values().next().unwrap();
        assert_eq!(window.used, Percent::from_basis_points(4000));
    }

    #[test]
    fn null_and_no_rows_are_nothing() {
        for limits in [json!(null), json!([]), json!([null])] {
            let findings = read(&limits);

            assert!(findings.windows.is_empty() && findings.ignored.is_empty() && !findings.nameless);
        }
    }
}
