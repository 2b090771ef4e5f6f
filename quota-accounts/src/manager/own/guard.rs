//! Asking what may be anybody's, a fetcher for one: bounded in time, and its panic caught.
//! What follows from how it ended is decided by whoever asks.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quota_core::{Clock, FetchError};

/// Why a fetcher brought nothing.
pub(super) enum Trouble {
    /// It said so, or its time was over.
    Failed(FetchError),
    /// It panicked: ours to mend, and nothing is learned of the provider.
    Broke,
}

/// Runs what a fetcher does for no longer than `bound`.
pub(super) async fn guarded<T>(
    clock: &Clock,
    bound: Duration,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, Trouble> {
    match clock.bounded(bound, unwinding(work)).await {
        Some(Some(done)) => done.map_err(Trouble::Failed),
        Some(None) => Err(Trouble::Broke),
        None => Err(Trouble::Failed(FetchError::TimedOut)),
    }
}

/// Runs `work`; `None` if it panicked.
pub(in crate::manager) async fn unwinding<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    // The future is dropped after a panic and never looked at again, so nothing half done is seen.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_panic) => Poll::Ready(None),
    })
    .await
}
