//! A paused clock that advances only when a test advances it.
//! Without it, a paused runtime that waits for a connection advances to the next timeout.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Prevents a paused runtime from advancing until it is dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    _thaws: Sender<()>,
}

/// A test that takes longer is stuck. Then time advances, bounded waits time out, and the test fails.
const STUCK: Duration = Duration::from_secs(120);

impl Frozen {
    pub(crate) fn here() -> Self {
        let (thaws, thawed) = channel::<()>();
        // tokio does not advance while a blocking task runs.
        drop(tokio::task::spawn_blocking(move || thawed.recv_timeout(STUCK)));
        Self { _thaws: thaws }
    }

    /// Advances the clock.
    pub(crate) async fn passes(&self, duration: Duration) {
        tokio::time::advance(duration).await;
    }
}
