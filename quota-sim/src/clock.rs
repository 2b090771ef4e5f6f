//! The one door to time: how far the script has come, and waiting.
//! Nothing else in this crate reads a clock or sleeps, so a test that stops tokio's time stops the simulation.
#![expect(clippy::disallowed_methods, reason = "this is the one place that may")]

use std::future::Future;
use std::ops::Add;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// A point in the script: simulated time since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SimTime(Duration);

impl SimTime {
    pub(crate) const START: Self = Self(Duration::ZERO);

    /// The simulated time since `earlier`; nothing if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for SimTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Counts simulated time from a wall moment, `speed` times as fast as tokio's clock.
#[derive(Debug)]
pub(crate) struct SimClock {
    anchor: Timestamp,
    at: Instant,
    speed: f64,
}

impl SimClock {
    /// Starts at `anchor`, or at what the wall clock says.
    pub(crate) fn start(anchor: Option<Timestamp>, speed: f64) -> Self {
        Self { anchor: anchor.unwrap_or_else(Timestamp::now), at: Instant::now(), speed }
    }

    /// How far the script has come.
    pub(crate) fn now(&self) -> SimTime {
        let real = self.at.elapsed();
        SimTime(self.scale(real, real.as_secs_f64() * self.speed))
    }

    /// What a wall clock says at that point of the script; the end of time if it lies beyond it.
    pub(crate) fn wall(&self, moment: SimTime) -> Timestamp {
        self.anchor.checked_add(self.real(moment.0)).unwrap_or(Timestamp::MAX)
    }

    /// The real time until that point of the script; nothing if it is over.
    pub(crate) fn real_until(&self, moment: SimTime) -> Duration {
        self.real(moment.since(self.now()))
    }

    fn real(&self, simulated: Duration) -> Duration {
        self.scale(simulated, simulated.as_secs_f64() / self.speed)
    }

    fn scale(&self, span: Duration, seconds: f64) -> Duration {
        // Exact where it can be: most scripts run in real time.
        if self.speed.to_bits() == 1f64.to_bits() {
            return span;
        }
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Waits for that point of the script.
    pub(crate) async fn sleep_until(&self, moment: SimTime) {
        tokio::time::sleep(self.real_until(moment)).await;
    }

    /// Waits that long in real time.
    pub(crate) async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

/// Runs `work` for no longer than `span` of real time.
pub(crate) async fn bounded<F: Future>(span: Duration, work: F) -> Option<F::Output> {
    tokio::time::timeout(span, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_fast_script_passes_an_hour_in_a_minute() {
        let clock = SimClock::start(None, 60.0);

        clock.sleep(Duration::from_secs(60)).await;

        assert_eq!(clock.now(), SimTime::START + HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_of_a_fast_script_stays_real() {
        let clock = SimClock::start(Some(Timestamp::UNIX_EPOCH), 60.0);

        assert_eq!(clock.wall(SimTime::START + HOUR * 5).as_second(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_point_of_the_script() {
        let clock = SimClock::start(None, 4.0);

        clock.sleep_until(SimTime::START + HOUR).await;

        assert_eq!(clock.now(), SimTime::START + HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_beyond_the_end_of_time_is_its_end() {
        let clock = SimClock::start(None, 0.001);

        assert_eq!(clock.wall(SimTime::START + Duration::MAX), Timestamp::MAX);
    }
}
