//! Three days of traffic on three accounts: windows fill and begin anew, one model has a window of its own, the provider
//! throttles, is overloaded, and one login dies. The provider's own ledger says how it went.

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

/// One window as the provider counts it.
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
    /// Requests to an account of which the provider had said that it is spent, and until when.
    known_spent: u32,
    spent: u32,
    refused: u32,
    dead: u32,
    overloaded: u32,
    throttled: u32,
}

#[derive(Debug)]
struct State {
    meters: BTreeMap<String, Vec<Meter>>,
    /// The credential that opens each account.
    opens: BTreeMap<String, u64>,
    /// The credential that is at hand for each account.
    at_hand: BTreeMap<String, u64>,
    told: BTreeMap<(String, WindowId), Timestamp>,
    ledger: Ledger,
    requests: u32,
    is_overloaded: bool,
}

/// The provider, and the place where its logins are kept.
#[derive(Debug, Clone)]
struct Provider {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Provider {
    fn new(clock: &Clock) -> Self {
        let now = clock.now();
        let meters = |offset: i64| {
            let meter = |id, scope, hours: i64, ahead: i64| Meter {
                id,
                scope,
                used: 0.0,
                reset: now + SignedDuration::from_hours(ahead),
                length: SignedDuration::from_hours(hours),
            };
            let opus = WindowId::seven_day().for_model("Opus").expect("it has a name");
            vec![
                meter(WindowId::five_hour(), None, 5, 2 + offset),
                meter(WindowId::seven_day(), None, 168, 40 + 10 * offset),
                meter(opus, Some(Scope::model("Opus")), 168, 20 + 10 * offset),
            ]
        };
        let all = |value: u64| NAMES.iter().map(|name| ((*name).to_owned(), value)).collect();
        let state = State {
            meters: NAMES.iter().zip(0..).map(|(name, at)| ((*name).to_owned(), meters(at))).collect(),
            opens: all(1),
            at_hand: all(1),
            told: BTreeMap::new(),
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
    fn has_room(&self, model: &str) -> bool {
        let state = self.state();
        NAMES.iter().any(|name| {
            let opens = state.opens[*name] == state.at_hand[*name];
            opens && state.meters[*name].iter().all(|meter| !meter.counts(model) || meter.used < 100.0)
        })
    }

    /// Serves a request, or turns it away.
    fn message(&self, name: &str, credential: &Credential, model: &str) -> RequestOutcome {
        let mut state = self.state();
        let now = self.clock.now();
        state.requests += 1;
        if credential.secret.expose() != format!("n33dle-{}", state.opens[name]) {
            state.ledger.dead += 1;
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
            state.ledger.spent += 1;
            let key = (name.to_owned(), worst.id.clone());
            if state.told.get(&key).is_some_and(|until| now < *until) {
                state.ledger.known_spent += 1;
            }
            state.told.insert(key, worst.reset);
            let reset = worst.reset.as_second().to_string();
            return RequestOutcome::from_response(
                429,
                [("x-ratelimit-spent", worst.id.as_str()), ("x-ratelimit-reset", &reset)],
            );
        }
        if state.requests.is_multiple_of(97) {
            state.ledger.throttled += 1;
            return RequestOutcome::from_response(429, [("retry-after", "5")]);
        }
        let headers: Vec<(String, String)> = {
            let meters = state.meters.get_mut(name).expect("it is one of the three");
            for meter in meters.iter_mut().filter(|meter| meter.counts(model)) {
                meter.used += if meter.length > SignedDuration::from_hours(24) { 0.04 } else { 0.5 };
            }
            let told = meters.iter().filter(|meter| meter.scope.is_none());
            told.map(|meter| {
                (format!("x-ratelimit-{}", meter.id), format!("{};{}", meter.used, meter.reset.as_second()))
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
        if state.opens[account.name()] != state.at_hand[account.name()] {
            return Err(FetchError::Unauthorized);
        }
        Ok(UsageReport::polled(state.meters[account.name()].iter().map(Meter::reading)))
    }
}

#[async_trait]
impl CredentialSource for Provider {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let token = self.state().at_hand[account.name()];
        let login = LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(token));
        Ok(Credential::new(Secret::new(format!("n33dle-{token}"))).login(login))
    }
}

/// Reads what the provider above writes.
#[derive(Debug)]
struct Reader;

impl ResponseParser for Reader {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        let header = |name: &str| response.header(name);
        let moment = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
        let window = |id: WindowId| {
            let (used, reset) = header(&format!("x-ratelimit-{id}"))?.split_once(';')?;
            Some(WindowReading::new(id, percent(used.parse().ok()?)).resets_at(moment(reset)))
        };
        let windows = [WindowId::five_hour(), WindowId::seven_day()].into_iter().filter_map(window);
        let failure = match header("x-ratelimit-spent").and_then(|id| WindowId::new(id).ok()) {
            Some(id) => {
                let scope = id.as_str().contains('/').then(Scope::unknown_model);
                let failure = Rejection::new(RejectionKind::QuotaExhausted).window(id).scope(scope);
                Some(failure.resets_at(header("x-ratelimit-reset").and_then(moment)))
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
    let builder = FallbackAccountManager::builder(config).response_parser(Reader);
    let builder = match kind {
        Kind::Without => builder.fetcher(provider.clone()).credentials(provider.clone()).clock(clock.clone()),
        Kind::With => {
            let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone()))
                .provider(provider.clone(), provider.clone())
                .clock(clock.clone());
            builder.quota_manager(quota.build().expect("the policy is sound"))
        }
    };
    builder.build().expect("there are accounts")
}

/// Sends one request, on one account after the other while that helps; whether it was served.
async fn send(accounts: &FallbackAccountManager, provider: &Provider, model: &str) -> bool {
    for _ in 0..10 {
        let route = match accounts.route(Request::new().with_model(model)).await {
            Ok(route) => route,
            Err(error) => {
                // What was throttled a moment ago is not without room, and not to be asked either.
                let is_pause = error.retry_after().is_some_and(|wait| wait <= Duration::from_secs(30));
                if provider.has_room(model) && !is_pause {
                    provider.state().ledger.refused += 1;
                }
                return false;
            }
        };
        let credential = route.credential().expect("there is a source of credentials");
        let outcome = provider.message(route.account().name(), credential, model);
        let report = accounts.report(&route, outcome).await.expect("it is our route");
        match report.next {
            RetryAdvice::Done => return true,
            RetryAdvice::OtherAccount | RetryAdvice::SameAccount => {}
            _ => return false,
        }
    }
    panic!("ten tries for one request");
}

#[tokio::test(start_paused = true)]
async fn three_days_of_traffic_waste_no_request_and_refuse_none_that_could_be_served() {
    for kind in BOTH {
        let clock = Clock::anchored("2026-06-01T12:00:00Z".parse().unwrap());
        let provider = Provider::new(&clock);
        let accounts = manager(kind, &clock, &provider);

        let mut unserved = 0;
        for at in 0..REQUESTS {
            let hour = at / 120;
            {
                let mut state = provider.state();
                state.is_overloaded = hour == 50;
                // A login dies after thirty hours, and ten hours later there is a new one.
                state.opens.insert("b".to_owned(), if hour >= 30 { 2 } else { 1 });
                state.at_hand.insert("b".to_owned(), if hour >= 40 { 2 } else { 1 });
            }
            let model = if at % 3 == 0 { "claude-opus-4-5" } else { "claude-sonnet-4-5" };
            unserved += u32::from(!send(&accounts, &provider, model).await);
            clock.sleep(STEP).await;
        }

        let state = provider.state();
        let ledger = &state.ledger;
        assert_eq!((ledger.known_spent, ledger.refused), (0, 0), "{kind:?} {ledger:?}");
        assert!(ledger.served > 7000, "{kind:?} {} served, {unserved} not", ledger.served);
        // Each kind of trouble has come, and none came again and again.
        assert!((1..=3).contains(&ledger.dead), "{kind:?} {}", ledger.dead);
        assert!(ledger.overloaded >= 100 && ledger.throttled >= 50, "{kind:?} {ledger:?}");
        assert!(ledger.spent <= 60, "{kind:?} {}", ledger.spent);
        for (name, calls) in &ledger.usage_calls {
            let busiest = calls.iter().map(|start| {
                let hour = SignedDuration::from_hours(1);
                calls.iter().filter(|call| *call >= start && call.duration_since(*start) < hour).count()
            });
            assert!(busiest.max() <= Some(30), "{kind:?} {name}");
        }
    }
}
