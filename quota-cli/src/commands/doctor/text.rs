//! What was found, for people: a line for each thing, and below it what to do.
//! What is looked at is decided in `doctor`.

use std::fmt::Write as _;

use super::{Area, Check, Level};
use crate::format::pluralize;
use crate::sanitize::sanitize;
use crate::term::{Screen, wrap_hanging};
use crate::view::line::Style;

/// What is found begins here, behind how it is and of what kind.
const INDENT: usize = 16;
const ARROW: usize = 2;

pub(super) fn render(checks: &[Check], screen: Screen) -> String {
    let mut text = String::new();
    for check in checks {
        let (ink, fingerprint) = match check.level {
            Level::Ok => (Style::Good, "ok  "),
            Level::Warn => (Style::Warn, "warn"),
            Level::Fail => (Style::Bad, "FAIL"),
        };
        let flowed = |text: &str, begun| match screen.is_tty {
            true => wrap_hanging(&sanitize(text), begun, begun, screen.width),
            // Whatever searches it goes by lines.
            false => sanitize(text),
        };
        let told = flowed(&format!("{}: {}", check.subject, check.told), INDENT);
        let _ = writeln!(text, "{}  {:<8}  {told}", screen.paint(ink, fingerprint), area(check.area));
        if let Some(advice) = &check.advice {
            let _ = writeln!(text, "{:INDENT$}→ {}", "", flowed(advice, INDENT + ARROW));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count() as u64;
    let summary = [(count(Level::Fail), "problem"), (count(Level::Warn), "warning")];
    let found: Vec<_> = summary
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| pluralize(number, what))
        .collect();
    let _ = match found.is_empty() {
        true => writeln!(text, "\nNo problems found."),
        false => writeln!(text, "\n{}.", found.join(", ")),
    };
    text
}

fn area(area: Area) -> &'static str {
    match area {
        Area::Config => "config",
        Area::Store => "store",
        Area::Login => "login",
        Area::Refresh => "refresh",
        Area::Hook => "hook",
        Area::Clock => "clock",
        Area::Provider => "provider",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> [Check; 2] {
        let subject = "/home/somebody/.local/state/quota/quota.db";
        let advice = "run: chmod go-w /home/somebody/.local/state/quota, so that nobody else may write in it";
        [
            Check::good(Area::Login, "anthropic/main", "login of Claude Code, until tomorrow"),
            Check::failure(Area::Store, subject, "the store refused: others may write in it", advice),
        ]
    }

    fn told(width: usize, is_tty: bool) -> String {
        render(&checks(), Screen { width, is_tty, ..Screen::DEFAULT })
    }

    #[test]
    fn at_a_terminal_no_line_is_wider_than_that() {
        for width in [42, 50, 80, 120] {
            let told = told(width, true);

            assert!(told.lines().all(|line| line.chars().count() <= width), "{width}:\n{told}");
        }
    }

    #[test]
    fn what_goes_on_is_set_in_below_its_beginning() {
        insta::assert_snapshot!(told(50, true));
    }

    #[test]
    fn what_is_read_by_a_program_has_a_line_for_each_thing() {
        assert_eq!(told(50, false).lines().count(), 5);
    }
}
