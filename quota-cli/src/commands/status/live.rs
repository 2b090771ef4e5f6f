//! Accounts on a terminal as their results arrive. Each new result replaces what is on the terminal.

use std::fmt::Write as _;

use crate::format::LocalTime;
use crate::term::{self, Screen};
use crate::view::account::AccountView;
use crate::view::account_text;
use crate::view::line;

/// The accounts on the terminal so far.
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

    /// Shows the results so far, in the order of the configuration. If they do not fit the terminal, it prints nothing until all have
    /// arrived: lines that scrolled away could not be replaced.
    pub(super) fn show(&mut self, arrived: &[&AccountView]) {
        let blocks = account_text::blocks(arrived, &LocalTime::now(), self.screen.width);
        let text = self.screen.show(&line::separated(blocks));
        // One line is for the progress.
        if !self.screen.is_tty || arrived.is_empty() || text.lines().count() + 2 > self.screen.height {
            return;
        }
        let lines = text.lines().count();
        // A closed pipe is reported when all have arrived.
        let _ = term::print(&self.over(&text));
        self.lines = lines;
    }

    /// The text, after an escape sequence that clears the lines to replace.
    pub(super) fn over(&self, text: &str) -> String {
        let mut over = String::new();
        let lines = if self.lines == 0 { 0 } else { self.lines + term::take_lines_above() };
        if lines > 0 {
            let _ = write!(over, "\u{1b}[{lines}A\u{1b}[J");
        }
        over + text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_on_the_terminal_are_replaced() {
        let mut live = Live::on(Screen::DEFAULT);
        assert_eq!(live.over("a\nb\n"), "a\nb\n");

        live.lines = 2;

        assert_eq!(live.over("c\n"), "\u{1b}[2A\u{1b}[Jc\n");
    }
}
