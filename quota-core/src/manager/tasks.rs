//! The tasks of a manager: spawns them, and ends them.
//! The work of the tasks is in `refresh`, `follower` and `background`.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// All tasks of one manager.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// The runtime that tasks run on; `None` until there is one.
    runtime: Mutex<Option<Handle>>,
    state: Mutex<State>,
    closing: Notify,
    cancelling: Notify,
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    cancelled: bool,
    live: usize,
}

impl Tasks {
    /// Tasks on the runtime this is called in; outside of one, on the runtime of the first task.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            runtime: Mutex::new(Handle::try_current().ok()),
            state: Mutex::default(),
            closing: Notify::new(),
            cancelling: Notify::new(),
            idle: Notify::new(),
        })
    }

    /// Runs `work` in a task of its own; not if the manager was closed or there is no runtime, and then `work` is dropped.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = self.runtime() else { return };
        {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.live += 1;
        }
        let alive = TaskGuard(Arc::clone(self));
        runtime.spawn(async move {
            // Moved in first, so that it is counted down last, however the task ends.
            let _alive = alive;
            work.await;
        });
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
        self.state.lock().closed
    }

    /// Lets no task begin any more, and tells those that wait to finish.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.closing.notify_waiters();
    }

    /// Ready once the manager is being closed.
    pub(crate) async fn closing(&self) {
        wait_until(&self.closing, || self.is_closed()).await;
    }

    /// Cancels the calls in flight. Tasks end by themselves after that: they still write what follows.
    pub(crate) fn cancel(&self) {
        self.state.lock().cancelled = true;
        self.cancelling.notify_waiters();
    }

    /// Ready once calls in flight must be cancelled.
    pub(crate) async fn cancelled(&self) {
        wait_until(&self.cancelling, || self.state.lock().cancelled).await;
    }

    /// Ready once no task is left.
    pub(crate) async fn idle(&self) {
        wait_until(&self.idle, || self.state.lock().live == 0).await;
    }
}

/// Whether a runtime takes no tasks any more: it ends them before they begin.
fn has_shut_down(runtime: &Handle) -> bool {
    let probe = runtime.spawn(std::future::pending::<()>());
    let has_ended = probe.is_finished();
    probe.abort();
    has_ended
}

/// Counts a task down when it ends, panics, or is dropped with its runtime.
struct TaskGuard(Arc<Tasks>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.live -= 1;
        if state.live == 0 {
            self.0.idle.notify_waiters();
        }
    }
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

/// Waits until `holds`, looking whenever `view_changed` comes. Nothing is missed between the look and the wait.
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

/// Waits until both are ready.
pub(crate) async fn both(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut is_first_done, mut is_second_done) = (false, false);
    poll_fn(|context| {
        // What was ready must not be polled again.
        is_first_done = is_first_done || first.as_mut().poll(context).is_ready();
        is_second_done = is_second_done || second.as_mut().poll(context).is_ready();
        if is_first_done && is_second_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Which of two was ready first.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for whichever is ready first, `first` being looked at first, and drops the other.
pub(crate) async fn either<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(output) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// Runs `work`; `None` if it panicked. A panic in a fetcher or a credential source must not end the task of the manager.
pub(crate) async fn catch_panic<F: Future>(work: F) -> Option<F::Output> {
    // The future is dropped after a panic and never polled again.
    AssertUnwindSafe(work).catch_unwind().await.ok()
}
