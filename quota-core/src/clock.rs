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

    /// The same in milliseconds since 1970: cheap enough for every read.
    pub(crate) fn now_ms(&self) -> i64 {
        match &self.0 {
            Kind::System => match SystemTime::UNIX_EPOCH.elapsed() {
                Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
            },
            Kind::Anchored { moment, at } => {
                let since = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
                moment.as_millisecond().saturating_add(since)
            }
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
    pub(crate) fn instant(&self) -> Instant {
        Instant(tokio::time::Instant::now())
    }
}

/// A point in this process's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(tokio::time::Instant);

impl Instant {
    pub(crate) fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
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
