//! One window as it fills, rolls over and is spent from.
//! Nothing here reads a clock; how windows are written for clients is in `wire`.

use std::time::Duration;

use crate::clock::SimTime;
use crate::script::Window;

/// A window in motion.
#[derive(Debug)]
pub(crate) struct WindowSim {
    pub(crate) window: Window,
    /// What was used at `since`; from there on it fills.
    base: f64,
    since: SimTime,
    /// The next reset as of `since`; `None` if the window has not begun.
    resets: Option<SimTime>,
    /// Until when the client knows that it is full: it has been told so.
    known_full_until: Option<SimTime>,
}

/// What a window says at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WindowLevel {
    pub(crate) used: f64,
    pub(crate) resets: Option<SimTime>,
}

impl WindowSim {
    pub(crate) fn new(window: Window) -> Self {
        let resets = window.first_reset().map(|span| SimTime::START + span);
        Self { base: window.used, since: SimTime::START, resets, known_full_until: None, window }
    }

    pub(crate) fn level(&self, now: SimTime) -> WindowLevel {
        match self.resets {
            None => WindowLevel { used: 0.0, resets: None },
            Some(resets) if now < resets => {
                WindowLevel { used: self.filled(self.base, self.since, now), resets: Some(resets) }
            }
            Some(resets) => {
                let begun = resets + self.whole_lengths(now.since(resets));
                WindowLevel { used: self.filled(0.0, begun, now), resets: Some(begun + self.window.lasts()) }
            }
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_full(&self, now: SimTime) -> bool {
        self.level(now).used >= 100.0
    }

    /// The client has been told what the window says now.
    pub(crate) fn told(&mut self, now: SimTime) {
        let level = self.level(now);
        self.known_full_until = level.resets.filter(|_| level.used >= 100.0);
    }

    /// Whether nothing is left, and the client has been told so.
    pub(crate) fn is_known_full(&self, now: SimTime) -> bool {
        self.is_full(now) && self.known_full_until.is_some_and(|until| now < until)
    }

    /// Adds to what is used; a window that had not begun begins.
    pub(crate) fn spend(&mut self, now: SimTime, percent: f64) {
        self.set(now, self.level(now).used + percent);
    }

    /// Sets what is used; a window that had not begun begins.
    pub(crate) fn set(&mut self, now: SimTime, percent: f64) {
        let resets = self.level(now).resets.unwrap_or(now + self.window.lasts());
        (self.base, self.since, self.resets) = (percent, now, Some(resets));
    }

    fn filled(&self, base: f64, since: SimTime, now: SimTime) -> f64 {
        let hours = now.since(since).as_secs_f64() / 3600.0;
        // Filling stops at the brim; what was set or spent beyond it stays.
        (base + self.window.fills_per_hour * hours).min(base.max(100.0))
    }

    fn whole_lengths(&self, span: Duration) -> Duration {
        let length = self.window.lasts().as_nanos();
        let nanos = span.as_nanos() / length * length;
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
        let meter = WindowSim::new(Window::five_hour().used(10.0).fills_per_hour(12.0));

        assert_eq!(meter.level(at(2)), WindowLevel { used: 34.0, resets: Some(at(5)) });
    }

    #[test]
    fn filling_stops_at_the_brim() {
        let meter = WindowSim::new(Window::five_hour().used(90.0).fills_per_hour(12.0));

        assert_eq!(meter.level(at(4)).used, 100.0);
    }

    #[test]
    fn what_was_used_beyond_the_brim_stays() {
        let meter = WindowSim::new(Window::five_hour().used(104.2).fills_per_hour(12.0));

        assert_eq!(meter.level(at(4)).used, 104.2);
    }

    #[test]
    fn at_its_reset_a_window_is_empty_and_the_next_reset_is_a_length_later() {
        let meter = WindowSim::new(Window::five_hour().used(90.0).resets_in(HOUR));

        assert_eq!(meter.level(at(1)), WindowLevel { used: 0.0, resets: Some(at(6)) });
    }

    #[test]
    fn just_before_its_reset_a_window_is_as_it_was() {
        let meter = WindowSim::new(Window::five_hour().used(90.0).resets_in(HOUR));
        let before = SimTime::START + (HOUR - Duration::from_nanos(1));

        assert_eq!(meter.level(before), WindowLevel { used: 90.0, resets: Some(at(1)) });
    }

    #[test]
    fn a_window_not_read_for_days_has_rolled_over_each_time() {
        let meter = WindowSim::new(Window::five_hour().used(90.0).fills_per_hour(1.0).resets_in(HOUR));

        assert_eq!(meter.level(at(103)), WindowLevel { used: 2.0, resets: Some(at(106)) });
    }

    #[test]
    fn an_untouched_five_hour_window_has_not_begun() {
        let meter = WindowSim::new(Window::five_hour());

        assert_eq!(meter.level(at(100)), WindowLevel { used: 0.0, resets: None });
    }

    #[test]
    fn a_five_hour_window_begins_when_something_is_spent() {
        let mut meter = WindowSim::new(Window::five_hour());

        meter.spend(at(3), 0.5);

        assert_eq!(meter.level(at(4)), WindowLevel { used: 0.5, resets: Some(at(8)) });
    }

    #[test]
    fn spending_adds_to_what_has_filled_and_moves_no_reset() {
        let mut meter = WindowSim::new(Window::five_hour().used(10.0).fills_per_hour(10.0));

        meter.spend(at(2), 5.0);

        assert_eq!(meter.level(at(3)), WindowLevel { used: 45.0, resets: Some(at(5)) });
    }

    #[test]
    fn spending_after_a_reset_counts_in_the_new_window() {
        let mut meter = WindowSim::new(Window::five_hour().used(90.0).resets_in(HOUR));

        meter.spend(at(2), 5.0);

        assert_eq!(meter.level(at(2)), WindowLevel { used: 5.0, resets: Some(at(6)) });
    }

    #[test]
    fn a_full_window_is_known_to_be_full_from_when_that_is_told_to_its_reset() {
        let mut meter =
            WindowSim::new(Window::five_hour().used(100.0).fills_per_hour(1000.0).resets_in(HOUR * 2));
        assert!(!meter.is_known_full(at(0)));

        meter.told(at(0));

        assert!(meter.is_known_full(at(1)));
        assert!(meter.is_full(at(3)) && !meter.is_known_full(at(3)));
    }

    #[test]
    fn a_window_that_had_room_when_it_was_told_is_not_known_to_be_full() {
        let mut meter = WindowSim::new(Window::five_hour().used(100.0));
        meter.told(at(0));
        meter.set(at(0), 50.0);
        meter.told(at(0));

        meter.set(at(1), 100.0);

        assert!(!meter.is_known_full(at(1)));
    }

    #[test]
    fn a_window_that_ends_at_the_end_of_time_does_not_panic() {
        let meter = WindowSim::new(Window::seven_day().length(Duration::MAX).resets_in(HOUR));

        assert_eq!(meter.level(SimTime::START + Duration::MAX).used, 0.0);
    }
}
