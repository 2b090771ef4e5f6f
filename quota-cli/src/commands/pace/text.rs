//! `quota pace` as text.

use std::fmt::Write as _;

use super::chart::Chart;
use super::{AccountPace, WindowPace, plot};
use crate::format::{self, LocalTime, between};
use crate::view::line::{self, Line, Style};
use crate::view::wrap::truncate;
use quota_journal::pace::Basis;

/// Renders all accounts.
pub(super) fn lines(all: &[AccountPace], local: &LocalTime, width: usize, with_plot: bool) -> Vec<Line> {
    line::separated(all.iter().map(|account| block(account, local, width, with_plot)))
}

fn block(account: &AccountPace, local: &LocalTime, width: usize, with_plot: bool) -> Vec<Line> {
    let mut lines = vec![Line::new(Style::Strong, truncate(account.account.as_str(), width))];
    if account.windows.is_empty() {
        lines.push(Line::new(Style::Dim, "no data").indented(2));
    }
    for window in &account.windows {
        let mut write = |style, indent, text: &str| lines.extend(line::wrapped(style, text, indent, width));
        write(Style::Plain, 2, &format!("{}: {}", window.name, status(window, local)));
        write(style(window), 4, &summary(window, local));
        if let Some(chart) = with_plot.then(|| Chart::of(window, local.now)).flatten() {
            lines.extend(plot::lines(&chart, local, width).into_iter().map(Line::plain));
        }
    }
    lines
}

/// The use and the elapsed time.
fn status(window: &WindowPace, local: &LocalTime) -> String {
    let Some(used) = window.used else { return "unknown since its reset".to_owned() };
    let mut status = match window.is_stale {
        false => format!("{} used", format::percent(used)),
        true => {
            let age = format::ago(between(window.observed_at, local.now));
            format!("≥ {} used, read {age}", format::percent(used))
        }
    };
    if let Some(elapsed) = window.elapsed(local.now) {
        let _ = write!(status, ", {:.0} % elapsed", elapsed * 100.0);
    }
    if let Some(reset) = window.resets_at {
        let _ = write!(status, ", resets {}", local.relative(reset));
    }
    status
}

/// The rate, its projection, and the data that it is based on.
pub(super) fn summary(window: &WindowPace, local: &LocalTime) -> String {
    let estimate = &window.estimate;
    if estimate.is_rolled_over {
        return "not refreshed since its reset".to_owned();
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
            let readings = format::pluralize(estimate.samples as u64, "reading");
            format!("trend of {readings} over {}", format::duration(estimate.covered))
        }
        Basis::Average => "average since the window began".to_owned(),
        Basis::AverageSinceLowered => "average since the provider lowered it".to_owned(),
    };
    let rate_text = format!("{} % per hour", tenths(rate.percent_per_hour));
    let at_reset = rate.at_reset_percent.map(|percent| format!("on track for {} %", tenths(percent)));
    let runs_out = rate.exhausted_at.map(|at| match window.resets_at {
        Some(reset) => {
            format!("runs out {}, {} early", local.relative(at), format::duration(between(at, reset)))
        }
        None => format!("runs out {}", local.relative(at)),
    });
    let outcome: Vec<_> = runs_out.into_iter().chain(at_reset).collect();
    let outcome =
        if outcome.is_empty() { "does not run out at this rate".to_owned() } else { outcome.join(", ") };
    format!("{rate_text}: {outcome} ({evidence})")
}

fn style(window: &WindowPace) -> Style {
    match window.rate() {
        None => Style::Dim,
        Some(rate) if rate.exhausted_at.is_some() => Style::Bad,
        Some(rate) if rate.at_reset_percent.is_some_and(|percent| percent >= 90.0) => Style::Warn,
        Some(_) => Style::Good,
    }
}

/// Formats with at most one decimal. Adding 0 removes the sign of -0.
fn tenths(number: f64) -> String {
    let rounded = (number * 10.0).round() / 10.0 + 0.0;
    format!("{rounded}")
}
