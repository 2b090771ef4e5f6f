//! The tasks of a manager: the one place that spawns, and the one that ends what was spawned.
//! What the tasks do is in `flight` and `changes`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::Notify;

/// All tasks of one manager.
#[derive(Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
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
    pub(crate) fn on(runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            state: Mutex::default(),
            closing: Notify::new(),
            cancelling: Notify::new(),
            idle: Notify::new(),
        })
    }

    /// Runs `work` in a task of its own; not if the manager was closed, and then `work` is dropped.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        {
            let mut state = self.state();
            if state.closed {
                return;
            }
            state.live += 1;
        }
        let alive = Alive(Arc::clone(self));
        self.runtime.spawn(async move {
            // Moved in first, so that it is counted down last, however the task ends.
            let _alive = alive;
            work.await;
        });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Lets no task begin any more, and tells those that wait to finish.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.closing.notify_waiters();
    }

    /// Ready once the manager is being closed.
    pub(crate) async fn closing(&self) {
        wait_for(&self.closing, || self.is_closed()).await;
    }

    /// Cancels the calls in flight. Tasks end by themselves after that: they still write what follows.
    pub(crate) fn cancel(&self) {
        self.state().cancelled = true;
        self.cancelling.notify_waiters();
    }

    /// Ready once calls in flight must be cancelled.
    pub(crate) async fn cancelled(&self) {
        wait_for(&self.cancelling, || self.state().cancelled).await;
    }

    /// Ready once no task is left.
    pub(crate) async fn idle(&self) {
        wait_for(&self.idle, || self.state().live == 0).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a task down when it ends, panics, or is dropped with its runtime.
struct Alive(Arc<Tasks>);

impl Drop for Alive {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.live -= 1;
        if state.live == 0 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Sees to what a task leaves behind, should it break: what is held weakly here is given to the function.
#[derive(Debug)]
pub(crate) struct IfBroken<T>(pub(crate) Weak<T>, pub(crate) fn(&T));

impl<T> Drop for IfBroken<T> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(left) = self.0.upgrade()
        {
            (self.1)(&left);
        }
    }
}

/// Waits until `holds`, looking whenever `news` comes. Nothing is missed between the look and the wait.
pub(crate) async fn wait_for(news: &Notify, mut holds: impl FnMut() -> bool) {
    loop {
        let mut next = pin!(news.notified());
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
