//! Accounts on a terminal as their results arrive: what was written is written over until all are there.
//! How an account looks is in `text`.

use std::fmt::Write as _;

use crate::format::LocalTime;
use crate::term::{self, Screen};
use crate::view::account::AccountView;
use crate::view::account_text;

/// The accounts that are on a terminal so far.
#[derive(Debug)]
pub(super) struct Live {
    screen: Screen,
    /// How many lines are to be written over.
    lines: usize,
}

impl Live {
    pub(super) fn on(screen: Screen) -> Self {
        Self { screen, lines: 0 }
    }

    /// Shows those that are there, in their order. Where they do not fit, lines would scroll out of reach, so nothing is
    /// written until all are there.
    pub(super) fn show(&mut self, arrived: &[&AccountView]) {
        let blocks = account_text::each(arrived, &LocalTime::now(), self.screen).join("\n");
        // One line is for the progress.
        if !self.screen.is_tty || arrived.is_empty() || blocks.lines().count() + 2 > self.screen.height {
            return;
        }
        let lines = blocks.lines().count();
        // A closed pipe is reported when all are there.
        let _ = term::print(&self.over(&blocks));
        self.lines = lines;
    }

    /// This text, in the place of what is on the terminal.
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
    fn what_is_on_the_terminal_is_written_over() {
        let mut live = Live::on(Screen::DEFAULT);
        assert_eq!(live.over("a\nb\n"), "a\nb\n");

        live.lines = 2;

        assert_eq!(live.over("c\n"), "\u{1b}[2A\u{1b}[Jc\n");
    }
}
