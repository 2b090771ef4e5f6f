//! Since when a connection owes an answer, whoever asked and whether or not they still wait for it.
//! What is done about a connection that has fallen silent is in `node`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quota_core::Clock;

/// When the first of the questions was asked that nothing has been heard after.
///
/// Callers may wait for less than the time that an answer may take, and then leave. So no question's own time-out tells that the
/// server stands still.
#[derive(Debug)]
pub(crate) struct Silence {
    clock: Clock,
    bearable: Duration,
    /// In milliseconds since 1970; 0 if nothing is owed.
    since: AtomicI64,
}

impl Silence {
    pub(crate) fn new(clock: Clock, bearable: Duration) -> Self {
        Self { clock, bearable, since: AtomicI64::new(0) }
    }

    /// A question is on its way.
    pub(crate) fn asked(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Something came.
    pub(crate) fn heard(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Whether it has lasted longer than an answer may take.
    pub(crate) fn is_unbearable(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return false;
        }
        let lasted = self.now() - since;
        if lasted < 0 {
            // The clock was set back: it is counted anew.
            self.since.store(self.now(), Ordering::Relaxed);
        }
        u64::try_from(lasted).is_ok_and(|lasted| Duration::from_millis(lasted) > self.bearable)
    }

    fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Silence {
        let moment = "2026-11-01T00:00:00Z".parse().expect("it is a time");
        Silence::new(Clock::anchored(moment), Duration::from_millis(500))
    }

    async fn pass(silence: &Silence, ms: u64) {
        silence.clock.sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_counts_from_the_first_question_that_is_not_answered() {
        let silence = silence();
        silence.asked();
        pass(&silence, 400).await;
        silence.asked();
        assert!(!silence.is_unbearable());

        pass(&silence, 101).await;

        assert!(silence.is_unbearable());
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_heard_ends_it() {
        let silence = silence();
        silence.asked();
        pass(&silence, 400).await;

        silence.heard();
        pass(&silence, 400).await;

        assert!(!silence.is_unbearable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_asked_nothing_may_be_silent() {
        let silence = silence();

        pass(&silence, 3_600_000).await;

        assert!(!silence.is_unbearable());
    }
}
