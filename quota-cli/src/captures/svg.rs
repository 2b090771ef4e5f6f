//! Text with the colours of a terminal, as a drawing: each piece where its cells are, so that columns stand whatever the font.
//! Which text is no business of this.

use std::fmt::Write as _;

/// A terminal's colours.
pub(super) struct Palette {
    ground: &'static str,
    text: &'static str,
    quiet: &'static str,
    red: &'static str,
    green: &'static str,
    yellow: &'static str,
}

pub(super) const LIGHT: Palette = Palette {
    ground: "#ffffff",
    text: "#1f2328",
    quiet: "#6e7781",
    red: "#cf222e",
    green: "#1a7f37",
    yellow: "#9a6700",
};

pub(super) const DARK: Palette = Palette {
    ground: "#0d1117",
    text: "#e6edf3",
    quiet: "#8b949e",
    red: "#f85149",
    green: "#3fb950",
    yellow: "#d29922",
};

/// Of a cell and of the border, in hundredths of a pixel and in pixels.
const CELL: usize = 843;
const LINE: usize = 19;
const BORDER: usize = 14;

/// Draws text that is at most so many columns wide.
pub(super) fn draw(text: &str, columns: u16, palette: &Palette) -> String {
    let (width, height) =
        (usize::from(columns) * CELL / 100 + 2 * BORDER, text.lines().count() * LINE + 2 * BORDER);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{}\"/>\n",
        palette.ground
    );
    for (row, line) in text.lines().enumerate() {
        let mut column = 0;
        let mut style = (palette.text, "");
        for (at, piece) in line.split('\u{1b}').enumerate() {
            let written = match piece.strip_prefix('[').and_then(|piece| piece.split_once('m')) {
                Some((code, written)) if at > 0 => {
                    style = palette.style(code);
                    written
                }
                _ => piece,
            };
            // Spaces take no ink, and a drawing of them would be stretched.
            for word in words(written) {
                if !word.trim().is_empty() {
                    svg.push_str(&text_at(word, column, row, style));
                }
                column += word.chars().count();
            }
        }
    }
    svg + "</svg>\n"
}

impl Palette {
    /// The colour and the weight of what stands after this sequence; only those of `term` come here.
    fn style(&self, code: &str) -> (&'static str, &'static str) {
        match code {
            "" | "0" => (self.text, ""),
            "1" => (self.text, " font-weight=\"bold\""),
            "2" => (self.quiet, ""),
            "31" => (self.red, ""),
            "32" => (self.green, ""),
            "33" => (self.yellow, ""),
            other => panic!("no colour is drawn for {other}"),
        }
    }
}

/// Pieces of a line without more than a space between two letters, and what lies between them.
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
    let x = hundredths(column * CELL + BORDER * 100);
    let y = row * LINE + BORDER + LINE * 3 / 4;
    let length = hundredths(word.chars().count() * CELL);
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
fn a_piece_stands_where_its_cells_are() {
    let svg = draw("\u{1b}[1ma\u{1b}[0m  <b>", 7, &LIGHT);

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
