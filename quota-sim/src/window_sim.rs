//! One window while the script runs: it fills and resets, and messages add to it. This module reads no clock. `wire` writes
//! windows for clients.

use std::time::Duration;

use crate::clock::SimTime;
use crate::script::Window;

/// The state of a window while the script runs.
#[derive(Debug)]
pub(crate) struct WindowSim {
    pub(crate) window: Window,
    /// The usage at `since`. It grows from there.
    base: f64,
    since: SimTime,
    /// The next reset after `since`; `None` if the window has not started.
    resets: Option<SimTime>,
    /// The reset until which the window counts as reported full.
    reported_full_until: Option<SimTime>,
}

/// The usage of a window at a given time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WindowLevel {
    pub(crate) used: f64,
    pub(crate) resets: Option<SimTime>,
}

impl WindowSim {
    pub(crate) fn new(window: Window) -> Self {
        let resets = window.first_reset().map(|duration| SimTime::START + duration);
        Self { base: window.used, since: SimTime::START, resets, reported_full_until: None, window }
    }

    pub(crate) fn level(&self, now: SimTime) -> WindowLevel {
        match self.resets {
            None => WindowLevel { used: 0.0, resets: None },
            Some(resets) if now < resets => {
                WindowLevel { used: self.filled(self.base, self.since, now), resets: Some(resets) }
            }
            Some(resets) => {
                let started = resets + self.whole_lengths(now.since(resets));
                WindowLevel {
                    used: self.filled(0.0, started, now),
                    resets: Some(started + self.window.full_length()),
                }
            }
        }
    }

    /// Whether the window is full.
    pub(crate) fn is_full(&self, now: SimTime) -> bool {
        self.level(now).used >= 100.0
    }

    /// Records that an answer reports the current level to the client.
    pub(crate) fn mark_reported(&mut self, now: SimTime) {
        let level = self.level(now);
        self.reported_full_until = level.resets.filter(|_| level.used >= 100.0);
    }

    /// Whether the window is full and an answer has reported that.
    pub(crate) fn is_reported_full(&self, now: SimTime) -> bool {
        self.is_full(now) && self.reported_full_until.is_some_and(|until| now < until)
    }

    /// Adds to the usage. A window that has not started starts now.
    pub(crate) fn add(&mut self, now: SimTime, percent: f64) {
        self.set(now, self.level(now).used + percent);
    }

    /// Sets the usage. A window that has not started starts now.
    pub(crate) fn set(&mut self, now: SimTime, percent: f64) {
        let resets = self.level(now).resets.unwrap_or(now + self.window.full_length());
        (self.base, self.since, self.resets) = (percent, now, Some(resets));
    }

    fn filled(&self, base: f64, since: SimTime, now: SimTime) -> f64 {
        let hours = now.since(since).as_secs_f64() / 3600.0;
        // Growth stops at 100 %, but a higher value that was set or added is kept.
        (base + self.window.growth_per_hour * hours).min(base.max(100.0))
    }

    fn whole_lengths(&self, elapsed: Duration) -> Duration {
        let length = self.window.full_length().as_nanos();
        let nanos = elapsed.as_nanos() / length * length;
        Duration::from_nanos_u128(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u32) -> SimTime {
        SimTime::START + HOUR * hours
    }

    #[test]
    fn a_window_fills_over_time() {
        let sim = WindowSim::new(Window::five_hour().used(10.0).growth_per_hour(12.0));

        assert_eq!(sim.level(at(2)), WindowLevel { used: 34.0, resets: Some(at(5)) });
    }

    #[test]
    fn growth_stops_at_100_percent() {
        let sim = WindowSim::new(Window::five_hour().used(90.0).growth_per_hour(12.0));

        assert_eq!(sim.level(at(4)).used, 100.0);
    }

    #[test]
    fn a_use_above_100_percent_stays() {
        let sim = WindowSim::new(Window::five_hour().used(104.2).growth_per_hour(12.0));

        assert_eq!(sim.level(at(4)).used, 104.2);
    }

    #[test]
    fn a_reset_empties_a_window_and_sets_the_next_reset() {
        let sim = WindowSim::new(Window::five_hour().used(90.0).resets_in(HOUR));

        assert_eq!(sim.level(at(1)), WindowLevel { used: 0.0, resets: Some(at(6)) });
    }

    #[test]
    fn just_before_its_reset_a_window_is_unchanged() {
        let sim = WindowSim::new(Window::five_hour().used(90.0).resets_in(HOUR));
        let before = SimTime::START + (HOUR - Duration::from_nanos(1));

        assert_eq!(sim.level(before), WindowLevel { used: 90.0, resets: Some(at(1)) });
    }

    #[test]
    fn a_window_not_read_for_days_has_reset_each_time() {
        let sim = WindowSim::new(Window::five_hour().used(90.0).growth_per_hour(1.0).resets_in(HOUR));

        assert_eq!(sim.level(at(103)), WindowLevel { used: 2.0, resets: Some(at(106)) });
    }

    #[test]
    fn an_unused_five_hour_window_has_not_started() {
        let sim = WindowSim::new(Window::five_hour());

        assert_eq!(sim.level(at(100)), WindowLevel { used: 0.0, resets: None });
    }

    #[test]
    fn a_five_hour_window_starts_with_its_first_use() {
        let mut sim = WindowSim::new(Window::five_hour());

        sim.add(at(3), 0.5);

        assert_eq!(sim.level(at(4)), WindowLevel { used: 0.5, resets: Some(at(8)) });
    }

    #[test]
    fn adding_to_a_growing_window_does_not_move_its_reset() {
        let mut sim = WindowSim::new(Window::five_hour().used(10.0).growth_per_hour(10.0));

        sim.add(at(2), 5.0);

        assert_eq!(sim.level(at(3)), WindowLevel { used: 45.0, resets: Some(at(5)) });
    }

    #[test]
    fn adding_after_a_reset_counts_in_the_new_period() {
        let mut sim = WindowSim::new(Window::five_hour().used(90.0).resets_in(HOUR));

        sim.add(at(2), 5.0);

        assert_eq!(sim.level(at(2)), WindowLevel { used: 5.0, resets: Some(at(6)) });
    }

    #[test]
    fn a_full_window_is_reported_full_until_its_reset() {
        let mut sim =
            WindowSim::new(Window::five_hour().used(100.0).growth_per_hour(1000.0).resets_in(HOUR * 2));
        assert!(!sim.is_reported_full(at(0)));

        sim.mark_reported(at(0));

        assert!(sim.is_reported_full(at(1)));
        assert!(sim.is_full(at(3)) && !sim.is_reported_full(at(3)));
    }

    #[test]
    fn a_window_reported_below_full_is_not_reported_full() {
        let mut sim = WindowSim::new(Window::five_hour().used(100.0));
        sim.mark_reported(at(0));
        sim.set(at(0), 50.0);
        sim.mark_reported(at(0));

        sim.set(at(1), 100.0);

        assert!(!sim.is_reported_full(at(1)));
    }

    #[test]
    fn a_window_of_maximal_length_does_not_panic() {
        let sim = WindowSim::new(Window::seven_day().length(Duration::MAX).resets_in(HOUR));

        assert_eq!(sim.level(SimTime::START + Duration::MAX).used, 0.0);
    }
}
