//! Giving credentials, and renewing them: one exchange at a time, in a task that outlives whoever waits for it.
//! When to renew, and what is written, is decided in `rule`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialFingerprint, ProviderId, QuotaStore, Secret,
    TokenError, TokenRefresher,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::lease;
use super::login::LoginsFile;
use super::policy::{Got, Pace, Step, Want};
use quota_core::file::{FileError, JsonFile};

/// How long a caller waits who has nothing to use meanwhile.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long an exchange may take; the lease that excludes other processes lasts longer.
const EXCHANGE: Duration = Duration::from_secs(30);
/// How often to try to write what was got, and how long to wait in between.
const WRITES: u32 = 3;
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// When to come back if somebody else is renewing.
const SOON: Duration = Duration::from_secs(5);

/// What all clones share.
pub(super) struct Inner {
    pub(super) document: JsonFile,
    refreshers: HashMap<ProviderId, Arc<dyn TokenRefresher>>,
    store: Option<Arc<dyn QuotaStore>>,
    pub(super) clock: Clock,
    pace: Pace,
    login_hint: Option<String>,
    /// Who is being renewed.
    flights: Mutex<HashMap<AccountId, Arc<Flight>>>,
    /// What was got and could not be written: without it a spent token would be sent again.
    unwritten: Mutex<HashMap<AccountId, (CredentialFingerprint, Got)>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Inner {
    pub(super) fn new(
        document: JsonFile,
        refreshers: HashMap<ProviderId, Arc<dyn TokenRefresher>>,
        store: Option<Arc<dyn QuotaStore>>,
        clock: Clock,
        pace: Pace,
        login_hint: Option<String>,
    ) -> Self {
        Self {
            document,
            refreshers,
            store,
            clock,
            pace,
            login_hint,
            flights: Mutex::default(),
            unwritten: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// What is kept, and what ought to be.
    pub(super) async fn load(&self) -> Result<LoginsFile, FileError> {
        let mut file: LoginsFile = self.document.load().await?;
        self.unwritten().retain(|account, (mark, got)| file.take(account, *mark, got));
        Ok(file)
    }

    pub(super) async fn credential(
        self: &Arc<Self>,
        account: &AccountId,
        want: Want,
    ) -> Result<Credential, CredentialError> {
        self.write_what_is_unwritten(account).await;
        // A renewal that was under way may have been begun for less than is wanted now, so a second one is waited for.
        for _ in 0..2 {
            let file = self.load().await.map_err(|error| self.unreadable(error))?;
            let now = self.clock.now();
            let step = file.step(account, want, now, &self.pace).ok_or_else(|| self.nobody(account))?;
            let kept = &file.logins[account];
            let may_renew = self.refreshers.contains_key(account.provider());
            match step {
                Step::Give => return Ok(kept.credential()),
                Step::Exchange { is_usable: true } => {
                    if may_renew {
                        self.renew_in_background(account, want);
                    }
                    return Ok(kept.credential());
                }
                Step::Exchange { .. } if !may_renew => {
                    let what = if want == Want::Credential { "has run out" } else { "was refused" };
                    return Err(self.log_in(account, what, None));
                }
                Step::Exchange { .. } => {
                    let flight = self.renew_in_background(account, want);
                    if self.clock.bounded(PATIENCE, flight.end()).await.is_none() {
                        break;
                    }
                }
                Step::Wait { until } => {
                    let why = kept
                        .trouble
                        .as_ref()
                        .map_or("the provider asked for a pause", |trouble| &trouble.why);
                    let why = format!("the login of {account} could not be renewed yet: {why}");
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    return Err(CredentialError::temporarily_unavailable(why, Some(wait)));
                }
                Step::LogIn => {
                    let why = kept.trouble.as_ref().map(|trouble| &*trouble.why);
                    return Err(self.log_in(account, "is no longer good", why));
                }
            }
        }
        Err(CredentialError::temporarily_unavailable(
            format!("the login of {account} is being renewed"),
            Some(SOON),
        ))
    }

    /// Renews a login, or joins whoever does.
    fn renew_in_background(self: &Arc<Self>, account: &AccountId, want: Want) -> Arc<Flight> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(account) {
            return Arc::clone(flight);
        }
        let flight = Arc::<Flight>::default();
        flights.insert(account.clone(), Arc::clone(&flight));
        drop(flights);
        let landing =
            Landing { inner: Arc::clone(self), account: account.clone(), flight: Arc::clone(&flight) };
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let Landing { inner, account, .. } = &landing;
            if let Err(error) = inner.renew(account, want).await {
                tracing::warn!(%account, %error, "login not renewed");
            }
        });
        flight
    }

    async fn renew(&self, account: &AccountId, want: Want) -> Result<(), FileError> {
        let Some(refresher) = self.refreshers.get(account.provider()) else { return Ok(()) };
        let lease =
            lease::acquire(&self.document, self.store.as_ref(), &self.clock, account.provider()).await?;
        let Some(lease) = lease else {
            tracing::debug!(%account, "others are renewing for too long");
            return Ok(());
        };
        let done = self.renew_under_lease(account, want, &**refresher).await;
        lease.release().await;
        done
    }

    async fn renew_under_lease(
        &self,
        account: &AccountId,
        want: Want,
        refresher: &dyn TokenRefresher,
    ) -> Result<(), FileError> {
        // The holder before may have done it.
        let file = self.load().await?;
        let (at, pace) = (self.clock.now(), self.pace);
        let Some(Step::Exchange { .. }) = file.step(account, want, at, &pace) else { return Ok(()) };
        let kept = &file.logins[account];
        let (Some(token), Some(mark)) = (kept.refresh_token.clone(), kept.refresh_mark()) else {
            return Ok(());
        };
        let is_second = want == Want::Another(kept.access_mark());
        // Written first: it leaves word should this process be killed, and it shows that the new token can be written.
        let id = account.clone();
        if !self.document.update(move |file: &mut LoginsFile| file.sending(&id, mark, at, &pace)).await? {
            return Ok(());
        }
        match self.exchange(refresher, &token).await {
            Ok(tokens) => {
                tracing::debug!(%account, "login renewed");
                self.unwritten().insert(account.clone(), (mark, Got { tokens, at, is_second }));
                self.write_at_last(account).await
            }
            Err(error) => {
                tracing::debug!(%account, %error, "login not renewed");
                let (id, now) = (account.clone(), self.clock.now());
                let change = move |file: &mut LoginsFile| file.fail(&id, mark, &error, now, &pace);
                self.document.update(change).await
            }
        }
    }

    async fn exchange(
        &self,
        refresher: &dyn TokenRefresher,
        token: &Secret,
    ) -> Result<quota_core::Tokens, TokenError> {
        let bounded = self.clock.bounded(EXCHANGE, refresher.refresh(token)).await;
        bounded.unwrap_or_else(|| Err(TokenError::transient("the provider did not answer in time")))
    }

    /// Writes what was got. Until that has worked it is kept here, and serves from here.
    async fn write(&self, account: &AccountId) -> Result<(), FileError> {
        let Some((mark, got)) = self.unwritten().get(account).cloned() else { return Ok(()) };
        let id = account.clone();
        let is_taken = self.document.update(move |file: &mut LoginsFile| file.take(&id, mark, &got)).await?;
        if !is_taken {
            tracing::debug!(%account, "a newer login has taken its place");
        }
        self.unwritten().remove(account);
        Ok(())
    }

    /// Writes what was got, with some patience while the lease is still held: its next holder would send the spent token.
    async fn write_at_last(&self, account: &AccountId) -> Result<(), FileError> {
        for _ in 1..WRITES {
            if self.write(account).await.is_ok() {
                return Ok(());
            }
            self.clock.sleep(BETWEEN_WRITES).await;
        }
        self.write(account).await
    }

    async fn write_what_is_unwritten(&self, account: &AccountId) {
        if let Err(error) = self.write(account).await {
            tracing::warn!(%account, %error, "a renewed login is not written yet");
        }
    }

    pub(super) async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        while tasks.join_next().await.is_some() {}
        let left: Vec<AccountId> = self.unwritten().keys().cloned().collect();
        for account in left {
            self.write_what_is_unwritten(&account).await;
        }
    }

    fn nobody(&self, account: &AccountId) -> CredentialError {
        let path = self.document.path().display();
        let then = self.login_hint.as_ref().map_or_else(|| "log in".into(), |by| format!("run `{by}`"));
        CredentialError::not_logged_in(format!("no login of {account} in {path}: {then}"))
    }

    fn log_in(&self, account: &AccountId, what: &str, why: Option<&str>) -> CredentialError {
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let with = self.login_hint.as_ref().map(|by| format!(" with `{by}`")).unwrap_or_default();
        CredentialError::not_logged_in(format!("the login of {account} {what}{why}: log in again{with}"))
    }

    fn unreadable(&self, error: FileError) -> CredentialError {
        CredentialError::unreadable(error.to_string(), error)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<AccountId, Arc<Flight>>> {
        // Nothing panics halfway through a change, so what these locks guard is whole.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<AccountId, (CredentialFingerprint, Got)>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One renewal, for all who wait for it.
#[derive(Default)]
struct Flight {
    has_ended: AtomicBool,
    ended: Notify,
}

impl Flight {
    /// Waits until it has ended, in whatever way.
    async fn end(&self) {
        // Listening before it looks, so that an end in between is heard.
        let ended = self.ended.notified();
        if !self.has_ended.load(Ordering::Acquire) {
            ended.await;
        }
    }
}

/// Ends a flight however its task ends, a panic included: whoever waits looks at the file again.
struct Landing {
    inner: Arc<Inner>,
    account: AccountId,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights().remove(&self.account);
        self.flight.has_ended.store(true, Ordering::Release);
        self.flight.ended.notify_waiters();
    }
}
