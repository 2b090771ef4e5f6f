//! The text of `quota explain`: the decision, followed by every account with its windows.

use quota::accounts::Decision;
use quota::accounts::routing::{Disposition, Evaluated, Role};

use crate::config::AccountSettings;
use crate::format::{self, LocalTime, between};
use crate::view::account::WindowView;
use crate::view::account_text::{Columns, heading, row};
use crate::view::decision_text::{reason, verdict};
use crate::view::line::{self, Line, Style};

/// Marks the selected account. The others are indented by the same width.
const MARK: &str = "→ ";
const INDENT: usize = 2;
/// The maximum line length for readability.
const MAX_WIDTH: usize = 100;

/// Renders the decision and every account in order.
pub(super) fn lines(
    decision: &Decision,
    settings: &[AccountSettings],
    local: &LocalTime,
    width: usize,
) -> Vec<Line> {
    let windows: Vec<Vec<WindowView>> = decision.accounts().iter().map(windows).collect();
    let columns = Columns::fit(|| windows.iter().flatten(), local, width.saturating_sub(INDENT));
    let (conclusion, style) = conclusion(decision, local);
    let mut blocks = vec![line::wrapped(style, &conclusion, 0, width)];
    for (index, (account, windows)) in decision.accounts().iter().zip(&windows).enumerate() {
        let disposition = decision.disposition(index);
        let mut block = name_and_role(account, disposition, local, width);
        let reason = reason(decision, index, settings, local);
        block.extend(line::wrapped(style_of(disposition), &reason, INDENT, width));
        block.extend(windows.iter().map(|window| row(window, &columns, local).indented(INDENT)));
        blocks.push(block);
    }
    line::separated(blocks)
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

fn name_and_role(
    account: &Evaluated,
    disposition: Disposition,
    local: &LocalTime,
    width: usize,
) -> Vec<Line> {
    let role = if account.role == Role::Main { "main" } else { "fallback" };
    let oldest = account.windows.iter().map(|usage| usage.window.observed_at()).min();
    let age =
        oldest.map_or_else(String::new, |at| format!("read {} · ", format::ago(between(at, local.now))));
    let aside = format!("{age}{role} · {disposition}");
    let style = style_of(disposition);
    let mark = Line::new(style, if disposition == Disposition::Selected { MARK } else { "  " });
    heading(mark, account.account.as_str(), style, &aside, width.min(MAX_WIDTH))
}

#[cfg(test)]
mod tests;
