//! Refreshes: callers join the one that is under way, or begin one. It finds the login, gets the lease, calls the provider and
//! stores what it reported. The lease is got in `begin` and used in `call`; what callers share is in `flight`.

mod begin;
mod call;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::changes;
use super::context::Crew;
use super::error::QuotaError;
use super::flight::{Flight, Landed, Landing, Wish};
use super::slot::Slot;
use super::tasks::{Either, either, unwinding};
use crate::clock::Instant;
use crate::{Credential, CredentialFingerprint, CredentialSource, FetchError, LoginId, LoginInfo, Priority};

use begin::Begun;
use call::Called;

/// The refresh for the login that the account holds: the one that is under way, or a new one. Callers that stop waiting for it
/// do not stop it.
pub(crate) fn join(slot: &Arc<Slot>, wish: Wish, priority: Priority, crew: &Crew) -> Arc<Flight> {
    let flight = {
        let mut desk = slot.desk();
        if let Some(flight) = desk.flight() {
            let flight = Arc::clone(flight);
            drop(desk);
            flight.hurry(&slot.provider.gate, priority);
            return flight;
        }
        let flight = Flight::new(desk.login.clone(), wish, priority);
        desk.flights.push(Arc::clone(&flight));
        flight
    };
    changes::follow(slot, crew);
    // Made before the task: if the task is never run, it is dropped, and that ends the flight.
    let refresh = Refresh::new(Arc::clone(&flight), Arc::clone(slot), crew.clone());
    crew.tasks.spawn(async move {
        let landing = refresh.run(wish).await;
        refresh.land(landing);
    });
    flight
}

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
            true => QuotaError::Panicked { account },
            false => QuotaError::Closed,
        }));
    }
}

impl Refresh {
    fn new(flight: Arc<Flight>, slot: Arc<Slot>, crew: Crew) -> Self {
        Self { flight, slot, crew }
    }

    /// Ends the flight, once. Callers that wait find the reason of a failure in the view as well: it is shown first.
    fn land(&self, landing: Landing) {
        let Self { flight, slot, .. } = self;
        if flight.has_landed() {
            return;
        }
        let failed = landing.as_ref().err().filter(|error| !matches!(error, QuotaError::Closed));
        match failed.cloned() {
            Some(error) => slot.update(|desk| desk.crashed(flight, error)),
            None => {
                let is_over = {
                    let mut desk = slot.desk();
                    desk.landed(flight);
                    landing.is_ok() && desk.failed.is_some() && flight.login_id == desk.login
                };
                if is_over {
                    slot.update(|desk| desk.failed = None);
                }
            }
        }
        flight.land(landing);
    }

    async fn run(&self, wish: Wish) -> Landing {
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
            quieted.read_once(slot.provider.policy.record_ttl).await;
        }
        // Whoever wants a new call in any case learns what stands from the swap that begins it.
        if !(matches!(wish, Wish::Now) && slot.may_guess()) {
            slot.read_first().await;
        }
        let source = slot.provider.credentials.of(&slot.id);
        let source = source.as_deref();
        let mut renewed = None;
        let mut has_renewed = false;
        let mut overtaken = false;
        loop {
            let mut access = match renewed.take() {
                Some(credential) => self.access(credential)?,
                None => self.read_access(source).await?,
            };
            self.enter(&access.login).await?;
            if slot.desk().withheld {
                slot.update(|desk| desk.withheld = false);
            }
            // The rejection of the old credential is no reason to wait with the new one.
            let wish = if has_renewed { Wish::Now } else { wish };
            let (lease, pass) = match self.begin(wish, source, &mut access).await? {
                Begun::Granted(lease, pass) => (lease, pass),
                Begun::Fresh => {
                    // Fresh by the clock as it is known now: a view from before it was set may say otherwise.
                    slot.update(|_| ());
                    return Ok(Landed { fetched: false, called_at: None, view: slot.sight.take() });
                }
                Begun::Called(at) => {
                    return Ok(Landed { fetched: false, called_at: Some(at), view: slot.sight.take() });
                }
                Begun::LoginChanged => continue,
            };
            match self.call(&*fetcher, &lease, &access.credential, pass).await {
                Ok(Called::Stored) => {
                    return Ok(Landed { fetched: true, called_at: None, view: slot.sight.take() });
                }
                // Whoever asked by the name of a login gets that login's numbers, though it is not the account's any more.
                Ok(Called::TooLate(usage)) if self.flight.login_id.is_some() => {
                    let view = self.apart(&lease, &usage);
                    return Ok(Landed { fetched: true, called_at: None, view });
                }
                Ok(Called::TooLate(_)) if !overtaken => overtaken = true,
                Ok(Called::TooLate(_)) => return Err(QuotaError::InProgress { account: slot.id.clone() }),
                // The credential may have been replaced during the call: call once more with the new one, and no third time.
                Err(QuotaError::Fetch { error: FetchError::Unauthorized, .. }) if !has_renewed => {
                    renewed = self.renewed(source, access.credential.login.fingerprint).await;
                    has_renewed = renewed.is_some();
                    if !has_renewed {
                        return Err(QuotaError::Fetch {
                            account: slot.id.clone(),
                            error: FetchError::Unauthorized,
                        });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the credential for a call. On failure no readings are shown until a later read succeeds, because they may belong to
    /// another login.
    async fn read_access(&self, source: Option<&dyn CredentialSource>) -> Result<Access, QuotaError> {
        let slot = &*self.slot;
        let Some(source) = source else { return self.access(Credential::none()) };
        match self.bounded(async { source.credential(&slot.id).await }).await {
            Ok(Ok(credential)) => self.access(credential),
            Err(Cut::Cancelled) => Err(QuotaError::Closed),
            failed => {
                // Unless the program has set the login meanwhile.
                slot.update(|desk| desk.withheld |= desk.login == self.flight.login_id);
                Err(match failed {
                    Ok(Err(error)) => QuotaError::Fetch { account: slot.id.clone(), error: error.into() },
                    Ok(Ok(_)) => QuotaError::Panicked { account: slot.id.clone() },
                    Err(cut) => self.cut_off(cut),
                })
            }
        }
    }

    /// The credential with the login that a call with it is for.
    fn access(&self, credential: Credential) -> Result<Access, QuotaError> {
        let found = credential.login.clone();
        let login = match (&self.flight.login_id, &found.login_id) {
            (Some(wanted), Some(found)) if wanted != found => {
                let error =
                    FetchError::not_logged_in("the credential that was found belongs to another login");
                return Err(QuotaError::Fetch { account: self.slot.id.clone(), error });
            }
            (Some(wanted), None) => LoginInfo::new(wanted.clone()).fingerprint(found.fingerprint),
            _ => found,
        };
        Ok(Access { credential, login, read_at: self.slot.provider.clock.instant() })
    }

    /// The error of a step that was cut off before the provider was asked.
    fn cut_off(&self, cut: Cut) -> QuotaError {
        let account = self.slot.id.clone();
        match cut {
            Cut::TimedOut | Cut::DeadlineExceeded => QuotaError::Fetch { account, error: credential_late() },
            Cut::Cancelled => QuotaError::Closed,
            Cut::Panicked => QuotaError::Panicked { account },
        }
    }

    /// Whether the program has given the account to another login since this refresh began.
    fn is_superseded(&self) -> bool {
        self.slot.desk().login != self.flight.login_id
    }

    /// Lets the login take the account over, if another one held it: whether or not the provider may be asked now, what
    /// the old one left must not be shown any more.
    async fn enter(&self, login: &LoginInfo) -> Result<(), QuotaError> {
        let slot = &*self.slot;
        // Where the program itself says who holds the account, that is what counts.
        let Some(login_id) = login.login_id.as_ref().filter(|_| self.flight.login_id.is_none()) else {
            return Ok(());
        };
        let another = |known: &LoginId| known != login_id;
        if !slot.view().record.login_id().is_some_and(another) || self.is_superseded() {
            return Ok(());
        }
        let changed = slot.transact(|record, _| record.new_login(login_id)).await;
        changed.map(drop).map_err(|error| {
            // The old login's numbers cannot be cleared, and are not the new one's.
            slot.update(|desk| desk.withheld = true);
            QuotaError::Store { account: slot.id.clone(), error }
        })
    }

    /// The credential that replaces a rejected one; `None` if the source has no other.
    async fn renewed(
        &self,
        source: Option<&dyn CredentialSource>,
        rejected: Option<CredentialFingerprint>,
    ) -> Option<Credential> {
        let source = source?;
        let renewed = self.bounded(async { source.renew(&self.slot.id, rejected).await }).await;
        renewed.ok()?.ok().filter(|credential| credential.login.fingerprint != rejected)
    }

    /// Runs a step of the fetcher or the credential source for as long as a call may take, until the program's deadline, or until the manager cancels its
    /// calls.
    async fn bounded<T>(&self, step: impl Future<Output = T>) -> Result<T, Cut> {
        let timeout = self.slot.provider.policy.fetch_timeout;
        let left = self.time_left().filter(|left| *left < timeout);
        let step = self.slot.provider.clock.bounded(left.unwrap_or(timeout), unwinding(step));
        // The step first: a program that reaches its deadline cancels its calls at that moment, and the timeout must be recorded.
        match either(step, self.crew.tasks.cancelled()).await {
            Either::First(Some(Some(done))) => Ok(done),
            Either::First(Some(None)) => Err(Cut::Panicked),
            Either::First(None) if left.is_some() => Err(Cut::DeadlineExceeded),
            Either::First(None) => Err(Cut::TimedOut),
            Either::Second(()) => Err(Cut::Cancelled),
        }
    }

    /// How much time this program has left; `None` if it has no deadline.
    fn time_left(&self) -> Option<Duration> {
        self.crew.time_left(self.slot.provider.clock.instant())
    }
}

/// What a call is made with.
struct Access {
    credential: Credential,
    /// The login that the call is for.
    login: LoginInfo,
    read_at: Instant,
}

/// Why a step of the fetcher or the credential source did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    TimedOut,
    DeadlineExceeded,
    Cancelled,
    Panicked,
}

/// The credential source timed out. That is not a timeout of the provider, which received no request.
fn credential_late() -> FetchError {
    FetchError::credential_timed_out("the source of the credential did not answer in time")
}
