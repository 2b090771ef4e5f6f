//! The lines that are there already: for a shell, for a bar with arrows, for Waybar and for tmux.
//! What stands in them is the same; here is how each of them wants it.

use std::fmt::Write as _;

use quota::{Percent, Used};
use serde::Serialize;

use super::Line;
use super::format::{broken, reason, short, stale, used, without_windows};
use crate::cli::Preset;
use crate::format::between;
use crate::sanitize::sanitize;
use crate::term::{Screen, Style};
use crate::view::account::{AccountView, ViewFreshness, WindowView};
use crate::view::bar;
use crate::view::reason::Reason;

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
fn pieces(line: &Line<'_>) -> Vec<(Style, String)> {
    let model = line.session.model.as_deref().map(|model| (Style::Strong, sanitize(model)));
    let windows = line.account.iter().flat_map(|account| &account.windows);
    let windows = windows.take(MOST_WINDOWS).map(|window| (ink(window.used), told(window, line)));
    let without_windows = line.account.and_then(without_windows).map(|text| (Style::Plain, text));
    let stale = line.account.and_then(old).map(|old| (Style::Warn, old));
    let broken = broken(line).map(|broken| (Style::Bad, broken));
    model.into_iter().chain(windows).chain(without_windows).chain(stale).chain(broken).collect()
}

/// The colour of a use. An old number is not painted as if all was well, but what is nearly used up stays so until the reset.
fn ink(used: Used) -> Style {
    match (used, bar::ink(used)) {
        (Used::Exact(_), ink) | (_, ink @ (Style::Warn | Style::Bad)) => ink,
        _ => Style::Dim,
    }
}

/// That numbers are old, with the reason; or why there are none.
fn old(account: &AccountView) -> Option<String> {
    let stale = stale(account)?;
    match account.reason {
        Some(reason) if account.age.is_some() => Some(format!("{stale}, {}", reason.text())),
        _ => Some(stale),
    }
}

fn told(window: &WindowView, line: &Line<'_>) -> String {
    let mut text = format!("{} {}", name(&window.id), used(window.used));
    if let Some(reset) = window.resets_at.filter(|reset| *reset > line.local.now) {
        let _ = write!(text, " ({})", short(between(line.local.now, reset)));
    }
    sanitize(&text)
}

fn name(id: &str) -> &str {
    match id {
        "five_hour" => "5h",
        "seven_day" => "7d",
        other => other,
    }
}

fn joined(pieces: &[(Style, String)]) -> String {
    pieces.iter().map(|(_, text)| &**text).collect::<Vec<_>>().join(" · ")
}

fn plain(line: &Line<'_>) -> String {
    joined(&pieces(line))
}

/// Segments with arrows between them, in the terminal's own colours.
fn powerline(line: &Line<'_>) -> String {
    const ARROW: char = '\u{e0b1}';
    // The one who reads it is no terminal of ours, and still paints it.
    let screen = Screen { colour: !no_colour(), ..Screen::DEFAULT };
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
        Style::Good => "green",
        Style::Warn => "yellow",
        Style::Bad => "red",
        Style::Strong | Style::Dim | Style::Plain => "default",
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
    class: Vec<String>,
    percentage: Option<u64>,
}

fn waybar(line: &Line<'_>) -> String {
    let account = line.account;
    let windows = || account.iter().flat_map(|account| &account.windows);
    let name = account.map(|account| account.id.as_str().to_owned());
    let shown = windows().map(|window| told(window, line));
    let tooltip = name.into_iter().chain(shown).chain(account.and_then(without_windows));
    let tooltip: Vec<_> = tooltip.chain(account.and_then(old)).chain(broken(line)).collect();
    let fullest = windows().filter_map(|window| window.used.lower_bound()).max();
    let shown = Waybar {
        text: markup(&joined(&pieces(line))),
        tooltip: markup(&tooltip.join("\n")),
        class: classes(line, fullest),
        percentage: fullest.map(|used| u64::from(used.basis_points() / 100).min(100)),
    };
    serde_json::to_string(&shown).expect("it has only text keys")
}

/// How full the fullest window is, whether that is old, and why: a window that is nearly used up stays so until its reset,
/// however old the number is. A fresh answer without windows has no number to be old.
fn classes(line: &Line<'_>, fullest: Option<Percent>) -> Vec<String> {
    let is_fresh = line.account.is_some_and(|account| account.state == ViewFreshness::Fresh);
    let level = match fullest.map(Percent::basis_points) {
        Some(9_000..) => Some("critical"),
        Some(7_500..) => Some("warning"),
        Some(_) if is_fresh => Some("good"),
        _ => None,
    };
    let has_windows = line.account.is_some_and(|account| !account.windows.is_empty());
    let stale = (!is_fresh || (has_windows && fullest.is_none())).then_some("stale");
    let error = line.broken.map(|_| "error");
    let reason = reason(line).map(Reason::class);
    [level, stale, error].into_iter().flatten().map(str::to_owned).chain(reason).collect()
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
    use quota::{Credits, Money, Source, StaleReason};

    use super::*;
    use crate::commands::statusline::session::Session;
    use crate::format::LocalTime;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    fn window(id: &str, used: Used, resets_at: &str) -> WindowView {
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
            state: ViewFreshness::Fresh,
            age: Some(Duration::from_secs(12)),
            plan: Some("max 20x".into()),
            windows: vec![
                window("five_hour", Used::Exact(percent(6250)), "2026-11-23T14:05:00Z"),
                window("seven_day", Used::Exact(percent(9300)), "2026-11-26T14:05:00Z"),
                window("seven_day/opus", Used::Exact(percent(100)), "2026-11-26T14:05:00Z"),
            ],
            credits: None,
            hold: None,
            trouble: None,
            failure: None,
            reason: None,
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
        let local = LocalTime { now: at("2026-11-23T11:55:00Z"), zone: TimeZone::UTC };
        look(&Line { account: Some(account), session: &session, local: &local, broken: None })
    }

    pub(in super::super) fn line_of<T>(model: &str, dir: &str, look: impl FnOnce(&Line<'_>) -> T) -> T {
        on(&account(), model, dir, look)
    }

    pub(in super::super) fn with_line<T>(look: impl FnOnce(&Line<'_>) -> T) -> T {
        line_of("Opus", "/src", look)
    }

    fn stale_account() -> AccountView {
        let mut old = account();
        old.state = ViewFreshness::Stale { since: None, why: StaleReason::Aged };
        old.age = Some(Duration::from_secs(720));
        old.windows.truncate(1);
        old.windows[0].used = Used::AtLeast(Percent::from_basis_points(6250));
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

    fn cold_account(reason: impl Into<Option<Reason>>) -> AccountView {
        AccountView { windows: Vec::new(), age: None, reason: reason.into(), ..stale_account() }
    }

    #[test]
    fn without_a_number_the_line_says_why() {
        assert_eq!(on(&cold_account(None), "Opus", "", plain), "Opus · no data");
        assert_eq!(on(&cold_account(Reason::LoginRejected), "Opus", "", plain), "Opus · login rejected");
    }

    #[test]
    fn an_old_number_is_shown_with_the_reason() {
        let old = AccountView { reason: Some(Reason::RateLimited), ..stale_account() };

        assert_eq!(on(&old, "Opus", "", plain), "Opus · 5h ≥62.5% (2h10min) · stale 12min, rate limited");
    }

    fn account_without_windows(credits: Option<Credits>) -> AccountView {
        let reason = Some(Reason::NoWindows);
        AccountView { windows: Vec::new(), credits, reason, ..account() }
    }

    fn spent() -> Option<Credits> {
        let mut credits = Credits::default();
        credits.used = Some(Money::new(1234, "USD", 2));
        credits.limit = Some(Money::new(5000, "USD", 2));
        Some(credits)
    }

    #[test]
    fn a_fresh_account_without_windows_fills_every_preset() {
        let texts = [(spent(), "extra: 12.34 USD of 50.00 USD spent"), (None, "no windows")];
        for preset in [Preset::Plain, Preset::Powerline, Preset::Waybar, Preset::Tmux] {
            for (credits, expected) in &texts {
                let account = account_without_windows(credits.clone());
                let text = on(&account, "", "", |line| fill(preset, line));

                assert!(text.contains(expected) && !text.contains("stale"), "{preset:?}: {text}");
            }
        }
    }

    #[test]
    fn old_credits_are_marked_as_stale() {
        let age = Some(Duration::from_secs(720));
        let state = ViewFreshness::Stale { since: None, why: StaleReason::Aged };
        let old = AccountView { state, age, reason: None, ..account_without_windows(spent()) };

        assert_eq!(on(&old, "Opus", "", plain), "Opus · extra: 12.34 USD of 50.00 USD spent · stale 12min");
        assert_eq!(classes_of(&old), serde_json::json!(["stale"]));
    }

    #[test]
    fn every_preset_says_why_there_is_no_number() {
        for preset in [Preset::Plain, Preset::Powerline, Preset::Waybar, Preset::Tmux] {
            let text = on(&cold_account(Reason::Offline), "Opus", "", |line| fill(preset, line));

            assert!(text.contains("offline"), "{preset:?}: {text}");
        }
    }

    fn nearly_used_up() -> AccountView {
        let mut old = stale_account();
        old.windows[0].used = Used::AtLeast(Percent::from_basis_points(9900));
        old
    }

    #[test]
    fn an_old_number_that_is_nearly_all_stays_red() {
        let text = on(&nearly_used_up(), "Opus", "", tmux);

        assert!(text.contains("#[fg=red]5h ≥99%"), "{text}");
        assert!(on(&stale_account(), "Opus", "", tmux).contains("#[fg=default]5h ≥62.5%"));
    }

    fn classes_of(account: &AccountView) -> serde_json::Value {
        let text = on(account, "", "", waybar);
        serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON")["class"].clone()
    }

    #[test]
    fn an_old_number_that_is_nearly_all_is_stale_and_critical() {
        assert_eq!(classes_of(&nearly_used_up()), serde_json::json!(["critical", "stale"]));
        assert_eq!(classes_of(&stale_account()), serde_json::json!(["stale"]));
    }

    #[test]
    fn the_reason_is_a_class() {
        assert_eq!(
            classes_of(&cold_account(Reason::NotLoggedIn)),
            serde_json::json!(["stale", "not-logged-in"])
        );
    }

    fn broken_line<T>(account: Option<&AccountView>, look: impl FnOnce(&Line<'_>) -> T) -> T {
        let local = LocalTime { now: at("2026-11-23T11:55:00Z"), zone: TimeZone::UTC };
        look(&Line {
            account,
            session: &Session::default(),
            local: &local,
            broken: Some(Reason::ConfigError),
        })
    }

    #[test]
    fn what_is_broken_is_told_in_every_preset() {
        for preset in [Preset::Plain, Preset::Powerline, Preset::Waybar, Preset::Tmux] {
            let text = broken_line(None, |line| fill(preset, line));

            assert!(text.contains("quota: config error"), "{preset:?}: {text}");
        }
        assert_eq!(
            broken_line(None, waybar),
            r#"{"text":"quota: config error","tooltip":"quota: config error","class":["stale","error","config-error"],"percentage":null}"#
        );
    }

    #[test]
    fn what_is_broken_does_not_hide_the_numbers_of_the_session() {
        let mut own = account();
        own.windows.truncate(1);

        assert_eq!(broken_line(Some(&own), plain), "5h 62.5% (2h10min) · quota: config error");
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
            r#"{"text":"&lt;b&gt;&amp; · 5h 62.5% (2h10min) · 7d 93% (3d2h)","tooltip":"anthropic/main\n5h 62.5% (2h10min)\n7d 93% (3d2h)\nseven_day/opus 1% (3d2h)","class":["critical"],"percentage":93}"#
        );
    }

    #[test]
    fn the_line_with_arrows_is_in_the_terminals_colours() {
        let text = with_line(powerline);

        assert!(text.contains("\u{1b}[32m5h 62.5% (2h10min)\u{1b}[0m \u{e0b1} \u{1b}[31m7d"), "{text:?}");
    }
}
