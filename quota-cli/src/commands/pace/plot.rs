//! A plot of a period in braille dots: the readings as a line, the projection as a dotted line.

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::symbols::Marker;
use ratatui::widgets::Widget as _;
use ratatui::widgets::canvas::{Canvas, Line, Points};

use quota_view::pace::{Chart, Point};

use crate::format::LocalTime;
use crate::view::wrap::width;

const ROWS: u16 = 8;
/// The number of columns left of the plot: `100 % ┤`.
const MARGIN: usize = 9;
/// The minimum width of a plot.
const NARROWEST: u16 = 20;
const WIDEST: u16 = 110;
/// Braille dots per character, horizontally and vertically.
const DOTS: (u16, u16) = (2, 4);
/// The distance between two dots of the projection, in braille dots.
const DOT_SPACING: f64 = 4.0;

/// Renders the plot; empty if the terminal is too narrow.
pub(super) fn lines(chart: &Chart, local: &LocalTime, width: usize) -> Vec<String> {
    let columns = u16::try_from(width.saturating_sub(MARGIN + 1)).unwrap_or(WIDEST).min(WIDEST);
    if columns < NARROWEST {
        return Vec::new();
    }
    let label = |fraction: f64| format!("{:.0} %", chart.top_percent * fraction);
    let mut lines: Vec<String> = canvas(chart, columns)
        .into_iter()
        .zip(0..)
        .map(|(dots, row)| {
            let (label, edge) = match row {
                0 => (label(1.0), '┤'),
                _ if row == ROWS / 2 => (label(0.5), '┤'),
                _ => (String::new(), '│'),
            };
            format!("{label:>width$} {edge}{dots}", width = MARGIN - 2).trim_end().to_owned()
        })
        .collect();
    let columns = usize::from(columns);
    let now = column(chart.now, columns);
    let axis: String = (0..columns).map(|at| if at == now { '┴' } else { '─' }).collect();
    lines.push(format!("{:>width$} └{axis}", label(0.0), width = MARGIN - 2));
    lines.push(axis_labels(chart, local, columns, now));
    lines
}

/// Renders the rows of dots, from top to bottom.
fn canvas(chart: &Chart, columns: u16) -> Vec<String> {
    let color = Color::Reset;
    let projection = chart.projection.map(|[from, to]| dotted(from, to, columns)).unwrap_or_default();
    let canvas = Canvas::default().marker(Marker::Braille).x_bounds([0.0, 1.0]).y_bounds([0.0, 1.0]).paint(
        |context| {
            context.draw(&Points { coords: &chart.points, color });
            for pair in chart.points.windows(2) {
                let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
                context.draw(&Line { x1, y1, x2, y2, color });
            }
            context.draw(&Points { coords: &projection, color });
        },
    );
    let area = Rect::new(0, 0, columns, ROWS);
    let mut buffer = Buffer::empty(area);
    canvas.render(area, &mut buffer);
    let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
    (0..ROWS).map(row).collect()
}

/// Points on the line between two points.
fn dotted(from: Point, to: Point, columns: u16) -> Vec<Point> {
    let (across, up) = (f64::from(columns * DOTS.0), f64::from(ROWS * DOTS.1));
    let length = ((to.0 - from.0).abs() * across).max((to.1 - from.1).abs() * up);
    let step = if length > 0.0 { DOT_SPACING / length } else { 1.0 };
    let positions = (0u32..).map(|number| f64::from(number) * step).take_while(|position| *position <= 1.0);
    positions.map(|at| (from.0 + (to.0 - from.0) * at, from.1 + (to.1 - from.1) * at)).collect()
}

/// Renders the labels of the time axis: the start of the period, now, and the reset.
fn axis_labels(chart: &Chart, local: &LocalTime, columns: usize, now: usize) -> String {
    let (from, to) = (local.time_of_day(chart.from), local.time_of_day(chart.to));
    let mut labels = format!("{:MARGIN$}{from}", "");
    let (now_at, to_at) = (MARGIN + now.saturating_sub(1), MARGIN + columns - width(&to).min(columns));
    for (at, label) in [(now_at, "now"), (to_at, &*to)] {
        let end = width(&labels);
        // Omit a label that would touch another one. The tick on the axis still shows the current time.
        let is_last = at == to_at;
        if at > end && (is_last || at + width(label) < to_at) {
            let _ = write!(labels, "{:gap$}{label}", "", gap = at - end);
        }
    }
    labels
}

fn column(share: f64, columns: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates at both ends"
    )]
    let at = (share * columns as f64) as usize;
    at.min(columns.saturating_sub(1))
}
