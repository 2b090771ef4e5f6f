//! The checks as text: one line each, with the hint below it.

use super::{Area, Check, Level};
use crate::format::pluralize;
use crate::sanitize::sanitize;
use crate::view::line::{Line, Style};

/// The columns of the area and of the result.
const AREA: usize = 6;
const RESULT: usize = 16;

/// Renders all checks, wrapped to `width`. Without a width, each check is one line, so that programs such as grep can search the output.
pub(super) fn lines(checks: &[Check], width: Option<usize>) -> Vec<Line> {
    let wrapped = |head: Line, text: &str| match (width, head.width()) {
        (Some(width), column) => head.hanging(Style::Plain, &sanitize(text), column, width),
        (None, _) => vec![head.with(Style::Plain, sanitize(text))],
    };
    let mut lines = Vec::new();
    for check in checks {
        let level = match check.level {
            Level::Ok => Line::new(Style::Good, "ok  "),
            Level::Warn => Line::new(Style::Warn, "warn"),
            Level::Fail => Line::new(Style::Bad, "FAIL"),
        };
        let head = level.padded(AREA).with(Style::Plain, area(check.area)).padded(RESULT);
        lines.extend(wrapped(head, &format!("{}: {}", check.subject, check.message)));
        if let Some(hint) = &check.hint {
            lines.extend(wrapped(Line::plain("→ ").indented(RESULT), hint));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count() as u64;
    let summary = [(count(Level::Fail), "problem"), (count(Level::Warn), "warning")];
    let found: Vec<_> = summary
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| pluralize(number, noun))
        .collect();
    let found = if found.is_empty() { "No problems found".to_owned() } else { found.join(", ") };
    lines.extend([Line::default(), Line::plain(format!("{found}."))]);
    lines
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
    use quota::store::StoreError;

    use super::*;
    use crate::store;
    use crate::view::fixtures::assert_fits;
    use crate::view::line::print;

    fn checks() -> [Check; 2] {
        let subject = "/home/testuser/.local/state/quota/quota.db";
        let rejected = StoreError::rejected("other users can write to /home/testuser/.local/state/quota");
        let hint = "run: chmod go-w '/home/testuser/.local/state/quota'";
        [
            Check::ok(Area::Login, "anthropic/main", "login of Claude Code, until tomorrow"),
            Check::problem(
                Area::Store,
                subject,
                format!("cannot be read: {}", store::cause(&rejected)),
                hint,
            ),
        ]
    }

    fn text(width: Option<usize>) -> String {
        print(&lines(&checks(), width), false)
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [42, 50, 80, 120] {
            assert_fits(&lines(&checks(), Some(width)), width);
        }
    }

    #[test]
    fn wrapped_lines_are_indented() {
        insta::assert_snapshot!(text(Some(50)));
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_check() {
        assert_eq!(text(None).lines().count(), 5);
    }
}
