//! `quota budget` for people.

use std::fmt::Write as _;

use quota::Hold;

use super::Spent;
use crate::format::{self, LocalTime, between, pluralize};
use crate::sanitize::sanitize;
use crate::term::{Screen, Style, truncate};

/// All accounts, one after the other.
pub(super) fn render(all: &[Spent], local: &LocalTime, screen: Screen) -> String {
    let shown: Vec<_> = all.iter().map(|spent| one(spent, local, screen)).collect();
    shown.join("\n")
}

fn one(spent: &Spent, local: &LocalTime, screen: Screen) -> String {
    let mut text =
        format!("{}\n", screen.paint(Style::Strong, truncate(spent.account.as_str(), screen.width)));
    let made = pluralize(spent.made as u64, "call");
    let ink = if spent.left() == 0 { Style::Bad } else { Style::Plain };
    let sum = format!("{made} in the last hour of {} allowed, {} left", spent.allowed, spent.left());
    let _ = writeln!(text, "  {}", screen.paint(ink, sum));
    if spent.reserve > 0 {
        let _ = writeln!(text, "  of which {} for callers that somebody waits for", spent.reserve);
    }
    let names: Vec<_> = spent
        .callers
        .iter()
        .map(|caller| if caller.by.is_empty() { "not named".to_owned() } else { sanitize(&caller.by) })
        .map(|name| truncate(&name, screen.width.saturating_sub(30).max(12)))
        .collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    for (caller, name) in spent.callers.iter().zip(&names) {
        let last = format::ago(between(caller.last, local.now));
        let _ = writeln!(text, "    {name:width$}  {:>3}  last {last}", caller.made);
    }
    let (now, later) = (&spent.next, &spent.next_in_background);
    let _ = writeln!(text, "  next call: {}", next(now.as_ref(), local, screen));
    if later.as_ref().map(|hold| hold.until) != now.as_ref().map(|hold| hold.until) {
        let _ = writeln!(text, "  in the background: {}", next(later.as_ref(), local, screen));
    }
    text
}

fn next(hold: Option<&Hold>, local: &LocalTime, screen: Screen) -> String {
    match hold {
        None => screen.paint(Style::Good, "at any time").to_string(),
        Some(hold) => {
            let left = format::duration(between(local.now, hold.until));
            let told = format!("in {left} ({}): {}", local.time_of_day_with_seconds(hold.until), hold.reason);
            screen.paint(Style::Warn, told).to_string()
        }
    }
}
