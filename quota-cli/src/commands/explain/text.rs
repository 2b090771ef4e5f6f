//! The text of `quota explain`: the decision, and then every account with its windows.

use std::fmt::Write as _;

use quota::accounts::Decision;
use quota::accounts::routing::{Disposition, Evaluated, Role};

use crate::config::AccountSettings;
use crate::format::{self, LocalTime, between};
use crate::term::{Screen, truncate, wrap};
use crate::view::account::WindowView;
use crate::view::account_text::{Columns, row};
use crate::view::decision_text::{reason, verdict};
use crate::view::line::Style;

/// Marks the selected account; the others are indented as much.
const MARK: &str = "→ ";
const INDENT: usize = 2;
/// A longer line is hard to follow.
const MAX_WIDTH: usize = 100;

/// The decision, and every account in its order.
pub(super) fn render(
    decision: &Decision,
    settings: &[AccountSettings],
    local: &LocalTime,
    screen: Screen,
) -> String {
    let windows: Vec<Vec<WindowView>> = decision.accounts().iter().map(windows).collect();
    let columns = Columns::fit(|| windows.iter().flatten(), local, screen.width.saturating_sub(INDENT));
    let mut text = String::new();
    let (line, style) = conclusion(decision, local);
    for line in wrap(&line, screen.width) {
        let _ = writeln!(text, "{}", screen.paint(style, line));
    }
    for (index, (account, windows)) in decision.accounts().iter().zip(&windows).enumerate() {
        let disposition = decision.disposition(index);
        let _ = write!(text, "\n{}", heading(account, disposition, local, screen));
        for line in wrap(&reason(decision, index, settings, local), screen.width.saturating_sub(INDENT)) {
            let _ = writeln!(text, "{:INDENT$}{}", "", screen.paint(style_of(disposition), line));
        }
        for window in windows {
            let _ = write!(text, "{}", screen.show(&[row(window, &columns, local).indented(INDENT)]));
        }
    }
    text
}

fn windows(account: &Evaluated) -> Vec<WindowView> {
    account.windows.iter().map(|usage| WindowView::of(&usage.window, usage.used)).collect()
}

fn conclusion(decision: &Decision, local: &LocalTime) -> (String, Style) {
    match decision.chosen() {
        Some(account) => (format!("Use {}.", account.account), Style::Good),
        None => (format!("{}.", verdict(decision, local)), Style::Bad),
    }
}

fn style_of(disposition: Disposition) -> Style {
    match disposition {
        Disposition::Selected => Style::Good,
        Disposition::Awaited | Disposition::Skipped => Style::Warn,
        Disposition::Standby => Style::Dim,
        _ => Style::Bad,
    }
}

fn heading(account: &Evaluated, disposition: Disposition, local: &LocalTime, screen: Screen) -> String {
    let role = if account.role == Role::Main { "main" } else { "fallback" };
    let oldest = account.windows.iter().map(|usage| usage.window.observed_at()).min();
    let age =
        oldest.map_or_else(String::new, |at| format!("read {} · ", format::ago(between(at, local.now))));
    let aside = format!("{age}{role} · {disposition}");
    let mark = if disposition == Disposition::Selected { MARK } else { "  " };
    let name = account.account.as_str();
    let room = screen.width.min(MAX_WIDTH).saturating_sub(INDENT);
    let gap = room.saturating_sub(name.chars().count() + aside.chars().count());
    let style = style_of(disposition);
    let mark = screen.paint(style, mark);
    if gap >= 2 {
        let name = screen.paint(Style::Strong, name);
        return format!("{mark}{name}{:gap$}{}\n", "", screen.paint(style, aside));
    }
    let name = screen.paint(Style::Strong, truncate(name, room));
    format!("{mark}{name}\n{:INDENT$}{}\n", "", screen.paint(style, truncate(&aside, room)))
}

#[cfg(test)]
mod tests;
