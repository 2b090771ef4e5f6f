//! A period drawn with braille dots: two across and four up in each character.
//! No colours: what is measured is a line, where it leads to is dotted.

use std::fmt::Write as _;

use super::chart::{Chart, Point};
use crate::format::LocalTime;

const ROWS: usize = 8;
/// What stands left of the picture: `100 % ┤`.
const MARGIN: usize = 9;
/// A picture narrower than this says nothing.
const NARROWEST: usize = 20;
const WIDEST: usize = 110;

/// The lines of the picture; none where there is no room.
pub(super) fn lines(chart: &Chart, local: &LocalTime, width: usize) -> Vec<String> {
    let columns = width.saturating_sub(MARGIN + 1).min(WIDEST);
    if columns < NARROWEST {
        return Vec::new();
    }
    let mut dots = Dots::new(columns, ROWS);
    for pair in chart.points.windows(2) {
        dots.line(pair[0], pair[1], 1);
    }
    if let [only] = *chart.points {
        dots.line(only, only, 1);
    }
    if let Some([from, to]) = chart.ahead {
        dots.line(from, to, 4);
    }
    let label = |share: f64| format!("{:.0} %", chart.top_percent * share);
    let mut lines: Vec<String> = (0..ROWS)
        .map(|row| {
            let (label, edge) = match row {
                0 => (label(1.0), '┤'),
                _ if row == ROWS / 2 => (label(0.5), '┤'),
                _ => (String::new(), '│'),
            };
            format!("{label:>width$} {edge}{}", dots.row(row), width = MARGIN - 2).trim_end().to_owned()
        })
        .collect();
    let now = cell(chart.now, columns);
    let axis: String = (0..columns).map(|at| if at == now { '┴' } else { '─' }).collect();
    lines.push(format!("{:>width$} └{axis}", label(0.0), width = MARGIN - 2));
    lines.push(foot(chart, local, columns, now));
    lines
}

/// When it began, where now is, and when it begins anew.
fn foot(chart: &Chart, local: &LocalTime, columns: usize, now: usize) -> String {
    let (from, to) = (local.time_of_day(chart.from), local.time_of_day(chart.to));
    let mut foot = format!("{:MARGIN$}{from}", "");
    let (now_at, to_at) =
        (MARGIN + now.saturating_sub(1), MARGIN + columns - to.chars().count().min(columns));
    for (at, word) in [(now_at, "now"), (to_at, &*to)] {
        let end = foot.chars().count();
        // Words that would run into each other are left out: the line above shows where now is.
        let is_last = at == to_at;
        if at > end && (is_last || at + word.len() < to_at) {
            let _ = write!(foot, "{:gap$}{word}", "", gap = at - end);
        }
    }
    foot
}

fn cell(share: f64, columns: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates at both ends"
    )]
    let at = (share * columns as f64) as usize;
    at.min(columns.saturating_sub(1))
}

/// A field of dots.
struct Dots {
    columns: usize,
    rows: usize,
    cells: Vec<u32>,
}

impl Dots {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, cells: vec![0; columns * rows] }
    }

    /// Draws from one point to another, every so many dots.
    fn line(&mut self, from: Point, to: Point, every: usize) {
        let (across, up) = (self.columns * 2, self.rows * 4);
        let place = |(x, y): Point| (cell(x, across), cell(y, up));
        let (from, to) = (place(from), place(to));
        let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1));
        let between = |one: usize, other: usize, step: usize| {
            let share = if steps == 0 { 0.0 } else { step as f64 / steps as f64 };
            let at = one as f64 + (other as f64 - one as f64) * share;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it lies between two places"
            )]
            let at = at.round() as usize;
            at
        };
        for step in (0..=steps).step_by(every) {
            self.set(between(from.0, to.0, step), between(from.1, to.1, step));
        }
    }

    fn set(&mut self, x: usize, y: usize) {
        // The order of the dots in a braille character, by column and by row from above.
        const BITS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let from_above = self.rows * 4 - 1 - y;
        self.cells[from_above / 4 * self.columns + x / 2] |= BITS[x % 2][from_above % 4];
    }

    fn row(&self, row: usize) -> String {
        let cells = &self.cells[row * self.columns..(row + 1) * self.columns];
        let dots = |bits: &u32| if *bits == 0 { ' ' } else { char::from_u32(0x2800 + bits).unwrap_or(' ') };
        cells.iter().map(dots).collect()
    }
}
