//! The cached credential of one account. All callers share one read, and each waits for at most its own timeout.
//! `credential_reuse` decides whether a caller may use the last read; `credential_sources` has the caches of a
//! provider's accounts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::credential_reuse::{Demand, LastRead, ReadFailure, ReadOutcome, Rejected, Reuse, answer};
use super::tasks::{Tasks, catch_panic, wait_until};
use crate::clock::{Clock, Instant};
use crate::model::{AccountId, CredentialFingerprint};
use crate::provider::{CredentialError, CredentialSource, SourceVersion};

/// The minimum timeout of a read. A caller with less time stops waiting, and the read continues for the next caller.
const MIN_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a source is read in a row if its files change during each read.
const MAX_TORN_READS: u32 = 3;
/// How often a caller joins or starts a read if reads end without an outcome, because the source is replaced, a runtime
/// shuts down, or the manager closes.
const MAX_ATTEMPTS: u32 = 8;

/// The cached credential of one account.
#[derive(Debug, Default)]
pub(crate) struct CredentialCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<LastRead>>,
    rejected: Rejected,
    in_flight: Option<Arc<Read>>,
    /// The number of the next read.
    next_number: u64,
}

impl State {
    /// Records that the provider rejected a credential. Returns the values that are no longer used, so that the caller
    /// drops them outside the lock.
    ///
    /// If the rejection is new, the credential must be read again before it is used again. A read in flight may have begun before
    /// the rejection, so it starts over, unless it is a renewal.
    fn reject(&mut self, fingerprint: CredentialFingerprint) -> (Option<Arc<LastRead>>, Option<Arc<Read>>) {
        if !self.rejected.insert(fingerprint) {
            return (None, None);
        }
        let last = self.last.take_if(|last| last.fingerprint() == Some(fingerprint));
        (last, self.in_flight.take_if(|read| !read.demand.is_replacement()))
    }

    /// Whether a plain caller must wait for a renewal, because the last read found the credential that it replaces.
    fn is_being_renewed(&self, demand: Demand) -> bool {
        let renews = self.in_flight.as_ref().is_some_and(|read| read.demand.is_replacement());
        let is_doubtful =
            |last: &Arc<LastRead>| last.fingerprint().is_none() || last.is_rejected(&self.rejected);
        !demand.is_replacement() && renews && self.last.as_ref().is_some_and(is_doubtful)
    }
}

/// A read in flight, which its callers share.
#[derive(Debug)]
struct Read {
    demand: Demand,
    number: u64,
    started_at: Instant,
    /// The longest time that any of its callers allows for a read. It ends later only if its runtime is stopped.
    timeout: Mutex<Duration>,
    /// `None` inside: it ended without an outcome, and its callers must join or start another one.
    outcome: OnceLock<Option<ReadOutcome>>,
    done: Notify,
    /// The task of the read, if it has one.
    task: OnceLock<AbortHandle>,
}

impl Read {
    fn new(demand: Demand, number: u64, started_at: Instant, timeout: Duration) -> Arc<Self> {
        let (timeout, outcome, done, task) =
            (Mutex::new(timeout), OnceLock::new(), Notify::new(), OnceLock::new());
        Arc::new(Self { demand, number, started_at, timeout, outcome, done, task })
    }

    /// Lets a caller join this read at `now`, if its outcome can satisfy the caller. This extends the read's timeout to
    /// the caller's.
    fn try_join(&self, demand: Demand, now: Instant, timeout: Duration) -> bool {
        // A plain read that began before a rejection may return the rejected credential.
        if demand.is_replacement() && !self.demand.is_replacement() || self.is_late(now) {
            return false;
        }
        let mut current = self.timeout.lock();
        *current = timeout.max(*current);
        true
    }

    fn is_late(&self, now: Instant) -> bool {
        self.time_left(now).is_zero()
    }

    fn time_left(&self, now: Instant) -> Duration {
        self.timeout.lock().saturating_sub(now.saturating_since(self.started_at))
    }

    /// Waits until the timeout, which later callers may extend.
    async fn timed_out(&self, clock: &Clock) {
        loop {
            let left = self.time_left(clock.instant());
            if left.is_zero() {
                return;
            }
            clock.sleep(left).await;
        }
    }

    /// Only the first call has an effect.
    fn end(&self, outcome: Option<ReadOutcome>) {
        let _ = self.outcome.set(outcome);
        self.done.notify_waiters();
    }

    /// Ends the read without an outcome, and stops its task.
    fn discard(&self) {
        self.end(None);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Waits for the outcome, and polls `work` if the read has no task.
    async fn wait(&self, work: Option<Work>) -> Option<ReadOutcome> {
        let ended = wait_until(&self.done, || self.outcome.get().is_some());
        match work {
            Some(work) => tokio::select! {
                biased;
                () = ended => {}
                () = work => {}
            },
            None => ended.await,
        }
        self.outcome.get().cloned().flatten()
    }
}

/// The work of a read.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends the read if it is dropped, because a runtime shuts down or the manager closes.
struct EndOnDrop {
    cache: Weak<CredentialCache>,
    read: Arc<Read>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if self.read.outcome.get().is_none() {
            if let Some(cache) = self.cache.upgrade() {
                cache.remove(&self.read);
            }
            self.read.end(None);
        }
    }
}

/// The next step of a caller.
enum Step {
    Done(ReadOutcome),
    Join(Arc<Read>),
    /// Start this read. If the files are unchanged, the outcome of the last read is reused.
    Start(Arc<Read>, Arc<dyn CredentialSource>, Option<Arc<LastRead>>),
}

/// One caller of the cache.
pub(crate) struct Caller<'a> {
    pub(crate) account: &'a AccountId,
    pub(crate) demand: Demand,
    /// How long the caller waits.
    pub(crate) timeout: Duration,
    pub(crate) clock: &'a Clock,
    pub(crate) tasks: &'a Arc<Tasks>,
}

impl CredentialCache {
    /// Returns the cached credential, joins the read in flight, or starts one. `None` if `source_of` returns no source.
    ///
    /// The read continues if the future is dropped or the caller times out. Once the manager is closed, a read belongs
    /// to its caller and ends with it.
    pub(crate) async fn get(
        self: &Arc<Self>,
        caller: &Caller<'_>,
        source_of: impl Fn() -> Option<Arc<dyn CredentialSource>>,
    ) -> Option<ReadOutcome> {
        let Caller { demand, timeout, clock, .. } = *caller;
        let called_at = clock.instant();
        let deadline = called_at.after(timeout);
        let mut asked = None;
        let mut now = called_at;
        for _ in 0..MAX_ATTEMPTS {
            let (read, work, is_mine) = match self.next_step(caller, now, &mut asked, &source_of)? {
                Step::Done(outcome) => return Some(outcome),
                Step::Join(read) => (read, None, false),
                Step::Start(read, source, last) => {
                    let work = self.start(&read, source, last, caller);
                    (read, work, true)
                }
            };
            let outcome = match read.outcome.get() {
                // Do not use a timer, because it would need a runtime.
                Some(outcome) => outcome.clone(),
                None => {
                    let left =
                        deadline.map_or(timeout, |deadline| deadline.saturating_since(clock.instant()));
                    let ended = clock.bounded(left, read.wait(work)).await;
                    now = clock.instant();
                    match ended {
                        Some(outcome) => outcome,
                        None if read.is_late(now) => return Some(Err(ReadFailure::TimedOut)),
                        None => return Some(Err(ReadFailure::StillReading)),
                    }
                }
            };
            let Some(outcome) = outcome else { continue };
            let is_answer = match (demand, &outcome) {
                _ if is_mine || read.demand == demand && demand != Demand::Retry => true,
                (Demand::Current, Ok(_)) => true,
                // A failed renewal does not satisfy a plain read.
                (Demand::Current, Err(_)) => !read.demand.is_replacement(),
                // The read may have begun before the user fixed the login.
                (Demand::Retry, outcome) => {
                    outcome.is_ok()
                        || asked.is_some_and(|asked| read.number >= asked) && !read.demand.is_replacement()
                }
                (Demand::Replacement(_), Err(_)) => true,
                // A renewal of another credential may have returned the one that this caller must replace.
                (Demand::Replacement(rejected), Ok(credential)) => {
                    let fingerprint = credential.login.fingerprint;
                    fingerprint.is_some() && fingerprint != rejected
                }
            };
            if is_answer {
                return Some(answer(demand, outcome, &self.state.lock().rejected));
            }
        }
        let error = io::Error::from(io::ErrorKind::Interrupted);
        Some(Err(ReadFailure::Failed(CredentialError::unreadable(
            "the read of the credential was interrupted; try again",
            error,
        ))))
    }

    /// Decides by the state of the cache. `None` if there is no source.
    fn next_step(
        &self,
        caller: &Caller<'_>,
        now: Instant,
        asked: &mut Option<u64>,
        source_of: &impl Fn() -> Option<Arc<dyn CredentialSource>>,
    ) -> Option<Step> {
        let Caller { demand, clock, .. } = *caller;
        let timeout = caller.timeout.max(MIN_READ_TIMEOUT);
        let (rejected, discarded);
        let step = {
            let mut state = self.state.lock();
            // Get the source under the lock, so that a read of a replaced source is always discarded.
            let source = source_of()?;
            let asked = *asked.get_or_insert(state.next_number);
            rejected = match demand {
                Demand::Replacement(Some(fingerprint)) => state.reject(fingerprint),
                _ => (None, None),
            };
            let reuse = match &state.last {
                Some(last) => last.reuse(demand, asked, &state.rejected, now, clock.now()),
                None => Reuse::No,
            };
            let is_being_renewed = state.is_being_renewed(demand);
            if reuse == Reuse::Yes
                && !is_being_renewed
                && let Some(last) = &state.last
            {
                discarded = None;
                Step::Done(answer(demand, last.outcome.clone(), &state.rejected))
            } else if let Some(read) =
                state.in_flight.as_ref().filter(|read| read.try_join(demand, now, timeout))
            {
                discarded = None;
                Step::Join(Arc::clone(read))
            } else {
                let read = Read::new(demand, state.next_number, now, timeout);
                state.next_number += 1;
                discarded = state.in_flight.replace(Arc::clone(&read));
                let last = state.last.clone().filter(|_| reuse == Reuse::IfUnchanged);
                Step::Start(read, source, last)
            }
        };
        // Drop these after the lock is released, because dropping a source's task or error runs foreign code.
        let (last, plain) = rejected;
        drop(last);
        for read in plain.into_iter().chain(discarded) {
            read.discard();
        }
        Some(step)
    }

    /// Runs a read in a task, because other callers may join it. A source that is ready at once needs no task.
    ///
    /// Returns the work if the caller must do it, because the manager is closed or there is no runtime.
    fn start(
        self: &Arc<Self>,
        read: &Arc<Read>,
        source: Arc<dyn CredentialSource>,
        last: Option<Arc<LastRead>>,
        caller: &Caller<'_>,
    ) -> Option<Work> {
        let guard = EndOnDrop { cache: Arc::downgrade(self), read: Arc::clone(read) };
        let (account, clock) = (caller.account.clone(), caller.clock.clone());
        let mut work: Work = Box::pin(async move {
            let read = &*guard.read;
            let step = read_source(&*source, read.demand, last.as_deref(), &account);
            let found = tokio::select! {
                biased;
                found = catch_panic(step) => {
                    found.unwrap_or(Found::Read(None, Err(ReadFailure::Panicked)))
                }
                () = read.timed_out(&clock) => Found::Read(None, Err(ReadFailure::TimedOut)),
            };
            let cache = guard.cache.upgrade();
            let outcome = match (found, last) {
                (Found::Unchanged, Some(last)) => {
                    if let Some(cache) = cache {
                        cache.remove(&guard.read);
                    }
                    last.outcome.clone()
                }
                (Found::Read(version, outcome), _) => {
                    let (demand, number) = (read.demand, read.number);
                    let (outcome, ended_at) = (outcome, clock.instant());
                    if let Some(cache) = cache {
                        let outcome = outcome.clone();
                        let last = LastRead { outcome, demand, number, version, ended_at, futile: 0 };
                        cache.replace(&guard.read, last);
                    }
                    outcome
                }
                (Found::Unchanged, None) => unreachable!("only the last read can be unchanged"),
            };
            read.end(Some(outcome));
        });
        if (&mut work).now_or_never().is_some() {
            return None;
        }
        let Some(runtime) = caller.tasks.runtime_of_caller() else { return Some(work) };
        let tasks = Arc::clone(caller.tasks);
        // The task must not outlive the manager. Its callers then do their own reads.
        let until_closing = async move { tasks.until_closing(work).await.unwrap_or_default() };
        if let Some(task) = caller.tasks.spawn_on(until_closing, &runtime) {
            let task = read.task.get_or_init(|| task);
            // It may have been discarded in the meantime.
            if read.outcome.get().is_some() {
                task.abort();
            }
        }
        None
    }

    /// Records the outcome of a read, unless it was discarded.
    fn replace(&self, read: &Arc<Read>, last: LastRead) {
        let mut state = self.state.lock();
        let is_current = state.in_flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, read));
        let previous = is_current.then(|| {
            state.in_flight = None;
            let last = last.after(state.last.as_deref(), &state.rejected);
            state.last.replace(Arc::new(last))
        });
        drop(state);
        drop(previous);
    }

    /// Removes a read that ended without an outcome.
    fn remove(&self, read: &Arc<Read>) {
        let mut state = self.state.lock();
        if state.in_flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, read)) {
            state.in_flight = None;
        }
    }

    /// Records that the provider rejected a credential. The source is read again before the credential is used again.
    pub(crate) fn reject(&self, fingerprint: CredentialFingerprint) {
        let (last, plain) = self.state.lock().reject(fingerprint);
        drop(last);
        if let Some(read) = plain {
            read.discard();
        }
    }

    /// Whether the files of the source were being written when the last read began.
    pub(crate) fn is_unsettled(&self) -> bool {
        let state = self.state.lock();
        let version = state.last.as_ref().and_then(|last| last.version.as_ref());
        version.is_some_and(|version| !version.is_settled())
    }

    /// Records that the provider accepted a credential.
    pub(crate) fn accept(&self, fingerprint: CredentialFingerprint) {
        self.state.lock().rejected.remove(fingerprint);
    }

    /// Clears the cache, because the account has a new source or login.
    pub(crate) fn clear(&self) {
        let previous = {
            let mut state = self.state.lock();
            // A caller that waits for a later read compares the numbers.
            let next_number = state.next_number;
            std::mem::replace(&mut *state, State { next_number, ..State::default() })
        };
        if let Some(read) = previous.in_flight {
            read.discard();
        }
    }
}

impl Drop for CredentialCache {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The result of one read of the source.
enum Found {
    /// The files of the source are unchanged since the last read.
    Unchanged,
    /// The version before the read, and the outcome.
    Read(Option<SourceVersion>, ReadOutcome),
}

/// Reads the source, unless its files are the same as at the last read.
async fn read_source(
    source: &dyn CredentialSource,
    demand: Demand,
    last: Option<&LastRead>,
    account: &AccountId,
) -> Found {
    // Get the version before the read, so that a change during the read leads to another read.
    let mut version = source.version(account).await;
    if let (Some(version), Some(last)) = (&version, last.and_then(|last| last.version.as_ref()))
        && version.has_same_files(last)
    {
        return Found::Unchanged;
    }
    if let Demand::Replacement(rejected) = demand {
        let outcome = source.renew(account, rejected).await;
        return Found::Read(version, outcome.map_err(ReadFailure::Failed));
    }
    let mut outcome = source.credential(account).await;
    for _ in 1..MAX_TORN_READS {
        if outcome.is_err() || !version.as_ref().is_some_and(SourceVersion::has_files) {
            break;
        }
        let after = source.version(account).await;
        if after.as_ref().map(SourceVersion::files) == version.as_ref().map(SourceVersion::files) {
            break;
        }
        // The read may have combined the token of one login with the name of another.
        version = after;
        outcome = source.credential(account).await;
    }
    Found::Read(version, outcome.map_err(ReadFailure::Failed))
}
