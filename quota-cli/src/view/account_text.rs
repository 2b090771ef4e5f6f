//! Accounts as text, with their windows as bars.
//! The values come from `account`; this file only formats them.

pub(crate) use quota_view::words::money;
use quota_view::words::{Level, ResetFormat, elapsed, failure_notes, freshness, hold_note, reset, used};

use super::account::{AccountView, WindowView};
use super::bar::{self, bar};
use super::line::{self, Line, Style};
use super::window_name::window_name;
use super::wrap::{self, padded, truncate};
use crate::call_limit;
use crate::format::{self, LocalTime, between};
use crate::sanitize::sanitize;

const INDENT: usize = 2;
/// The minimum width for the age of each reading.
const WIDE: usize = 100;
const WIDEST_BAR: usize = 30;
/// The minimum width of a window's name. A narrower terminal drops the time of day instead.
const SHORTEST_NAME: usize = 14;
/// Between two columns.
const GAP: usize = 2;

/// All accounts in sequence.
pub(crate) fn lines(accounts: &[AccountView], local: &LocalTime, width: usize) -> Vec<Line> {
    line::separated(blocks(&accounts.iter().collect::<Vec<_>>(), local, width))
}

/// The lines of each account. The columns are the same for all accounts.
pub(crate) fn blocks(accounts: &[&AccountView], local: &LocalTime, width: usize) -> Vec<Vec<Line>> {
    let windows = || accounts.iter().flat_map(|account| &account.windows);
    let columns = Columns::fit(windows, local, width);
    accounts.iter().map(|account| block(account, &columns, local, width)).collect()
}

/// The widths of the columns, the same for all accounts.
#[derive(Debug)]
pub(crate) struct Columns {
    name: usize,
    /// 0 if a bar would be too narrow.
    bar: usize,
    used: usize,
    reset: usize,
    reset_format: ResetFormat,
    /// Whether each window shows the age of its reading.
    age: bool,
}

impl Columns {
    pub(crate) fn fit<'a, W: Iterator<Item = &'a WindowView>>(
        windows: impl Fn() -> W,
        local: &LocalTime,
        width: usize,
    ) -> Self {
        let widest = |text: &dyn Fn(&WindowView) -> String| {
            windows().map(|window| wrap::width(&text(window))).max().unwrap_or_default()
        };
        let name = widest(&window_name);
        let used = widest(&used);
        let age = width >= WIDE;
        let ages = if age { GAP + widest(&|window| age_text(window, local)) } else { 0 };
        // A narrow terminal drops the time of day first, then the bar, then the end of the names.
        let beside =
            |format| INDENT + GAP + used + GAP + ages + widest(&|window| reset(window, local, format));
        let with_bar = |format| name + beside(format) + GAP + bar::NARROWEST <= width;
        let without = |format| name.min(SHORTEST_NAME) + beside(format) <= width;
        let fits: [(ResetFormat, &dyn Fn(ResetFormat) -> bool); 4] = [
            (ResetFormat::WithTime, &with_bar),
            (ResetFormat::Relative, &with_bar),
            (ResetFormat::WithTime, &without),
            (ResetFormat::Relative, &without),
        ];
        let fitting = fits.iter().find(|(format, fits)| fits(*format));
        let reset_format = fitting.map_or(ResetFormat::Short, |(format, _)| *format);
        let reset = widest(&|window| reset(window, local, reset_format));
        let left = width.saturating_sub(INDENT + GAP + used + GAP + reset + ages);
        let name = name.min(left.max(bar::NARROWEST));
        let left = left.saturating_sub(name + GAP);
        let bar = if left < bar::NARROWEST { 0 } else { left.min(WIDEST_BAR) };
        Self { name, bar, used, reset, reset_format, age }
    }
}

fn block(account: &AccountView, columns: &Columns, local: &LocalTime, width: usize) -> Vec<Line> {
    let mut lines = name_and_freshness(account, width);
    lines.extend(account.windows.iter().map(|window| row(window, columns, local)));
    let mut note = |level, note: &str| lines.extend(line::wrapped(style_of(level), note, INDENT, width));
    if let Some(money) = account.credits.as_ref().and_then(money) {
        note(Level::Plain, &money);
    }
    failure_notes(account).iter().for_each(|(level, text)| note(*level, text));
    if let Some(called_at) = account.called_at {
        let has_failed = account.failure.is_some() || account.last_failure.is_some();
        note(Level::Plain, &call_limit::text(called_at, has_failed, local.now));
    }
    if let Some(text) = hold_note(account, local) {
        note(Level::Warn, &text);
    }
    lines
}

/// The account's name, its plan, and the age of its readings: one line, or two in a narrow terminal.
fn name_and_freshness(account: &AccountView, width: usize) -> Vec<Line> {
    let (age, level) = freshness(account);
    let style = style_of(level);
    let aside = match account.plan.as_deref().map(sanitize) {
        Some(plan) => format!("{plan} · {age}"),
        None => age,
    };
    heading(Line::default(), account.id.as_str(), style, &aside, width)
}

/// A name, with `aside` aligned to the right, or on the next line in a narrow terminal.
pub(crate) fn heading(mark: Line, name: &str, style: Style, aside: &str, width: usize) -> Vec<Line> {
    let room = width.saturating_sub(mark.width());
    let aside_width = wrap::width(aside);
    if wrap::width(name) + GAP + aside_width <= room {
        let line = mark.with(Style::Strong, name);
        let column = width.min(WIDE).saturating_sub(aside_width).max(line.width() + GAP);
        return vec![line.padded(column).with(style, aside)];
    }
    vec![
        mark.with(Style::Strong, truncate(name, room)),
        Line::new(style, truncate(aside, width.saturating_sub(INDENT))).indented(INDENT),
    ]
}

fn style_of(level: Level) -> Style {
    match level {
        Level::Plain => Style::Plain,
        Level::Dim => Style::Dim,
        Level::Warn => Style::Warn,
        Level::Bad => Style::Bad,
    }
}

/// The line of one window.
pub(crate) fn row(window: &WindowView, columns: &Columns, local: &LocalTime) -> Line {
    let name = truncate(&window_name(window), columns.name);
    let mut row = Line::plain(padded(&name, columns.name)).indented(INDENT);
    if columns.bar > 0 {
        row.push(Style::Plain, "  ");
        row.append(bar(window.used, elapsed(window, local.now), columns.bar));
    }
    row.push(Style::Plain, "  ");
    row.push(bar::style(window.used), format!("{:>width$}", used(window), width = columns.used));
    let reset = reset(window, local, columns.reset_format);
    if columns.age {
        row.push(Style::Plain, format!("  {reset:width$}  ", width = columns.reset));
        row.push(Style::Dim, age_text(window, local));
    } else {
        row.push(Style::Plain, format!("  {reset}"));
    }
    row
}

fn age_text(window: &WindowView, local: &LocalTime) -> String {
    format::ago(between(window.observed_at, local.now))
}

#[cfg(test)]
mod tests;
