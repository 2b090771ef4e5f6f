//! `quota pace` as text.

use quota_view::pace::{AccountPace, Chart, WindowPace, status, summary};

use super::plot;
use crate::format::LocalTime;
use crate::view::line::{self, Line, Style};
use crate::view::wrap::truncate;

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

fn style(window: &WindowPace) -> Style {
    match window.rate() {
        None => Style::Dim,
        Some(rate) if rate.exhausted_at.is_some() => Style::Bad,
        Some(rate) if rate.at_reset_percent.is_some_and(|percent| percent >= 90.0) => Style::Warn,
        Some(_) => Style::Good,
    }
}
