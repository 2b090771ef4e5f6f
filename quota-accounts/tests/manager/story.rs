//! Three days of requests on three accounts: windows fill and reset, one model has its own window, the provider throttles and is
//! overloaded, and one login is rejected. The ledger of the provider shows the results.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RequestOutcome, RetryAdvice};
use quota_core::model::{CredentialFingerprint, LoginInfo, Scope};
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser};
use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialSource, FetchError, MemoryStore, ProviderId,
    QuotaManager, Secret, UsageFetcher, UsageReport, WindowId, WindowReading,
};

use crate::support::{BOTH, Kind, id, percent};

const NAMES: [&str; 3] = ["main", "b", "c"];
const STEP: Duration = Duration::from_secs(30);
const REQUESTS: usize = 3 * 24 * 120;

/// A window as the provider counts it.
#[derive(Debug, Clone)]
struct Meter {
    id: WindowId,
    scope: Option<Scope>,
    used: f64,
    reset: Timestamp,
    length: SignedDuration,
}

impl Meter {
    fn roll(&mut self, now: Timestamp) {
        while self.reset <= now {
            self.reset += self.length;
            self.used = 0.0;
        }
    }

    fn counts(&self, model: &str) -> bool {
        self.scope.is_none() || model.contains("opus")
    }

    fn reading(&self) -> WindowReading {
        WindowReading::new(self.id.clone(), percent(self.used))
            .resets_at(self.reset)
            .scope(self.scope.clone())
    }
}

#[derive(Debug, Default)]
struct Ledger {
    served: u32,
    usage_calls: BTreeMap<String, Vec<Timestamp>>,
    /// Requests to an account after the provider had reported it as exhausted.
    futile: u32,
    exhausted: u32,
    wrongly_rejected: u32,
    unauthorized: u32,
    overloaded: u32,
    throttled: u32,
}

#[derive(Debug)]
struct State {
    meters: BTreeMap<String, Vec<Meter>>,
    /// The credential that the provider accepts for each account.
    accepted: BTreeMap<String, u64>,
    /// The credential that the source returns for each account.
    available: BTreeMap<String, u64>,
    reported: BTreeMap<(String, WindowId), Timestamp>,
    ledger: Ledger,
    requests: u32,
    is_overloaded: bool,
}

/// The provider and the credential source.
#[derive(Debug, Clone)]
struct Provider {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Provider {
    fn new(clock: &Clock) -> Self {
        let now = clock.now();
        let meters = |offset: i64| {
            let meter = |id, scope, hours: i64, hours_to_reset: i64| Meter {
                id,
                scope,
                used: 0.0,
                reset: now + SignedDuration::from_hours(hours_to_reset),
                length: SignedDuration::from_hours(hours),
            };
            let opus = WindowId::seven_day().for_model("Opus").expect("a valid name");
            vec![
                meter(WindowId::five_hour(), None, 5, 2 + offset),
                meter(WindowId::seven_day(), None, 168, 40 + 10 * offset),
                meter(opus, Some(Scope::model("Opus")), 168, 20 + 10 * offset),
            ]
        };
        let all = |value: u64| NAMES.iter().map(|name| ((*name).to_owned(), value)).collect();
        let state = State {
            meters: NAMES.iter().zip(0..).map(|(name, at)| ((*name).to_owned(), meters(at))).collect(),
            accepted: all(1),
            available: all(1),
            reported: BTreeMap::new(),
            ledger: Ledger::default(),
            requests: 0,
            is_overloaded: false,
        };
        Self { clock: clock.clone(), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        state.meters.values_mut().flatten().for_each(|meter| meter.roll(now));
        state
    }

    /// Whether any account could serve the model.
    fn has_capacity(&self, model: &str) -> bool {
        let state = self.state();
        NAMES.iter().any(|name| {
            let is_accepted = state.accepted[*name] == state.available[*name];
            is_accepted && state.meters[*name].iter().all(|meter| !meter.counts(model) || meter.used < 100.0)
        })
    }

    /// Serves or rejects a request.
    fn message(&self, name: &str, credential: &Credential, model: &str) -> RequestOutcome {
        let mut state = self.state();
        let now = self.clock.now();
        state.requests += 1;
        if credential.secret.expose() != format!("n33dle-{}", state.accepted[name]) {
            state.ledger.unauthorized += 1;
            return RequestOutcome::from_response(401, [("date", "")]);
        }
        if state.is_overloaded {
            state.ledger.overloaded += 1;
            return RequestOutcome::from_response(529, [("retry-after", "60")]);
        }
        let full: Vec<Meter> = state.meters[name]
            .iter()
            .filter(|meter| meter.counts(model) && meter.used >= 100.0)
            .cloned()
            .collect();
        if let Some(worst) = full.iter().max_by_key(|meter| (meter.scope.is_none(), meter.reset)) {
            state.ledger.exhausted += 1;
            let key = (name.to_owned(), worst.id.clone());
            if state.reported.get(&key).is_some_and(|until| now < *until) {
                state.ledger.futile += 1;
            }
            state.reported.insert(key, worst.reset);
            let reset = worst.reset.as_second().to_string();
            return RequestOutcome::from_response(
                429,
                [("x-ratelimit-exhausted", worst.id.as_str()), ("x-ratelimit-reset", &reset)],
            );
        }
        if state.requests.is_multiple_of(97) {
            state.ledger.throttled += 1;
            return RequestOutcome::from_response(429, [("retry-after", "5")]);
        }
        let headers: Vec<(String, String)> = {
            let meters = state.meters.get_mut(name).expect("one of the three accounts");
            for meter in meters.iter_mut().filter(|meter| meter.counts(model)) {
                meter.used += if meter.length > SignedDuration::from_hours(24) { 0.04 } else { 0.5 };
            }
            let account_meters = meters.iter().filter(|meter| meter.scope.is_none());
            account_meters
                .map(|meter| {
                    (
                        format!("x-ratelimit-{}", meter.id),
                        format!("{};{}", meter.used, meter.reset.as_second()),
                    )
                })
                .collect()
        };
        state.ledger.served += 1;
        RequestOutcome::from_response(200, headers)
    }
}

#[async_trait]
impl UsageFetcher for Provider {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    async fn fetch(&self, account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.ledger.usage_calls.entry(account.name().to_owned()).or_default().push(now);
        if state.accepted[account.name()] != state.available[account.name()] {
            return Err(FetchError::Unauthorized);
        }
        Ok(UsageReport::polled(state.meters[account.name()].iter().map(Meter::reading)))
    }
}

#[async_trait]
impl CredentialSource for Provider {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let token = self.state().available[account.name()];
        let login = LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(token));
        Ok(Credential::new(Secret::new(format!("n33dle-{token}"))).login(login))
    }
}

/// Parses the headers of this provider.
#[derive(Debug)]
struct Parser;

impl ResponseParser for Parser {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        let header = |name: &str| response.header(name);
        let timestamp = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
        let window = |id: WindowId| {
            let (used, reset) = header(&format!("x-ratelimit-{id}"))?.split_once(';')?;
            Some(WindowReading::new(id, percent(used.parse().ok()?)).resets_at(timestamp(reset)))
        };
        let windows = [WindowId::five_hour(), WindowId::seven_day()].into_iter().filter_map(window);
        let failure = match header("x-ratelimit-exhausted").and_then(|id| WindowId::new(id).ok()) {
            Some(id) => {
                let scope = id.as_str().contains('/').then(Scope::unknown_model);
                let failure = Rejection::new(RejectionKind::QuotaExhausted).window(id).scope(scope);
                Some(failure.resets_at(header("x-ratelimit-reset").and_then(timestamp)))
            }
            None => {
                let wait = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
                Rejection::of_status(response.status).map(|failure| failure.retry_after(wait))
            }
        };
        ParsedResponse::new(UsageReport::from_headers(windows), failure)
    }
}

fn manager(kind: Kind, clock: &Clock, provider: &Provider) -> FallbackAccountManager {
    let config = AccountsConfig::new(id("main")).fallback(id("b")).fallback(id("c"));
    let builder = FallbackAccountManager::builder(config).response_parser(Parser);
    let builder = match kind {
        Kind::Without => builder.fetcher(provider.clone()).credentials(provider.clone()).clock(clock.clone()),
        Kind::With => {
            let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone()))
                .provider(provider.clone(), provider.clone())
                .clock(clock.clone());
            builder.quota_manager(quota.build().expect("a valid policy"))
        }
    };
    builder.build().expect("a valid configuration")
}

/// Sends a request with retries on other accounts. Returns whether it was served.
async fn send(accounts: &FallbackAccountManager, provider: &Provider, model: &str) -> bool {
    for _ in 0..10 {
        let route = match accounts.route(Request::new().with_model(model)).await {
            Ok(route) => route,
            Err(error) => {
                // A throttled account has capacity, but must not be used yet.
                let is_throttled = error.retry_after().is_some_and(|wait| wait <= Duration::from_secs(30));
                if provider.has_capacity(model) && !is_throttled {
                    provider.state().ledger.wrongly_rejected += 1;
                }
                return false;
            }
        };
        let credential = route.credential().expect("the account has a source");
        let outcome = provider.message(route.account().name(), credential, model);
        let report = accounts.report(&route, outcome).await.expect("a route of this manager");
        match report.next {
            RetryAdvice::Done => return true,
            RetryAdvice::OtherAccount | RetryAdvice::SameAccount => {}
            _ => return false,
        }
    }
    panic!("ten attempts for one request");
}

#[tokio::test(start_paused = true)]
async fn three_days_of_requests_waste_none_and_reject_no_servable_one() {
    for kind in BOTH {
        let clock = Clock::virtual_at("2026-06-01T12:00:00Z".parse().unwrap());
        let provider = Provider::new(&clock);
        let accounts = manager(kind, &clock, &provider);

        let mut unserved = 0;
        for at in 0..REQUESTS {
            let hour = at / 120;
            {
                let mut state = provider.state();
                state.is_overloaded = hour == 50;
                // The provider rejects a login after thirty hours. Ten hours later there is a new one.
                state.accepted.insert("b".to_owned(), if hour >= 30 { 2 } else { 1 });
                state.available.insert("b".to_owned(), if hour >= 40 { 2 } else { 1 });
            }
            let model = if at % 3 == 0 { "claude-opus-4-5" } else { "claude-sonnet-4-5" };
            unserved += u32::from(!send(&accounts, &provider, model).await);
            clock.sleep(STEP).await;
        }

        let state = provider.state();
        let ledger = &state.ledger;
        assert_eq!((ledger.futile, ledger.wrongly_rejected), (0, 0), "{kind:?} {ledger:?}");
        assert!(ledger.served > 7000, "{kind:?} {} served, {unserved} not", ledger.served);
        // Each kind of failure occurred, and the router did not repeat it.
        assert!((1..=3).contains(&ledger.unauthorized), "{kind:?} {}", ledger.unauthorized);
        assert!(ledger.overloaded >= 100 && ledger.throttled >= 50, "{kind:?} {ledger:?}");
        assert!(ledger.exhausted <= 60, "{kind:?} {}", ledger.exhausted);
        for (name, calls) in &ledger.usage_calls {
            let busiest = calls.iter().map(|start| {
                let hour = SignedDuration::from_hours(1);
                calls.iter().filter(|call| *call >= start && call.duration_since(*start) < hour).count()
            });
            assert!(busiest.max() <= Some(30), "{kind:?} {name}");
        }
    }
}
