//! The state that all parts of one simulation share: the store's clock, the trace, the checker, and the links of the
//! processes.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::clock::Clock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::check::Checker;
use crate::names::START;
use crate::plan::{Network, Plan, ProcessPlan};

/// The shared state of one simulation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    /// The store's clock, which is never wrong.
    pub(crate) clock: Clock,
    checker: Mutex<Checker>,
    /// Whether the network no longer loses messages.
    is_calm: AtomicBool,
    planned_calls: AtomicUsize,
    overflow: Notify,
}

impl World {
    pub(crate) fn new(plan: Plan, keeps_lines: bool) -> Arc<Self> {
        let checker = Mutex::new(Checker::new(&plan, keeps_lines));
        Arc::new(Self {
            clock: Clock::virtual_at(START),
            plan,
            checker,
            is_calm: AtomicBool::new(false),
            planned_calls: AtomicUsize::new(0),
            overflow: Notify::new(),
        })
    }

    /// The network now: as planned, or without loss after the last fault.
    pub(crate) fn network(&self) -> Network {
        if self.is_calm() { Network::RELIABLE } else { self.plan.network }
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    /// Stops all message loss in the network.
    pub(crate) fn calm(&self) {
        self.planned_calls.store(self.checker.lock().calls(), Ordering::Relaxed);
        self.is_calm.store(true, Ordering::Relaxed);
    }

    /// The number of calls until then.
    pub(crate) fn planned_calls(&self) -> usize {
        self.planned_calls.load(Ordering::Relaxed)
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::try_from(self.clock.now().duration_since(START)).unwrap_or_default()
    }

    /// Runs `work` on the checker, with the store's time.
    pub(crate) fn check<T>(&self, work: impl FnOnce(&mut Checker, Timestamp) -> T) -> T {
        let mut checker = self.checker.lock();
        let done = work(&mut checker, self.clock.now());
        if checker.has_too_many_events() {
            self.overflow.notify_one();
        }
        done
    }

    /// Waits until the simulation has more events than are possible without a busy loop.
    pub(crate) async fn too_many_events(&self) {
        self.overflow.notified().await;
    }

    /// The checker, after the simulation.
    pub(crate) fn into_checker(self) -> Checker {
        self.checker.into_inner()
    }

    /// The actor's own stream of random numbers, so that removing one actor from a plan does not change the others.
    pub(crate) fn stream(&self, actor: &str, number: usize) -> Rng {
        let mut mixed = self.plan.seed ^ 0x51_7c_c1_b7_27_22_0a_95;
        for byte in actor.bytes().chain(number.to_le_bytes()) {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Rng::with_seed(mixed)
    }
}

/// Runs a task of the simulation. It ends with the simulation's runtime.
#[expect(clippy::disallowed_methods, reason = "the simulated world is not part of a manager")]
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// The connection of one process to the outside: running, paused or dead.
///
/// A killed process can no longer affect anything. Its tasks still exist, but all its messages hang here.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) process: usize,
    /// See `ProcessPlan::login_offset`.
    pub(crate) login_offset: usize,
    /// See `ProcessPlan::is_older`.
    pub(crate) is_older: bool,
    state: AtomicU8,
    /// The number of pauses so far.
    pauses: AtomicU32,
    /// See `FaultKind::PauseInCall`.
    next_call_pause: Mutex<Option<Duration>>,
    changed: Notify,
}

const RUNNING: u8 = 0;
const PAUSED: u8 = 1;
const DEAD: u8 = 2;

impl Link {
    pub(crate) fn new(plan: &ProcessPlan) -> Arc<Self> {
        Arc::new(Self {
            process: plan.id,
            login_offset: plan.login_offset,
            is_older: plan.is_older,
            state: AtomicU8::new(RUNNING),
            pauses: AtomicU32::new(0),
            next_call_pause: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Returns once the process runs; never if it is dead.
    pub(crate) async fn gate(&self) {
        loop {
            match self.state.load(Ordering::Relaxed) {
                RUNNING => return,
                DEAD => pending::<()>().await,
                _ => self.changed.notified().await,
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.load(Ordering::Relaxed) == DEAD
    }

    /// The number of pauses so far.
    pub(crate) fn pauses(&self) -> u32 {
        self.pauses.load(Ordering::Relaxed)
    }

    pub(crate) fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        let _ = self.state.compare_exchange(RUNNING, PAUSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The process pauses at its next call for this long.
    pub(crate) fn pause_in_next_call(&self, lasts: Duration) {
        *self.next_call_pause.lock() = Some(lasts);
    }

    /// Pauses the process at the start of a call, if that is planned.
    pub(crate) fn pause_in_call(self: &Arc<Self>, world: &Arc<World>) {
        let Some(lasts) = self.next_call_pause.lock().take().filter(|_| !world.is_calm()) else { return };
        self.pause();
        world.check(|checker, now| checker.paused(now, self.process));
        let (link, world) = (Arc::clone(self), Arc::clone(world));
        spawn(async move {
            world.clock.sleep(lasts).await;
            link.resume();
        });
    }

    pub(crate) fn resume(&self) {
        let _ = self.state.compare_exchange(PAUSED, RUNNING, Ordering::Relaxed, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(crate) fn kill(&self) {
        self.state.store(DEAD, Ordering::Relaxed);
        self.changed.notify_waiters();
    }
}
