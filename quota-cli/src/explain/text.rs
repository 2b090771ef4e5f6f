//! `quota explain` for people: what was decided, and then every account with its windows.
//! What was decided is in `router`; here is only how it looks.

use std::fmt::Write as _;

use quota::accounts::Eligibility;

use crate::format::{self, LocalTime, between};
use crate::router::seen::Outcome;
use crate::router::{Refusal, Seen, SeenAccount, reason, verdict};
use crate::term::{Screen, truncate, wrap};
use crate::view::account_text::{Columns, row};
use crate::view::line::Style;

/// What marks the account that is taken; the others are set in by as much.
const MARK: &str = "→ ";
const INDENT: usize = 2;
/// Wider than this, the eye loses the line.
const WIDE: usize = 100;

/// The decision, and every account in its order.
pub(super) fn render(seen: &Seen, local: &LocalTime, screen: Screen) -> String {
    let windows = || seen.accounts.iter().flat_map(|account| &account.windows);
    let columns = Columns::fit(windows, local, screen.width.saturating_sub(INDENT));
    let mut text = String::new();
    let (line, ink) = conclusion(seen, local);
    for line in wrap(&line, screen.width) {
        let _ = writeln!(text, "{}", screen.paint(ink, line));
    }
    for (at, account) in seen.accounts.iter().enumerate() {
        let is_taken = seen.outcome == Outcome::Take(at);
        let (standing, ink) = standing(account, is_taken, seen.outcome == Outcome::Wait(at));
        let _ = write!(text, "\n{}", heading(account, is_taken, (standing, ink), local, screen));
        for line in wrap(&reason(account, local), screen.width.saturating_sub(INDENT)) {
            let _ = writeln!(text, "{:INDENT$}{}", "", screen.paint(ink, line));
        }
        for window in &account.windows {
            let _ = write!(text, "{}", screen.show(&[row(window, &columns, local).indented(INDENT)]));
        }
    }
    text
}

fn conclusion(seen: &Seen, local: &LocalTime) -> (String, Style) {
    match seen.chosen() {
        Some(account) => (format!("{} is to be used now.", account.id), Style::Good),
        None => (format!("{}.", verdict(&Refusal::of(seen.clone()), local)), Style::Bad),
    }
}

/// How an account stands, in a word or two.
fn standing(account: &SeenAccount, is_taken: bool, is_waited_for: bool) -> (&'static str, Style) {
    match account.standing {
        _ if is_taken => ("taken", Style::Good),
        _ if is_waited_for => ("waited for", Style::Warn),
        _ if account.is_unneeded => ("not needed", Style::Dim),
        Eligibility::Eligible => ("not needed", Style::Dim),
        Eligibility::LastResort => ("passed over", Style::Warn),
        _ => ("refused", Style::Bad),
    }
}

fn heading(
    account: &SeenAccount,
    is_taken: bool,
    (standing, ink): (&'static str, Style),
    local: &LocalTime,
    screen: Screen,
) -> String {
    let role = if account.is_main { "main" } else { "fallback" };
    let oldest = account.windows.iter().map(|window| window.observed_at).min();
    let age =
        oldest.map_or_else(String::new, |at| format!("read {} · ", format::ago(between(at, local.now))));
    let aside = format!("{age}{role} · {standing}");
    let mark = if is_taken { MARK } else { "  " };
    let name = account.id.as_str();
    let room = screen.width.min(WIDE).saturating_sub(INDENT);
    let gap = room.saturating_sub(name.chars().count() + aside.chars().count());
    let mark = screen.paint(ink, mark);
    if gap >= 2 {
        return format!(
            "{mark}{}{:gap$}{}\n",
            screen.paint(Style::Strong, name),
            "",
            screen.paint(ink, aside)
        );
    }
    let name = screen.paint(Style::Strong, truncate(name, room));
    format!("{mark}{name}\n{:INDENT$}{}\n", "", screen.paint(ink, truncate(&aside, room)))
}

#[cfg(test)]
mod tests;
