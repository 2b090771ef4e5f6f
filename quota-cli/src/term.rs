//! The terminal: its size and colours, and printing to standard output and standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use anstream::{AutoStream, ColorChoice};
use terminal_size::{Height, Width, terminal_size_of};
use textwrap::core::Word;
use textwrap::{Options, WordSeparator, WordSplitter};

use crate::exit::CliError;
use crate::token_like::without_tokens;
use crate::view::line::{self, Line, Span, Style};

/// Where text goes: its size, and whether it shows colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) colour: bool,
    /// Whether it is a terminal that can be written over.
    pub(crate) is_tty: bool,
}

impl Screen {
    /// What is assumed of pipes, files and terminals without a size: 80 columns and 24 lines, no colours.
    pub(crate) const DEFAULT: Self = Self { width: 80, height: 24, colour: false, is_tty: false };

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
        // A terminal that does not know its size reports zero.
        let size = size.filter(|(Width(width), Height(height))| *width > 0 && *height > 0);
        let (width, height) = size.map_or((Self::DEFAULT.width, Self::DEFAULT.height), |(width, height)| {
            (usize::from(width.0), usize::from(height.0))
        });
        // A dumb terminal cannot move its cursor.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width, height, colour: choice != ColorChoice::Never, is_tty: is_tty && !dumb }
    }

    /// Lines as this screen shows them, each with a line break.
    pub(crate) fn show(self, lines: &[Line]) -> String {
        line::print(lines, self.colour)
    }

    /// One piece of text as this screen shows it.
    pub(crate) fn paint(self, style: Style, text: impl Into<String>) -> String {
        Span::new(style, text).print(self.colour)
    }
}

/// Prints to standard output, all at once.
///
/// # Errors
///
/// [`CliError`] if it cannot be written; one without a message if the reader closed the pipe.
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

/// Prints a whole line to standard error, over a progress line on the terminal.
pub(crate) fn eprint_above(line: &str) {
    let screen = Screen::stderr();
    if !screen.is_tty {
        return eprint(line);
    }
    let rows = line.trim_end().chars().count().div_ceil(screen.width);
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

/// The text in at most `width` characters; a cut text ends with an ellipsis.
pub(crate) fn truncate(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A narrower column would show no words.
const NARROWEST: usize = 8;

/// Wraps a text at spaces, and breaks words that are longer than a line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    textwrap::wrap(text, options(width.max(NARROWEST))).into_iter().map(Into::into).collect()
}

/// Wraps a text that follows `begun` columns of its first line. The other lines are indented by `indent`.
pub(crate) fn wrap_hanging(text: &str, begun: usize, indent: usize, width: usize) -> String {
    let (begun, indent_text) = (" ".repeat(begun), " ".repeat(indent));
    let options = options(width.max(indent + NARROWEST));
    let wrapped = textwrap::fill(text, options.initial_indent(&begun).subsequent_indent(&indent_text));
    // Where the first word has no room in the first line, that line is empty.
    wrapped.strip_prefix(&begun).unwrap_or(&wrapped).to_owned()
}

fn options<'a>(width: usize) -> Options<'a> {
    Options::new(width)
        .word_separator(WordSeparator::Custom(words))
        .word_splitter(WordSplitter::NoHyphenation)
}

/// Splits a text at its spaces; a number and its unit are one word.
fn words(text: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let is_unit = |word: &str| word.starts_with(|first: char| first.is_alphabetic() || first == '%');
    let mut rest = text;
    Box::new(std::iter::from_fn(move || {
        let mut end = word_end(rest, 0)?;
        while rest[..end].trim_end().ends_with(|last: char| last.is_ascii_digit()) && is_unit(&rest[end..]) {
            end = word_end(rest, end)?;
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(Word::from(word))
    }))
}

/// The end of the word at `from`, with the spaces after it; `None` at the end of the text.
fn word_end(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
    let word = rest.find(' ').unwrap_or(rest.len());
    let spaces = rest[word..].find(|c| c != ' ').unwrap_or(rest.len() - word);
    Some(from + word + spaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_size_of_zero_is_ignored() {
        let screen = Screen::new(Some((Width(0), Height(0))), ColorChoice::Never, true);

        assert_eq!((screen.width, screen.height), (80, 24));
    }

    #[test]
    fn a_truncated_text_ends_with_an_ellipsis() {
        assert_eq!(truncate("fallback", 8), "fallback");
        assert_eq!(truncate("fallback", 6), "fallb…");
        assert_eq!(truncate("fallback", 0), "…");
    }

    #[test]
    fn lines_break_at_spaces_and_inside_long_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("at /home/username", 10), ["at", "/home/user", "name"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn a_number_stays_with_its_unit() {
        assert_eq!(wrap("used up in 2 h 10 min", 12), ["used up in", "2 h 10 min"]);
        assert_eq!(wrap("used up in 2 h 10 min", 16), ["used up in 2 h", "10 min"]);
    }

    #[test]
    fn a_hanging_text_continues_at_its_indent() {
        assert_eq!(wrap_hanging("one two three", 10, 4, 14), "one\n    two three");
        assert_eq!(wrap_hanging("seventeen", 10, 4, 14), "\n    seventeen", "it fits the next line");
        assert_eq!(wrap_hanging("twenty-eight", 10, 4, 14), "\n    twenty-eig\n    ht", "it fits no line");
    }
}
