//! A scripted provider in memory that counts its calls.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::model::{
    AccountId, CredentialFingerprint, LoginInfo, Percent, ProviderId, UsageReport, WindowId, WindowReading,
};
use crate::provider::{Credential, CredentialError, CredentialSource, FetchError, UsageFetcher};
use crate::secret::Secret;

/// A scripted provider that is also the credential source of its accounts. Clones share one state: a test keeps one clone and
/// passes another to the manager.
///
/// ```
/// use quota_core::testing::FakeProvider;
/// use quota_core::{Credential, FetchError, UsageFetcher};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let provider = FakeProvider::answering("example", 42.0);
/// provider.then_fail(FetchError::throttled(None));
///
/// let account = "example/main".parse()?;
/// assert!(provider.fetch(&account, &Credential::none()).await.is_err());
/// assert!(provider.fetch(&account, &Credential::none()).await.is_ok());
/// assert_eq!(provider.calls(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FakeProvider {
    id: ProviderId,
    state: Arc<Mutex<State>>,
}

struct State {
    clock: Clock,
    takes: Duration,
    usual: UsageReport,
    script: VecDeque<Step>,
    logins: HashMap<AccountId, Result<LoginInfo, CredentialError>>,
    hanging_credentials: usize,
    credential_reads: usize,
    renewals: usize,
    renewed: u64,
    called: Vec<AccountId>,
    running: HashMap<AccountId, usize>,
    running_in_total: usize,
    max_in_flight: usize,
    max_per_account: usize,
}

/// One scripted call.
enum Step {
    Answer(Box<UsageReport>),
    Fail(FetchError),
    Hang,
    Panic,
}

impl FakeProvider {
    /// Creates a provider whose accounts have used `used_percent` of their five-hour window.
    ///
    /// # Panics
    ///
    /// If `provider` is not a valid name or `used_percent` is not a valid percentage.
    #[must_use]
    pub fn answering(provider: &str, used_percent: f64) -> Self {
        let used = Percent::from_percent(used_percent).expect("a test uses a finite number");
        let usual = UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]);
        let state = State {
            clock: Clock::system(),
            takes: Duration::ZERO,
            usual,
            script: VecDeque::new(),
            logins: HashMap::new(),
            hanging_credentials: 0,
            credential_reads: 0,
            renewals: 0,
            renewed: 0,
            called: Vec::new(),
            running: HashMap::new(),
            running_in_total: 0,
            max_in_flight: 0,
            max_per_account: 0,
        };
        let id = ProviderId::new(provider).expect("a test names a valid provider");
        Self { id, state: Arc::new(Mutex::new(state)) }
    }

    /// Sets how long each call takes.
    #[must_use]
    pub fn with_delay(self, duration: Duration) -> Self {
        self.state.lock().takes = duration;
        self
    }

    /// Sets the response to all calls that are not scripted.
    pub fn answer(&self, usage: UsageReport) {
        self.state.lock().usual = usage;
    }

    /// Appends one response to the script.
    pub fn then_answer(&self, usage: UsageReport) {
        self.state.lock().script.push_back(Step::Answer(Box::new(usage)));
    }

    /// Appends one error to the script.
    pub fn then_fail(&self, error: FetchError) {
        self.state.lock().script.push_back(Step::Fail(error));
    }

    /// Appends one call without a response to the script.
    pub fn then_hang(&self) {
        self.state.lock().script.push_back(Step::Hang);
    }

    /// As a credential source, hangs on the next read.
    pub fn then_hang_credential(&self) {
        self.state.lock().hanging_credentials += 1;
    }

    /// Appends one panic to the script.
    pub fn then_panic(&self) {
        self.state.lock().script.push_back(Step::Panic);
    }

    /// As a credential source, returns a credential of this login, or this error, for an account.
    pub fn set_login(&self, account: &AccountId, login: Result<LoginInfo, CredentialError>) {
        self.state.lock().logins.insert(account.clone(), login);
    }

    /// As a credential source, renews the credential once, when the manager requests it.
    pub fn then_renew(&self) {
        self.state.lock().renewals += 1;
    }

    /// The number of calls.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state.lock().called.len()
    }

    /// As a credential source, the number of reads.
    #[must_use]
    pub fn credential_reads(&self) -> usize {
        self.state.lock().credential_reads
    }

    /// The number of calls for one account.
    #[must_use]
    pub fn calls_for(&self, account: &AccountId) -> usize {
        self.state.lock().called.iter().filter(|called| *called == account).count()
    }

    /// The account of each call, in order.
    #[must_use]
    pub fn called_accounts(&self) -> Vec<AccountId> {
        self.state.lock().called.clone()
    }

    /// The maximum number of concurrent calls.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.state.lock().max_in_flight
    }

    /// The maximum number of concurrent calls for one account.
    #[must_use]
    pub fn max_in_flight_per_account(&self) -> usize {
        self.state.lock().max_per_account
    }

    fn enter(&self, account: &AccountId) -> Running {
        let mut state = self.state.lock();
        state.called.push(account.clone());
        state.running_in_total += 1;
        state.max_in_flight = state.max_in_flight.max(state.running_in_total);
        let running = state.running.entry(account.clone()).or_default();
        *running += 1;
        let running = *running;
        state.max_per_account = state.max_per_account.max(running);
        Running { provider: self.clone(), account: account.clone() }
    }
}

/// Counts a call as running until it is dropped.
struct Running {
    provider: FakeProvider,
    account: AccountId,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.provider.state.lock();
        state.running_in_total -= 1;
        if let Some(running) = state.running.get_mut(&self.account) {
            *running -= 1;
        }
    }
}

impl fmt::Debug for FakeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProvider").field("id", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl UsageFetcher for FakeProvider {
    fn provider(&self) -> ProviderId {
        self.id.clone()
    }

    async fn fetch(&self, account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        let _running = self.enter(account);
        let (step, takes, clock) = {
            let mut state = self.state.lock();
            let usual = state.usual.clone();
            let step = state.script.pop_front().unwrap_or_else(|| Step::Answer(Box::new(usual)));
            (step, state.takes, state.clock.clone())
        };
        if !takes.is_zero() {
            clock.sleep(takes).await;
        }
        match step {
            Step::Answer(usage) => Ok(*usage),
            Step::Fail(error) => Err(error),
            Step::Hang => std::future::pending().await,
            Step::Panic => panic!("a scripted panic of the fake provider"),
        }
    }
}

#[async_trait]
impl CredentialSource for FakeProvider {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let (hangs, login) = {
            let mut state = self.state.lock();
            state.credential_reads += 1;
            let hangs = state.hanging_credentials > 0;
            state.hanging_credentials = state.hanging_credentials.saturating_sub(1);
            (hangs, state.logins.get(account).cloned().unwrap_or_else(|| Ok(LoginInfo::unknown())))
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(Credential::new(Secret::new("fake")).login(login?))
    }

    /// Returns the same credential, or after [`then_renew`](FakeProvider::then_renew), one with a different
    /// fingerprint.
    async fn renew(
        &self,
        account: &AccountId,
        _rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        {
            let mut state = self.state.lock();
            if state.renewals > 0 {
                state.renewals -= 1;
                state.renewed += 1;
                let fingerprint = CredentialFingerprint::from_hash(u64::MAX - state.renewed);
                let login = state.logins.entry(account.clone()).or_insert_with(|| Ok(LoginInfo::unknown()));
                if let Ok(login) = login {
                    login.fingerprint = Some(fingerprint);
                }
            }
        }
        self.credential(account).await
    }
}
