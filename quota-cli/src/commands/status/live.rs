//! Shows accounts on a terminal as their results arrive, and redraws them in place for each new result.

use std::fmt::Write as _;

use crate::format::LocalTime;
use crate::term::{self, Screen};
use crate::view::account::AccountView;
use crate::view::account_text;
use crate::view::line;

/// The accounts currently on the terminal.
#[derive(Debug)]
pub(super) struct Live {
    screen: Screen,
    /// The number of lines to replace.
    lines: usize,
}

impl Live {
    pub(super) fn on(screen: Screen) -> Self {
        Self { screen, lines: 0 }
    }

    /// Shows the results so far, in the order of the configuration. Shows nothing if they do not fit the terminal, because lines that
    /// scrolled off cannot be replaced.
    pub(super) fn show(&mut self, arrived: &[&AccountView]) {
        let blocks = account_text::blocks(arrived, &LocalTime::now(), self.screen.width);
        let text = self.screen.show(&line::separated(blocks));
        // Reserve two lines, one of them for the progress.
        if !self.screen.is_tty || arrived.is_empty() || text.lines().count() + 2 > self.screen.height {
            return;
        }
        let lines = text.lines().count();
        // An error is reported when the final output is printed.
        let _ = term::print(&self.replace(&text));
        self.lines = lines;
    }

    /// Prefixes the text with an escape sequence that clears the lines to replace.
    pub(super) fn replace(&self, text: &str) -> String {
        let mut output = String::new();
        let lines = if self.lines == 0 { 0 } else { self.lines + term::take_lines_above() };
        if lines > 0 {
            let _ = write!(output, "\u{1b}[{lines}A\u{1b}[J");
        }
        output + text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_on_the_terminal_are_replaced() {
        let mut live = Live::on(Screen::DEFAULT);
        assert_eq!(live.replace("a\nb\n"), "a\nb\n");

        live.lines = 2;

        assert_eq!(live.replace("c\n"), "\u{1b}[2A\u{1b}[Jc\n");
    }
}
