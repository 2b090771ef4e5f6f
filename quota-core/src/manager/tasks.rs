//! Spawns and ends the tasks of a manager.
//! `refresh`, `follower` and `background` define their work.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All tasks of one manager.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// The runtime of the tasks; `None` before the first call inside a runtime.
    runtime: Mutex<Option<Handle>>,
    tracker: TaskTracker,
    closing: CancellationToken,
    cancelling: CancellationToken,
}

impl Tasks {
    /// Uses the current runtime; without one, the runtime of the first `spawn`.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            runtime: Mutex::new(Handle::try_current().ok()),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            cancelling: CancellationToken::new(),
        })
    }

    /// Runs `work` in a new task. Drops `work` if the manager was closed or there is no runtime.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime() {
            let _ = self.spawn_on(work, &runtime);
        }
    }

    /// The runtime of the caller, or without one, that of the other tasks. `None` if the manager was closed, or there is none.
    pub(crate) fn runtime_of_caller(&self) -> Option<Handle> {
        if self.is_closed() {
            return None;
        }
        Handle::try_current().ok().or_else(|| self.runtime())
    }

    /// Like [`spawn`](Self::spawn), on this runtime. `None` if the manager was closed.
    pub(crate) fn spawn_on(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
        runtime: &Handle,
    ) -> Option<AbortHandle> {
        // Take the token before the check, so that `idle` waits for each task that starts despite a concurrent `close`.
        let _token = self.tracker.token();
        (!self.is_closed()).then(|| self.tracker.spawn_on(work, runtime).abort_handle())
    }

    /// The runtime for the next task: that of the previous tasks, or the caller's if that one has shut down.
    fn runtime(&self) -> Option<Handle> {
        let mut runtime = self.runtime.lock();
        if let Ok(current) = Handle::try_current()
            && runtime.as_ref().is_none_or(|runtime| runtime.id() != current.id() && has_shut_down(runtime))
        {
            *runtime = Some(current);
        }
        runtime.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Prevents new tasks, and wakes waiting ones so that they end.
    pub(crate) fn close(&self) {
        // Do this first, so that no task starts after the tracker finds none.
        self.closing.cancel();
        self.tracker.close();
    }

    /// Waits until the manager closes.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Awaits `work`; `None` if the manager closes first, or is closing when `work` is ready.
    pub(crate) async fn until_closing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.closing() => None,
            done = work => Some(done),
        }
    }

    /// Cancels the calls in flight. Their tasks then write the outcome and end.
    pub(crate) fn cancel(&self) {
        self.cancelling.cancel();
    }

    /// Waits until calls in flight must be cancelled.
    pub(crate) async fn cancelled(&self) {
        self.cancelling.cancelled().await;
    }

    /// Waits until the manager closes and all tasks have ended.
    pub(crate) async fn idle(&self) {
        self.tracker.wait().await;
    }
}

/// Whether a runtime has shut down: it then drops new tasks immediately.
fn has_shut_down(runtime: &Handle) -> bool {
    let probe = runtime.spawn(std::future::pending::<()>());
    let has_ended = probe.is_finished();
    probe.abort();
    has_ended
}

/// Runs a cleanup function on its target if a task panics or is dropped with its runtime. Call [`ended`](Self::ended) at a normal
/// end.
#[derive(Debug)]
pub(crate) struct OnPanic<T>(pub(crate) Weak<T>, pub(crate) fn(&T));

impl<T> OnPanic<T> {
    /// Disarms the cleanup at a normal end of the task.
    pub(crate) fn ended(mut self) {
        self.0 = Weak::new();
    }
}

impl<T> Drop for OnPanic<T> {
    fn drop(&mut self) {
        if let Some(target) = self.0.upgrade() {
            (self.1)(&target);
        }
    }
}

/// Waits until `condition` holds, and checks it at each notification. A notification between a check and the wait is not lost.
pub(crate) async fn wait_until(notify: &Notify, mut condition: impl FnMut() -> bool) {
    loop {
        let mut next = pin!(notify.notified());
        next.as_mut().enable();
        if condition() {
            return;
        }
        next.await;
    }
}

/// Runs `work`; `None` if it panics. A panic in a fetcher or a credential source must not end the manager's task.
pub(crate) async fn catch_panic<F: Future>(work: F) -> Option<F::Output> {
    // The future is dropped after a panic and never polled again.
    AssertUnwindSafe(work).catch_unwind().await.ok()
}
