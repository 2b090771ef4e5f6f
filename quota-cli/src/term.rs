//! The terminal: its size and colors, and printing to standard output and standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use anstream::{AutoStream, ColorChoice};
use terminal_size::{Height, Width, terminal_size_of};

use crate::exit::CliError;
use crate::token_like::without_tokens;
use crate::view::line::{self, Line};
use crate::view::wrap::width;

/// The output device: its size, and whether it shows colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) color: bool,
    /// Whether it is a terminal with cursor control.
    pub(crate) is_tty: bool,
}

impl Screen {
    /// The defaults for pipes, files and terminals without a size: 80 columns, 24 lines, no colors.
    pub(crate) const DEFAULT: Self = Self { width: 80, height: 24, color: false, is_tty: false };

    /// Standard output.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        Self::new(terminal_size_of(&stdout), AutoStream::choice(&stdout), stdout.is_terminal())
    }

    /// Standard error.
    pub(crate) fn stderr() -> Self {
        let stderr = io::stderr();
        Self::new(terminal_size_of(&stderr), AutoStream::choice(&stderr), stderr.is_terminal())
    }

    fn new(size: Option<(Width, Height)>, choice: ColorChoice, is_tty: bool) -> Self {
        // A terminal of unknown size reports zero.
        let size = size.filter(|(Width(width), Height(height))| *width > 0 && *height > 0);
        let (width, height) = size.map_or((Self::DEFAULT.width, Self::DEFAULT.height), |(width, height)| {
            (usize::from(width.0), usize::from(height.0))
        });
        // A dumb terminal cannot move its cursor.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width, height, color: choice != ColorChoice::Never, is_tty: is_tty && !dumb }
    }

    /// Formats lines for this screen, each with a line break.
    pub(crate) fn show(self, lines: &[Line]) -> String {
        line::print(lines, self.color)
    }
}

/// Prints to standard output in one write.
///
/// # Errors
///
/// [`CliError`] if the output cannot be written. If the reader closed the pipe, the error has no message.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| CliError::write(&error))
}

/// Prints to standard error, with tokens masked. A failure to write is ignored.
pub(crate) fn eprint(text: &str) {
    let text = without_tokens(text);
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Prints a whole line to standard error. On a terminal it replaces a progress line.
pub(crate) fn eprint_above(line: &str) {
    let screen = Screen::stderr();
    if !screen.is_tty {
        return eprint(line);
    }
    let rows = width(line.trim_end()).div_ceil(screen.width);
    LINES_ABOVE.fetch_add(rows, Ordering::Relaxed);
    eprint(&format!("{CLEAR_LINE}{line}"));
}

/// The number of terminal lines that [`eprint_above`] printed since the last call of this function.
pub(crate) fn take_lines_above() -> usize {
    LINES_ABOVE.swap(0, Ordering::Relaxed)
}

static LINES_ABOVE: AtomicUsize = AtomicUsize::new(0);

/// Moves the cursor to the start of its line and clears the line.
pub(crate) const CLEAR_LINE: &str = "\r\u{1b}[K";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_size_of_zero_is_ignored() {
        let screen = Screen::new(Some((Width(0), Height(0))), ColorChoice::Never, true);

        assert_eq!((screen.width, screen.height), (80, 24));
    }
}
