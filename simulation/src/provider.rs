//! The simulated provider: usage per login, a ledger of calls, and faults. Each response carries a serial number, so that a reader's
//! numbers can be traced to the call that produced them.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::{
    AccountId, Credential, CredentialError, CredentialSource, FetchError, ProviderId, UsageFetcher,
    UsageReport,
};

use crate::ledger::{Caller, Outcome};
use crate::names::{number_of, plan_of};
use crate::numbers::{FIVE_HOURS, Numbers};
use crate::panics::PLANNED;
use crate::plan::{Plan, ProviderFault};
use crate::world::{Link, World};

/// The provider.
#[derive(Debug)]
pub(crate) struct Provider {
    world: Arc<World>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The use of each login.
    used: BTreeMap<usize, Used>,
    /// The faults in force, newest last.
    faults: Vec<ProviderFault>,
    /// The logins that accounts were switched to, by account.
    switched: BTreeMap<usize, Vec<usize>>,
    /// The logins whose ordinary requests are rejected, with the wait in seconds.
    limited: BTreeMap<usize, u64>,
    /// How often all tokens have rotated.
    rotations: u64,
}

#[derive(Debug, Default)]
struct Used {
    /// The number of the last response.
    serial: u32,
    /// The number of the current five-hour window, and its requests.
    period: u64,
    requests: u32,
}

impl Provider {
    pub(crate) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, state: Mutex::default() })
    }

    pub(crate) fn set_fault(&self, fault: ProviderFault, is_active: bool) {
        let mut state = self.state.lock();
        match is_active {
            true => state.faults.push(fault),
            false => {
                if let Some(at) = state.faults.iter().position(|active| *active == fault) {
                    state.faults.remove(at);
                }
            }
        }
    }

    pub(crate) fn switch_login(&self, account: usize, login: usize, is_active: bool) {
        {
            let mut state = self.state.lock();
            let switched = state.switched.entry(account).or_default();
            match is_active {
                true => switched.push(login),
                false => {
                    if let Some(at) = switched.iter().position(|active| *active == login) {
                        switched.remove(at);
                    }
                }
            }
        }
        let login = self.login_of(account);
        self.world.check(|checker, now| checker.login_changed(now, account, login));
    }

    pub(crate) fn rotate_tokens(&self) {
        self.state.lock().rotations += 1;
    }

    /// The login that an account holds now.
    pub(crate) fn login_of(&self, account: usize) -> usize {
        let switched = self.state.lock().switched.get(&account).and_then(|logins| logins.last().copied());
        switched.unwrap_or(account % self.world.plan.logins)
    }

    /// The login that an account holds in a process whose logins are others.
    pub(crate) fn login_in(&self, account: usize, login_offset: usize) -> usize {
        (self.login_of(account) + login_offset) % self.world.plan.logins
    }

    /// The usage that the provider reports for a login now, with the next serial number.
    fn numbers(&self, login: usize, call: Option<usize>) -> Numbers {
        let Plan { request_bp, window_age, states_owner, .. } = self.world.plan;
        let period = (self.world.elapsed() + window_age).as_secs() / FIVE_HOURS.as_secs();
        let (serial, requests) = {
            let mut state = self.state.lock();
            let used = state.used.entry(login).or_default();
            used.serial += 1;
            if used.period != period {
                (used.period, used.requests) = (period, 0);
            }
            (used.serial, used.requests)
        };
        self.world.check(|checker, now| checker.issued(now, login, serial, call));
        let used_bp = (requests * request_bp).min(10_000);
        let resets_s = (period + 1) * FIVE_HOURS.as_secs() - window_age.as_secs();
        Numbers { login, serial, used_bp, resets_s, states_owner }
    }

    /// The headers of an ordinary response, after one more request.
    pub(crate) fn headers(&self, account: usize, login_offset: usize) -> UsageReport {
        let login = self.login_in(account, login_offset);
        self.state.lock().used.entry(login).or_default().requests += 1;
        let mut headers = self.numbers(login, None).headers();
        if self.world.plan.states_login {
            headers.login_id = Some(LoginId::new(&plan_of(login)));
        }
        headers
    }

    /// Starts or ends a time in which the provider rejects the ordinary requests of a login.
    pub(crate) fn limit_requests(&self, login: usize, seconds: Option<u64>) {
        let mut state = self.state.lock();
        match seconds {
            Some(seconds) => state.limited.insert(login, seconds),
            None => state.limited.remove(&login),
        };
    }

    /// The response to an ordinary request with the credential of a login.
    pub(crate) fn respond(&self, login: usize) -> Response {
        let now = self.world.clock.now();
        let limited = self.state.lock().limited.get(&login).copied();
        if let Some(seconds) = limited {
            let until = now.checked_add(Duration::from_secs(seconds)).ok();
            return Response { status: 429, header: ("retry-after", seconds.to_string()), until };
        }
        let mut numbers = self.numbers(login, None);
        let is_exhausted = numbers.used_bp == 10_000;
        if !is_exhausted {
            self.state.lock().used.entry(login).or_default().requests += 1;
            numbers.used_bp = (numbers.used_bp + self.world.plan.request_bp).min(10_000);
        }
        let header = (Numbers::HEADER, numbers.to_header());
        match is_exhausted {
            true => Response { status: 429, header, until: numbers.resets_at() },
            false => Response { status: 200, header, until: None },
        }
    }
}

/// The response to an ordinary request.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) header: (&'static str, String),
    /// Until when the provider rejects further requests.
    pub(crate) until: Option<Timestamp>,
}

/// The login whose credential this is.
pub(crate) fn login_of(credential: &Credential) -> usize {
    let login = credential.secret.expose().split('.').next().and_then(|login| login.parse().ok());
    login.expect("a credential of this simulation")
}

/// The fetcher and the credential source of one process.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    world: Arc<World>,
    provider: Arc<Provider>,
    link: Arc<Link>,
    /// The number of the manager that uses this connection.
    manager: usize,
    rng: Arc<Mutex<Rng>>,
}

impl Connection {
    pub(crate) fn new(
        world: &Arc<World>,
        provider: &Arc<Provider>,
        link: &Arc<Link>,
        manager: usize,
    ) -> Self {
        let rng = Arc::new(Mutex::new(world.stream("provider", manager)));
        Self {
            world: Arc::clone(world),
            provider: Arc::clone(provider),
            link: Arc::clone(link),
            manager,
            rng,
        }
    }

    fn fingerprint(login: usize, rotation: u64) -> CredentialFingerprint {
        CredentialFingerprint::from_hash((login as u64 + 1) << 32 | rotation)
    }
}

/// A call that the ledger counts as running until it is dropped.
struct Running {
    world: Arc<World>,
    call: usize,
    outcome: Outcome,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.check(|checker, now| checker.call_ended(now, self.call, self.outcome));
    }
}

#[async_trait]
impl UsageFetcher for Connection {
    fn provider(&self) -> ProviderId {
        ProviderId::new("example").expect("a valid name")
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        self.link.gate().await;
        let number = number_of(account);
        let login = login_of(credential);
        let caller = Caller { process: self.link.process, manager: self.manager };
        let fingerprint = credential.login.fingerprint.map(|fingerprint| fingerprint.to_string());
        let call = self.world.check(|checker, now| {
            checker.call_started(now, caller, number, login, fingerprint.as_deref().unwrap_or_default())
        });
        self.link.pause_in_call(&self.world);
        let mut running = Running { world: Arc::clone(&self.world), call, outcome: Outcome::Failed };
        let fault = self.provider.state.lock().faults.last().copied();
        let (shortest, longest) = self.world.plan.provider_ms;
        let takes = Duration::from_millis(self.rng.lock().u64(shortest..=longest));
        // The numbers are those of the call's start, because quota dates them so.
        let response = match fault {
            None => Ok(self.provider.numbers(login, Some(call)).polled()),
            Some(ProviderFault::RateLimited) => Err(FetchError::throttled(None)),
            Some(ProviderFault::RateLimitedFor(seconds)) => {
                Err(FetchError::throttled(Some(Duration::from_secs(seconds))))
            }
            Some(ProviderFault::ServerError) => Err(FetchError::unavailable("a simulated server error")),
            Some(ProviderFault::Hang) => pending().await,
            Some(ProviderFault::Malformed) => Err(FetchError::malformed("a simulated body")),
            Some(ProviderFault::Panic) => panic!("{PLANNED} of the fetcher"),
            Some(ProviderFault::Forbidden) => Err(FetchError::forbidden("a simulated rejection")),
        };
        self.world.clock.sleep(takes).await;
        self.link.gate().await;
        running.outcome = match &response {
            Ok(_) => Outcome::Answered,
            Err(FetchError::Throttled { retry_after, .. }) => Outcome::RateLimited(*retry_after),
            Err(_) => Outcome::Failed,
        };
        response
    }
}

#[async_trait]
impl CredentialSource for Connection {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.link.gate().await;
        let login = self.provider.login_in(number_of(account), self.link.login_offset);
        let rotation = self.provider.state.lock().rotations;
        let fingerprint = Self::fingerprint(login, rotation);
        let info = match self.world.plan.states_login {
            true => LoginInfo::new(LoginId::new(&plan_of(login))),
            false => LoginInfo::unknown(),
        };
        Ok(Credential::new(format!("{login}.{rotation}")).login(info.fingerprint(fingerprint)))
    }
}
