//! A paused clock that advances only when a test advances it. Otherwise, a paused runtime that waits for a connection advances to
//! the next timeout.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Prevents a paused runtime from advancing, until this is dropped.
#[derive(Debug)]
pub(crate) struct PausedClock {
    _release: Sender<()>,
}

/// A test that takes longer is stuck. Then the clock advances, bounded waits time out, and the test fails.
const STUCK: Duration = Duration::from_secs(120);

impl PausedClock {
    pub(crate) fn start() -> Self {
        let (release, released) = channel::<()>();
        // tokio does not advance the clock while a blocking task runs.
        drop(tokio::task::spawn_blocking(move || released.recv_timeout(STUCK)));
        Self { _release: release }
    }

    /// Advances the clock.
    pub(crate) async fn advance(&self, duration: Duration) {
        tokio::time::advance(duration).await;
    }
}
