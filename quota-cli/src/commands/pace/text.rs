//! `quota pace` for people.

use std::fmt::Write as _;

use super::chart::Chart;
use super::{AccountPace, WindowPace, plot};
use crate::format::{self, LocalTime, between};
use crate::sanitize::sanitize;
use crate::term::{Screen, Style, truncate, wrap};
use quota_journal::pace::Basis;

/// All accounts, one after the other.
pub(super) fn render(all: &[AccountPace], local: &LocalTime, screen: Screen, plotted: bool) -> String {
    let shown: Vec<_> = all.iter().map(|account| one(account, local, screen, plotted)).collect();
    shown.join("\n")
}

fn one(account: &AccountPace, local: &LocalTime, screen: Screen, plotted: bool) -> String {
    let name = truncate(account.account.as_str(), screen.width);
    let mut text = format!("{}\n", screen.paint(Style::Strong, name));
    if account.windows.is_empty() {
        let _ = writeln!(text, "  {}", screen.paint(Style::Dim, "nothing is known yet"));
    }
    for window in &account.windows {
        let id = sanitize(&window.id);
        let mut write = |ink, indent: usize, line: &str| {
            for line in wrap(line, screen.width.saturating_sub(indent)) {
                let _ = writeln!(text, "{:indent$}{}", "", screen.paint(ink, line));
            }
        };
        write(Style::Plain, 2, &format!("{id}: {}", standing(window, local)));
        write(ink(window), 4, &verdict(window, local));
        if let Some(chart) = plotted.then(|| Chart::of(window, local.now)).flatten() {
            for line in plot::lines(&chart, local, screen.width) {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

/// How much is used, and how much of the time has gone.
fn standing(window: &WindowPace, local: &LocalTime) -> String {
    let Some(used) = window.used else { return "unknown since its reset".to_owned() };
    let mut standing = match window.is_old {
        false => format!("{} used", format::percent(used)),
        true => {
            let age = format::ago(between(window.observed_at, local.now));
            format!("≥ {} used, read {age}", format::percent(used))
        }
    };
    if let Some(passed) = window.passed(local.now) {
        let _ = write!(standing, ", {:.0} % elapsed", passed * 100.0);
    }
    if let Some(reset) = window.resets_at {
        let _ = write!(standing, ", resets {}", local.relative(reset));
    }
    standing
}

/// What its pace comes to, with the evidence.
pub(super) fn verdict(window: &WindowPace, local: &LocalTime) -> String {
    let estimate = &window.estimate;
    if estimate.is_rolled_over {
        return "it has not been read since its reset".to_owned();
    }
    let Some(rate) = &estimate.rate else {
        let readings = format::pluralize(estimate.samples as u64, "reading");
        let over = match estimate.samples {
            0 | 1 => String::new(),
            _ => format!(" over {}", format::duration(estimate.covered)),
        };
        return format!(
            "trend needs {} of data ({readings}{over} so far)",
            format::duration(estimate.required)
        );
    };
    let evidence = match rate.basis {
        Basis::Trend => {
            let samples = format::pluralize(estimate.samples as u64, "sample");
            format!("trend of {samples} over {}", format::duration(estimate.covered))
        }
        Basis::Average => "average since the window began".to_owned(),
        Basis::AverageSinceLowered => "average since the provider lowered it".to_owned(),
    };
    let speed = format!("{} % an hour", tenths(rate.percent_per_hour));
    let at_reset = rate.at_reset_percent.map(|percent| format!("{} % at its reset", tenths(percent)));
    let runs_out = rate.exhausted_at.map(|at| match window.resets_at {
        Some(reset) => {
            format!("runs out {}, {} early", local.relative(at), format::duration(between(at, reset)))
        }
        None => format!("runs out {}", local.relative(at)),
    });
    let outcome: Vec<_> = runs_out.into_iter().chain(at_reset).collect();
    let outcome =
        if outcome.is_empty() { "does not run out at this rate".to_owned() } else { outcome.join(", ") };
    format!("{speed}: {outcome} ({evidence})")
}

fn ink(window: &WindowPace) -> Style {
    match window.rate() {
        None => Style::Dim,
        Some(rate) if rate.exhausted_at.is_some() => Style::Bad,
        Some(rate) if rate.at_reset_percent.is_some_and(|percent| percent >= 90.0) => Style::Warn,
        Some(_) => Style::Good,
    }
}

/// With one decimal where it says something. A zero has no sign.
fn tenths(number: f64) -> String {
    let rounded = (number * 10.0).round() / 10.0 + 0.0;
    format!("{rounded}")
}
