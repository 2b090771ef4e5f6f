//! Text as lines of styled spans, and their output for a terminal.
//! `commands/watch/ui` converts lines for ratatui, and `captures/svg` draws them.

use std::fmt::Write as _;

use anstyle::AnsiColor;

use super::wrap::{width, wrap};

/// The meaning of a piece of text, which determines its color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// The name of an account in a heading.
    Strong,
    /// A detail.
    Dim,
    Good,
    Warn,
    Bad,
    Plain,
}

impl Style {
    fn ansi(self) -> anstyle::Style {
        // Use only the terminal's palette, because the user chose its colors to be readable.
        match self {
            Self::Strong => anstyle::Style::new().bold(),
            Self::Dim => anstyle::Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Plain => anstyle::Style::new(),
        }
    }
}

/// A piece of a line in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) style: Style,
    pub(crate) text: String,
}

impl Span {
    pub(crate) fn new(style: Style, text: impl Into<String>) -> Self {
        Self { style, text: text.into() }
    }

    /// Appends the span, with escape sequences if `color` is set.
    fn print_to(&self, output: &mut String, color: bool) {
        let style = if color { self.style.ansi() } else { anstyle::Style::new() };
        let _ = write!(output, "{style}{}{style:#}", self.text);
    }

    pub(crate) fn print(&self, color: bool) -> String {
        let mut output = String::new();
        self.print_to(&mut output, color);
        output
    }
}

/// One line of text, without a line break.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<Span>);

impl Line {
    /// A line of one style.
    pub(crate) fn new(style: Style, text: impl Into<String>) -> Self {
        Self::default().with(style, text)
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(Style::Plain, text)
    }

    /// The line with a span appended.
    pub(crate) fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.push(style, text);
        self
    }

    pub(crate) fn push(&mut self, style: Style, text: impl Into<String>) {
        let span = Span::new(style, text);
        if !span.text.is_empty() {
            self.0.push(span);
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The line with `columns` spaces before it.
    pub(crate) fn indented(mut self, columns: usize) -> Self {
        self.0.insert(0, Span::new(Style::Plain, " ".repeat(columns)));
        self
    }

    /// The line, followed by spaces up to this column.
    pub(crate) fn padded(mut self, column: usize) -> Self {
        self.push(Style::Plain, " ".repeat(column.saturating_sub(self.width())));
        self
    }

    /// Appends a text, wrapped at `columns`. The next lines start at the column `indent`. If the first word does not fit, the first line
    /// ends without trailing spaces.
    pub(crate) fn hanging(mut self, style: Style, text: &str, indent: usize, columns: usize) -> Vec<Self> {
        let mut wrapped = wrap(text, self.width(), indent, columns).into_iter();
        match wrapped.next().filter(|first| !first.is_empty()) {
            Some(first) => self.push(style, first),
            None => self.trim_end(),
        }
        std::iter::once(self).chain(wrapped.map(|text| Self::new(style, text).indented(indent))).collect()
    }

    fn trim_end(&mut self) {
        while let Some(mut last) = self.0.pop() {
            last.text.truncate(last.text.trim_end().len());
            if !last.text.is_empty() {
                return self.0.push(last);
            }
        }
    }

    /// The width in columns.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|span| width(&span.text)).sum()
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.0
    }

    /// The text without styles.
    pub(crate) fn text(&self) -> String {
        self.print(false)
    }

    /// The line as text, with escape sequences if `color` is set.
    pub(crate) fn print(&self, color: bool) -> String {
        let mut output = String::new();
        for span in &self.0 {
            span.print_to(&mut output, color);
        }
        output
    }
}

/// The lines as text, each with a line break.
pub(crate) fn print(lines: &[Line], color: bool) -> String {
    lines.iter().map(|line| line.print(color) + "\n").collect()
}

/// A text wrapped at `columns`, with each line indented.
pub(crate) fn wrapped(style: Style, text: &str, indent: usize, columns: usize) -> Vec<Line> {
    Line::default().padded(indent).hanging(style, text, indent, columns)
}

/// Joins blocks of lines with an empty line between them.
pub(crate) fn separated(blocks: impl IntoIterator<Item = Vec<Line>>) -> Vec<Line> {
    let mut lines = Vec::new();
    for block in blocks {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.extend(block);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_color_is_its_text() {
        assert_eq!(Line::new(Style::Bad, "429").with(Style::Plain, " calls").print(false), "429 calls");
    }

    #[test]
    fn a_color_ends_with_its_span() {
        let line = Line::new(Style::Bad, "429").with(Style::Plain, " calls");

        assert_eq!(line.print(true), "\u{1b}[31m429\u{1b}[0m calls");
    }

    #[test]
    fn a_hanging_text_leaves_no_spaces_before_a_line_break() {
        let head = || Line::new(Style::Strong, "name").padded(6);

        assert_eq!(print(&head().hanging(Style::Bad, "one two", 2, 10), false), "name  one\n  two\n");
        assert_eq!(print(&head().hanging(Style::Bad, "seventeen", 2, 10), false), "name\n  seventee\n  n\n");
    }

    #[test]
    fn blocks_are_separated_by_an_empty_line() {
        let blocks = ["a", "b"].map(|text| vec![Line::plain(text)]);

        assert_eq!(print(&separated(blocks), false), "a\n\nb\n");
    }
}
