//! Draws the usage of one window as a bar.

use quota::{Percent, Used};

use super::line::{Line, Style};

/// The minimum useful width of a bar.
pub(crate) const NARROWEST: usize = 8;

const FULL: char = '━';
const EMPTY: char = '─';
const UNKNOWN: char = '┄';
const TICK_FULL: char = '┿';
const TICK_EMPTY: char = '┼';

/// The bar of a window. A tick marks the `elapsed` share of its time.
pub(crate) fn bar(used: Used, elapsed: Option<f64>, width: usize) -> Line {
    let Some(percent) = used.lower_bound() else {
        return Line::new(Style::Dim, UNKNOWN.to_string().repeat(width));
    };
    let filled = cells(percent, width);
    let tick = elapsed.map(|elapsed| cell_at(elapsed, width));
    let cell = |at: usize| match (at < filled, tick == Some(at)) {
        (true, true) => TICK_FULL,
        (true, false) => FULL,
        (false, true) => TICK_EMPTY,
        (false, false) => EMPTY,
    };
    let (front, back): (String, String) =
        ((0..filled).map(cell).collect(), (filled..width).map(cell).collect());
    Line::new(style(used), front).with(Style::Dim, back)
}

/// The style for the usage of a window.
pub(crate) fn style(used: Used) -> Style {
    match used.lower_bound().map(Percent::basis_points) {
        None => Style::Dim,
        Some(9_000..) => Style::Bad,
        Some(7_500..) => Style::Warn,
        Some(_) => Style::Good,
    }
}

/// The number of filled cells: all of them only at 100 %, and at least one as soon as anything is used.
fn cells(used: Percent, width: usize) -> usize {
    let used = usize::try_from(used.basis_points().min(Percent::FULL.basis_points())).unwrap_or_default();
    let cells = used * width / 10_000;
    if used > 0 { cells.max(1) } else { 0 }
}

fn cell_at(share: f64, width: usize) -> usize {
    // `as` saturates at 0 for negative numbers and NaN.
    ((share * width as f64) as usize).min(width.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(percent: f64) -> Used {
        Used::Exact(Percent::from_percent(percent).unwrap())
    }

    #[test]
    fn half_used_is_half_filled() {
        assert_eq!(bar(exact(50.0), None, 10).text(), "━━━━━─────");
    }

    #[test]
    fn only_100_percent_fills_the_bar_and_only_0_percent_empties_it() {
        assert_eq!(bar(exact(99.99), None, 10).text(), "━━━━━━━━━─");
        assert_eq!(bar(exact(0.01), None, 10).text(), "━─────────");
        assert_eq!(bar(exact(0.0), None, 10).text(), "──────────");
    }

    #[test]
    fn usage_above_100_percent_fills_the_bar() {
        assert_eq!(bar(exact(250.0), None, 10).text(), "━━━━━━━━━━");
    }

    #[test]
    fn unknown_usage_has_its_own_pattern() {
        assert_eq!(bar(Used::Unknown, Some(0.5), 10).text(), "┄┄┄┄┄┄┄┄┄┄");
    }

    #[test]
    fn the_tick_marks_the_elapsed_time() {
        assert_eq!(bar(exact(50.0), Some(0.25), 8).text(), "━━┿━────");
        assert_eq!(bar(exact(50.0), Some(0.75), 8).text(), "━━━━──┼─");
        assert_eq!(bar(exact(0.0), Some(1.5), 8).text(), "───────┼");
    }

    #[test]
    fn the_style_depends_on_the_usage() {
        let styles = [exact(74.9), exact(75.0), exact(90.0), Used::Unknown].map(style);

        assert_eq!(styles, [Style::Good, Style::Warn, Style::Bad, Style::Dim]);
    }
}
