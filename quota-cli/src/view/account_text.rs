//! `quota status` for people: each account with its windows as bars.
//! What is shown is decided in `model`; here is only how it looks.

use std::fmt::Write as _;
use std::time::Duration;

use quota::{Credits, HoldReason, LastFailureKind, StaleReason, Used};

use super::account::{AccountView, ViewFreshness, WindowView, not_asked};
use super::bar::{self, bar};
use crate::call_limit;
use crate::format::{self, LocalTime, between};
use crate::sanitize::sanitize;
use crate::term::{Screen, Style, truncate, wrap};

const INDENT: usize = 2;
/// From here on each window also says how old its reading is.
const WIDE: usize = 100;
const WIDEST_BAR: usize = 30;
/// Names of windows are not made shorter than this for the time of day.
const SHORTEST_LABEL: usize = 14;
/// Between two columns.
const GAP: usize = 2;

/// All accounts, one after the other.
pub(crate) fn render(accounts: &[AccountView], local: &LocalTime, screen: Screen) -> String {
    each(&accounts.iter().collect::<Vec<_>>(), local, screen).join("\n")
}

/// Each account, with columns that are the same for all.
pub(crate) fn each(accounts: &[&AccountView], local: &LocalTime, screen: Screen) -> Vec<String> {
    let windows = || accounts.iter().flat_map(|account| &account.windows);
    let columns = Columns::of(windows, local, screen.width);
    accounts.iter().map(|account| one(account, &columns, local, screen)).collect()
}

/// The widths of what stands in columns, the same for all accounts.
#[derive(Debug)]
pub(crate) struct Columns {
    label: usize,
    /// None where there is no room for one that says anything.
    bar: usize,
    used: usize,
    reset: usize,
    told: Told,
    /// Whether each window says how old its reading is.
    age: bool,
}

impl Columns {
    pub(crate) fn of<'a, W: Iterator<Item = &'a WindowView>>(
        windows: impl Fn() -> W,
        local: &LocalTime,
        width: usize,
    ) -> Self {
        let widest = |text: &dyn Fn(&WindowView) -> String| {
            windows().map(|window| text(window).chars().count()).max().unwrap_or_default()
        };
        let label = widest(&label);
        let used = widest(&|window| used(window.used));
        let age = width >= WIDE;
        let ages = if age { GAP + widest(&|window| age_of(window, local)) } else { 0 };
        // In a narrow terminal the time of day gives way first, then the bar, then the names of windows.
        let beside = |told| INDENT + GAP + used + GAP + ages + widest(&|window| reset(window, local, told));
        let with_bar = |told| label + beside(told) + GAP + bar::NARROWEST <= width;
        let without = |told| label.min(SHORTEST_LABEL) + beside(told) <= width;
        let fits: [(Told, &dyn Fn(Told) -> bool); 4] = [
            (Told::WithClock, &with_bar),
            (Told::Relative, &with_bar),
            (Told::WithClock, &without),
            (Told::Relative, &without),
        ];
        let told = fits.iter().find(|(told, fits)| fits(*told)).map_or(Told::Bare, |(told, _)| *told);
        let reset = widest(&|window| reset(window, local, told));
        let left = width.saturating_sub(INDENT + GAP + used + GAP + reset + ages);
        let label = label.min(left.max(bar::NARROWEST));
        let left = left.saturating_sub(label + GAP);
        let bar = if left < bar::NARROWEST { 0 } else { left.min(WIDEST_BAR) };
        Self { label, bar, used, reset, told, age }
    }
}

/// How much is said of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// `resets in 2 h 10 min (14:05)`
    WithClock,
    /// `resets in 2 h 10 min`
    Relative,
    /// `in 2 h 10 min`
    Bare,
}

fn one(account: &AccountView, columns: &Columns, local: &LocalTime, screen: Screen) -> String {
    let mut text = heading(account, screen);
    for window in &account.windows {
        let _ = writeln!(text, "{}", row(window, columns, local, screen).trim_end());
    }
    let mut note = |ink, note: &str| {
        for line in wrap(note, screen.width.saturating_sub(INDENT)) {
            let _ = writeln!(text, "{:INDENT$}{}", "", screen.paint(ink, line));
        }
    };
    if let Some(money) = account.credits.as_ref().and_then(money) {
        note(Style::Plain, &money);
    }
    if let Some(failure) = &account.failure {
        note(Style::Bad, &sanitize(&failure.why));
        if let Some(advice) = &failure.advice {
            note(Style::Plain, &sanitize(advice));
        }
    } else if let Some(trouble) = account.trouble.as_ref().filter(|_| !is_told_by_its_hold(account)) {
        note(Style::Warn, &format!("last call: {}", sanitize(&trouble.message)));
    } else if let Some(why) = account.not_refreshed.as_ref().filter(|_| !is_all_told_by_its_hold(account)) {
        note(Style::Warn, &format!("not refreshed: {}", sanitize(why)));
    }
    if let Some(called_at) = account.called_at {
        let has_failed = account.failure.is_some() || account.trouble.is_some();
        note(Style::Plain, &call_limit::text(called_at, has_failed, local.now));
    }
    if let Some(hold) = &account.hold {
        let (left, clock) =
            (format::duration(between(local.now, hold.until)), local.time_of_day_with_seconds(hold.until));
        let why = if account.failure.is_none() { format!(": {}", hold.reason) } else { String::new() };
        let more = hold.shortened_from().map_or_else(String::new, |requested| {
            format!("; the provider asked for {}", format::duration(requested))
        });
        note(Style::Warn, &format!("not asked again for {left} (until {clock}){why}{more}"));
    }
    text
}

/// Whether the hold says what went wrong with the last call.
fn is_told_by_its_hold(account: &AccountView) -> bool {
    let trouble = account.trouble.as_ref().map(|trouble| trouble.kind);
    let hold = account.hold.as_ref().map(|hold| hold.reason);
    trouble == Some(LastFailureKind::Throttled) && hold == Some(HoldReason::RateLimited)
}

/// Whether the hold says why there are no newer numbers. The provider's cooldown and the budget do not say that the account
/// has no login.
fn is_all_told_by_its_hold(account: &AccountView) -> bool {
    account.hold.as_ref().is_some_and(|hold| {
        account.trouble.is_some() || account.not_refreshed.as_ref() == Some(&not_asked(hold))
    })
}

/// The account's name, its plan, and how old its numbers are.
fn heading(account: &AccountView, screen: Screen) -> String {
    let (age, ink) = freshness(account);
    let plan = account.plan.as_deref().map(sanitize);
    let aside = match &plan {
        Some(plan) => format!("{plan} · {age}"),
        None => age.clone(),
    };
    let name = account.id.as_str();
    let (name_width, aside_width) = (name.chars().count(), aside.chars().count());
    if name_width + 2 + aside_width <= screen.width {
        let gap = screen.width.min(WIDE).saturating_sub(name_width + aside_width).max(2);
        return format!("{}{:gap$}{}\n", screen.paint(Style::Strong, name), "", screen.paint(ink, aside));
    }
    let name = truncate(name, screen.width);
    let aside = truncate(&aside, screen.width.saturating_sub(INDENT));
    format!("{}\n{:INDENT$}{}\n", screen.paint(Style::Strong, name), "", screen.paint(ink, aside))
}

fn freshness(account: &AccountView) -> (String, Style) {
    if account.switched_off {
        return ("disabled".to_owned(), Style::Dim);
    }
    let age = account.age.map(format::ago);
    match (account.state, age) {
        (ViewFreshness::Fresh, age) => (format!("read {}", age.as_deref().unwrap_or("just now")), Style::Dim),
        (ViewFreshness::Stale { why: StaleReason::NeverRead | StaleReason::IdentityUnknown, .. }, _)
        | (_, None) => ("no number".to_owned(), Style::Bad),
        (_, Some(age)) => (format!("stale, read {age}"), Style::Warn),
    }
}

/// One window in its line.
pub(crate) fn row(window: &WindowView, columns: &Columns, local: &LocalTime, screen: Screen) -> String {
    let label = truncate(&label(window), columns.label);
    let mut row = format!("{:INDENT$}{label:width$}", "", width = columns.label);
    if columns.bar > 0 {
        let _ = write!(row, "  {}", bar(window.used, passed(window, local), columns.bar, screen));
    }
    let used = format!("{:>width$}", used(window.used), width = columns.used);
    let _ = write!(row, "  {}", screen.paint(bar::ink(window.used), used));
    let reset = format!("{:width$}", reset(window, local, columns.told), width = columns.reset);
    let _ =
        write!(row, "  {}", screen.paint(Style::Plain, if columns.age { &reset } else { reset.trim_end() }));
    if columns.age {
        let _ = write!(row, "  {}", screen.paint(Style::Dim, age_of(window, local)));
    }
    row
}

/// The window in words: its length, and what it counts if not everything.
pub(crate) fn label(window: &WindowView) -> String {
    const HOUR: Duration = Duration::from_secs(3600);
    let base = window.id.split('/').next().unwrap_or_default();
    let length = match (base, window.length) {
        ("monthly", _) => "month".to_owned(),
        (_, Some(length)) if length >= HOUR => length_words(length),
        (other, _) => other.replace('_', " "),
    };
    let part = match &window.scope {
        None => None,
        Some(scope) => match (&scope.model, &scope.surface) {
            (Some(model), _) => Some(model.clone()),
            // A window under a name that is not known here is shown by that name, whatever its length.
            (None, Some(surface)) => Some(surface.replace('_', " ")),
            (None, None) => Some("one model".to_owned()),
        },
    };
    let label = match part {
        Some(part) if window.length.is_none() => part,
        Some(part) => format!("{length}, {part}"),
        None => length,
    };
    sanitize(&label)
}

fn length_words(length: Duration) -> String {
    let hours = length.as_secs() / 3600;
    match (hours / 24, hours % 24) {
        (1, 0) => "1 day".to_owned(),
        (days, 0) => format!("{days} days"),
        _ if hours == 1 => "1 hour".to_owned(),
        _ => format!("{hours} hours"),
    }
}

fn used(used: Used) -> String {
    match used {
        Used::Exact(percent) => format::percent(percent),
        Used::AtLeast(percent) => format!("≥ {}", format::percent(percent)),
        _ => "unknown".to_owned(),
    }
}

fn reset(window: &WindowView, local: &LocalTime, told: Told) -> String {
    let when = |at| if told == Told::WithClock { local.relative(at) } else { local.relative_only(at) };
    match window.resets_at {
        Some(at) if at > local.now && told == Told::Bare => when(at),
        Some(at) if at > local.now => format!("resets {}", when(at)),
        Some(at) => format!("reset {}", when(at)),
        None if window.used.lower_bound().is_some_and(|used| used.basis_points() == 0) => {
            "not begun".to_owned()
        }
        None => "no reset told".to_owned(),
    }
}

fn age_of(window: &WindowView, local: &LocalTime) -> String {
    format::ago(between(window.observed_at, local.now))
}

/// How much of the window's time has passed, from 0 to 1.
fn passed(window: &WindowView, local: &LocalTime) -> Option<f64> {
    let (reset, length) = (window.resets_at?, window.length.filter(|length| !length.is_zero())?);
    let left = between(local.now, reset);
    // A reset further off than the window is long is no place in it.
    (reset > local.now && left <= length).then(|| 1.0 - left.as_secs_f64() / length.as_secs_f64())
}

/// The credits in a few words; `None` if the provider states no amount and no reason.
pub(crate) fn money(credits: &Credits) -> Option<String> {
    let spent = match (&credits.used, &credits.limit) {
        (Some(used), Some(limit)) => Some(format!("{used} of {limit} spent")),
        (Some(used), None) => Some(format!("{used} spent")),
        (None, Some(limit)) => Some(format!("up to {limit}")),
        (None, None) => None,
    };
    let left = credits.balance.as_ref().map(|balance| format!("{balance} left"));
    let off = (credits.enabled == Some(false) || credits.disabled_reason.is_some()).then(|| {
        match &credits.disabled_reason {
            Some(reason) => format!("off ({})", reason.replace('_', " ")),
            None => "off".to_owned(),
        }
    });
    let parts: Vec<_> = [spent, left, off].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| sanitize(&format!("extra: {}", parts.join(", "))))
}

#[cfg(test)]
mod tests;
