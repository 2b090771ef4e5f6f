//! The display name of a window, the same in all output. Its id is for JSON and flags.

use std::time::Duration;

use crate::account::WindowView;
use crate::sanitize::sanitize;

/// The name of a window: its length, and its model or surface if it has one, such as `7-day Opus`.
pub fn window_name(window: &WindowView) -> String {
    let (base, id_part) = split(&window.id);
    let scope = window.scope.as_ref().map(|scope| match (&scope.model, &scope.surface) {
        (Some(model), _) => model.clone(),
        (None, Some(surface)) => surface.replace('_', " "),
        (None, None) => "one model".to_owned(),
    });
    let part = scope.or_else(|| id_part.map(capitalized));
    let name = match (length_name(base, window.length), part) {
        (Some(length), Some(part)) => format!("{length} {part}"),
        (Some(length), None) => length,
        (None, Some(part)) => part,
        (None, None) => base.replace('_', " "),
    };
    sanitize(&name)
}

/// The name of a window if only its id is available.
pub fn window_name_of_id(id: &str) -> String {
    let (base, part) = split(id);
    let known = ["five_hour", "seven_day", "monthly"];
    // A surface is a suffix: seven_day_oauth_apps.
    let prefix =
        known.into_iter().find(|known| base.strip_prefix(known).is_some_and(|rest| rest.starts_with('_')));
    let (base, surface) = match prefix {
        Some(known) => (known, base[known.len() + 1..].replace('_', " ")),
        None => (base, String::new()),
    };
    let length = length_name(base, None).unwrap_or_else(|| base.replace('_', " "));
    let parts = [length, surface, part.map(capitalized).unwrap_or_default()];
    sanitize(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "))
}

fn split(id: &str) -> (&str, Option<&str>) {
    id.split_once('/').map_or((id, None), |(base, part)| (base, Some(part)))
}

fn length_name(base: &str, length: Option<Duration>) -> Option<String> {
    const HOUR: u64 = 3600;
    match (base, length.map(|length| length.as_secs() / HOUR)) {
        ("monthly", _) => Some("monthly".to_owned()),
        (_, Some(hours)) if hours >= 24 && hours % 24 == 0 => Some(format!("{}-day", hours / 24)),
        (_, Some(hours)) if hours > 0 => Some(format!("{hours}-hour")),
        ("five_hour", _) => Some("5-hour".to_owned()),
        ("seven_day", _) => Some("7-day".to_owned()),
        _ => None,
    }
}

/// Capitalizes a model name, because ids are in lower case.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use quota::model::Scope;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn window(id: &str, scope: Option<Scope>, length: Option<Duration>) -> WindowView {
        WindowView { scope, length, ..WindowView::without_readings(id) }
    }

    #[test]
    fn a_window_is_named_by_its_length_and_scope() {
        let week = Some(HOUR * 168);
        let names = [
            window("five_hour", None, Some(HOUR * 5)),
            window("seven_day/opus", Some(Scope::model("Opus")), week),
            window("tangelo", Some(Scope::surface("tangelo")), None),
            window("seven_day_oauth_apps", Some(Scope::surface("oauth_apps")), week),
            window("seven_day_overage_included", Some(Scope::unknown_model()), week),
            window("input_tokens", None, None),
            window("monthly", None, None),
            window("odd", None, Some(HOUR * 36)),
        ]
        .map(|window| window_name(&window));

        assert_eq!(
            names,
            [
                "5-hour",
                "7-day Opus",
                "tangelo",
                "7-day oauth apps",
                "7-day one model",
                "input tokens",
                "monthly",
                "36-hour"
            ]
        );
    }

    #[test]
    fn names_from_ids_are_the_same() {
        let names =
            ["five_hour", "seven_day", "seven_day/opus", "seven_day_oauth_apps", "monthly", "input_tokens"]
                .map(window_name_of_id);

        assert_eq!(names, ["5-hour", "7-day", "7-day Opus", "7-day oauth apps", "monthly", "input tokens"]);
    }

    #[test]
    fn a_name_from_a_provider_cannot_control_the_terminal() {
        assert_eq!(window_name_of_id("a\u{202e}\u{1b}[2J"), "a??[2J");
    }
}
