//! The clock of the simulation: simulated time, and waits. No other file reads a clock or sleeps, so a test that pauses tokio's
//! clock pauses the simulation.
#![expect(clippy::disallowed_methods, reason = "the only file that may read the clock")]

use std::future::Future;
use std::ops::Add;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// A time in the script, measured from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SimTime(Duration);

impl SimTime {
    pub(crate) const START: Self = Self(Duration::ZERO);

    /// The simulated time since `earlier`; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for SimTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Measures simulated time from a wall-clock time, `speed` times as fast as tokio's clock.
#[derive(Debug)]
pub(crate) struct SimClock {
    anchor: Timestamp,
    at: Instant,
    speed: f64,
}

impl SimClock {
    /// Starts at `anchor`, by default at the current wall-clock time.
    pub(crate) fn start(anchor: Option<Timestamp>, speed: f64) -> Self {
        Self { anchor: anchor.unwrap_or_else(Timestamp::now), at: Instant::now(), speed }
    }

    /// The current time in the script.
    pub(crate) fn now(&self) -> SimTime {
        let real = self.at.elapsed();
        SimTime(self.scale(real, real.as_secs_f64() * self.speed))
    }

    /// The wall-clock time of a time in the script, saturating at `Timestamp::MAX`.
    pub(crate) fn wall(&self, at: SimTime) -> Timestamp {
        self.anchor.checked_add(self.real(at.0)).unwrap_or(Timestamp::MAX)
    }

    /// The real time until a time in the script. Zero if that time has passed.
    pub(crate) fn real_until(&self, at: SimTime) -> Duration {
        self.real(at.since(self.now()))
    }

    fn real(&self, simulated: Duration) -> Duration {
        self.scale(simulated, simulated.as_secs_f64() / self.speed)
    }

    fn scale(&self, duration: Duration, seconds: f64) -> Duration {
        // Avoid rounding for scripts that run in real time, as most do.
        if self.speed.to_bits() == 1f64.to_bits() {
            return duration;
        }
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Waits for a time in the script.
    pub(crate) async fn sleep_until(&self, at: SimTime) {
        tokio::time::sleep(self.real_until(at)).await;
    }

    /// Waits in real time.
    pub(crate) async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Runs `work` with a timeout in real time.
pub(crate) async fn with_timeout<F: Future>(timeout: Duration, work: F) -> Option<F::Output> {
    tokio::time::timeout(timeout, work).await.ok()
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
    async fn a_wait_ends_at_its_time_in_the_script() {
        let clock = SimClock::start(None, 4.0);

        clock.sleep_until(SimTime::START + HOUR).await;

        assert_eq!(clock.now(), SimTime::START + HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_of_range_saturates() {
        let clock = SimClock::start(None, 0.001);

        assert_eq!(clock.wall(SimTime::START + Duration::MAX), Timestamp::MAX);
    }
}
