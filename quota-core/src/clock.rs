//! The one door to time: what the time is, and waiting for it.
//! Nothing else in this crate reads a clock or sleeps, so a test that stops time stops all of it.
#![expect(clippy::disallowed_methods, reason = "this is the one place that may")]

use std::future::Future;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::time;

/// What the time is, and how to wait for it.
///
/// [`Clock::system`] is the wall clock. [`Clock::anchored`] counts from a given moment by tokio's clock, so that it stands
/// still and leaps with a runtime that was started paused.
#[derive(Debug, Clone, Default)]
pub struct Clock(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    System,
    Anchored {
        moment: Timestamp,
        at: tokio::time::Instant,
    },
}

impl Clock {
    /// The wall clock of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that says `moment` now and goes on by tokio's clock. It must be made inside a runtime.
    #[must_use]
    pub fn anchored(moment: Timestamp) -> Self {
        Self(Kind::Anchored { moment: time::to_ms(moment), at: tokio::time::Instant::now() })
    }

    /// What the time is, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        time::from_ms(self.now_ms())
    }

    /// The same in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        match &self.0 {
            Kind::System => match SystemTime::UNIX_EPOCH.elapsed() {
                Ok(since) => whole_ms(since),
                Err(before) => -whole_ms(before.duration()),
            },
            Kind::Anchored { moment, at } => moment.as_millisecond().saturating_add(whole_ms(at.elapsed())),
        }
    }

    /// How far [`recent_ms`](Self::recent_ms) lags at most: one tick of a kernel with 100 ticks a second.
    pub(crate) const RECENT_LAG_MS: i64 = 10;

    /// The same, perhaps a few milliseconds ago: cheap enough for every read.
    ///
    /// It lags and never leads, so what is stale by this clock is stale by the other.
    pub(crate) fn recent_ms(&self) -> i64 {
        match &self.0 {
            Kind::System => coarse_ms().unwrap_or_else(|| self.now_ms()),
            Kind::Anchored { .. } => self.now_ms(),
        }
    }

    /// Waits that long.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Waits until `moment`, but no longer than `bound`.
    ///
    /// The bound is for clocks that are set, and for machines that slept: whoever wakes looks at the time again.
    pub async fn sleep_until(&self, moment: Timestamp, bound: Duration) {
        self.sleep(time::between(self.now(), moment).min(bound)).await;
    }

    /// Runs `work` for no longer than `span`; `None` if its time was over first, and then it was dropped.
    pub async fn bounded<F: Future>(&self, span: Duration, work: F) -> Option<F::Output> {
        tokio::time::timeout(span, work).await.ok()
    }

    /// A point in this process's own time, for distances that must not jump when the wall clock is set.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant(tokio::time::Instant::now())
    }
}

/// The wall clock as of the kernel's last tick, where there is such a thing.
#[cfg(target_os = "linux")]
fn coarse_ms() -> Option<i64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Some(now.tv_sec * 1000 + now.tv_nsec / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn coarse_ms() -> Option<i64> {
    None
}

/// In 64 bits all the way: this is on every reader's path, and `as_millis` counts in 128.
fn whole_ms(span: Duration) -> i64 {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1000).saturating_add(i64::from(span.subsec_millis()))
}

/// A point in this process's own time, which no setting of the wall clock moves; see [`Clock::instant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(tokio::time::Instant);

impl Instant {
    /// How long this is after `earlier`; zero if it is before.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The point so much later; `None` if it lies beyond all time.
    pub(crate) fn after(self, span: Duration) -> Option<Self> {
        self.0.checked_add(span).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_anchored_clock_leaps_with_paused_time() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);

        clock.sleep(Duration::from_secs(90)).await;

        assert_eq!(clock.now().as_second(), 90);
    }

    #[test]
    fn the_cheap_clock_lags_and_never_leads() {
        let clock = Clock::system();

        for _ in 0..1000 {
            let cheap = clock.recent_ms();
            let fine = clock.now_ms();
            assert!(cheap <= fine && fine - cheap < 1000, "{cheap} against {fine}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_far_moment_ends_at_its_bound() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);

        clock.sleep_until(Timestamp::MAX, Duration::from_secs(30)).await;

        assert_eq!(clock.now().as_second(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_is_given_up() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);

        assert_eq!(clock.bounded(Duration::from_secs(1), std::future::pending::<()>()).await, None);
    }
}
