//! Refreshes: callers join the one in flight or start one. It reads the credential, takes the lease, calls the provider and
//! stores the report. The lease is taken in `begin` and used in `call`; the state that callers share is in `in_flight`.

mod begin;
mod call;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::context::TaskContext;
use super::entry::AccountEntry;
use super::error::QuotaError;
use super::follower;
use super::in_flight::{InFlight, RefreshRequest, RefreshResult, Refreshed};
use super::tasks::catch_panic;
use crate::clock::Instant;
use crate::model::{CredentialFingerprint, LoginInfo};
use crate::provider::{Credential, CredentialSource, FetchError};
use crate::record::Priority;

use begin::LeaseAcquired;
use call::CallOutcome;

/// The refresh for the login that the account holds: the one that is under way, or a new one. Callers that stop waiting for it
/// do not stop it.
pub(crate) fn join(
    entry: &Arc<AccountEntry>,
    request: RefreshRequest,
    priority: Priority,
    context: &TaskContext,
) -> Arc<InFlight> {
    let in_flight = {
        let mut local = entry.local();
        if let Some(in_flight) = local.in_flight() {
            let in_flight = Arc::clone(in_flight);
            drop(local);
            in_flight.raise_priority(&entry.provider.limiter, priority);
            return in_flight;
        }
        let in_flight = InFlight::new(local.login.clone(), request, priority);
        local.refreshes.push(Arc::clone(&in_flight));
        in_flight
    };
    follower::follow(entry, context);
    // Created before the task: a task that never runs drops it, and that ends the refresh.
    let refresh = Refresh::new(Arc::clone(&in_flight), Arc::clone(entry), context.clone());
    context.tasks.spawn(async move {
        let result = refresh.run(request).await;
        refresh.complete(result);
    });
    in_flight
}

/// One run. Dropped before its end (a closed manager, a runtime that shuts down), it still ends its refresh for all callers.
pub(crate) struct Refresh {
    in_flight: Arc<InFlight>,
    entry: Arc<AccountEntry>,
    context: TaskContext,
}

impl Drop for Refresh {
    fn drop(&mut self) {
        let account = self.entry.id.clone();
        self.complete(Err(match std::thread::panicking() {
            true => QuotaError::Panicked { account },
            false => QuotaError::Closed,
        }));
    }
}

impl Refresh {
    fn new(in_flight: Arc<InFlight>, entry: Arc<AccountEntry>, context: TaskContext) -> Self {
        Self { in_flight, entry, context }
    }

    /// Ends the refresh, once. The view shows a failure first, so waiting callers find it there too.
    fn complete(&self, result: RefreshResult) {
        let Self { in_flight, entry, .. } = self;
        if in_flight.is_complete() {
            return;
        }
        let failed = result.as_ref().err().filter(|error| !matches!(error, QuotaError::Closed));
        match failed.cloned() {
            Some(error) => entry.update(|local| local.refresh_failed(in_flight, error)),
            None => {
                let is_over = {
                    let mut local = entry.local();
                    local.refresh_done(in_flight);
                    result.is_ok() && local.failed.is_some() && in_flight.login_id == local.login
                };
                if is_over {
                    entry.update(|local| local.failed = None);
                }
            }
        }
        in_flight.complete(result);
    }

    async fn run(&self, request: RefreshRequest) -> RefreshResult {
        let entry = &*self.entry;
        let result = self.run_once(request).await;
        if result.is_err() {
            // The callers get no new readings, so show the ones that the store has.
            entry.ensure_synced().await;
        }
        result
    }

    async fn run_once(&self, request: RefreshRequest) -> RefreshResult {
        let entry = &*self.entry;
        let Some(fetcher) = entry.provider.fetcher.clone() else {
            return Err(QuotaError::NoFetcher { provider: entry.provider.id.clone() });
        };
        if let Some(shared_cooldown) = &entry.provider.shared_cooldown {
            shared_cooldown.load_once(entry.provider.policy.record_ttl).await;
        }
        // A caller that wants a new call in any case learns the record from the swap that takes the lease.
        if !(matches!(request, RefreshRequest::NewCall) && entry.may_assume_absent()) {
            entry.ensure_synced().await;
        }
        let mut renewed = None;
        let mut has_renewed = false;
        let mut overtaken = false;
        loop {
            let mut access = match renewed.take() {
                // The source knows that the one before was rejected; another read could return that one.
                Some(credential) => Access { read_at: None, ..self.access(credential)? },
                None => self.read_access().await?,
            };
            self.claim_login(&access.login).await?;
            if entry.local().unattributed {
                entry.update(|local| local.unattributed = false);
            }
            // The rejection of the old credential is no reason to wait with the new one.
            let request = if has_renewed { RefreshRequest::NewCall } else { request };
            let (lease, permit) = match self.begin(request, &mut access).await? {
                LeaseAcquired::Granted(lease, permit) => (lease, permit),
                LeaseAcquired::Fresh => {
                    // Fresh by the clock as it is known now: a view from before it was set may say otherwise.
                    entry.update(|_| ());
                    return Ok(Refreshed {
                        fetched: false,
                        called_at: None,
                        view: entry.view_handle.load_owned(),
                    });
                }
                LeaseAcquired::CallOutcome(at) => {
                    return Ok(Refreshed {
                        fetched: false,
                        called_at: Some(at),
                        view: entry.view_handle.load_owned(),
                    });
                }
            };
            match self.call(&*fetcher, &lease, &access.credential, permit).await {
                Ok(CallOutcome::Stored) => {
                    return Ok(Refreshed {
                        fetched: true,
                        called_at: None,
                        view: entry.view_handle.load_owned(),
                    });
                }
                // A refresh for one login returns that login's readings, even if the account holds another login by now.
                Ok(CallOutcome::TooLate(usage)) if self.in_flight.login_id.is_some() => {
                    let view = self.orphan_view(&lease, &usage);
                    return Ok(Refreshed { fetched: true, called_at: None, view });
                }
                Ok(CallOutcome::TooLate(_)) if !overtaken => overtaken = true,
                Ok(CallOutcome::TooLate(_)) => {
                    return Err(QuotaError::InProgress { account: entry.id.clone() });
                }
                // The credential may have been replaced during the call: call once more with the new one, and no third time.
                Err(QuotaError::Fetch { error: FetchError::Unauthorized, .. }) if !has_renewed => {
                    renewed = self.try_renew(access.credential.login.fingerprint).await;
                    has_renewed = renewed.is_some();
                    if !has_renewed {
                        return Err(QuotaError::Fetch {
                            account: entry.id.clone(),
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
    async fn read_access(&self) -> Result<Access, QuotaError> {
        let entry = &*self.entry;
        let Some(source) = entry.provider.credentials.of(&entry.id) else {
            return Ok(Access { read_at: None, ..self.access(Credential::none())? });
        };
        match self.bounded(async { source.credential(&entry.id).await }).await {
            Ok(Ok(credential)) => self.access(credential),
            Err(Cut::Cancelled) => Err(QuotaError::Closed),
            failed => {
                // Unless the program has set the login since the refresh began.
                entry.update(|local| local.unattributed |= local.login == self.in_flight.login_id);
                Err(match failed {
                    Ok(Err(error)) => QuotaError::Fetch { account: entry.id.clone(), error: error.into() },
                    Ok(Ok(_)) => QuotaError::Panicked { account: entry.id.clone() },
                    Err(cut) => self.cut_off(cut),
                })
            }
        }
    }

    /// Reads the credential again if it was read too long ago, or the record has another login by now. The caller holds a permit, which keeps other accounts of the provider
    /// waiting, so a slow source has little time; then the credential stays, and a 401 leads to its renewal.
    async fn reread_access(&self, access: &mut Access) -> Result<(), QuotaError> {
        let entry = &*self.entry;
        let clock = &entry.provider.clock;
        let is_old = |at: Instant| clock.instant().saturating_since(at) > CREDENTIAL_MAX_AGE;
        let login_id = access.login.login_id.as_ref();
        let has_other_login = login_id.is_some() && {
            let view = entry.view();
            view.record.login_id().is_some_and(|known| login_id != Some(known))
        };
        if !access.read_at.is_some_and(|at| has_other_login || is_old(at)) {
            return Ok(());
        }
        let Some(source) = entry.provider.credentials.of(&entry.id) else { return Ok(()) };
        let read =
            clock.bounded(REREAD_TIMEOUT, self.bounded(async { source.credential(&entry.id).await })).await;
        match read {
            Some(Ok(Ok(credential))) => *access = self.access(credential)?,
            Some(Ok(Err(error))) => {
                return Err(QuotaError::Fetch { account: entry.id.clone(), error: error.into() });
            }
            Some(Err(Cut::Cancelled)) => return Err(QuotaError::Closed),
            None | Some(Err(_)) => {}
        }
        Ok(())
    }

    /// The credential with the login that a call with it is for.
    fn access(&self, credential: Credential) -> Result<Access, QuotaError> {
        let found = credential.login.clone();
        let login = match (&self.in_flight.login_id, &found.login_id) {
            (Some(wanted), Some(found)) if wanted != found => {
                let error =
                    FetchError::not_logged_in("the credential that was found belongs to another login");
                return Err(QuotaError::Fetch { account: self.entry.id.clone(), error });
            }
            (Some(wanted), None) => LoginInfo::new(wanted.clone()).fingerprint(found.fingerprint),
            _ => found,
        };
        Ok(Access { credential, login, read_at: Some(self.entry.provider.clock.instant()) })
    }

    /// The error of a step that was cut off before the provider was asked.
    fn cut_off(&self, cut: Cut) -> QuotaError {
        let account = self.entry.id.clone();
        match cut {
            Cut::TimedOut => {
                let error = FetchError::credential_timed_out(CREDENTIAL_TIMED_OUT);
                QuotaError::Fetch { account, error }
            }
            // That says little about the source: this program had less time than a source may take.
            Cut::DeadlineExceeded => {
                let error = FetchError::credential_unavailable(CREDENTIAL_TIMED_OUT);
                QuotaError::Fetch { account, error }
            }
            Cut::Cancelled => QuotaError::Closed,
            Cut::Panicked => QuotaError::Panicked { account },
        }
    }

    /// Whether the program has given the account to another login since this refresh began.
    fn is_superseded(&self) -> bool {
        self.entry.local().login != self.in_flight.login_id
    }

    /// Lets the login take the account over, if another one held it: whether or not the provider may be asked now, what
    /// the old one left must not be shown any more.
    async fn claim_login(&self, login: &LoginInfo) -> Result<(), QuotaError> {
        let entry = &*self.entry;
        // Where the program itself says who holds the account, that is what counts.
        let Some(login_id) = login.login_id.as_ref().filter(|_| self.in_flight.login_id.is_none()) else {
            return Ok(());
        };
        if self.is_superseded() {
            return Ok(());
        }
        let claimed = entry.claim_login(login_id).await;
        claimed.map_err(|error| QuotaError::Store { account: entry.id.clone(), error })
    }

    /// The credential that replaces a rejected one; `None` if the source has no other.
    async fn try_renew(&self, rejected: Option<CredentialFingerprint>) -> Option<Credential> {
        let source = self.entry.provider.credentials.of(&self.entry.id)?;
        let renewed = self.bounded(async { source.renew(&self.entry.id, rejected).await }).await;
        renewed.ok()?.ok().filter(|credential| credential.login.fingerprint != rejected)
    }

    /// Runs a step of the fetcher or the credential source for as long as a call may take, until the program's deadline, or until the manager cancels its
    /// calls.
    async fn bounded<T>(&self, step: impl Future<Output = T>) -> Result<T, Cut> {
        let timeout = self.entry.provider.policy.fetch_timeout;
        let left = self.time_left().filter(|left| *left < timeout);
        let step = self.entry.provider.clock.bounded(left.unwrap_or(timeout), catch_panic(step));
        // The step first: a program that reaches its deadline cancels its calls at that time, and the timeout must be recorded.
        let ended = tokio::select! {
            biased;
            ended = step => ended,
            () = self.context.tasks.cancelled() => return Err(Cut::Cancelled),
        };
        match ended {
            Some(Some(done)) => Ok(done),
            Some(None) => Err(Cut::Panicked),
            None if left.is_some() => Err(Cut::DeadlineExceeded),
            None => Err(Cut::TimedOut),
        }
    }

    /// How much time this program has left; `None` if it has no deadline.
    fn time_left(&self) -> Option<Duration> {
        self.context.time_left(self.entry.provider.clock.instant())
    }
}

/// What a call is made with.
struct Access {
    credential: Credential,
    /// The login that the call is for.
    login: LoginInfo,
    /// When it was read, if another read can return a newer one.
    read_at: Option<Instant>,
}

/// A credential that was read longer ago than this is read again before the call: it may have expired or been replaced while the
/// refresh waited in line.
const CREDENTIAL_MAX_AGE: Duration = Duration::from_secs(1);

/// How long that read may take.
const REREAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a step of the fetcher or the credential source did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    TimedOut,
    DeadlineExceeded,
    Cancelled,
    Panicked,
}

/// The error of a credential source that timed out. That is no timeout of the provider, which received no request.
const CREDENTIAL_TIMED_OUT: &str = "the source of the credential did not answer in time";
