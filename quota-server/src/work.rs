//! Requests that change state. They complete even if their clients disconnect. Only this file owns their tasks.

use std::future::pending;
use std::panic::resume_unwind;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The requests in progress that change state.
#[derive(Debug, Default)]
pub(crate) struct Work(TaskTracker);

impl Work {
    /// Runs `work` to completion, and returns its outcome. If the future is dropped, the work continues.
    ///
    /// The work must bound its own waits.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.0.spawn(work).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => pending().await,
            },
        }
    }

    /// Waits until all work has ended.
    pub(crate) async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// The client of a request that changes state. Only the server sets it.
#[derive(Debug, Clone)]
pub(crate) struct Client(CancellationToken);

impl Client {
    /// A guard whose drop means that the client has disconnected.
    pub(crate) fn new() -> (Self, tokio_util::sync::DropGuard) {
        let token = CancellationToken::new();
        (Self(token.clone()), token.drop_guard())
    }

    /// Completes when the client no longer waits for the response.
    pub(crate) async fn left(&self) {
        self.0.cancelled().await;
    }
}
