//! A paused clock that advances only when a test advances it. Otherwise, a paused runtime that waits for a connection advances to
//! the next timeout.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Prevents a paused runtime from advancing, until this is dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    _thaws: Sender<()>,
}

/// A test that takes longer is stuck. Then the clock advances, bounded waits time out, and the test fails.
const STUCK: Duration = Duration::from_secs(120);

impl Frozen {
    pub(crate) fn here() -> Self {
        let (thaws, thawed) = channel::<()>();
        // tokio does not advance the clock while a blocking task runs.
        drop(tokio::task::spawn_blocking(move || thawed.recv_timeout(STUCK)));
        Self { _thaws: thaws }
    }

    /// Advances the clock.
    pub(crate) async fn passes(&self, duration: Duration) {
        tokio::time::advance(duration).await;
    }
}
