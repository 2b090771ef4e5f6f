//! The numbers of one account where there is no quota manager: kept here, and asked for directly.
//! The rules are the record's, as everywhere; nothing is shared with other processes but what is kept on disk.

pub(super) mod guard;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use quota_core::{
    AccountId, Ask, AttemptId, Begin, Clock, Committed, Counted, FetchError, Freshness, Joined, Lease,
    Lineage, Login, Policy, Record, RequestProgress, Seed, Snapshot, Usage, UsageFetcher,
};

use super::RefreshError;
use crate::ahead::is_ahead;
use guard::{Trouble, guarded};

/// One account's own record, and who is asked about it.
#[derive(Debug)]
pub(super) struct Own {
    id: AccountId,
    fetcher: Option<Arc<dyn UsageFetcher>>,
    policy: Arc<Policy>,
    clock: Clock,
    record: Mutex<Arc<Record>>,
    /// Whoever asks; the others wait, and find what it brought. Why it could not be told whose login it is, the last time.
    turn: tokio::sync::Mutex<Option<RefreshError>>,
    /// How many have found out whose login it is, or have not.
    turns: AtomicU64,
    /// It cannot be told whose the numbers are.
    withheld: AtomicBool,
    /// The login that the account was said to hold: only its numbers are asked for.
    told: Mutex<Option<Lineage>>,
    requests: AtomicU64,
}

impl Own {
    pub(super) fn new(
        id: AccountId,
        fetcher: Option<Arc<dyn UsageFetcher>>,
        policy: Arc<Policy>,
        clock: Clock,
    ) -> Self {
        Self {
            id,
            fetcher,
            policy,
            clock,
            record: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            turns: AtomicU64::new(0),
            withheld: AtomicBool::new(false),
            told: Mutex::default(),
            requests: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.lock())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn fresh_for(&self) -> Duration {
        self.policy.freshness
    }

    /// Whether it cannot be told whose the numbers are: then none are shown.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld.load(Ordering::Acquire)
    }

    /// Whether what is known is not fresh for a request of `model`.
    pub(super) fn is_stale_for(&self, model: Option<&str>) -> bool {
        if self.is_withheld() {
            return true;
        }
        let (record, now) = (self.record(), self.now());
        // What a clock that was ahead has left says nothing, and goes with the next look at whether to ask.
        let newest = record.asked_at().max(record.snapshot().newest());
        let due = record.due_at(self.policy.freshness, Counted::for_model(model), &self.policy);
        due.is_none_or(|due| due <= now) || newest.is_some_and(|newest| is_ahead(newest, now))
    }

    pub(super) fn is_held(&self) -> bool {
        let now = self.now();
        self.record().hold().is_some_and(|hold| hold.is_live(now) && !is_ahead(hold.since, now))
    }

    pub(super) fn count_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn needs_refresh(&self, request: u64) -> bool {
        self.is_stale_for(None) || self.policy.refreshes_on_request(request)
    }

    /// Says which login the account holds now; what another one has left is cleared.
    pub(super) fn set_login(&self, lineage: &Lineage) {
        *self.told() = Some(lineage.clone());
        self.change(|record, _| record.new_login(lineage));
    }

    pub(super) fn seed(&self, seed: &Seed) -> Joined {
        self.change(|record, now| record.seed(now, seed))
    }

    pub(super) fn observe(&self, usage: &Usage) -> Joined {
        self.change(|record, now| {
            let at = usage.observed_at.map_or(now, |observed| observed.min(now));
            let lineage = usage.lineage.as_ref();
            record.observe(now, &Snapshot::of(usage, at), lineage, usage.identity.as_ref())
        })
    }

    /// Asks the provider, if what is known is older than wanted and the rules allow. Dropping the future gives up the call.
    ///
    /// Whatever the fetcher does, it ends: each of its answers is waited for as long as a call may take, and its panic is caught.
    pub(super) async fn refresh(&self, wanted: Freshness) -> Result<(), RefreshError> {
        let Some(fetcher) = self.fetcher.as_deref() else {
            return Err(RefreshError::NoFetcher { provider: self.id.provider().clone() });
        };
        let before = self.turns.load(Ordering::Acquire);
        let mut untold = self.turn.lock().await;
        if let Some(error) = untold.as_ref().filter(|_| self.turns.load(Ordering::Acquire) != before) {
            // It could not be told whose login it is while this one waited: waiting for the same again is of no use.
            return Err(error.clone());
        }
        let found = self.login(fetcher).await;
        *untold = found.as_ref().err().cloned();
        self.turns.fetch_add(1, Ordering::Release);
        let login = self.told_or(found?).map_err(|error| self.failed(error))?;
        let ask = Ask::new(AttemptId::random(), wanted).login(login);
        let begun = self.change(|record, now| record.begin(now, &ask, &self.policy));
        // Not before: another login's numbers are gone by now.
        self.withheld.store(false, Ordering::Release);
        let lease = match begun {
            Begin::Granted(lease) => lease,
            Begin::Fresh => return Ok(()),
            Begin::Held(hold) => return Err(RefreshError::Held { account: self.id.clone(), hold }),
            Begin::Barred(_) => return Err(self.failed(FetchError::Unauthorized)),
            _ => return Err(RefreshError::Busy { account: self.id.clone() }),
        };
        let asking = Asking { own: self, lease };
        match self.fetch(fetcher).await {
            Ok(usage) => {
                let committed = self.change(|record, now| record.commit(now, &asking.lease, &usage));
                match committed {
                    Committed::Stored | Committed::LoginChanged => Ok(()),
                    Committed::Empty => Err(self.fail(&asking, FetchError::malformed("it said nothing"))),
                    _ => Err(RefreshError::Busy { account: self.id.clone() }),
                }
            }
            Err(Trouble::Failed(error)) => Err(self.fail(&asking, error)),
            // No hold follows from it, for the provider is not to blame.
            Err(Trouble::Broke) => Err(RefreshError::Broken { account: self.id.clone() }),
        }
    }

    /// Which login the call would use. If that cannot be told, for whatever reason, no numbers are shown until it can.
    async fn login(&self, fetcher: &dyn UsageFetcher) -> Result<Login, RefreshError> {
        let before = self.told().clone();
        self.guarded(async { fetcher.login(&self.id).await }).await.map_err(|trouble| {
            // Unless somebody has said meanwhile whose they are.
            if *self.told() == before {
                self.withheld.store(true, Ordering::Release);
            }
            match before_request(trouble) {
                Trouble::Failed(error) => self.failed(error),
                Trouble::Broke => RefreshError::Broken { account: self.id.clone() },
            }
        })
    }

    /// The login that would be used, which must be the one that the account was said to hold.
    fn told_or(&self, found: Login) -> Result<Login, FetchError> {
        match (&*self.told(), &found.lineage) {
            (Some(told), Some(found)) if told != found => {
                Err(FetchError::not_logged_in("the credential that was found belongs to another login"))
            }
            (Some(told), None) => Ok(Login::of(told.clone()).mark(found.mark)),
            _ => Ok(found),
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<Lineage>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call; and one more, if the credential was refused and there is a newer one.
    async fn fetch(&self, fetcher: &dyn UsageFetcher) -> Result<Usage, Trouble> {
        let call = async || {
            let progress = RequestProgress::default();
            let fetched = self.guarded(async { fetcher.fetch_tracked(&self.id, &progress).await }).await;
            fetched.map_err(|trouble| if progress.is_sent() { trouble } else { before_request(trouble) })
        };
        match call().await {
            Err(Trouble::Failed(FetchError::Unauthorized)) if self.renews(fetcher).await => call().await,
            other => other,
        }
    }

    async fn renews(&self, fetcher: &dyn UsageFetcher) -> bool {
        matches!(self.guarded(async { Ok(fetcher.renew(&self.id).await) }).await, Ok(true))
    }

    async fn guarded<T>(&self, work: impl Future<Output = Result<T, FetchError>>) -> Result<T, Trouble> {
        guarded(&self.clock, self.policy.fetch_timeout, work).await
    }

    fn fail(&self, asking: &Asking<'_>, error: FetchError) -> RefreshError {
        let _ = self.change(|record, now| record.fail(now, &asking.lease, &error, &self.policy));
        self.failed(error)
    }

    fn failed(&self, error: FetchError) -> RefreshError {
        RefreshError::Fetch { account: self.id.clone(), error }
    }

    fn change<R>(&self, change: impl FnOnce(&mut Record, Timestamp) -> R) -> R {
        let now = self.now();
        change(Arc::make_mut(&mut self.lock()), now)
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Record>> {
        // Nothing panics halfway through a change, so what a poisoned lock guards is whole.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step that ran out of time before the provider was asked: it is not the provider that did not answer.
fn before_request(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed(FetchError::TimedOut) => Trouble::Failed(FetchError::credential_unavailable(
            "the source of the credential did not answer in time",
        )),
        other => other,
    }
}

/// A call under way. However it ends, the next one may begin.
struct Asking<'a> {
    own: &'a Own,
    lease: Lease,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.own.change(|record, _| record.release(&self.lease));
    }
}

#[cfg(test)]
mod tests;
