//! How long a write waits for the lock of the file: the whole patience once in an outage, and briefly after that.
//! Waiting itself is SQLite's.

use std::time::Duration;

use quota_core::Instant;

/// How much longer a call waits for the lock.
#[derive(Debug)]
pub(crate) struct LockTimeout {
    full: Duration,
    waited: Duration,
    failed_at: Option<Instant>,
}

/// How long each further write waits, while the lock is held for longer than the whole patience.
const BRIEF: Duration = Duration::from_millis(50);
/// A failure that is older says nothing about the lock.
const OUTAGE_GAP: Duration = Duration::from_secs(10);

impl LockTimeout {
    pub(crate) fn new(full: Duration) -> Self {
        Self { full, waited: Duration::ZERO, failed_at: None }
    }

    /// How long the next write may wait.
    pub(crate) fn next(&mut self, now: Instant) -> Duration {
        if self.failed_at.is_none_or(|at| now.saturating_since(at) >= OUTAGE_GAP) {
            self.waited = Duration::ZERO;
        }
        self.full.saturating_sub(self.waited).max(BRIEF.min(self.full))
    }

    /// A write did not get the lock, after it had waited for so long.
    pub(crate) fn failed(&mut self, waited: Duration, now: Instant) {
        self.waited = self.waited.saturating_add(waited);
        self.failed_at = Some(now);
    }

    /// A write got the lock.
    pub(crate) fn succeeded(&mut self) {
        self.failed_at = None;
    }
}

#[cfg(test)]
mod tests {
    use quota_core::Clock;

    use super::*;

    const FULL: Duration = Duration::from_secs(3);

    fn clock() -> Clock {
        Clock::anchored("2026-11-01T00:00:00Z".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_patience_is_spent_once_in_an_outage() {
        let clock = clock();
        let mut lock_timeout = LockTimeout::new(FULL);
        assert_eq!(lock_timeout.next(clock.instant()), FULL);

        lock_timeout.failed(Duration::from_secs(2), clock.instant());
        assert_eq!(lock_timeout.next(clock.instant()), Duration::from_secs(1));
        lock_timeout.failed(Duration::from_secs(1), clock.instant());

        assert_eq!(lock_timeout.next(clock.instant()), BRIEF);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_got_the_lock_ends_the_outage() {
        let clock = clock();
        let mut lock_timeout = LockTimeout::new(FULL);
        lock_timeout.failed(FULL, clock.instant());

        lock_timeout.succeeded();

        assert_eq!(lock_timeout.next(clock.instant()), FULL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_long_ago_is_another_outage() {
        let clock = clock();
        let mut lock_timeout = LockTimeout::new(FULL);
        lock_timeout.failed(FULL, clock.instant());

        clock.sleep(OUTAGE_GAP).await;

        assert_eq!(lock_timeout.next(clock.instant()), FULL);
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_is_longer_than_the_whole_patience() {
        let mut lock_timeout = LockTimeout::new(Duration::from_millis(20));

        lock_timeout.failed(Duration::from_millis(20), clock().instant());

        assert_eq!(lock_timeout.next(clock().instant()), Duration::from_millis(20));
    }
}
