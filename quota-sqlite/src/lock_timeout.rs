//! How long a write waits for the file lock: the full timeout once per outage, and then a short one. SQLite itself
//! waits.

use std::time::Duration;

use quota_core::clock::Instant;

/// The lock timeout of the next write.
#[derive(Debug)]
pub(crate) struct LockTimeout {
    full: Duration,
    waited: Duration,
    failed_at: Option<Instant>,
}

/// The timeout of later writes in an outage: another process has held the lock for longer than the full timeout.
const BRIEF_TIMEOUT: Duration = Duration::from_millis(50);
/// A timeout older than this belongs to an earlier outage.
const OUTAGE_GAP: Duration = Duration::from_secs(10);

impl LockTimeout {
    pub(crate) fn new(full: Duration) -> Self {
        Self { full, waited: Duration::ZERO, failed_at: None }
    }

    /// The timeout of the next write.
    pub(crate) fn next(&mut self, now: Instant) -> Duration {
        if self.failed_at.is_none_or(|at| now.saturating_since(at) >= OUTAGE_GAP) {
            self.waited = Duration::ZERO;
        }
        self.full.saturating_sub(self.waited).max(BRIEF_TIMEOUT.min(self.full))
    }

    /// Records that a write timed out after waiting this long for the lock.
    pub(crate) fn failed(&mut self, waited: Duration, now: Instant) {
        self.waited = self.waited.saturating_add(waited);
        self.failed_at = Some(now);
    }

    /// Records that a write acquired the lock.
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
        Clock::virtual_at("2026-11-01T00:00:00Z".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_the_full_timeout_once() {
        let clock = clock();
        let mut lock_timeout = LockTimeout::new(FULL);
        assert_eq!(lock_timeout.next(clock.instant()), FULL);

        lock_timeout.failed(Duration::from_secs(2), clock.instant());
        assert_eq!(lock_timeout.next(clock.instant()), Duration::from_secs(1));
        lock_timeout.failed(Duration::from_secs(1), clock.instant());

        assert_eq!(lock_timeout.next(clock.instant()), BRIEF_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_gets_the_lock_ends_the_outage() {
        let clock = clock();
        let mut lock_timeout = LockTimeout::new(FULL);
        lock_timeout.failed(FULL, clock.instant());

        lock_timeout.succeeded();

        assert_eq!(lock_timeout.next(clock.instant()), FULL);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_timeout_belongs_to_another_outage() {
        let clock = clock();
        let mut lock_timeout = LockTimeout::new(FULL);
        lock_timeout.failed(FULL, clock.instant());

        clock.sleep(OUTAGE_GAP).await;

        assert_eq!(lock_timeout.next(clock.instant()), FULL);
    }

    #[tokio::test(start_paused = true)]
    async fn no_timeout_exceeds_the_full_one() {
        let mut lock_timeout = LockTimeout::new(Duration::from_millis(20));

        lock_timeout.failed(Duration::from_millis(20), clock().instant());

        assert_eq!(lock_timeout.next(clock().instant()), Duration::from_millis(20));
    }
}
