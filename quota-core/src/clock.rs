//! The only module that reads a clock or sleeps. A test that pauses tokio's time therefore pauses the whole crate.
#![expect(clippy::disallowed_methods, reason = "all other code uses this module")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::time;
pub use crate::time::is_from_future;

/// Reads the time and waits.
///
/// [`Clock::system`] is the wall clock. [`Clock::virtual_at`] starts at a given time and advances with tokio's clock, so it stops and
/// jumps with a runtime that was started paused.
#[derive(Debug, Clone, Default)]
pub struct Clock(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    System,
    Virtual {
        /// The time in milliseconds at `at`. Setting the clock changes it for all clones.
        start_ms: Arc<AtomicI64>,
        at: tokio::time::Instant,
    },
}

impl Clock {
    /// The wall clock of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that starts at `start` and advances with tokio's clock. It must be created inside a runtime.
    #[must_use]
    pub fn virtual_at(start: Timestamp) -> Self {
        let start_ms = Arc::new(AtomicI64::new(time::truncate_ms(start).as_millisecond()));
        Self(Kind::Virtual { start_ms, at: tokio::time::Instant::now() })
    }

    /// Sets a virtual clock and its clones, as a user or a time service sets a machine's clock. Has no effect on the
    /// system clock.
    #[cfg(feature = "testing")]
    pub fn set(&self, now: Timestamp) {
        if let Kind::Virtual { start_ms, at } = &self.0 {
            let elapsed_ms = whole_ms(at.elapsed());
            start_ms.store(now.as_millisecond().saturating_sub(elapsed_ms), Ordering::Relaxed);
        }
    }

    /// The current time in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        time::from_ms(self.now_ms())
    }

    /// The current time in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        match &self.0 {
            Kind::System => match SystemTime::UNIX_EPOCH.elapsed() {
                Ok(since) => whole_ms(since),
                Err(before) => -whole_ms(before.duration()),
            },
            Kind::Virtual { start_ms, at } => {
                start_ms.load(Ordering::Relaxed).saturating_add(whole_ms(at.elapsed()))
            }
        }
    }

    /// The maximum lag of [`recent_ms`](Self::recent_ms): one tick of a kernel with 100 ticks a second.
    pub(crate) const RECENT_LAG_MS: i64 = 10;

    /// The time, which may lag by a few milliseconds. It is cheap enough to call on every read.
    ///
    /// It lags and never leads, so a reading that is stale by this clock is stale by [`now`](Self::now).
    pub(crate) fn recent_ms(&self) -> i64 {
        match &self.0 {
            Kind::System => coarse_ms().unwrap_or_else(|| self.now_ms()),
            Kind::Virtual { .. } => self.now_ms(),
        }
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `deadline`, but at most for `bound`.
    ///
    /// The bound lets the caller read the wall clock again after a clock change or a suspend.
    pub async fn sleep_until(&self, deadline: Timestamp, bound: Duration) {
        self.sleep(time::elapsed(self.now(), deadline).min(bound)).await;
    }

    /// Runs `work` for at most `timeout`. On a timeout it drops `work` and returns `None`.
    pub async fn bounded<F: Future>(&self, timeout: Duration, work: F) -> Option<F::Output> {
        tokio::time::timeout(timeout, work).await.ok()
    }

    /// A point in monotonic time, for durations that must not jump when the wall clock is set.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant(tokio::time::Instant::now())
    }
}

/// The wall clock at the kernel's last tick, on systems that provide it.
#[cfg(target_os = "linux")]
fn coarse_ms() -> Option<i64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Some(now.tv_sec * 1000 + now.tv_nsec / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn coarse_ms() -> Option<i64> {
    None
}

/// Uses 64 bits, because every read calls this and `as_millis` computes in 128 bits.
fn whole_ms(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1000).saturating_add(i64::from(duration.subsec_millis()))
}

/// A point in monotonic time; see [`Clock::instant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(tokio::time::Instant);

impl Instant {
    /// The duration since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The point `duration` later; `None` on overflow.
    pub(crate) fn after(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_anchored_clock_advances_with_paused_time() {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);

        clock.sleep(Duration::from_secs(90)).await;

        assert_eq!(clock.now().as_second(), 90);
    }

    #[test]
    fn the_coarse_clock_lags_and_never_leads() {
        let clock = Clock::system();

        for _ in 0..1000 {
            let coarse = clock.recent_ms();
            let fine = clock.now_ms();
            assert!(coarse <= fine && fine - coarse < 1000, "{coarse} against {fine}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_distant_deadline_ends_at_its_bound() {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);

        clock.sleep_until(Timestamp::MAX, Duration::from_secs(30)).await;

        assert_eq!(clock.now().as_second(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_is_dropped() {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);

        assert_eq!(clock.bounded(Duration::from_secs(1), std::future::pending::<()>()).await, None);
    }
}
