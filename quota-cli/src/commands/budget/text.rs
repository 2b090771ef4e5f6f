//! `quota budget` for people.

use std::fmt::Write as _;

use quota::Hold;

use super::Spent;
use crate::harmless::harmless;
use crate::term::{Ink, Screen, shortened};
use crate::words::{self, Here, between, counted};

/// All accounts, one after the other.
pub(super) fn render(all: &[Spent], here: &Here, screen: Screen) -> String {
    let shown: Vec<_> = all.iter().map(|spent| one(spent, here, screen)).collect();
    shown.join("\n")
}

fn one(spent: &Spent, here: &Here, screen: Screen) -> String {
    let mut text = format!("{}\n", screen.paint(Ink::Name, shortened(spent.account.as_str(), screen.width)));
    let made = counted(spent.made as u64, "call");
    let ink = if spent.left() == 0 { Ink::Bad } else { Ink::Plain };
    let sum = format!("{made} in the last hour of {} allowed, {} left", spent.allowed, spent.left());
    let _ = writeln!(text, "  {}", screen.paint(ink, sum));
    if spent.reserve > 0 {
        let _ = writeln!(text, "  of which {} for callers that somebody waits for", spent.reserve);
    }
    let names: Vec<_> = spent
        .callers
        .iter()
        .map(|caller| if caller.by.is_empty() { "not named".to_owned() } else { harmless(&caller.by) })
        .map(|name| shortened(&name, screen.width.saturating_sub(30).max(12)))
        .collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    for (caller, name) in spent.callers.iter().zip(&names) {
        let last = words::ago(between(caller.last, here.now));
        let _ = writeln!(text, "    {name:width$}  {:>3}  last {last}", caller.made);
    }
    let (now, later) = (&spent.next, &spent.next_in_background);
    let _ = writeln!(text, "  next call: {}", next(now.as_ref(), here, screen));
    if later.as_ref().map(|hold| hold.until) != now.as_ref().map(|hold| hold.until) {
        let _ = writeln!(text, "  in the background: {}", next(later.as_ref(), here, screen));
    }
    text
}

fn next(hold: Option<&Hold>, here: &Here, screen: Screen) -> String {
    match hold {
        None => screen.paint(Ink::Good, "at any time").to_string(),
        Some(hold) => {
            let left = words::span(between(here.now, hold.until));
            let told = format!("in {left} ({}): {}", here.clock_with_seconds(hold.until), hold.why);
            screen.paint(Ink::Warn, told).to_string()
        }
    }
}
