//! `quota accounts list` as text: a line for each account, and in a narrow terminal two or three.

use std::fmt::Write as _;

use quota::accounts::routing::Eligibility;
use quota::accounts::{Evaluated, Limits};

use crate::config::AccountSettings;
use crate::format::{self, LocalTime};
use crate::sanitize::sanitize;
use crate::term::{Screen, truncate, wrap};
use crate::view::decision_text::account_reason;
use crate::view::line::Style;

/// The space between two columns.
const GAP: usize = 2;
/// A last column that would be narrower gets lines of its own.
const NARROWEST: usize = 24;

/// An account, and the decision about it if the store can be read.
#[derive(Debug, Clone)]
pub(super) struct AccountRow<'a> {
    pub(super) settings: &'a AccountSettings,
    pub(super) evaluated: Option<&'a Evaluated>,
}

/// All accounts in their order.
pub(super) fn render(accounts: &[AccountRow<'_>], local: &LocalTime, screen: Screen) -> String {
    let mut text = String::new();
    let number = accounts.len().to_string().len();
    let widest = |words: &dyn Fn(&AccountRow<'_>) -> String| {
        accounts.iter().map(|account| words(account).chars().count()).max().unwrap_or_default()
    };
    let (name, login) = (widest(&name), widest(&login));
    let indent = number + GAP;
    let before_login = indent + name + GAP + "fallback".len() + GAP;
    // The state, which may be long, gets the rest of the line, or else lines below it.
    let beside = screen.width.saturating_sub(before_login + login + GAP);
    let beside = (beside >= NARROWEST).then_some(before_login + login + GAP);
    for (at, account) in accounts.iter().enumerate() {
        let role = if at == 0 { "main" } else { "fallback" };
        let (state, ink) = state(account, local);
        let name_text = truncate(&self::name(account), screen.width.saturating_sub(indent));
        let head = format!(
            "{:>number$}{:GAP$}{}{:pad$}",
            at + 1,
            "",
            screen.paint(Style::Strong, name_text.as_str()),
            "",
            pad = name.saturating_sub(name_text.chars().count()) + GAP
        );
        match beside {
            Some(column) => {
                let login = self::login(account);
                let lines = wrap(&state, screen.width - column);
                let (first, rest) = lines.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
                let pad = column - before_login;
                let _ = writeln!(text, "{head}{role:10}{login:pad$}{}", screen.paint(ink, first));
                for line in rest {
                    let _ = writeln!(text, "{:column$}{}", "", screen.paint(ink, line.as_str()));
                }
            }
            None => {
                let fits = before_login - GAP <= screen.width;
                let _ = writeln!(
                    text,
                    "{}",
                    if fits { format!("{head}{role}") } else { head.trim_end().to_owned() }
                );
                let mut note = |ink, words: &str| {
                    for line in wrap(words, screen.width.saturating_sub(indent)) {
                        let _ = writeln!(text, "{:indent$}{}", "", screen.paint(ink, line.as_str()));
                    }
                };
                if !fits {
                    note(Style::Plain, role);
                }
                note(Style::Plain, &self::login(account));
                note(ink, &state);
            }
        }
    }
    text
}

fn name(account: &AccountRow<'_>) -> String {
    account.settings.id.as_str().to_owned()
}

fn login(account: &AccountRow<'_>) -> String {
    account.settings.login.describe()
}

/// Its state in the store, and its own limits if it has any.
fn state(account: &AccountRow<'_>, local: &LocalTime) -> (String, Style) {
    let (mut state, ink) = standing(account, local);
    let own = &account.settings.limits;
    for (what, limits) in [("minimum", &own.min_remaining), ("killswitch", &own.killswitch)] {
        let Some(limits) = limits else { continue };
        state = format!("{state}; {what} {}", sanitize(&self::limits(limits)));
    }
    (state, ink)
}

/// Limits as text.
pub(super) fn limits(limits: &Limits) -> String {
    let every = limits.default_limit().map(format::percent);
    let windows = limits.windows().map(|(window, left)| format!("{} of {window}", format::percent(left)));
    let all: Vec<_> = every.into_iter().chain(windows).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn standing(account: &AccountRow<'_>, local: &LocalTime) -> (String, Style) {
    if account.settings.disabled {
        return ("disabled".to_owned(), Style::Dim);
    }
    let Some(evaluated) = account.evaluated else { return ("on".to_owned(), Style::Plain) };
    let ink = match evaluated.eligibility {
        Eligibility::Eligible if evaluated.windows.is_empty() => Style::Dim,
        Eligibility::Eligible => Style::Good,
        Eligibility::LastResort => Style::Warn,
        _ => Style::Bad,
    };
    (account_reason(evaluated, &account.settings.login.hint(), local), ink)
}

#[cfg(test)]
mod tests;
