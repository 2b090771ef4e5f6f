//! `quota accounts list` as text: one line per account, or two to three in a narrow terminal.

use quota::accounts::routing::Eligibility;
use quota::accounts::{Evaluated, Limits};

use crate::config::AccountSettings;
use crate::format::{self, LocalTime};
use crate::sanitize::sanitize;
use crate::view::decision_text::account_reason;
use crate::view::line::{self, Line, Style};
use crate::view::wrap::{self, truncate};

/// The space between two columns.
const GAP: usize = 2;
/// If the last column would be narrower than this, its text goes on separate lines.
const NARROWEST: usize = 24;

/// An account, with its routing evaluation if the store can be read.
#[derive(Debug, Clone)]
pub(super) struct AccountRow<'a> {
    pub(super) settings: &'a AccountSettings,
    pub(super) evaluated: Option<&'a Evaluated>,
}

/// Renders all accounts in order.
pub(super) fn lines(accounts: &[AccountRow<'_>], local: &LocalTime, width: usize) -> Vec<Line> {
    let number_width = accounts.len().to_string().len();
    let widest = |text: &dyn Fn(&AccountRow<'_>) -> String| {
        accounts.iter().map(|account| wrap::width(&text(account))).max().unwrap_or_default()
    };
    let indent = number_width + GAP;
    let role_column = indent + widest(&name) + GAP;
    let login_column = role_column + "fallback".len() + GAP;
    let state_column = login_column + widest(&login) + GAP;
    // The state may be long. It uses the rest of the line, or separate lines below.
    let is_beside = width.saturating_sub(state_column) >= NARROWEST;
    let mut lines = Vec::new();
    for (at, account) in accounts.iter().enumerate() {
        let role = if at == 0 { "main" } else { "fallback" };
        let (state, style) = state(account, local);
        let name = truncate(&name(account), width.saturating_sub(indent));
        let head = Line::plain(format!("{:>number_width$}{:GAP$}", at + 1, "")).with(Style::Strong, name);
        let with_role = |head: Line| head.padded(role_column).with(Style::Plain, role);
        if is_beside {
            let head = with_role(head).padded(login_column).with(Style::Plain, login(account));
            lines.extend(head.padded(state_column).hanging(style, &state, state_column, width));
            continue;
        }
        let mut notes = vec![(Style::Plain, login(account)), (style, state)];
        if login_column - GAP <= width {
            lines.push(with_role(head));
        } else {
            lines.push(head);
            notes.insert(0, (Style::Plain, role.to_owned()));
        }
        lines.extend(notes.iter().flat_map(|(style, note)| line::wrapped(*style, note, indent, width)));
    }
    lines
}

fn name(account: &AccountRow<'_>) -> String {
    account.settings.id.as_str().to_owned()
}

fn login(account: &AccountRow<'_>) -> String {
    account.settings.login.describe()
}

/// The account's state in the store, and its own limits if it has any.
fn state(account: &AccountRow<'_>, local: &LocalTime) -> (String, Style) {
    let (mut state, style) = availability(account, local);
    let own = &account.settings.limits;
    for (label, limits) in [("minimum", &own.min_remaining), ("killswitch", &own.killswitch)] {
        let Some(limits) = limits else { continue };
        state = format!("{state}; {label} {}", sanitize(&self::limits(limits)));
    }
    (state, style)
}

/// Renders limits as text.
pub(super) fn limits(limits: &Limits) -> String {
    let every = limits.default_limit().map(format::percent);
    let windows = limits.windows().map(|(window, left)| format!("{} of {window}", format::percent(left)));
    let all: Vec<_> = every.into_iter().chain(windows).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn availability(account: &AccountRow<'_>, local: &LocalTime) -> (String, Style) {
    if account.settings.disabled {
        return ("disabled".to_owned(), Style::Dim);
    }
    let Some(evaluated) = account.evaluated else { return ("enabled".to_owned(), Style::Plain) };
    let style = match evaluated.eligibility {
        Eligibility::Eligible if evaluated.windows.is_empty() => Style::Dim,
        Eligibility::Eligible => Style::Good,
        Eligibility::LastResort => Style::Warn,
        _ => Style::Bad,
    };
    (account_reason(evaluated, &account.settings.login.hint(), local), style)
}

#[cfg(test)]
mod tests;
