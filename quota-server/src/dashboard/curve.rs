//! The curve of a window as SVG coordinates. The browser stretches it to the width of the page.

use std::fmt::Write as _;

use quota_view::format::LocalTime;
use quota_view::pace::{Chart, Point, WindowPace};

pub(super) const WIDTH: f64 = 1000.0;
pub(super) const HEIGHT: f64 = 100.0;

/// The curve of a window's period.
#[derive(Debug)]
pub(super) struct Curve {
    /// The readings, as the points of a line.
    pub(super) used: String,
    /// The area below the line.
    pub(super) area: String,
    /// The line of an even pace that reaches 100 % at the reset; absent without a reset.
    pub(super) even: Option<String>,
    /// The forecast.
    pub(super) forecast: Option<String>,
    /// The current time.
    pub(super) now: f64,
    /// The last reading, as a marker.
    pub(super) last: Point,
    pub(super) from: String,
    pub(super) to: String,
}

impl Curve {
    /// Computes the curve; `None` if the period has no readings.
    pub(super) fn new(window: &WindowPace, local: &LocalTime) -> Option<Self> {
        let chart = Chart::of(window, local.now)?;
        let used = points(&chart.points);
        let (first, last) = (position(*chart.points.first()?), position(*chart.points.last()?));
        let hundred = 100.0 / chart.top_percent;
        Some(Self {
            area: format!("{},{HEIGHT} {used} {},{HEIGHT}", first.0, last.0),
            even: window.resets_at.map(|_| points(&[(0.0, 0.0), (1.0, hundred)])),
            forecast: chart.projection.map(|line| points(&line)),
            now: position((chart.now, 0.0)).0,
            last,
            from: local.time_of_day(chart.from),
            to: local.time_of_day(chart.to),
            used,
        })
    }
}

fn points(points: &[Point]) -> String {
    let mut text = String::with_capacity(points.len() * 12);
    for (x, y) in points.iter().map(|point| position(*point)) {
        let separator = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{separator}{x},{y}");
    }
    text
}

/// Rounded to a tenth of a unit, which is finer than a screen shows.
fn position((x, y): Point) -> Point {
    let rounded = |number: f64| (number * 10.0).round() / 10.0;
    (rounded(x * WIDTH), rounded((1.0 - y) * HEIGHT))
}
