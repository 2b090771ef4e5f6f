//! Returns credentials and renews them. Each account has at most one renewal task, which outlives its callers. `policy` decides
//! when to renew and what to store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::file::{FileError, JsonFile};
use quota_core::model::CredentialFingerprint;
use quota_core::provider::{TokenError, TokenRefresher, Tokens};
use quota_core::{AccountId, Clock, Credential, CredentialError, ProviderId, QuotaStore, Secret};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::{self, RenewalLease};
use super::login::{LoginsFile, NewLogin, PutResult, StoredLogin};
use super::policy::{Demand, Exchanged, RenewalTiming, TokenAction};

/// How long a caller without a usable credential waits for a renewal: less than a manager waits for a source, so that the caller gets
/// the reason.
const RENEWAL_WAIT: Duration = Duration::from_secs(9);
/// How long a renewal may wait for the lease after `close`. Without the lease, no token was sent.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// The timeout of the request to the provider, shorter than the lease.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum number of attempts to write new tokens while the lease is held.
const MAX_WRITE_ATTEMPTS: u32 = 3;
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// When a caller should retry while a renewal is running.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The settings of a token store.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) refreshers: HashMap<ProviderId, Arc<dyn TokenRefresher>>,
    pub(super) store: Option<Arc<dyn QuotaStore>>,
    pub(super) clock: Clock,
    pub(super) timing: RenewalTiming,
    pub(super) login_hint: Option<String>,
}

/// Why [`TokenStore::log_in`](crate::TokenStore::log_in) stored no login.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogInError {
    /// Other processes held the lease for too long.
    #[error("other processes are renewing logins of this provider; try again")]
    Busy,
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] TokenError),
    /// The file cannot be read or written. If it could not be written, the new login is lost.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The state that all clones of a token store share.
pub(super) struct Renewer {
    pub(super) file: JsonFile,
    pub(super) settings: Settings,
    /// The last renewal of each account. Its cancellation token is cancelled when the renewal ends.
    renewals: Mutex<HashMap<AccountId, CancellationToken>>,
    /// Results of renewals that are not written yet, with the fingerprint of the refresh token that was sent. Without them, a
    /// used or rejected token would be sent again.
    unsaved: Mutex<HashMap<AccountId, (CredentialFingerprint, Arc<RenewalResult>)>>,
    tasks: TaskTracker,
    /// Ends the tasks that wait for the lease.
    give_up: CancellationToken,
}

/// The result of a renewal.
#[derive(Debug, Clone)]
enum RenewalResult {
    Renewed(Exchanged),
    Failed { error: TokenError, at: Timestamp, timing: RenewalTiming },
}

impl RenewalResult {
    /// Applies the result to the login. Returns false if another refresh token has been stored since.
    fn apply(&self, file: &mut LoginsFile, account: &AccountId, sent: CredentialFingerprint) -> bool {
        match self {
            Self::Renewed(exchanged) => file.apply(account, sent, exchanged),
            Self::Failed { error, at, timing } => file.record_failure(account, sent, error, *at, timing),
        }
    }
}

impl Renewer {
    pub(super) fn new(file: JsonFile, settings: Settings) -> Self {
        let (renewals, unsaved) = (Mutex::default(), Mutex::default());
        let (tasks, give_up) = (TaskTracker::new(), CancellationToken::new());
        Self { file, settings, renewals, unsaved, tasks, give_up }
    }

    /// Reads the file and applies unsaved results. Those that no longer apply are dropped.
    pub(super) async fn load(&self) -> Result<LoginsFile, FileError> {
        // A missing file does not mean that its logins are gone. It may soon reappear with the token that was sent.
        let Some(mut file) = self.file.load_existing::<LoginsFile>().await? else {
            return Ok(LoginsFile::default());
        };
        self.unsaved.lock().retain(|account, (sent, result)| result.apply(&mut file, account, *sent));
        Ok(file)
    }

    pub(super) async fn credential(
        self: &Arc<Self>,
        account: &AccountId,
        demand: Demand,
    ) -> Result<Credential, CredentialError> {
        self.save_or_warn(account).await;
        // The caller may join a renewal that does not meet its demand, so it may have to wait for a second one.
        for _ in 0..2 {
            let file = self.load().await;
            let file = file.map_err(|error| CredentialError::unreadable(error.to_string(), error))?;
            let now = self.settings.clock.now();
            let action = file.action(account, demand, now, &self.settings.timing);
            let action = action.ok_or_else(|| self.no_login_error(account))?;
            let login = &file.logins[account];
            let can_renew = self.settings.refreshers.contains_key(account.provider());
            match action {
                TokenAction::Use => return Ok(login.credential()),
                TokenAction::Renew { is_usable: true } => {
                    if can_renew {
                        self.renew_in_background(account, demand);
                    }
                    return Ok(login.credential());
                }
                TokenAction::Renew { .. } if !can_renew => {
                    let state = if demand == Demand::Credential { "has expired" } else { "was rejected" };
                    return Err(self.login_error(account, state, None));
                }
                TokenAction::Renew { .. } => {
                    let renewal = self.renew_in_background(account, demand);
                    if self.settings.clock.bounded(RENEWAL_WAIT, renewal.cancelled()).await.is_none() {
                        break;
                    }
                }
                TokenAction::Wait { until } => {
                    let reason = failure_reason(login).unwrap_or("the provider rate limits renewals");
                    let message = format!("could not renew the login of {account} yet: {reason}");
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    return Err(CredentialError::temporarily_unavailable(message, Some(wait)));
                }
                TokenAction::Reauthenticate => {
                    return Err(self.login_error(account, "is no longer valid", failure_reason(login)));
                }
            }
        }
        let message = format!("the login of {account} is being renewed");
        Err(CredentialError::temporarily_unavailable(message, Some(RETRY_AFTER)))
    }

    /// Starts a renewal, or joins the running one.
    fn renew_in_background(self: &Arc<Self>, account: &AccountId, demand: Demand) -> CancellationToken {
        let mut renewals = self.renewals.lock();
        if let Some(renewal) = renewals.get(account).filter(|renewal| !renewal.is_cancelled()) {
            return renewal.clone();
        }
        let renewal = CancellationToken::new();
        renewals.insert(account.clone(), renewal.clone());
        drop(renewals);
        // The guard cancels the token even if the task panics. The callers then read the file again.
        let finished = renewal.clone().drop_guard();
        let (this, account) = (Arc::clone(self), account.clone());
        self.tasks.spawn(async move {
            let _finished = finished;
            if let Err(error) = this.renew(&account, demand).await {
                tracing::warn!(%account, %error, "login not renewed");
            }
        });
        renewal
    }

    async fn renew(&self, account: &AccountId, demand: Demand) -> Result<(), FileError> {
        let Some(refresher) = self.settings.refreshers.get(account.provider()) else { return Ok(()) };
        let Some(lease) = self.acquire_lease(account.provider()).await? else {
            tracing::debug!(%account, "renewal lease not acquired in time");
            return Ok(());
        };
        let renewed = self.renew_under_lease(account, demand, &**refresher).await;
        lease.release().await;
        renewed
    }

    /// Waits for the lease; `None` if other processes held it for too long, or this process ends.
    async fn acquire_lease(&self, provider: &ProviderId) -> Result<Option<RenewalLease>, FileError> {
        let Settings { store, clock, .. } = &self.settings;
        let acquire = lease::acquire(&self.file, store.as_ref(), clock, provider);
        self.give_up.run_until_cancelled(acquire).await.unwrap_or(Ok(None))
    }

    async fn renew_under_lease(
        &self,
        account: &AccountId,
        demand: Demand,
        refresher: &dyn TokenRefresher,
    ) -> Result<(), FileError> {
        // The previous lease holder may have renewed the login.
        let file = self.load().await?;
        let (started_at, timing) = (self.settings.clock.now(), self.settings.timing);
        let action = file.action(account, demand, started_at, &timing);
        let Some(TokenAction::Renew { .. }) = action else { return Ok(()) };
        let login = &file.logins[account];
        let (Some(token), Some(fingerprint)) = (login.refresh_token.clone(), login.refresh_fingerprint())
        else {
            return Ok(());
        };
        let from_rejection = demand == Demand::Replacement(login.access_fingerprint());
        // Record the attempt before the request, because the process may be killed. The write also proves that the file is
        // writable.
        let id = account.clone();
        let mark = move |file: &mut LoginsFile| file.mark_sending(&id, fingerprint, started_at, &timing);
        if !self.file.update_existing(mark).await? {
            return Ok(());
        }
        let result = match self.exchange(refresher, &token).await {
            Ok(tokens) => {
                tracing::debug!(%account, "login renewed");
                RenewalResult::Renewed(Exchanged { tokens, started_at, from_rejection })
            }
            Err(error) => {
                tracing::debug!(%account, %error, "login not renewed");
                RenewalResult::Failed { error, at: self.settings.clock.now(), timing }
            }
        };
        self.unsaved.lock().insert(account.clone(), (fingerprint, Arc::new(result)));
        self.save_with_retries(account).await
    }

    async fn exchange(&self, refresher: &dyn TokenRefresher, token: &Secret) -> Result<Tokens, TokenError> {
        let bounded = self.settings.clock.bounded(EXCHANGE_TIMEOUT, refresher.refresh(token)).await;
        bounded.unwrap_or_else(|| Err(TokenError::transient("the provider timed out")))
    }

    /// Writes the unsaved result of an account. Until that succeeds, `load` applies it.
    async fn save(&self, account: &AccountId) -> Result<(), FileError> {
        let unsaved = self.unsaved.lock().get(account).cloned();
        let Some((sent, result)) = unsaved else { return Ok(()) };
        let (id, written) = (account.clone(), Arc::clone(&result));
        let apply = move |file: &mut LoginsFile| written.apply(file, &id, sent);
        // A missing file is not created, because then the login would count as removed.
        if !self.file.update_existing(apply).await? {
            tracing::debug!(%account, "renewal result dropped: a newer login is stored");
        }
        let mut unsaved = self.unsaved.lock();
        // A renewal may have ended since, and its result is not written yet.
        if unsaved.get(account).is_some_and(|(_, other)| Arc::ptr_eq(other, &result)) {
            unsaved.remove(account);
        }
        Ok(())
    }

    /// Retries while the lease is held, because the next holder would send the used token.
    async fn save_with_retries(&self, account: &AccountId) -> Result<(), FileError> {
        for _ in 1..MAX_WRITE_ATTEMPTS {
            if self.save(account).await.is_ok() {
                return Ok(());
            }
            self.settings.clock.sleep(WRITE_RETRY_DELAY).await;
        }
        self.save(account).await
    }

    async fn save_or_warn(&self, account: &AccountId) {
        if let Err(error) = self.save(account).await {
            tracing::warn!(%account, %error, "renewal result not written yet");
        }
    }

    /// Obtains a new login with `exchange` while holding the lease, and stores it. The exchange runs in its own task,
    /// because a code works only once.
    pub(super) async fn log_in(
        self: &Arc<Self>,
        account: &AccountId,
        exchange: impl Future<Output = Result<Tokens, TokenError>> + Send + 'static,
    ) -> Result<(), LogInError> {
        let (this, account) = (Arc::clone(self), account.clone());
        let task = self.tasks.spawn(async move { this.log_in_under_lease(account, exchange).await });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(TokenError::transient("the runtime is shutting down").into()),
            },
        }
    }

    async fn log_in_under_lease(
        &self,
        account: AccountId,
        exchange: impl Future<Output = Result<Tokens, TokenError>>,
    ) -> Result<(), LogInError> {
        let lease = self.acquire_lease(account.provider()).await?.ok_or(LogInError::Busy)?;
        let stored = self.exchange_and_store(account, exchange).await;
        lease.release().await;
        stored
    }

    async fn exchange_and_store(
        &self,
        account: AccountId,
        exchange: impl Future<Output = Result<Tokens, TokenError>>,
    ) -> Result<(), LogInError> {
        // Read the file first, so that an unreadable file is detected before the code is used. The lease's lock file is
        // in the same folder, so the folder is writable.
        self.load().await?;
        let (clock, started_at) = (&self.settings.clock, self.settings.clock.now());
        let tokens = clock.bounded(EXCHANGE_TIMEOUT, exchange).await;
        let tokens = tokens.unwrap_or_else(|| Err(TokenError::transient("the provider timed out")))?;
        let login = NewLogin::of_tokens(tokens, started_at);
        for attempt in 1.. {
            let (account, login) = (account.clone(), login.clone());
            let put = move |file: &mut LoginsFile| file.put(account, login, started_at);
            match self.file.update(put).await {
                Ok(PutResult::Stored | PutResult::AlreadyStored) => break,
                Err(error) if attempt >= MAX_WRITE_ATTEMPTS => return Err(error.into()),
                Err(_) => clock.sleep(WRITE_RETRY_DELAY).await,
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.tasks.close();
        if self.settings.clock.bounded(CLOSE_GRACE, self.tasks.wait()).await.is_none() {
            self.give_up.cancel();
            self.tasks.wait().await;
        }
        let accounts: Vec<AccountId> = self.unsaved.lock().keys().cloned().collect();
        for account in accounts {
            self.save_or_warn(&account).await;
        }
    }

    fn no_login_error(&self, account: &AccountId) -> CredentialError {
        let path = self.file.path().display();
        let hint =
            self.settings.login_hint.as_ref().map_or_else(|| "log in".into(), |hint| format!("run `{hint}`"));
        CredentialError::not_logged_in(format!("no login for {account} in {path}; {hint}"))
    }

    fn login_error(&self, account: &AccountId, state: &str, reason: Option<&str>) -> CredentialError {
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let hint =
            self.settings.login_hint.as_ref().map(|hint| format!(" with `{hint}`")).unwrap_or_default();
        let message = format!("the login of {account} {state}{reason}; log in again{hint}");
        CredentialError::not_logged_in(message)
    }
}

fn failure_reason(login: &StoredLogin) -> Option<&str> {
    login.last_failure.as_ref().map(|failure| &*failure.reason)
}
