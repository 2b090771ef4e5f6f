//! What a refresh does: find the login, get the right to ask, ask, and put the answer where everybody sees it.
//! Whether it may ask is decided in `record`, how fast in `gate`; who waits for it is in `flight`.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;

use super::error::QuotaError;
use super::events::Event;
use super::flight::{Crew, Flight, Landed, Landing, Wish};
use super::gate::Pass;
use super::slot::Slot;
use super::tasks::{Either, either};
use super::view::{Caveats, View};
use crate::record::{Committed, Failed};
use crate::{
    Ask, AttemptId, Begin, FetchError, Freshness, Lease, Lineage, Login, Record, Snapshot, StoreKey, Usage,
    UsageFetcher, time,
};

/// One run. Dropped before its end (a closed manager, a runtime that shuts down), it still lands its flight.
pub(crate) struct Refresh {
    flight: Arc<Flight>,
    slot: Arc<Slot>,
    crew: Crew,
}

impl Drop for Refresh {
    fn drop(&mut self) {
        let account = self.slot.id.clone();
        self.land(Err(match std::thread::panicking() {
            true => QuotaError::Broken { account },
            false => QuotaError::Closed,
        }));
    }
}

impl Refresh {
    pub(crate) fn new(flight: Arc<Flight>, slot: Arc<Slot>, crew: Crew) -> Self {
        Self { flight, slot, crew }
    }

    pub(crate) fn land(&self, landing: Landing) {
        self.flight.land(&self.slot, landing);
    }

    pub(crate) async fn run(&self, wish: Wish) -> Landing {
        let slot = &*self.slot;
        let landing = self.bring(wish).await;
        if landing.is_err() {
            // Whoever gets no new numbers is shown those that there are.
            slot.read_first().await;
        }
        landing
    }

    async fn bring(&self, wish: Wish) -> Landing {
        let slot = &*self.slot;
        let Some(fetcher) = slot.provider.fetcher.clone() else {
            return Err(QuotaError::NoFetcher { provider: slot.provider.id.clone() });
        };
        if let Some(quieted) = &slot.provider.quieted {
            quieted.read_once().await;
        }
        // Whoever wants a new call in any case learns what stands from the swap that begins it.
        if !(matches!(wish, Wish::Now) && slot.may_guess()) {
            slot.read_first().await;
        }
        let mut renewed = false;
        let mut overtaken = false;
        loop {
            let login = self.login(&*fetcher).await?;
            self.enter(&login).await?;
            if slot.desk().withheld {
                slot.update(|desk| desk.withheld = false);
            }
            // With a new credential in hand, the refusal of the old one is no reason to wait.
            let wish = if renewed { Wish::Now } else { wish };
            let (lease, pass) = match self.begin(wish, &login).await? {
                Begun::Granted(lease, pass) => (lease, pass),
                Begun::Fresh => {
                    // Fresh by the clock as it is known now: a view from before it was set may say otherwise.
                    slot.update(|_| ());
                    return Ok(Landed { fetched: false, view: slot.sight.take() });
                }
            };
            match self.call(&*fetcher, &lease, pass).await {
                Ok(Called::Stored) => return Ok(Landed { fetched: true, view: slot.sight.take() }),
                // Whoever asked by the name of a login gets that login's numbers, though it is not the account's any more.
                Ok(Called::TooLate(usage)) if self.flight.lineage.is_some() => {
                    return Ok(Landed { fetched: true, view: self.apart(&lease, &usage) });
                }
                Ok(Called::TooLate(_)) if !overtaken => overtaken = true,
                Ok(Called::TooLate(_)) => return Err(QuotaError::Busy { account: slot.id.clone() }),
                // A credential that was replaced while it was used: once more with the new one, and no third time.
                Err(QuotaError::Fetch { error: FetchError::Unauthorized, .. })
                    if !renewed && self.renews(&*fetcher).await =>
                {
                    renewed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Which login the call would use. If that cannot be told, no numbers are shown until it can.
    async fn login(&self, fetcher: &dyn UsageFetcher) -> Result<Login, QuotaError> {
        let slot = &*self.slot;
        let bound = slot.provider.policy.fetch_timeout;
        let told =
            slot.provider.clock.bounded(bound, unwinding(async { fetcher.login(&slot.id).await })).await;
        let login = match told {
            Some(Some(Ok(login))) => login,
            untold => {
                // Unless the program has said meanwhile whose they are.
                slot.update(|desk| desk.withheld |= desk.login == self.flight.lineage);
                let account = slot.id.clone();
                return Err(match untold {
                    Some(Some(Err(error))) => QuotaError::Fetch { account, error },
                    Some(_) => QuotaError::Broken { account },
                    None => QuotaError::Fetch { account, error: FetchError::TimedOut },
                });
            }
        };
        match (&self.flight.lineage, &login.lineage) {
            (Some(wanted), Some(found)) if wanted != found => {
                let error =
                    FetchError::not_logged_in("the credential that was found belongs to another login");
                Err(QuotaError::Fetch { account: slot.id.clone(), error })
            }
            (Some(wanted), None) => Ok(Login::of(wanted.clone()).mark(login.mark)),
            _ => Ok(login),
        }
    }

    /// Whether the program has given the account to another login since this refresh began.
    fn is_superseded(&self) -> bool {
        self.slot.desk().login != self.flight.lineage
    }

    /// Lets the login take the account over, if another one held it: whether or not the provider may be asked now, what
    /// the old one left must not be shown any more.
    async fn enter(&self, login: &Login) -> Result<(), QuotaError> {
        let slot = &*self.slot;
        // Where the program itself says who holds the account, that is what counts.
        let Some(lineage) = login.lineage.as_ref().filter(|_| self.flight.lineage.is_none()) else {
            return Ok(());
        };
        let another = |known: &Lineage| known != lineage;
        if !slot.view().record.lineage().is_some_and(another) || self.is_superseded() {
            return Ok(());
        }
        let changed = slot.transact(|record, _| record.new_login(lineage)).await;
        changed.map(drop).map_err(|error| {
            // The old login's numbers cannot be cleared, and are not the new one's.
            slot.update(|desk| desk.withheld = true);
            QuotaError::Store { account: slot.id.clone(), error }
        })
    }

    /// Gets the right to ask and the turn to do so, waiting for whoever has them, but not for ever.
    async fn begin(&self, wish: Wish, login: &Login) -> Result<Begun, QuotaError> {
        let slot = &*self.slot;
        let policy = &slot.provider.policy;
        let account = || slot.id.clone();
        let attempt = AttemptId::random();
        let patience = policy.lease.saturating_add(policy.fetch_timeout);
        // Since when the one who holds the lease now is waited for. One that dies must not use up the time of the next.
        let mut holder = None;
        let mut is_known = !slot.may_guess();
        let mut pass = None;
        let mut freshness = match wish {
            Wish::Within(span) => Freshness::Within(span),
            Wish::Now => Freshness::Since(slot.provider.link.guess()),
        };
        loop {
            if self.flight.lineage.is_none() && self.is_superseded() {
                return Err(QuotaError::LoginChanged { account: account() });
            }
            let decide = |record: &mut Record, now: Timestamp| {
                let ask = Ask::new(attempt, freshness)
                    .login(login.clone())
                    .urgency(self.flight.urgency())
                    .by(Arc::clone(&self.crew.by))
                    .quiet(slot.provider.quiet_at(now));
                // Somebody else holds the account by now: this refresh must not take it back, nor clear what they left.
                let superseded = match (&self.flight.lineage, record.lineage()) {
                    (Some(ours), Some(holder)) => ours != holder,
                    _ => false,
                };
                (!superseded).then(|| record.begin(now, &ask, policy))
            };
            // First a look, without a turn in the line and without a trip to the store: mostly somebody else has asked.
            let begin = if pass.is_none() {
                slot.try_on(decide)
            } else {
                slot.transact(decide)
                    .await
                    .map_err(|error| QuotaError::Store { account: account(), error })?
            };
            let Some(begin) = begin else { return Err(QuotaError::LoginChanged { account: account() }) };
            // Not in the match: a turn that is not used must not be kept while we wait for somebody.
            let turn = pass.take();
            let begin = match (begin, turn) {
                (Begin::Granted(lease), Some(turn)) => return Ok(Begun::Granted(lease, turn)),
                (begin, _unused) => begin,
            };
            match begin {
                Begin::Granted(_) => {
                    let ticket = self.flight.queue(slot);
                    let turn = async {
                        match ticket.at_once() {
                            // Before standing in line, a look whether that is of use.
                            None if !is_known => None,
                            None => Some(ticket.pass().await),
                            at_once => at_once,
                        }
                    };
                    pass = self.unless_closed(turn).await?;
                    if pass.is_none() {
                        slot.read_first().await;
                        is_known = true;
                    }
                }
                Begin::Fresh => return Ok(Begun::Fresh),
                Begin::Held(hold) => return Err(QuotaError::Held { account: account(), hold }),
                Begin::Barred(trouble) => {
                    return Err(QuotaError::Barred { account: account(), trouble });
                }
                Begin::Newer => return Err(QuotaError::Newer { account: account() }),
                Begin::Busy { until, since } => {
                    let instant = slot.provider.clock.instant();
                    holder = holder.filter(|(granted_at, _)| *granted_at == since).or(Some((since, instant)));
                    let waited = holder.map_or(Duration::ZERO, |(_, began)| instant.saturating_since(began));
                    // Without the store, what the holder brings would not be heard here.
                    if waited >= patience || slot.provider.link.is_away() || slot.desk().is_alone() {
                        return Err(QuotaError::Busy { account: account() });
                    }
                    // What the holder brings is as good as what we would have brought.
                    if let Freshness::Since(moment) = freshness {
                        freshness = Freshness::Since(moment.min(since));
                    }
                    self.unless_closed(self.wait_for_holder(until)).await?;
                }
            }
        }
    }

    /// Waits for `wait`, but not once the manager is being closed: what has not begun by then does not begin.
    async fn unless_closed<T>(&self, wait: impl Future<Output = T>) -> Result<T, QuotaError> {
        match either(self.crew.tasks.closing(), wait).await {
            Either::First(()) => Err(QuotaError::Closed),
            Either::Second(done) => Ok(done),
        }
    }

    /// Whether there is a newer credential than the one that was refused.
    async fn renews(&self, fetcher: &dyn UsageFetcher) -> bool {
        let bound = self.slot.provider.policy.fetch_timeout;
        let renewed = self
            .slot
            .provider
            .clock
            .bounded(bound, unwinding(async { fetcher.renew(&self.slot.id).await }))
            .await;
        renewed == Some(Some(true))
    }

    /// Waits until the record moves, or the holder's time is over.
    async fn wait_for_holder(&self, until: Timestamp) {
        let slot = &*self.slot;
        let link = &slot.provider.link;
        let seen = slot.desk().standing;
        let left = time::between(link.guess(), until).max(SHORTEST_WAIT);
        let key = StoreKey::account(&slot.id);
        let notice = slot.provider.clock.bounded(left, link.changed(&key, seen.version())).await;
        slot.synchronise(Some(seen)).await;
        if matches!(notice, Some(Err(_))) || slot.desk().standing == seen {
            // No notice, or one of nothing: look now and then, and no more often.
            slot.provider.clock.sleep(left.min(POLL)).await;
        }
    }

    /// Asks the provider, and puts what it said, or what its failure means, into the record.
    async fn call(
        &self,
        fetcher: &dyn UsageFetcher,
        lease: &Lease,
        mut pass: Pass,
    ) -> Result<Called, QuotaError> {
        let slot = &*self.slot;
        let account = || slot.id.clone();
        tracing::debug!(account = %slot.id, fence = lease.fence, "lease granted");
        let bound = slot.provider.policy.fetch_timeout;
        pass.call();
        let told =
            slot.provider.clock.bounded(bound, unwinding(async { fetcher.fetch(&slot.id).await })).await;
        drop(pass);
        let usage = match told {
            Some(Some(Ok(usage))) => usage,
            Some(Some(Err(error))) => return Err(self.failed(lease, error).await),
            Some(None) => {
                // Ours to mend, not the provider's: no hold follows from it.
                slot.conclude(|record, _| record.release(lease)).await;
                return Err(QuotaError::Broken { account: account() });
            }
            None => return Err(self.failed(lease, FetchError::TimedOut).await),
        };
        match slot.conclude(|record, now| record.commit(now, lease, &usage)).await {
            Committed::Empty => {
                Err(self.failed(lease, FetchError::malformed("it says nothing at all")).await)
            }
            Committed::TooLate => {
                tracing::debug!(account = %slot.id, fence = lease.fence, "answer came too late, not stored");
                Ok(Called::TooLate(Box::new(usage)))
            }
            _ => {
                let _ = self.crew.events.send(Event::Refreshed { account: account() });
                Ok(Called::Stored)
            }
        }
    }

    /// Draws the consequences of a failed call.
    async fn failed(&self, lease: &Lease, error: FetchError) -> QuotaError {
        let slot = &*self.slot;
        let policy = &slot.provider.policy;
        tracing::debug!(account = %slot.id, fence = lease.fence, %error, "fetch failed");
        let failed = slot.conclude(|record, now| record.fail(now, lease, &error, policy)).await;
        let (hold, quiet) = match failed {
            Failed::Stored { hold, quiet } => (hold, quiet),
            // The account is somebody else's by now, and its neighbours are to be quiet all the same.
            Failed::TooLate => (None, Record::quiet_after(slot.provider.link.guess(), &error, policy)),
        };
        if let (Some(quiet), Some(quieted)) = (quiet, &slot.provider.quieted) {
            quieted.impose(&quiet, policy.keep).await;
        }
        let _ = self.crew.events.send(Event::Failed { account: slot.id.clone(), error: error.clone(), hold });
        QuotaError::Fetch { account: slot.id.clone(), error }
    }

    /// The call's own numbers, for those who asked for them by their login.
    fn apart(&self, lease: &Lease, usage: &Usage) -> Arc<View> {
        let mut record = Record::default();
        let lineage = usage.lineage.as_ref().or(self.flight.lineage.as_ref());
        let snapshot = Snapshot::of(usage, lease.granted_at);
        let _ = record.observe(lease.granted_at, &snapshot, lineage, usage.identity.as_ref());
        Arc::new(View::new(0, Arc::new(record), Arc::clone(&self.slot.provider), Caveats::default()))
    }
}

/// The right to ask, with the turn to do so; or no need to.
enum Begun {
    Granted(Lease, Pass),
    Fresh,
}

/// What became of a call that was answered.
enum Called {
    Stored,
    TooLate(Box<Usage>),
}

/// Runs `work`; `None` if it panicked. A fetcher that breaks must not take the flight with it.
async fn unwinding<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    // The future is dropped after a panic and never looked at again, so nothing half done is seen.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_panic) => Poll::Ready(None),
    })
    .await
}

/// The store's clock and ours differ a little: a wait for the end of a lease is never shorter than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// How often to look where there are no notices.
const POLL: Duration = Duration::from_millis(200);
