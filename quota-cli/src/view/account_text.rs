//! Accounts as text, with their windows as bars.
//! The values come from `account`; this file only formats them.

use quota::Used;
use quota::manager::StaleReason;
use quota::model::{Credits, Money};
use quota::record::{Hold, HoldReason, LastFailureKind};

use super::account::{AccountView, ViewFreshness, WindowView, on_hold};
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

/// All accounts, one after another.
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

/// How a reset is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResetFormat {
    /// `resets in 2 h 10 min (14:05)`
    WithTime,
    /// `resets in 2 h 10 min`
    Relative,
    /// `in 2 h 10 min`
    Short,
}

fn block(account: &AccountView, columns: &Columns, local: &LocalTime, width: usize) -> Vec<Line> {
    let mut lines = name_and_freshness(account, width);
    lines.extend(account.windows.iter().map(|window| row(window, columns, local)));
    let mut note = |style, note: &str| lines.extend(line::wrapped(style, note, INDENT, width));
    // A disabled account is not refreshed after its hold, or for any other reason.
    let hold = account.hold.as_ref().filter(|_| !account.disabled);
    let not_refreshed = account.not_refreshed.as_ref().filter(|_| !account.disabled);
    if let Some(money) = account.credits.as_ref().and_then(money) {
        note(Style::Plain, &money);
    }
    if let Some(failure) = &account.failure {
        note(Style::Bad, &sanitize(&failure.why));
        if let Some(advice) = &failure.advice {
            note(Style::Plain, &sanitize(advice));
        }
    } else if let Some(failed) = account.last_failure.as_ref().filter(|_| !hold_names_failure(account, hold))
    {
        note(Style::Warn, &format!("last refresh failed: {}", sanitize(&failed.message)));
    } else if let Some(why) = not_refreshed.filter(|_| !hold_explains(account, hold)) {
        note(Style::Warn, &format!("not refreshed: {}", sanitize(why)));
    }
    if let Some(called_at) = account.called_at {
        let has_failed = account.failure.is_some() || account.last_failure.is_some();
        note(Style::Plain, &call_limit::text(called_at, has_failed, local.now));
    }
    if let Some(hold) = hold {
        let reason = if account.failure.is_none() { format!("{}, ", hold.reason) } else { String::new() };
        let requested = hold.shortened_from().map_or_else(String::new, |requested| {
            format!("; the provider asked for {}", format::duration(requested))
        });
        note(Style::Warn, &format!("{reason}retrying {}{requested}", local.relative(hold.until)));
    }
    lines
}

/// Whether the hold gives the reason for the last failure.
fn hold_names_failure(account: &AccountView, hold: Option<&Hold>) -> bool {
    let failure = account.last_failure.as_ref().map(|failure| failure.kind);
    let hold = hold.map(|hold| hold.reason);
    failure == Some(LastFailureKind::Throttled) && hold == Some(HoldReason::RateLimited)
}

/// Whether the hold explains why there is no newer usage. A cooldown or a used-up budget does not explain a missing login.
fn hold_explains(account: &AccountView, hold: Option<&Hold>) -> bool {
    hold.is_some_and(|hold| {
        account.last_failure.is_some() || account.not_refreshed.as_ref() == Some(&on_hold(hold))
    })
}

/// The account's name, its plan, and the age of its readings: one line, or two in a narrow terminal.
fn name_and_freshness(account: &AccountView, width: usize) -> Vec<Line> {
    let (age, style) = freshness(account);
    let aside = match account.plan.as_deref().map(sanitize) {
        Some(plan) => format!("{plan} · {age}"),
        None => age,
    };
    heading(Line::default(), account.id.as_str(), style, &aside, width)
}

/// A name, with `aside` at the right end of the line, or on the next line in a narrow terminal.
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

fn freshness(account: &AccountView) -> (String, Style) {
    if account.disabled {
        return ("disabled".to_owned(), Style::Dim);
    }
    let age = account.age.map(format::ago);
    match (account.state, age) {
        (ViewFreshness::Fresh, age) => (format!("read {}", age.as_deref().unwrap_or("just now")), Style::Dim),
        (ViewFreshness::Stale { why: StaleReason::NeverRead | StaleReason::OwnerUnknown, .. }, _)
        | (_, None) => ("no data".to_owned(), Style::Bad),
        (_, Some(age)) => (format!("stale, read {age}"), Style::Warn),
    }
}

/// The line of one window.
pub(crate) fn row(window: &WindowView, columns: &Columns, local: &LocalTime) -> Line {
    let name = truncate(&window_name(window), columns.name);
    let mut row = Line::plain(padded(&name, columns.name)).indented(INDENT);
    if columns.bar > 0 {
        row.push(Style::Plain, "  ");
        row.append(bar(window.used, elapsed(window, local), columns.bar));
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

fn used(window: &WindowView) -> String {
    if window.is_unlimited {
        return "unlimited".to_owned();
    }
    match window.used {
        Used::Exact(percent) => format::percent(percent),
        Used::AtLeast(percent) => format!("≥ {}", format::percent(percent)),
        _ => "unknown".to_owned(),
    }
}

fn reset(window: &WindowView, local: &LocalTime, format: ResetFormat) -> String {
    let relative = |at| match format {
        ResetFormat::WithTime => local.relative(at),
        ResetFormat::Relative | ResetFormat::Short => local.relative_only(at),
    };
    match window.resets_at {
        Some(at) if at > local.now && format == ResetFormat::Short => relative(at),
        Some(at) if at > local.now => format!("resets {}", relative(at)),
        Some(at) => format!("reset {}", relative(at)),
        None if window.is_unlimited => String::new(),
        None if window.used.lower_bound().is_some_and(|used| used.basis_points() == 0) => {
            "not started".to_owned()
        }
        None => "no reset time".to_owned(),
    }
}

fn age_text(window: &WindowView, local: &LocalTime) -> String {
    format::ago(between(window.observed_at, local.now))
}

/// The elapsed share of the window's time, from 0 to 1.
fn elapsed(window: &WindowView, local: &LocalTime) -> Option<f64> {
    let (reset, length) = (window.resets_at?, window.length.filter(|length| !length.is_zero())?);
    let left = between(local.now, reset);
    // If the reset is further away than the window's length, the start of the window is unknown.
    (reset > local.now && left <= length).then(|| 1.0 - left.as_secs_f64() / length.as_secs_f64())
}

/// The credits as short text; `None` if the provider states no amount and no reason.
pub(crate) fn money(credits: &Credits) -> Option<String> {
    let used = match (&credits.used, &credits.limit) {
        (Some(used), Some(limit)) => Some(used_of(used, limit)),
        (Some(used), None) => Some(used.to_string()),
        (None, Some(limit)) => Some(format!("up to {limit}")),
        (None, None) => credits.unlimited.filter(|unlimited| *unlimited).map(|_| "unlimited".to_owned()),
    };
    let left = credits.balance.as_ref().map(|balance| format!("{balance} left"));
    let off = (credits.enabled == Some(false) || credits.disabled_reason.is_some()).then(|| {
        match &credits.disabled_reason {
            Some(reason) => format!("off ({})", reason.replace('_', " ")),
            None => "off".to_owned(),
        }
    });
    let parts: Vec<_> = [used, left, off].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| sanitize(&format!("extra usage: {}", parts.join(", "))))
}

/// `12.40 of 40.00 EUR`
fn used_of(used: &Money, limit: &Money) -> String {
    let (used_text, limit_text) = (used.to_string(), limit.to_string());
    let amount = used_text.strip_suffix(&*used.currency).filter(|_| used.currency == limit.currency);
    format!("{} of {limit_text}", amount.map_or(&*used_text, str::trim_end))
}

#[cfg(test)]
mod tests;
