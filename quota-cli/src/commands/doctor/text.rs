//! The checks as text: a line each, with what to do below it.

use std::fmt::Write as _;

use super::{Area, Check, Level};
use crate::format::pluralize;
use crate::sanitize::sanitize;
use crate::term::{Screen, wrap_hanging};
use crate::view::line::Style;

/// The column of the result, after level and area.
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
            // Programs search it by lines.
            false => sanitize(text),
        };
        let message = flowed(&format!("{}: {}", check.subject, check.message), INDENT);
        let _ = writeln!(text, "{}  {:<8}  {message}", screen.paint(ink, fingerprint), area(check.area));
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "{:INDENT$}→ {}", "", flowed(hint, INDENT + ARROW));
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
        let subject = "/home/testuser/.local/state/quota/quota.db";
        let hint = "run: chmod go-w /home/testuser/.local/state/quota, so that no other user may write in it";
        [
            Check::ok(Area::Login, "anthropic/main", "login of Claude Code, until tomorrow"),
            Check::problem(Area::Store, subject, "the store refused: others may write in it", hint),
        ]
    }

    fn text(width: usize, is_tty: bool) -> String {
        render(&checks(), Screen { width, is_tty, ..Screen::DEFAULT })
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [42, 50, 80, 120] {
            let text = text(width, true);

            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn wrapped_lines_are_indented() {
        insta::assert_snapshot!(text(50, true));
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_check() {
        assert_eq!(text(50, false).lines().count(), 5);
    }
}
