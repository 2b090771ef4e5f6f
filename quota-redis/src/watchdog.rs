//! Detects a hung connection. The watchdog expires once a query is open and no byte has arrived for the response timeout.
//! `node` replaces an expired connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quota_core::Clock;
use quota_core::clock::Instant;

/// Measures the time since the first query that was sent after the last received byte.
///
/// Callers may be cancelled before the reply arrives, so the timeout of one query does not prove that the server is gone. A
/// late reply to a cancelled caller proves that the server is alive. So every received byte counts, whether or not a caller
/// waits for it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    clock: Clock,
    timeout: Duration,
    opened_at: Instant,
    /// Microseconds since the connection was opened, at least 1; 0 if no query is open.
    waiting_since: AtomicU64,
    /// Whether bytes have arrived since `take_received`.
    has_received: AtomicBool,
}

impl Watchdog {
    pub(crate) fn new(clock: Clock, timeout: Duration) -> Self {
        let opened_at = clock.instant();
        Self {
            clock,
            timeout,
            opened_at,
            waiting_since: AtomicU64::new(0),
            has_received: AtomicBool::new(false),
        }
    }

    /// Call this before sending a query.
    pub(crate) fn sent(&self) {
        if self.waiting_since.load(Ordering::Relaxed) == 0 {
            self.waiting_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Call this after receiving bytes.
    pub(crate) fn received(&self) {
        if self.waiting_since.load(Ordering::Relaxed) != 0 {
            self.waiting_since.store(0, Ordering::Relaxed);
        }
        if !self.has_received.load(Ordering::Relaxed) {
            self.has_received.store(true, Ordering::Relaxed);
        }
    }

    /// Whether bytes have arrived since the previous call.
    pub(crate) fn take_received(&self) -> bool {
        self.has_received.swap(false, Ordering::Relaxed)
    }

    /// Whether a query has been open for the whole timeout without a received byte.
    pub(crate) fn has_expired(&self) -> bool {
        let since = self.waiting_since.load(Ordering::Relaxed);
        since != 0 && Duration::from_micros(self.now().saturating_sub(since)) >= self.timeout
    }

    /// How long ago the connection was opened.
    pub(crate) fn age(&self) -> Duration {
        self.clock.instant().saturating_since(self.opened_at)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.age().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog() -> Watchdog {
        let start = "2026-11-01T00:00:00Z".parse().expect("a valid timestamp");
        Watchdog::new(Clock::virtual_at(start), Duration::from_millis(500))
    }

    async fn pass(watchdog: &Watchdog, ms: u64) {
        watchdog.clock.sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_expires_one_timeout_after_the_first_open_query() {
        let watchdog = watchdog();
        watchdog.sent();
        pass(&watchdog, 499).await;
        watchdog.sent();
        assert!(!watchdog.has_expired());

        pass(&watchdog, 1).await;

        assert!(watchdog.has_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_received_byte_restarts_the_timeout() {
        let watchdog = watchdog();
        watchdog.sent();
        pass(&watchdog, 400).await;

        watchdog.received();
        pass(&watchdog, 400).await;
        assert!(!watchdog.has_expired());
        watchdog.sent();
        pass(&watchdog, 400).await;

        assert!(!watchdog.has_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_query_never_expires() {
        let watchdog = watchdog();

        pass(&watchdog, 3_600_000).await;

        assert!(!watchdog.has_expired());
    }
}
