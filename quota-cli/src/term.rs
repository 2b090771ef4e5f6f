//! What the terminal can do, and writing to it.
//! What is written is decided elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style as AnsiStyle};
use terminal_size::{Height, Width, terminal_size_of};

use crate::exit::CliError;
use crate::token_like::without_tokens;

/// Where text goes: how wide and how high it may be, and whether it may have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) colour: bool,
    /// Whether a person looks at it, so that what was written can be written over.
    pub(crate) is_tty: bool,
}

impl Screen {
    /// What is assumed of whatever is no terminal, or does not say: 80 columns and 24 lines, without colours.
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
        // A terminal of width zero is one that does not know.
        let size = size.filter(|(Width(width), Height(height))| *width > 0 && *height > 0);
        let (width, height) = size.map_or((Self::DEFAULT.width, Self::DEFAULT.height), |(width, height)| {
            (usize::from(width.0), usize::from(height.0))
        });
        // A terminal that cannot do colours cannot move its cursor either.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width, height, colour: choice != ColorChoice::Never, is_tty: is_tty && !dumb }
    }

    /// Paints a text, if there are colours.
    pub(crate) fn paint<T: fmt::Display>(self, ink: Style, text: T) -> Painted<T> {
        Painted { style: if self.colour { ink.style() } else { AnsiStyle::new() }, text }
    }
}

/// What a piece of text is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A name that leads.
    Strong,
    /// Something that is there for completeness.
    Dim,
    /// All is well.
    Good,
    /// Soon something will not be well.
    Warn,
    /// Something is not well.
    Bad,
    /// Nothing of these.
    Plain,
}

impl Style {
    fn style(self) -> AnsiStyle {
        // Only the terminal's own palette: its owner has chosen what can be read on its background.
        match self {
            Self::Strong => AnsiStyle::new().bold(),
            Self::Dim => AnsiStyle::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Plain => AnsiStyle::new(),
        }
    }
}

/// A text with its colour.
#[derive(Debug)]
pub(crate) struct Painted<T> {
    style: AnsiStyle,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

/// Writes an answer to standard output, whole.
///
/// # Errors
///
/// [`CliError`] if it cannot be written; a quiet one if nobody reads any more.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| CliError::write(&error))
}

/// Tells the person who waits, or the log that is kept. Where that cannot be written nothing is lost. Tokens are masked.
pub(crate) fn eprint(text: &str) {
    let text = without_tokens(text);
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// The same for a whole line, in the place of a progress line that is on the terminal.
pub(crate) fn eprint_above(line: &str) {
    let screen = Screen::stderr();
    if !screen.is_tty {
        return eprint(line);
    }
    let rows = line.trim_end().chars().count().div_ceil(screen.width);
    LINES_ABOVE.fetch_add(rows, Ordering::Relaxed);
    eprint(&format!("{CLEAR_LINE}{line}"));
}

/// How many lines of a terminal were written by [`tell_above`] since this was called last.
pub(crate) fn take_lines_above() -> usize {
    LINES_ABOVE.swap(0, Ordering::Relaxed)
}

static LINES_ABOVE: AtomicUsize = AtomicUsize::new(0);

/// Goes to the start of a terminal's line, and clears it.
pub(crate) const CLEAR_LINE: &str = "\r\u{1b}[K";

/// The first so many characters of a text; where something is cut off, the last one says so.
pub(crate) fn truncate(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Breaks a text into lines of so many characters, at spaces where there are any.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    flowed(text, width.max(8), width.max(8))
}

/// A text behind what its first line begins with, which has so many characters. Its other lines are set in by as many.
pub(crate) fn wrap_hanging(text: &str, begun: usize, indent: usize, width: usize) -> String {
    let lines = flowed(text, width.saturating_sub(begun), width.saturating_sub(indent).max(8));
    lines.join(&format!("\n{:indent$}", ""))
}

/// Breaks a text into a first line of so many characters, and others of so many.
fn flowed(text: &str, first: usize, others: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let is_first = lines.len() == 1;
            let width = if is_first { first } else { others };
            let line = lines.last_mut().expect("there is always a line");
            let used = line.chars().count();
            let space = usize::from(used > 0);
            if used + space + word.len() <= width {
                line.extend(std::iter::repeat_n(' ', space).chain(word));
                break;
            }
            // A path can be longer than a line. One that has room in the next is not broken.
            if used == 0 && !(is_first && word.len() <= others && first < others) {
                line.extend(word.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines
}

/// The words of a text; a number and its unit are one.
fn words(text: &str) -> Vec<String> {
    let ends_in_digit = |word: &String| word.ends_with(|last: char| last.is_ascii_digit());
    let is_unit = |word: &str| word.starts_with(|first: char| first.is_alphabetic() || first == '%');
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match words.last_mut().filter(|number| ends_in_digit(number) && is_unit(word)) {
            Some(number) => number.extend([" ", word]),
            None => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(colour: bool) -> Screen {
        Screen { colour, ..Screen::DEFAULT }
    }

    #[test]
    fn without_colours_nothing_but_the_text_is_written() {
        assert_eq!(screen(false).paint(Style::Bad, "429").to_string(), "429");
    }

    #[test]
    fn a_colour_ends_with_its_text() {
        assert_eq!(screen(true).paint(Style::Bad, "429").to_string(), "\u{1b}[31m429\u{1b}[0m");
    }

    #[test]
    fn a_size_of_zero_is_not_believed() {
        let screen = Screen::new(Some((Width(0), Height(0))), ColorChoice::Never, true);

        assert_eq!((screen.width, screen.height), (80, 24));
    }

    #[test]
    fn a_text_that_is_too_long_says_that_it_goes_on() {
        assert_eq!(truncate("fallback", 8), "fallback");
        assert_eq!(truncate("fallback", 6), "fallb…");
        assert_eq!(truncate("fallback", 0), "…");
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("at /home/somebody", 10), ["at", "/home/some", "body"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(
            wrap("used up in 2 h 10 min", 12),
            ["used up in", "2 h 10 min"],
            "units stay with their numbers"
        );
        assert_eq!(wrap("used up in 2 h 10 min", 16), ["used up in 2 h", "10 min"]);
    }

    #[test]
    fn what_hangs_goes_on_where_it_is_set_in() {
        assert_eq!(wrap_hanging("one two three", 10, 4, 14), "one\n    two three");
        assert_eq!(
            wrap_hanging("seventeen", 10, 4, 14),
            "\n    seventeen",
            "what has room below is not broken"
        );
        assert_eq!(
            wrap_hanging("twenty-eight", 10, 4, 14),
            "twen\n    ty-eight",
            "what has no room anywhere is"
        );
    }
}
