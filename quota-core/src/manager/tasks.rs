//! The tasks of a manager: spawns them, and ends them.
//! The work of the tasks is in `refresh`, `follower` and `background`.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All tasks of one manager.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// The runtime that tasks run on; `None` until there is one.
    runtime: Mutex<Option<Handle>>,
    tracker: TaskTracker,
    closing: CancellationToken,
    cancelling: CancellationToken,
}

impl Tasks {
    /// Tasks on the runtime this is called in; outside of one, on the runtime of the first task.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            runtime: Mutex::new(Handle::try_current().ok()),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            cancelling: CancellationToken::new(),
        })
    }

    /// Runs `work` in a task of its own; not if the manager was closed or there is no runtime, and then `work` is dropped.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = self.runtime() else { return };
        // Counted before the check: a task that `close` did not stop is one that `idle` waits for.
        let _counted = self.tracker.token();
        if !self.is_closed() {
            self.tracker.spawn_on(work, &runtime);
        }
    }

    /// The runtime for the next task: the one of the tasks before, or the caller's if that one has shut down.
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

    /// Starts no more tasks, and wakes those that wait, so that they end.
    pub(crate) fn close(&self) {
        self.tracker.close();
        self.closing.cancel();
    }

    /// Ready once the manager is being closed.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Runs `work` until the manager is being closed; `None` if it is, even if `work` is ready too.
    pub(crate) async fn until_closing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.closing() => None,
            done = work => Some(done),
        }
    }

    /// Cancels the calls in flight. Their tasks then end by themselves, because they still write the outcome.
    pub(crate) fn cancel(&self) {
        self.cancelling.cancel();
    }

    /// Ready once calls in flight must be cancelled.
    pub(crate) async fn cancelled(&self) {
        self.cancelling.cancelled().await;
    }

    /// Ready once the manager is being closed and no task is left.
    pub(crate) async fn idle(&self) {
        self.tracker.wait().await;
    }
}

/// Whether a runtime takes no tasks any more: it ends them before they begin.
fn has_shut_down(runtime: &Handle) -> bool {
    let probe = runtime.spawn(std::future::pending::<()>());
    let has_ended = probe.is_finished();
    probe.abort();
    has_ended
}

/// Repairs what a task leaves behind that panics, or is dropped with its runtime: the function is given what is held weakly here.
#[derive(Debug)]
pub(crate) struct OnPanic<T>(pub(crate) Weak<T>, pub(crate) fn(&T));

impl<T> OnPanic<T> {
    /// The task has ended as it should.
    pub(crate) fn ended(mut self) {
        self.0 = Weak::new();
    }
}

impl<T> Drop for OnPanic<T> {
    fn drop(&mut self) {
        if let Some(left) = self.0.upgrade() {
            (self.1)(&left);
        }
    }
}

/// Waits until `holds`, which is checked at each notification of `view_changed`. None is missed between a check and the wait.
pub(crate) async fn wait_until(view_changed: &Notify, mut holds: impl FnMut() -> bool) {
    loop {
        let mut next = pin!(view_changed.notified());
        next.as_mut().enable();
        if holds() {
            return;
        }
        next.await;
    }
}

/// Runs `work`; `None` if it panicked. A panic in a fetcher or a credential source must not end the task of the manager.
pub(crate) async fn catch_panic<F: Future>(work: F) -> Option<F::Output> {
    // The future is dropped after a panic and never polled again.
    AssertUnwindSafe(work).catch_unwind().await.ok()
}
