//! The refresh of an account. Callers join the refresh in flight or start a new one.
//! A refresh reads the credential, acquires the lease (`begin`), calls the provider and stores the report (`call`).

mod begin;
mod call;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::context::TaskContext;
use super::credential_cache::Caller;
use super::credential_reuse::{Demand, ReadFailure};
use super::entry::{AccountEntry, RecordEntry};
use super::error::QuotaError;
use super::follower;
use super::in_flight::{InFlight, RefreshRequest, RefreshResult, Refreshed, Stage, Successor};
use super::login_check::{self, LoginCheck};
use super::tasks::catch_panic;
use super::view::View;
use crate::clock::Instant;
use crate::model::{CredentialFingerprint, LoginInfo};
use crate::provider::{Credential, CredentialError, FetchError};
use crate::record::Priority;

use begin::LeaseAcquired;
use call::CallOutcome;

/// A refresh that a caller has joined or started.
pub(crate) struct Joined {
    pub(crate) in_flight: Arc<InFlight>,
    /// The record of the refresh. The account may show another one when the refresh ends.
    pub(crate) record: Arc<RecordEntry>,
    /// The stage of the refresh when the caller joined it, which is [`Stage::Begun`] for a new one.
    pub(crate) stage: Stage,
}

/// Joins the refresh in flight of the account's record, or starts a new one. It continues when its callers stop waiting.
pub(crate) fn join(
    entry: &Arc<AccountEntry>,
    request: RefreshRequest,
    priority: Priority,
    context: &TaskContext,
) -> Joined {
    join_after(entry, request, priority, None, context)
}

/// Like [`join`]. `ended_fence` is known if the caller has read this record since its request; see
/// [`ended_fence`](crate::record::Record::ended_fence).
pub(crate) fn join_after(
    entry: &Arc<AccountEntry>,
    request: RefreshRequest,
    priority: Priority,
    ended_fence: Option<(Arc<RecordEntry>, u64)>,
    context: &TaskContext,
) -> Joined {
    let record = entry.record();
    let ended_fence = ended_fence.filter(|(read, _)| Arc::ptr_eq(read, &record)).map(|(_, fence)| fence);
    start(entry, record, request, priority, ended_fence, None, context)
}

/// Joins the refresh in flight of this record, or starts one, which uses the given credential.
fn start(
    entry: &Arc<AccountEntry>,
    record: Arc<RecordEntry>,
    request: RefreshRequest,
    priority: Priority,
    ended_fence: Option<u64>,
    credential: Option<(Credential, Instant)>,
    context: &TaskContext,
) -> Joined {
    let in_flight = {
        let mut local = record.local();
        if let Some(in_flight) = local.in_flight.clone() {
            drop(local);
            in_flight.raise_priority(&entry.provider.limiter, priority);
            let stage = in_flight.stage();
            return Joined { in_flight, record, stage };
        }
        // Calls that ended after the read, but before another caller joins, do not satisfy that caller.
        let stage = if ended_fence.is_some() { Stage::Deciding } else { Stage::Begun };
        let in_flight = InFlight::new(request, priority, stage, entry.provider.clock.instant());
        local.in_flight = Some(Arc::clone(&in_flight));
        in_flight
    };
    if !entry.is_unchecked() {
        follower::follow(entry, context);
    }
    // Created before the task is spawned: if the task never runs, dropping it still ends the refresh.
    let (refresh_entry, refresh_record) = (Arc::clone(entry), Arc::clone(&record));
    let refresh = Refresh::new(Arc::clone(&in_flight), refresh_entry, refresh_record, context.clone());
    *refresh.known_credential.lock() = credential;
    context.tasks.spawn(async move {
        let result = tokio::select! {
            biased;
            result = refresh.run(request, ended_fence) => result,
            never = refresh.in_flight.wake_at_deadlines(&refresh.entry.provider.clock) => match never {},
        };
        if let Err(QuotaError::LoginChanged { .. }) = &result {
            refresh.continue_with_new_login(request);
        }
        refresh.complete(result);
    });
    Joined { in_flight, record, stage: Stage::Begun }
}

/// One run of a refresh. If it is dropped early, because the manager closes or the runtime shuts down, it still completes the
/// refresh for all callers.
pub(crate) struct Refresh {
    in_flight: Arc<InFlight>,
    /// The account whose credential the refresh uses.
    entry: Arc<AccountEntry>,
    record: Arc<RecordEntry>,
    context: TaskContext,
    /// A credential that was already read, and when. At the end, a credential whose login differs from the record's.
    known_credential: Mutex<Option<(Credential, Instant)>>,
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
    fn new(
        in_flight: Arc<InFlight>,
        entry: Arc<AccountEntry>,
        record: Arc<RecordEntry>,
        context: TaskContext,
    ) -> Self {
        Self { in_flight, entry, record, context, known_credential: Mutex::default() }
    }

    /// Starts the refresh of the record that the account shows now, with the credential that stated its login. The callers join it.
    fn continue_with_new_login(&self, request: RefreshRequest) {
        let credential = self.known_credential.lock().take();
        if credential.is_some() {
            let (entry, priority) = (&self.entry, self.in_flight.priority());
            let Joined { in_flight, record, stage } =
                start(entry, entry.record(), request, priority, None, credential, &self.context);
            let record_key = record.key().clone();
            self.in_flight.set_successor(Successor { in_flight, record_key, stage });
        }
    }

    /// Completes the refresh. Publishes a failure in the view before it wakes the callers, so that they see it there too.
    fn complete(&self, result: RefreshResult) {
        let Self { in_flight, record, .. } = self;
        if in_flight.is_complete() {
            return;
        }
        match &result {
            // The account shows another record now, or will be refreshed again.
            Err(QuotaError::Closed | QuotaError::LoginChanged { .. }) => {
                record.local().refresh_done(in_flight)
            }
            Err(error) => record.update(|local| {
                local.refresh_done(in_flight);
                for account in record.accounts() {
                    let is_starter = Arc::ptr_eq(&account, &self.entry);
                    // The other accounts of the login have credentials of their own.
                    if is_starter || !error.is_of_credential() {
                        account.state().refresh_failed(error.for_account(&account.id));
                    }
                }
            }),
            Ok(_) => {
                record.local().refresh_done(in_flight);
                for account in record.accounts() {
                    if account.state().failed.is_some() {
                        account.update(|state| state.failed = None);
                    }
                    // Drop it unless the refresh failed, because it would take memory for each account.
                    account.state().checked = None;
                }
            }
        }
        in_flight.complete(result);
    }

    async fn run(&self, request: RefreshRequest, ended_fence: Option<u64>) -> RefreshResult {
        let result = self.run_once(request, ended_fence).await;
        if result.is_err() && self.is_readable() {
            // The refresh has no new readings for its callers, so load the store's.
            self.record.ensure_synced().await;
        }
        result
    }

    /// Whether the record is that of the account's login. Before the first check of the login it must not be read.
    fn is_readable(&self) -> bool {
        self.record.login().is_some() || !self.entry.is_unchecked()
    }

    /// Reads the record, unless the request does not depend on it. The compare-and-swap for the lease then reads it on a conflict.
    async fn ensure_synced(&self, request: RefreshRequest) {
        if self.is_readable()
            && !(matches!(request, RefreshRequest::NewCall) && self.record.may_assume_absent())
        {
            self.record.ensure_synced().await;
        }
    }

    async fn run_once(&self, request: RefreshRequest, mut ended_fence: Option<u64>) -> RefreshResult {
        let entry = &self.entry;
        let Some(fetcher) = entry.provider.fetcher.clone() else {
            login_check::ensure_checked(entry, &self.context).await;
            if self.is_superseded() {
                return Err(QuotaError::LoginChanged { account: entry.id.clone() });
            }
            return Err(QuotaError::NoFetcher { provider: entry.provider.id.clone() });
        };
        if let Some(shared_cooldown) = &entry.provider.shared_cooldown {
            shared_cooldown.load_once(entry.provider.policy.record_ttl).await;
        }
        self.ensure_synced(request).await;
        let mut renewed = None;
        let mut has_renewed = false;
        let mut was_too_late = false;
        loop {
            let was_readable = self.is_readable();
            let mut access = match renewed.take() {
                // The source returned this credential after a rejection. Another read could return the rejected one again.
                Some((check, credential)) => {
                    Access { read_at: None, ..self.access(Some(check), credential)? }
                }
                None => self.read_access(request).await?,
            };
            if !was_readable {
                login_check::follow(entry, &self.context);
                self.ensure_synced(request).await;
            }
            if entry.state().unattributed {
                entry.update(|state| state.unattributed = false);
            }
            // Call with the new credential immediately, because the rejection was of the old one.
            let request = if has_renewed { RefreshRequest::NewCall } else { request };
            let (lease, permit) = match self.begin(request, &mut ended_fence, &mut access).await? {
                LeaseAcquired::Granted(lease, permit) => (lease, permit),
                LeaseAcquired::Fresh => {
                    // Rebuild the view with the current clock offset: the old view may report the same readings as stale.
                    self.record.update(|_| ());
                    return Ok(Refreshed { fetched: false, called_at: None, view: self.view() });
                }
                LeaseAcquired::CallOutcome(at) => {
                    return Ok(Refreshed { fetched: false, called_at: Some(at), view: self.view() });
                }
            };
            match self.call(&*fetcher, &lease, &access.credential, permit).await {
                Ok(CallOutcome::Stored) => {
                    entry.provider.credentials.accept(&entry.id, access.credential.login.fingerprint);
                    return Ok(Refreshed { fetched: true, called_at: None, view: self.view() });
                }
                Ok(CallOutcome::TooLate) if !was_too_late => was_too_late = true,
                Ok(CallOutcome::TooLate) => {
                    return Err(QuotaError::InProgress { account: entry.id.clone() });
                }
                // The credential may have been replaced during the call, so renew it and call once more.
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
                Err(error) => {
                    if let QuotaError::Fetch { error: FetchError::Unauthorized, .. } = &error {
                        entry.provider.credentials.reject(&entry.id, access.credential.login.fingerprint);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Reads the credential for a call. A failure hides the readings until a later read succeeds, because they may belong to
    /// another login.
    async fn read_access(&self, request: RefreshRequest) -> Result<Access, QuotaError> {
        let entry = &self.entry;
        if let Some((credential, read_at)) = self.known_credential.lock().take() {
            return Ok(Access { read_at: Some(read_at), ..self.access(None, credential)? });
        }
        let check = Some(LoginCheck::begin(entry));
        let demand = if request.needs_call() { Demand::Retry } else { Demand::Current };
        let failure = match self.credential(demand, entry.provider.policy.fetch_timeout).await {
            Ok(None) => return Ok(Access { read_at: None, ..self.access(check, Credential::none())? }),
            Ok(Some(credential)) => return self.access(check, credential),
            Err(None) => return Err(QuotaError::Closed),
            Err(Some(failure)) => failure,
        };
        // If only this refresh ran out of time, the knowledge about the login is unchanged.
        let is_unknown = !matches!(failure, ReadFailure::StillReading);
        let error = self.read_error(failure);
        // Do this only if the program has not set another login since the refresh began.
        if !self.is_superseded() {
            let at_ms = entry.provider.clock.now_ms();
            entry.update(|state| {
                state.unattributed |= is_unknown;
                state.credential_checked(at_ms, Err(error.clone()));
            });
        }
        Err(error)
    }

    /// The cached credential, or a new one from the source; `None` if the account has no source. The error is `None` if the manager
    /// closes first.
    async fn credential(
        &self,
        demand: Demand,
        timeout: Duration,
    ) -> Result<Option<Credential>, Option<ReadFailure>> {
        let AccountEntry { id: account, provider, .. } = &*self.entry;
        let (clock, tasks) = (&provider.clock, &self.context.tasks);
        let timeout = self.at_most(timeout);
        let caller = Caller { account, demand, timeout, clock, tasks };
        let read = tasks.until_closing(provider.credentials.credential(&caller)).await;
        read.ok_or(None)?.transpose().map_err(Some)
    }

    /// The error of a read that failed before the provider received a request.
    fn read_error(&self, failure: ReadFailure) -> QuotaError {
        let account = self.entry.id.clone();
        match failure {
            ReadFailure::Panicked => QuotaError::Panicked { account },
            failure => QuotaError::Fetch { account, error: CredentialError::from(failure).into() },
        }
    }

    /// Reads the credential again if it was read too long ago.
    ///
    /// The caller holds a permit, and other accounts of the provider wait for it, so the timeout is short. After a timeout the old
    /// credential is used, and a 401 leads to its renewal.
    async fn reread_access(&self, access: &mut Access) -> Result<(), QuotaError> {
        let entry = &*self.entry;
        let is_old = |at: Instant| entry.provider.clock.instant().saturating_since(at) > CREDENTIAL_MAX_AGE;
        if !access.read_at.is_some_and(is_old) {
            return Ok(());
        }
        let check = Some(LoginCheck::begin(entry));
        match self.credential(Demand::Current, REREAD_TIMEOUT).await {
            Ok(Some(credential)) => *access = self.access(check, credential)?,
            Err(Some(ReadFailure::Failed(error))) if !error.is_timeout() => {
                return Err(QuotaError::Fetch { account: entry.id.clone(), error: error.into() });
            }
            Err(None) => return Err(QuotaError::Closed),
            Ok(None) | Err(Some(_)) => {}
        }
        Ok(())
    }

    /// The credential with the login of its call. If its login differs from the one that the program set, it is an error. If the
    /// source's login has changed, the account now shows that login's record, and this refresh ends.
    fn access(&self, check: Option<LoginCheck>, credential: Credential) -> Result<Access, QuotaError> {
        let account = || self.entry.id.clone();
        let mut login = credential.login.clone();
        let read_at = self.entry.provider.clock.instant();
        let is_switched =
            check.is_some_and(|check| check.apply(&self.entry, login.login_id.as_ref(), &self.context));
        if self.is_superseded() {
            if is_switched {
                *self.known_credential.lock() = Some((credential, read_at));
            }
            return Err(QuotaError::LoginChanged { account: account() });
        }
        let expected = self.record.login();
        if login.login_id.is_some() && login.login_id.as_ref() != expected {
            let error = FetchError::not_logged_in("the credential belongs to another login");
            return Err(QuotaError::Fetch { account: account(), error });
        }
        login.login_id = expected.cloned();
        // The end of the refresh publishes it.
        self.entry.state().credential_checked(self.entry.provider.clock.now_ms(), Ok(login.clone()));
        Ok(Access { credential, login, read_at: Some(read_at) })
    }

    /// Whether the account has got another login since this refresh began.
    fn is_superseded(&self) -> bool {
        !self.entry.shows(&self.record)
    }

    /// The view of the record, even if the account shows another record now.
    fn view(&self) -> Arc<View> {
        let view = self.entry.view_handle.load_owned();
        if self.is_superseded() { self.record.view() } else { view }
    }

    /// The credential that replaces the rejected one; `None` if the source has no other.
    async fn try_renew(&self, rejected: Option<CredentialFingerprint>) -> Option<(LoginCheck, Credential)> {
        let check = LoginCheck::begin(&self.entry);
        let timeout = self.entry.provider.policy.fetch_timeout;
        let renewed = self.credential(Demand::Replacement(rejected), timeout).await.ok()??;
        (renewed.login.fingerprint != rejected).then_some((check, renewed))
    }

    /// Runs a step of the fetcher. The timeout and the cancellation of calls end it.
    async fn bounded<T>(&self, timeout: Duration, step: impl Future<Output = T>) -> Result<T, Interruption> {
        let step = self.entry.provider.clock.bounded(timeout, catch_panic(step));
        // Check the step first: a program cancels its calls at its deadline, and the timeout must be recorded.
        let ended = tokio::select! {
            biased;
            ended = step => ended,
            () = self.context.tasks.cancelled() => return Err(Interruption::Cancelled),
        };
        match ended {
            Some(Some(done)) => Ok(done),
            Some(None) => Err(Interruption::Panicked),
            None => Err(Interruption::TimedOut),
        }
    }

    /// This timeout, or the time until the program's deadline if that is shorter.
    fn at_most(&self, timeout: Duration) -> Duration {
        self.time_left().map_or(timeout, |left| left.min(timeout))
    }

    /// The time until the program's deadline; `None` without one.
    fn time_left(&self) -> Option<Duration> {
        self.context.time_left(self.entry.provider.clock.instant())
    }
}

/// The credential of a call and its login.
struct Access {
    credential: Credential,
    /// The login that the call is for.
    login: LoginInfo,
    /// When the credential was read; `None` if it must not be read again.
    read_at: Option<Instant>,
}

/// A credential older than this is read again before the call, because it may have expired or been replaced while the refresh was
/// queued.
const CREDENTIAL_MAX_AGE: Duration = Duration::from_secs(1);

/// The timeout of that read.
const REREAD_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why a step of the fetcher was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
    TimedOut,
    Cancelled,
    Panicked,
}
