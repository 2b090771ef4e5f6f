//! The lines that are there already: for a shell, for a bar with arrows, for Waybar and for tmux.
//! What stands in them is the same; here is how each of them wants it.

use std::fmt::Write as _;

use quota::UsedAt;
use serde::Serialize;

use super::Line;
use super::format::{short, stale, used};
use crate::args::Preset;
use crate::status::bar;
use crate::status::model::{Freshness, WindowView};
use crate::term::{Ink, Screen, harmless};
use crate::words::between;

/// How many windows a line has room for: the first ones, which are those of the whole account.
const MOST_WINDOWS: usize = 2;

/// The line as the preset has it.
pub(super) fn fill(preset: Preset, line: &Line<'_>) -> String {
    match preset {
        Preset::Plain => plain(line),
        Preset::Powerline => powerline(line),
        Preset::Waybar => waybar(line),
        Preset::Tmux => tmux(line),
    }
}

/// What stands in the line, piece by piece, each with its colour.
fn pieces(line: &Line<'_>) -> Vec<(Ink, String)> {
    let model = line.session.model.as_deref().map(|model| (Ink::Name, harmless(model)));
    let windows = line.account.windows.iter().take(MOST_WINDOWS).map(|window| {
        // An old number is not painted as if all was well.
        let ink = if matches!(window.used, UsedAt::Exact(_)) { bar::ink(window.used) } else { Ink::Quiet };
        (ink, told(window, line))
    });
    let stale = stale(line).map(|stale| (Ink::Warn, stale));
    model.into_iter().chain(windows).chain(stale).collect()
}

fn told(window: &WindowView, line: &Line<'_>) -> String {
    let mut text = format!("{} {}", name(&window.id), used(window.used));
    if let Some(reset) = window.resets_at.filter(|reset| *reset > line.here.now) {
        let _ = write!(text, " ({})", short(between(line.here.now, reset)));
    }
    harmless(&text)
}

fn name(id: &str) -> &str {
    match id {
        "five_hour" => "5h",
        "seven_day" => "7d",
        other => other,
    }
}

fn joined(pieces: &[(Ink, String)]) -> String {
    pieces.iter().map(|(_, text)| &**text).collect::<Vec<_>>().join(" · ")
}

fn plain(line: &Line<'_>) -> String {
    joined(&pieces(line))
}

/// Segments with arrows between them, in the terminal's own colours.
fn powerline(line: &Line<'_>) -> String {
    const ARROW: char = '\u{e0b1}';
    // The one who reads it is no terminal of ours, and still paints it.
    let screen = Screen { colour: !no_colour(), ..Screen::USUAL };
    let painted: Vec<_> =
        pieces(line).into_iter().map(|(ink, text)| screen.paint(ink, text).to_string()).collect();
    painted.join(&format!(" {ARROW} "))
}

fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// tmux reads # as the beginning of a command of its own.
fn tmux(line: &Line<'_>) -> String {
    let colour = |ink| match ink {
        Ink::Good => "green",
        Ink::Warn => "yellow",
        Ink::Bad => "red",
        Ink::Name | Ink::Quiet | Ink::Plain => "default",
    };
    let painted: Vec<_> = pieces(line)
        .into_iter()
        .map(|(ink, text)| format!("#[fg={}]{}#[default]", colour(ink), text.replace('#', "##")))
        .collect();
    painted.join(" ")
}

/// What Waybar's `custom` module reads with `return-type: json`.
#[derive(Serialize)]
struct Waybar {
    text: String,
    tooltip: String,
    class: &'static str,
    percentage: Option<u64>,
}

fn waybar(line: &Line<'_>) -> String {
    let account = line.account;
    let mut tooltip = account.id.as_str().to_owned();
    for window in &account.windows {
        let _ = write!(tooltip, "\n{}", told(window, line));
    }
    if let Some(stale) = stale(line) {
        let _ = write!(tooltip, "\n{stale}");
    }
    let bounds = || account.windows.iter().filter_map(|window| window.used.lower_bound());
    let fullest = bounds().map(quota::Percent::basis_points).max();
    let class = match (account.state, fullest) {
        (Freshness::Stale { .. }, _) | (_, None) => "stale",
        (Freshness::Fresh, Some(9_000..)) => "critical",
        (Freshness::Fresh, Some(7_500..)) => "warning",
        (Freshness::Fresh, Some(_)) => "good",
    };
    let percentage = fullest.map(|points| u64::from(points / 100).min(100));
    let shown = Waybar { text: markup(&joined(&pieces(line))), tooltip: markup(&tooltip), class, percentage };
    serde_json::to_string(&shown).expect("it has only text keys")
}

/// Waybar takes text for markup.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use quota::{Percent, Source, StaleReason};

    use super::*;
    use crate::status::model::AccountView;
    use crate::statusline::session::Session;
    use crate::words::Here;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    fn window(id: &str, used: UsedAt, resets_at: &str) -> WindowView {
        let now = at("2026-11-23T11:55:00Z");
        WindowView {
            id: id.to_owned(),
            used,
            resets_at: Some(at(resets_at)),
            observed_at: now,
            source: Source::Poll,
            scope: None,
            length: None,
        }
    }

    fn account() -> AccountView {
        let percent = Percent::from_basis_points;
        AccountView {
            id: "anthropic/main".parse().expect("a name"),
            state: Freshness::Fresh,
            age: Some(Duration::from_secs(12)),
            plan: Some("max 20x".into()),
            windows: vec![
                window("five_hour", UsedAt::Exact(percent(6250)), "2026-11-23T14:05:00Z"),
                window("seven_day", UsedAt::Exact(percent(9300)), "2026-11-26T14:05:00Z"),
                window("seven_day/opus", UsedAt::Exact(percent(100)), "2026-11-26T14:05:00Z"),
            ],
            credits: None,
            hold: None,
            trouble: None,
            failure: None,
            not_refreshed: None,
            called_at: None,
            switched_off: false,
        }
    }

    fn on<T>(account: &AccountView, model: &str, dir: &str, look: impl FnOnce(&Line<'_>) -> T) -> T {
        let session = Session {
            bytes: b"{}".to_vec(),
            model: Some(model.into()),
            dir: Some(dir.into()),
            cost: Some(1.25),
        };
        let here = Here { now: at("2026-11-23T11:55:00Z"), zone: TimeZone::UTC };
        look(&Line { account, session: &session, here: &here, is_refused: false })
    }

    pub(in super::super) fn line_of<T>(model: &str, dir: &str, look: impl FnOnce(&Line<'_>) -> T) -> T {
        on(&account(), model, dir, look)
    }

    pub(in super::super) fn with_line<T>(look: impl FnOnce(&Line<'_>) -> T) -> T {
        line_of("Opus", "/src", look)
    }

    fn stale_account() -> AccountView {
        let mut old = account();
        old.state = Freshness::Stale { since: None, why: StaleReason::Aged };
        old.age = Some(Duration::from_secs(720));
        old.windows.truncate(1);
        old.windows[0].used = UsedAt::AtLeast(Percent::from_basis_points(6250));
        old
    }

    #[test]
    fn the_plain_line_is_short() {
        assert_eq!(with_line(plain), "Opus · 5h 62.5% (2h10min) · 7d 93% (3d2h)");
    }

    #[test]
    fn an_old_number_is_a_lower_bound_and_marked() {
        assert_eq!(on(&stale_account(), "Opus", "", plain), "Opus · 5h ≥62.5% (2h10min) · stale 12min");
    }

    #[test]
    fn without_a_number_it_says_so() {
        let mut cold = stale_account();
        (cold.windows, cold.age) = (Vec::new(), None);

        assert_eq!(on(&cold, "Opus", "", plain), "Opus · no number yet");
    }

    #[test]
    fn the_line_for_tmux_starts_no_command_of_tmux() {
        let text = line_of("#(rm -rf ~)#[x]", "", tmux);

        assert_eq!(
            text,
            "#[fg=default]##(rm -rf ~)##[x]#[default] #[fg=green]5h 62.5% (2h10min)#[default] \
             #[fg=red]7d 93% (3d2h)#[default]"
        );
    }

    #[test]
    fn the_line_for_waybar_is_json_without_markup_from_elsewhere() {
        let text = line_of("<b>&", "", waybar);

        assert_eq!(
            text,
            r#"{"text":"&lt;b&gt;&amp; · 5h 62.5% (2h10min) · 7d 93% (3d2h)","tooltip":"anthropic/main\n5h 62.5% (2h10min)\n7d 93% (3d2h)\nseven_day/opus 1% (3d2h)","class":"critical","percentage":93}"#
        );
    }

    #[test]
    fn the_line_with_arrows_is_in_the_terminals_colours() {
        let text = with_line(powerline);

        assert!(text.contains("\u{1b}[32m5h 62.5% (2h10min)\u{1b}[0m \u{e0b1} \u{1b}[31m7d"), "{text:?}");
    }
}
