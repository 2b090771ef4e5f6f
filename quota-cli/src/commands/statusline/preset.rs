//! The built-in lines: plain, with Powerline arrows, for Waybar and for tmux.
//! All of them render the same spans.

use std::fmt::Write as _;

use quota::{Percent, Used};
use serde::Serialize;

use super::LineData;
use super::format::{broken, reason, short, stale, used_of, without_windows};
use crate::cli::Preset;
use crate::format::between;
use crate::sanitize::sanitize;
use crate::view::account::{AccountView, ViewFreshness, WindowView};
use crate::view::bar;
use crate::view::line::{Span, Style};
use crate::view::reason::Reason;
use crate::view::window_name::window_name;

/// A line shows only the first windows, which cover the whole account.
const MAX_WINDOWS: usize = 2;

/// The line of a preset.
pub(super) fn render(preset: Preset, line: &LineData<'_>) -> String {
    match preset {
        Preset::Plain => plain(line),
        Preset::Powerline => powerline(line),
        Preset::Waybar => waybar(line),
        Preset::Tmux => tmux(line),
    }
}

/// The spans of the line.
fn spans(line: &LineData<'_>) -> Vec<Span> {
    let model = line.session.model.as_deref().map(|model| Span::new(Style::Strong, sanitize(model)));
    let windows = line.account.iter().flat_map(|account| &account.windows);
    let windows =
        windows.take(MAX_WINDOWS).map(|window| Span::new(style(window.used), describe(window, line)));
    let without_windows = line.account.and_then(without_windows).map(|text| Span::new(Style::Plain, text));
    let stale = line.account.and_then(stale_with_reason).map(|text| Span::new(Style::Warn, text));
    let broken = broken(line).map(|text| Span::new(Style::Bad, text));
    model.into_iter().chain(windows).chain(without_windows).chain(stale).chain(broken).collect()
}

/// The style for a usage. A stale reading is not shown as good, but a nearly exhausted window keeps its style, because
/// its usage cannot fall before the reset.
fn style(used: Used) -> Style {
    match (used, bar::style(used)) {
        (Used::Exact(_), style) | (_, style @ (Style::Warn | Style::Bad)) => style,
        _ => Style::Dim,
    }
}

/// The text for stale readings with the reason, or the reason why there are none.
fn stale_with_reason(account: &AccountView) -> Option<String> {
    let stale = stale(account)?;
    match account.reason {
        Some(reason) if account.age.is_some() => Some(format!("{stale}, {}", reason.text())),
        _ => Some(stale),
    }
}

fn describe(window: &WindowView, line: &LineData<'_>) -> String {
    let mut text = format!("{} {}", short_name(window), used_of(window));
    if let Some(reset) = window.resets_at.filter(|reset| *reset > line.local.now) {
        let _ = write!(text, " ({})", short(between(line.local.now, reset)));
    }
    sanitize(&text)
}

fn short_name(window: &WindowView) -> String {
    match &*window.id {
        "five_hour" => "5h".to_owned(),
        "seven_day" => "7d".to_owned(),
        _ => window_name(window),
    }
}

fn joined(spans: &[Span]) -> String {
    spans.iter().map(|span| &*span.text).collect::<Vec<_>>().join(" · ")
}

fn plain(line: &LineData<'_>) -> String {
    joined(&spans(line))
}

/// Segments with arrows between them, in the terminal's palette.
fn powerline(line: &LineData<'_>) -> String {
    const ARROW: char = '\u{e0b1}';
    // Colors are used even if standard output is a pipe, because the shell or bar shows them.
    let color = !no_color();
    let segments: Vec<_> = spans(line).iter().map(|span| span.print(color)).collect();
    segments.join(&format!(" {ARROW} "))
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Escapes `#`, because tmux interprets it as the start of a command.
fn tmux(line: &LineData<'_>) -> String {
    let color = |style| match style {
        Style::Good => "green",
        Style::Warn => "yellow",
        Style::Bad => "red",
        Style::Strong | Style::Dim | Style::Plain => "default",
    };
    let segments: Vec<_> = spans(line)
        .into_iter()
        .map(|span| format!("#[fg={}]{}#[default]", color(span.style), span.text.replace('#', "##")))
        .collect();
    segments.join(" ")
}

/// The JSON that Waybar's `custom` module reads with `return-type: json`.
#[derive(Serialize)]
struct Waybar {
    text: String,
    tooltip: String,
    class: Vec<String>,
    percentage: Option<u64>,
}

fn waybar(line: &LineData<'_>) -> String {
    let account = line.account;
    let windows = || account.iter().flat_map(|account| &account.windows);
    let name = account.map(|account| account.id.as_str().to_owned());
    let lines = windows().map(|window| describe(window, line));
    let tooltip = name.into_iter().chain(lines).chain(account.and_then(without_windows));
    let tooltip: Vec<_> = tooltip.chain(account.and_then(stale_with_reason)).chain(broken(line)).collect();
    let fullest = windows().filter_map(|window| window.used.lower_bound()).max();
    let output = Waybar {
        text: markup(&joined(&spans(line))),
        tooltip: markup(&tooltip.join("\n")),
        class: classes(line, fullest),
        percentage: fullest.map(|used| u64::from(used.basis_points() / 100).min(100)),
    };
    serde_json::to_string(&output).expect("it has only text keys")
}

/// The classes: the level of the fullest window, `stale`, `error` and the reason. A nearly exhausted window keeps its level even if the
/// reading is stale. A fresh account without windows is not stale.
fn classes(line: &LineData<'_>, fullest: Option<Percent>) -> Vec<String> {
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

/// Escapes text, because Waybar interprets it as markup.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use quota::manager::StaleReason;
    use quota::model::{Credits, Money};

    use super::*;
    use crate::commands::statusline::session::Session;
    use crate::view::fixtures::{self, HOUR, MINUTE, local, window};

    fn account() -> AccountView {
        let used = |basis_points| Used::Exact(Percent::from_basis_points(basis_points));
        let windows = vec![
            window("five_hour", used(6250), MINUTE * 130),
            window("seven_day", used(9300), HOUR * 74 + MINUTE * 10),
            window("seven_day/opus", used(100), HOUR * 74 + MINUTE * 10),
        ];
        let (age, plan) = (Some(Duration::from_secs(12)), Some("max 20x".into()));
        AccountView { age, plan, ..fixtures::account("anthropic/main", windows) }
    }

    fn on<T>(account: &AccountView, model: &str, dir: &str, render: impl FnOnce(&LineData<'_>) -> T) -> T {
        let session = Session {
            bytes: b"{}".to_vec(),
            model: Some(model.into()),
            dir: Some(dir.into()),
            cost: Some(1.25),
        };
        render(&LineData { account: Some(account), session: &session, local: &local(), broken: None })
    }

    pub(in super::super) fn line_of<T>(model: &str, dir: &str, render: impl FnOnce(&LineData<'_>) -> T) -> T {
        on(&account(), model, dir, render)
    }

    pub(in super::super) fn with_line<T>(render: impl FnOnce(&LineData<'_>) -> T) -> T {
        line_of("Opus", "/src", render)
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
    fn a_stale_reading_is_marked_as_a_lower_bound() {
        assert_eq!(on(&stale_account(), "Opus", "", plain), "Opus · 5h ≥62.5% (2h10min) · stale 12min");
    }

    fn cold_account(reason: impl Into<Option<Reason>>) -> AccountView {
        AccountView { windows: Vec::new(), age: None, reason: reason.into(), ..stale_account() }
    }

    #[test]
    fn a_line_without_readings_shows_the_reason() {
        assert_eq!(on(&cold_account(None), "Opus", "", plain), "Opus · no data");
        assert_eq!(on(&cold_account(Reason::LoginRejected), "Opus", "", plain), "Opus · login rejected");
    }

    #[test]
    fn a_stale_reading_is_shown_with_its_reason() {
        let old = AccountView { reason: Some(Reason::RateLimited), ..stale_account() };

        assert_eq!(on(&old, "Opus", "", plain), "Opus · 5h ≥62.5% (2h10min) · stale 12min, rate limited");
    }

    fn account_without_windows(credits: Option<Credits>) -> AccountView {
        let reason = Some(Reason::NoWindows);
        AccountView { windows: Vec::new(), credits, reason, ..account() }
    }

    fn credits() -> Option<Credits> {
        let mut credits = Credits::default();
        credits.used = Some(Money::new(1234, "USD", 2));
        credits.limit = Some(Money::new(5000, "USD", 2));
        Some(credits)
    }

    #[test]
    fn every_preset_shows_an_account_without_windows() {
        let texts = [(credits(), "extra usage: 12.34 of 50.00 USD"), (None, "no windows")];
        for preset in [Preset::Plain, Preset::Powerline, Preset::Waybar, Preset::Tmux] {
            for (credits, expected) in &texts {
                let account = account_without_windows(credits.clone());
                let text = on(&account, "", "", |line| render(preset, line));

                assert!(text.contains(expected) && !text.contains("stale"), "{preset:?}: {text}");
            }
        }
    }

    #[test]
    fn stale_credits_are_marked() {
        let age = Some(Duration::from_secs(720));
        let state = ViewFreshness::Stale { since: None, why: StaleReason::Aged };
        let old = AccountView { state, age, reason: None, ..account_without_windows(credits()) };

        assert_eq!(on(&old, "Opus", "", plain), "Opus · extra usage: 12.34 of 50.00 USD · stale 12min");
        assert_eq!(classes_of(&old), serde_json::json!(["stale"]));
    }

    #[test]
    fn every_preset_shows_why_there_is_no_reading() {
        for preset in [Preset::Plain, Preset::Powerline, Preset::Waybar, Preset::Tmux] {
            let text = on(&cold_account(Reason::Offline), "Opus", "", |line| render(preset, line));

            assert!(text.contains("offline"), "{preset:?}: {text}");
        }
    }

    fn nearly_exhausted() -> AccountView {
        let mut old = stale_account();
        old.windows[0].used = Used::AtLeast(Percent::from_basis_points(9900));
        old
    }

    #[test]
    fn a_nearly_exhausted_stale_window_stays_red() {
        let text = on(&nearly_exhausted(), "Opus", "", tmux);

        assert!(text.contains("#[fg=red]5h ≥99%"), "{text}");
        assert!(on(&stale_account(), "Opus", "", tmux).contains("#[fg=default]5h ≥62.5%"));
    }

    fn classes_of(account: &AccountView) -> serde_json::Value {
        let text = on(account, "", "", waybar);
        serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON")["class"].clone()
    }

    #[test]
    fn a_nearly_exhausted_stale_window_is_critical() {
        assert_eq!(classes_of(&nearly_exhausted()), serde_json::json!(["critical", "stale"]));
        assert_eq!(classes_of(&stale_account()), serde_json::json!(["stale"]));
    }

    #[test]
    fn the_reason_is_a_class() {
        assert_eq!(
            classes_of(&cold_account(Reason::NotLoggedIn)),
            serde_json::json!(["stale", "not-logged-in"])
        );
    }

    fn broken_line<T>(account: Option<&AccountView>, render: impl FnOnce(&LineData<'_>) -> T) -> T {
        render(&LineData {
            account,
            session: &Session::default(),
            local: &local(),
            broken: Some(Reason::ConfigError),
        })
    }

    #[test]
    fn every_preset_shows_a_config_error() {
        for preset in [Preset::Plain, Preset::Powerline, Preset::Waybar, Preset::Tmux] {
            let text = broken_line(None, |line| render(preset, line));

            assert!(text.contains("quota: config error"), "{preset:?}: {text}");
        }
        assert_eq!(
            broken_line(None, waybar),
            r#"{"text":"quota: config error","tooltip":"quota: config error","class":["stale","error","config-error"],"percentage":null}"#
        );
    }

    #[test]
    fn a_config_error_does_not_hide_session_usage() {
        let mut own = account();
        own.windows.truncate(1);

        assert_eq!(broken_line(Some(&own), plain), "5h 62.5% (2h10min) · quota: config error");
    }

    #[test]
    fn the_tmux_line_escapes_commands() {
        let text = line_of("#(rm -rf ~)#[x]", "", tmux);

        assert_eq!(
            text,
            "#[fg=default]##(rm -rf ~)##[x]#[default] #[fg=green]5h 62.5% (2h10min)#[default] \
             #[fg=red]7d 93% (3d2h)#[default]"
        );
    }

    #[test]
    fn the_waybar_line_escapes_markup() {
        let text = line_of("<b>&", "", waybar);

        assert_eq!(
            text,
            r#"{"text":"&lt;b&gt;&amp; · 5h 62.5% (2h10min) · 7d 93% (3d2h)","tooltip":"anthropic/main\n5h 62.5% (2h10min)\n7d 93% (3d2h)\n7-day Opus 1% (3d2h)","class":["critical"],"percentage":93}"#
        );
    }

    #[test]
    fn the_powerline_line_uses_the_terminals_colors() {
        let text = with_line(powerline);

        assert!(text.contains("\u{1b}[32m5h 62.5% (2h10min)\u{1b}[0m \u{e0b1} \u{1b}[31m7d"), "{text:?}");
    }
}
