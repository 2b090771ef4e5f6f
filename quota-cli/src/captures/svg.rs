//! Draws lines as an SVG. Each word has an explicit position, so that the columns align in every font.

use std::fmt::Write as _;

use crate::view::line::{Line, Style};
use crate::view::wrap;

/// A terminal's colors.
pub(super) struct Palette {
    background: &'static str,
    text: &'static str,
    dim: &'static str,
    red: &'static str,
    green: &'static str,
    yellow: &'static str,
}

pub(super) const LIGHT: Palette = Palette {
    background: "#ffffff",
    text: "#1f2328",
    dim: "#6e7781",
    red: "#cf222e",
    green: "#1a7f37",
    yellow: "#9a6700",
};

pub(super) const DARK: Palette = Palette {
    background: "#0d1117",
    text: "#e6edf3",
    dim: "#8b949e",
    red: "#f85149",
    green: "#3fb950",
    yellow: "#d29922",
};

/// The width of a column in hundredths of a pixel.
const COLUMN: usize = 843;
/// The height of a line and the width of the border, in pixels.
const LINE: usize = 19;
const BORDER: usize = 14;

/// Draws lines that are at most `columns` wide.
pub(super) fn draw(lines: &[Line], columns: u16, palette: &Palette) -> String {
    let (width, height) = (usize::from(columns) * COLUMN / 100 + 2 * BORDER, lines.len() * LINE + 2 * BORDER);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{}\"/>\n",
        palette.background
    );
    for (row, line) in lines.iter().enumerate() {
        let mut column = 0;
        for span in line.spans() {
            // Do not draw spaces, because an SVG viewer would stretch them.
            for word in words(&span.text) {
                if !word.trim().is_empty() {
                    svg.push_str(&text_at(word, column, row, palette.attributes(span.style)));
                }
                column += wrap::width(word);
            }
        }
    }
    svg + "</svg>\n"
}

impl Palette {
    /// The color and the weight of a style.
    fn attributes(&self, style: Style) -> (&'static str, &'static str) {
        match style {
            Style::Plain => (self.text, ""),
            Style::Strong => (self.text, " font-weight=\"bold\""),
            Style::Dim => (self.dim, ""),
            Style::Bad => (self.red, ""),
            Style::Good => (self.green, ""),
            Style::Warn => (self.yellow, ""),
        }
    }
}

/// Splits a line into parts without double spaces, and the gaps between them.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let gap = rest.len() - rest.trim_start_matches(' ').len();
        let end = if gap > 0 { gap } else { rest.find("  ").unwrap_or(rest.len()) };
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    words
}

fn text_at(word: &str, column: usize, row: usize, (fill, weight): (&str, &str)) -> String {
    let word = word.trim_end();
    let x = hundredths(column * COLUMN + BORDER * 100);
    let y = row * LINE + BORDER + LINE * 3 / 4;
    let length = hundredths(wrap::width(word) * COLUMN);
    let mut svg = format!("<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\" fill=\"{fill}\"{weight}>");
    for letter in word.chars() {
        let _ = match letter {
            '<' => write!(svg, "&lt;"),
            '&' => write!(svg, "&amp;"),
            other => write!(svg, "{other}"),
        };
    }
    svg + "</text>\n"
}

fn hundredths(number: usize) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

#[test]
fn each_word_has_the_position_of_its_column() {
    let svg = draw(&[Line::new(Style::Strong, "a").with(Style::Plain, "  <b>")], 7, &LIGHT);

    assert!(
        svg.contains(
            "<text x=\"14.00\" y=\"28\" textLength=\"8.43\" fill=\"#1f2328\" font-weight=\"bold\">a<"
        )
    );
    assert!(
        svg.contains("<text x=\"39.29\" y=\"28\" textLength=\"25.29\" fill=\"#1f2328\">&lt;b></text>"),
        "{svg}"
    );
}
