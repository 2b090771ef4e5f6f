//! The cached credential of one account. All callers share one read, and a rule decides which credential may be used again.
//! `credential_sources` has the caches of a provider's accounts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::tasks::{catch_panic, wait_until};
use crate::clock::{Clock, Instant};
use crate::model::{AccountId, CredentialFingerprint};
use crate::provider::{Credential, CredentialError, CredentialSource, SourceVersion};
use crate::time;

/// How long a credential whose source cannot notice a change is used.
const UNDETECTABLE_MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// How long a failure is shared, and a credential that the provider has rejected or that expires soon. It is the shortest time
/// between two reads of a source that is expensive or fails.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// From this time before its expiry, a credential is read again after the [`CHECK_INTERVAL`].
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);
/// The shortest timeout of a read. A caller with a shorter timeout leaves, and the read continues for the next caller.
const MIN_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a caller joins or starts a read if reads end without an outcome, because the source is replaced or a runtime shuts
/// down.
const MAX_ATTEMPTS: u32 = 8;

/// What a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The current credential.
    Current,
    /// Another credential than the one with this fingerprint, which the provider rejected.
    Replacement(Option<CredentialFingerprint>),
}

/// Why there is no credential.
#[derive(Debug, Clone)]
pub(crate) enum ReadFailure {
    /// The error of the source.
    Failed(CredentialError),
    /// The source panicked.
    Panicked,
}

impl From<ReadFailure> for CredentialError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Failed(error) => error,
            ReadFailure::Panicked => {
                Self::unreadable("the credential source panicked", io::Error::other("it panicked"))
            }
        }
    }
}

/// The outcome of a read, which all its callers share.
pub(crate) type ReadOutcome = Result<Credential, ReadFailure>;

/// The cached credential of one account.
#[derive(Debug, Default)]
pub(crate) struct CredentialCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<LastRead>>,
    /// The credential that the provider rejected last.
    rejected: Option<CredentialFingerprint>,
    in_flight: Option<Arc<Read>>,
}

/// The last read that ended.
#[derive(Debug)]
struct LastRead {
    outcome: ReadOutcome,
    demand: Demand,
    /// The version before the read; `None` if the source states none.
    version: Option<SourceVersion>,
    ended_at: Instant,
}

/// Whether the outcome of the last read answers a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Yes,
    /// Only if the files of the source are unchanged.
    IfUnchanged,
    No,
}

impl LastRead {
    /// Whether the outcome answers a caller at `now`, which is `wall_time` by the wall clock.
    fn reuse(
        &self,
        demand: Demand,
        rejected: Option<CredentialFingerprint>,
        now: Instant,
        wall_time: Timestamp,
    ) -> Reuse {
        let age = now.saturating_since(self.ended_at);
        let is_recent = age < CHECK_INTERVAL;
        let has_files = self.version.as_ref().is_some_and(SourceVersion::has_files);
        let unless_changed = if has_files { Reuse::IfUnchanged } else { Reuse::Yes };
        let Ok(credential) = &self.outcome else {
            // A failed renewal is no answer to a plain read: the source may still have the rejected credential.
            let answers = demand != Demand::Current || self.demand == Demand::Current;
            return if answers && is_recent { unless_changed } else { Reuse::No };
        };
        let fingerprint = credential.login.fingerprint;
        if let Demand::Replacement(rejected) = demand {
            // The source has just answered the same rejection.
            if self.demand == demand && is_recent {
                return unless_changed;
            }
            // Another credential is newer than the rejected one, because the rejected one came from this cache too.
            if rejected.is_none() || fingerprint.is_none() || fingerprint == rejected {
                return Reuse::No;
            }
        }
        let Some(version) = &self.version else { return Reuse::No };
        if !version.is_undetectable() {
            return unless_changed;
        }
        // Without a fingerprint, the answer to a rejection may be the rejected credential.
        let is_rejected = match fingerprint {
            Some(_) => fingerprint == rejected,
            None => matches!(self.demand, Demand::Replacement(_)),
        };
        let soon = time::saturating_add(wall_time, EXPIRY_MARGIN);
        let expires_soon = credential.expires_at.is_some_and(|expiry| expiry <= soon);
        let max_age = if is_rejected || expires_soon { CHECK_INTERVAL } else { UNDETECTABLE_MAX_AGE };
        if age < max_age { unless_changed } else { Reuse::No }
    }
}

/// A read in flight, which its callers share.
#[derive(Debug)]
struct Read {
    demand: Demand,
    /// When it times out. It ends later only if its runtime is stopped.
    deadline: Option<Instant>,
    /// `None` inside: it ended without an outcome, and its callers must join or start another one.
    outcome: OnceLock<Option<ReadOutcome>>,
    done: Notify,
    /// The task of the read, if it needs one.
    task: Mutex<JoinSet<()>>,
}

impl Read {
    fn new(demand: Demand, deadline: Option<Instant>) -> Arc<Self> {
        let (outcome, done, task) = (OnceLock::new(), Notify::new(), Mutex::default());
        Arc::new(Self { demand, deadline, outcome, done, task })
    }

    /// Whether a caller may wait for this read at `now`.
    fn may_be_joined(&self, demand: Demand, now: Instant) -> bool {
        // A plain read that began before a rejection may return the rejected credential.
        let can_answer = demand == Demand::Current || matches!(self.demand, Demand::Replacement(_));
        can_answer && self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// Only the first call has an effect.
    fn end(&self, outcome: Option<ReadOutcome>) {
        let _ = self.outcome.set(outcome);
        self.done.notify_waiters();
    }

    /// Ends the read without an outcome, and stops its task.
    fn discard(&self) {
        self.end(None);
        self.task.lock().abort_all();
    }

    async fn wait(&self) -> Option<ReadOutcome> {
        wait_until(&self.done, || self.outcome.get().is_some()).await;
        self.outcome.get().expect("the read has ended").clone()
    }
}

/// Ends the read if its task is dropped, because a runtime shuts down.
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
    /// Start this read. The last one answers it if the files are unchanged.
    Start(Arc<Read>, Arc<dyn CredentialSource>, Option<Arc<LastRead>>),
}

impl CredentialCache {
    /// Returns the cached credential, joins the read in flight, or starts one. `None` if `source_of` returns no source.
    ///
    /// The read continues if the future is dropped. Its timeout is at least `timeout`.
    pub(crate) async fn get(
        self: &Arc<Self>,
        demand: Demand,
        account: &AccountId,
        source_of: impl Fn() -> Option<Arc<dyn CredentialSource>>,
        clock: &Clock,
        timeout: Duration,
    ) -> Option<ReadOutcome> {
        let timeout = timeout.max(MIN_READ_TIMEOUT);
        for _ in 0..MAX_ATTEMPTS {
            let (read, is_mine) = match self.next_step(demand, &source_of, clock, timeout)? {
                Step::Done(outcome) => return Some(outcome),
                Step::Join(read) => (read, false),
                Step::Start(read, source, last) => {
                    self.start(&read, source, last, account.clone(), clock.clone(), timeout);
                    (read, true)
                }
            };
            let Some(outcome) = read.wait().await else { continue };
            let is_answer = is_mine
                || read.demand == demand
                || match (demand, &outcome) {
                    // A failed renewal is no answer to a plain read.
                    (Demand::Current, outcome) => outcome.is_ok(),
                    (Demand::Replacement(_), Err(_)) => true,
                    // A renewal of another credential may have returned the one that this caller must replace.
                    (Demand::Replacement(rejected), Ok(credential)) => {
                        let fingerprint = credential.login.fingerprint;
                        fingerprint.is_some() && fingerprint != rejected
                    }
                };
            if is_answer {
                return Some(outcome);
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
        demand: Demand,
        source_of: &impl Fn() -> Option<Arc<dyn CredentialSource>>,
        clock: &Clock,
        timeout: Duration,
    ) -> Option<Step> {
        let discarded;
        let step = {
            let mut state = self.state.lock();
            // Found under the lock, so that a read of a replaced source is always discarded.
            let source = source_of()?;
            if let Demand::Replacement(Some(fingerprint)) = demand {
                state.rejected = Some(fingerprint);
            }
            let now = clock.instant();
            let reuse = match &state.last {
                Some(last) => last.reuse(demand, state.rejected, now, clock.now()),
                None => Reuse::No,
            };
            if reuse == Reuse::Yes
                && let Some(last) = &state.last
            {
                return Some(Step::Done(last.outcome.clone()));
            }
            if let Some(read) = state.in_flight.as_ref().filter(|read| read.may_be_joined(demand, now)) {
                return Some(Step::Join(Arc::clone(read)));
            }
            let read = Read::new(demand, now.after(timeout));
            discarded = state.in_flight.replace(Arc::clone(&read));
            let last = state.last.clone().filter(|_| reuse == Reuse::IfUnchanged);
            Step::Start(read, source, last)
        };
        // After the lock is released, because the task's `Drop` runs foreign code.
        if let Some(read) = discarded {
            read.discard();
        }
        Some(step)
    }

    /// Runs a read in a task, because other callers may join it. A source that is ready at once needs no task.
    fn start(
        self: &Arc<Self>,
        read: &Arc<Read>,
        source: Arc<dyn CredentialSource>,
        last: Option<Arc<LastRead>>,
        account: AccountId,
        clock: Clock,
        timeout: Duration,
    ) {
        let guard = EndOnDrop { cache: Arc::downgrade(self), read: Arc::clone(read) };
        let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let step = read_source(&*source, guard.read.demand, last.as_deref(), &account);
            let found = match clock.bounded(timeout, catch_panic(step)).await {
                Some(Some(found)) => found,
                Some(None) => Found::Read(None, Err(ReadFailure::Panicked)),
                None => {
                    let error = CredentialError::timed_out("the credential source timed out");
                    Found::Read(None, Err(ReadFailure::Failed(error)))
                }
            };
            let outcome = match (found, last) {
                (Found::Unchanged, Some(last)) => {
                    if let Some(cache) = guard.cache.upgrade() {
                        cache.remove(&guard.read);
                    }
                    last.outcome.clone()
                }
                (Found::Read(version, outcome), _) => {
                    let last = LastRead {
                        outcome: outcome.clone(),
                        demand: guard.read.demand,
                        version,
                        ended_at: clock.instant(),
                    };
                    if let Some(cache) = guard.cache.upgrade() {
                        cache.replace(&guard.read, last);
                    }
                    outcome
                }
                (Found::Unchanged, None) => unreachable!("only the last read can be unchanged"),
            };
            guard.read.end(Some(outcome));
        });
        if (&mut work).now_or_never().is_some() {
            return;
        }
        let mut task = JoinSet::new();
        // Without the lock: a runtime that shuts down drops the work here, and with it the source, whose `Drop` runs foreign code.
        task.spawn(work);
        let mut current = read.task.lock();
        *current = task;
        // It may have been discarded in between.
        if read.outcome.get().is_some() {
            current.abort_all();
        }
    }

    /// Records the outcome of a read, unless it was discarded.
    fn replace(&self, read: &Arc<Read>, last: LastRead) {
        let mut state = self.state.lock();
        let is_current = state.in_flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, read));
        let previous = is_current.then(|| {
            state.in_flight = None;
            state.last.replace(Arc::new(last))
        });
        drop(state);
        drop(previous);
    }

    /// Removes a read that ended without an outcome of its own.
    fn remove(&self, read: &Arc<Read>) {
        let mut state = self.state.lock();
        if state.in_flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, read)) {
            state.in_flight = None;
        }
    }

    /// Records that the provider rejected a credential. If its source cannot notice a change, it is read again soon.
    pub(crate) fn reject(&self, fingerprint: CredentialFingerprint) {
        self.state.lock().rejected = Some(fingerprint);
    }

    /// Forgets everything, because the account has another source or another login.
    pub(crate) fn clear(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        if let Some(read) = state.in_flight {
            read.discard();
        }
    }
}

impl Drop for CredentialCache {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What one read of the source found.
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
    // Before the read: a change during the read then leads to another one.
    let version = source.version(account).await;
    if let (Some(version), Some(last)) = (&version, last.and_then(|last| last.version.as_ref()))
        && version.has_same_files(last)
    {
        return Found::Unchanged;
    }
    let outcome = match demand {
        Demand::Current => source.credential(account).await,
        Demand::Replacement(rejected) => source.renew(account, rejected).await,
    };
    Found::Read(version, outcome.map_err(ReadFailure::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LoginInfo;

    fn read_at(instant: Instant, version: Option<SourceVersion>) -> LastRead {
        let login = LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(1));
        let credential = Credential::new("n33dle").login(login);
        LastRead { outcome: Ok(credential), demand: Demand::Current, version, ended_at: instant }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_secret_is_not_in_the_debug_output() {
        let now = Clock::system().instant();
        let last = Some(Arc::new(read_at(now, Some(SourceVersion::undetectable()))));
        let state = State { last, ..State::default() };

        assert!(!format!("{:?}", CredentialCache { state: Mutex::new(state) }).contains("n33dle"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_set_back_does_not_extend_the_reuse() {
        let clock = Clock::system();
        let last = read_at(clock.instant(), Some(SourceVersion::undetectable()));
        clock.sleep(UNDETECTABLE_MAX_AGE).await;

        let reuse = last.reuse(Demand::Current, None, clock.instant(), Timestamp::UNIX_EPOCH);

        assert_eq!(reuse, Reuse::No);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_returned_the_rejected_credential_is_not_repeated_at_once() {
        let clock = Clock::system();
        let rejected = Some(CredentialFingerprint::from_hash(1));
        let demand = Demand::Replacement(rejected);
        let last = LastRead { demand, ..read_at(clock.instant(), None) };

        assert_eq!(last.reuse(demand, rejected, clock.instant(), clock.now()), Reuse::Yes);
        assert_eq!(last.reuse(Demand::Current, rejected, clock.instant(), clock.now()), Reuse::No);
    }
}
