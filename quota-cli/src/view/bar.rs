//! One window's use as a bar.
//! The number beside it is the truth; the bar is for the eye.

use quota::{Percent, Used};

use crate::term::{Screen, Style};

/// A bar narrower than this says nothing.
pub(crate) const NARROWEST: usize = 8;

const FULL: char = '━';
const EMPTY: char = '─';
const UNKNOWN: char = '┄';
const TICK_FULL: char = '┿';
const TICK_EMPTY: char = '┼';

/// The bar of a window: so much is used, and so much of its time has passed.
pub(crate) fn bar(used: Used, passed: Option<f64>, width: usize, screen: Screen) -> String {
    let Some(percent) = used.lower_bound() else {
        return screen.paint(Style::Dim, UNKNOWN.to_string().repeat(width)).to_string();
    };
    let filled = cells(percent, width);
    let tick = passed.map(|passed| cell_at(passed, width));
    let cell = |at: usize| match (at < filled, tick == Some(at)) {
        (true, true) => TICK_FULL,
        (true, false) => FULL,
        (false, true) => TICK_EMPTY,
        (false, false) => EMPTY,
    };
    let (front, back): (String, String) =
        ((0..filled).map(cell).collect(), (filled..width).map(cell).collect());
    format!("{}{}", screen.paint(ink(used), front), screen.paint(Style::Dim, back))
}

/// The colour of a use.
pub(crate) fn ink(used: Used) -> Style {
    match used.lower_bound().map(Percent::basis_points) {
        None => Style::Dim,
        Some(9_000..) => Style::Bad,
        Some(7_500..) => Style::Warn,
        Some(_) => Style::Good,
    }
}

/// How many cells are filled. All only if all is used, and one as soon as anything is.
fn cells(used: Percent, width: usize) -> usize {
    let used = usize::try_from(used.basis_points().min(Percent::FULL.basis_points())).unwrap_or_default();
    let cells = used * width / 10_000;
    if used > 0 { cells.max(1) } else { 0 }
}

fn cell_at(share: f64, width: usize) -> usize {
    // A cast of what is below zero or no number ends at zero.
    ((share * width as f64) as usize).min(width.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Screen = Screen::DEFAULT;

    fn exact(percent: f64) -> Used {
        Used::Exact(Percent::from_percent(percent).unwrap())
    }

    #[test]
    fn half_used_is_half_filled() {
        assert_eq!(bar(exact(50.0), None, 10, PLAIN), "━━━━━─────");
    }

    #[test]
    fn only_all_fills_all_and_only_nothing_is_empty() {
        assert_eq!(bar(exact(99.99), None, 10, PLAIN), "━━━━━━━━━─");
        assert_eq!(bar(exact(0.01), None, 10, PLAIN), "━─────────");
        assert_eq!(bar(exact(0.0), None, 10, PLAIN), "──────────");
    }

    #[test]
    fn more_than_all_is_no_longer_than_all() {
        assert_eq!(bar(exact(250.0), None, 10, PLAIN), "━━━━━━━━━━");
    }

    #[test]
    fn what_is_unknown_is_neither_empty_nor_full() {
        assert_eq!(bar(Used::Unknown, Some(0.5), 10, PLAIN), "┄┄┄┄┄┄┄┄┄┄");
    }

    #[test]
    fn a_tick_stands_where_time_stands() {
        assert_eq!(bar(exact(50.0), Some(0.25), 8, PLAIN), "━━┿━────");
        assert_eq!(bar(exact(50.0), Some(0.75), 8, PLAIN), "━━━━──┼─");
        assert_eq!(bar(exact(0.0), Some(1.5), 8, PLAIN), "───────┼");
    }

    #[test]
    fn a_window_that_is_nearly_used_up_stands_out() {
        let inks = [exact(74.9), exact(75.0), exact(90.0), Used::Unknown].map(ink);

        assert_eq!(inks, [Style::Good, Style::Warn, Style::Bad, Style::Dim]);
    }
}
