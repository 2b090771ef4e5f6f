//! Time that stands still while bytes are on their way, and moves when a story says so.
//! Without this, a paused runtime that waits for a connection leaps to the next time-out.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Keeps a runtime that was started paused from leaping; dropped, it leaps again.
#[derive(Debug)]
pub(crate) struct Frozen {
    _thaws: Sender<()>,
}

/// A story that takes longer is stuck: then time leaps, bounded waits time out, and the test fails.
const STUCK: Duration = Duration::from_secs(120);

impl Frozen {
    pub(crate) fn here() -> Self {
        let (thaws, thawed) = channel::<()>();
        // tokio does not leap while a blocking task runs.
        drop(tokio::task::spawn_blocking(move || thawed.recv_timeout(STUCK)));
        Self { _thaws: thaws }
    }

    /// Lets so much time pass.
    pub(crate) async fn passes(&self, span: Duration) {
        tokio::time::advance(span).await;
    }
}
