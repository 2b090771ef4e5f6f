//! Three days of messages on a main account and two fallbacks. Windows fill and reset, one model has its own window, the provider
//! throttles in both ways and is overloaded, and a login is rejected. The provider's ledger shows the result.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota::accounts::{
    AccountsConfig, FallbackAccountManager, Limits, Request, RequestOutcome, RetryAdvice, RouteError,
    RoutingMode, RoutingPolicy,
};
use quota::anthropic::{self, AnthropicResponseParser};
use quota::credentials::StaticCredential;
use quota::http::Fetcher;
use quota::{AccountId, Clock, MemoryStore, Policy, QuotaManager};
use quota::{Credential, CredentialError, CredentialSource, Secret};
use quota_sim::{Account, Answer, Change, Ledger, Phase, Script, Simulator, Window};

use crate::fixture::*;
use crate::messages::Messages;
use crate::paused_clock::PausedClock;

const NAMES: [&str; 3] = ["main", "b", "c"];
const START: Timestamp = Timestamp::constant(1_790_000_000, 0);
const MODELS: [&str; 3] = ["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"];
const DAYS: Duration = hours(72);
const BUDGET: u32 = 30;

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Whether the accounts use a given quota manager or a private one.
#[derive(Debug, Clone, Copy)]
enum ManagerKind {
    Shared,
    Private,
}

/// Logins that change while the program runs.
#[derive(Debug)]
struct Logins(Mutex<HashMap<AccountId, StaticCredential>>);

impl Logins {
    fn new() -> Arc<Self> {
        let logins = Arc::new(Self(Mutex::default()));
        NAMES.iter().for_each(|name| logins.log_in(name, &format!("sim-token-{name}")));
        logins
    }

    fn log_in(&self, name: &str, token: &str) {
        let login = StaticCredential::new(Secret::new(token.to_owned()));
        self.0.lock().insert(id(name), login);
    }
}

#[async_trait]
impl CredentialSource for Logins {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let login = self.0.lock()[account].clone();
        login.credential(account).await
    }
}

/// When the login of `b` is rejected. Later a user logs in again.
const LOGIN_REJECTED_AT: Duration = hours(30);
const LOGIN_RENEWED_AT: Duration = hours(37);

/// The provider's script for a seed.
fn script(rng: &mut Rng) -> Script {
    let phase = |rng: &mut Rng, answer, lasts: Duration| {
        let from = Duration::from_secs(rng.u64(0..DAYS.as_secs()));
        Phase::new(answer).from(from).until(from + lasts)
    };
    // An overload affects all accounts.
    let overloads: Vec<_> =
        (0..6).map(|_| phase(rng, Answer::Overloaded, minutes(5)).on_messages()).collect();
    Script::new(NAMES.map(|name| {
        let mut phases = overloads.clone();
        if name == "b" {
            phases.push(Phase::new(Answer::Unauthorized).from(LOGIN_REJECTED_AT).until(LOGIN_RENEWED_AT));
        }
        for _ in 0..3 {
            phases.push(phase(rng, Answer::ThrottleUntilEnd, minutes(40)));
            phases.push(phase(rng, Answer::ThrottleZero, minutes(40)));
            phases.push(phase(rng, Answer::Overloaded, minutes(15)));
        }
        for _ in 0..12 {
            phases.push(phase(rng, Answer::ThrottleUntilEnd, minutes(10)).on_messages());
            phases.push(phase(rng, Answer::ThrottleZero, minutes(1)).on_messages());
        }
        let mut reset = |from, to| hours(rng.u64(from..to));
        Account::new(name).budget(BUDGET).answers(phases).windows([
            Window::five_hour(),
            Window::seven_day().used(60.0).resets_in(reset(30, 60)),
            Window::model("Opus").used(97.0).resets_in(reset(20, 70)),
        ])
    }))
}

struct Env {
    paused_clock: PausedClock,
    simulator: Simulator,
    messages: Messages,
    logins: Arc<Logins>,
    accounts: FallbackAccountManager,
}

impl Env {
    async fn new(manager_kind: ManagerKind, mode: RoutingMode, script: Script) -> Self {
        let paused_clock = PausedClock::start();
        let simulator = Simulator::builder(script).starting_at(START).start().await.unwrap();
        let clock = Clock::virtual_at(START);
        let logins = Logins::new();
        let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(simulator.url()).clock(clock.clone());
        let fetcher = fetcher.build().unwrap();
        let config = AccountsConfig::new(id("main")).fallback(id("b")).fallback(id("c"));
        let policy = Policy::default().min_call_interval(Duration::ZERO);
        let builder = FallbackAccountManager::builder(config)
            .response_parser(AnthropicResponseParser)
            .policy(RoutingPolicy::default().mode(mode).min_remaining(Limits::of(percent(5.0))));
        let builder = match manager_kind {
            ManagerKind::Shared => {
                let store = MemoryStore::with_clock(clock.clone());
                let quota = QuotaManager::builder(store)
                    .provider(fetcher, logins.clone())
                    .clock(clock)
                    .policy(policy);
                builder.quota_manager(quota.build().unwrap())
            }
            ManagerKind::Private => {
                builder.fetcher(fetcher).credentials(logins.clone()).usage_policy(policy).clock(clock)
            }
        };
        let messages = Messages::to(&simulator).await;
        Self { paused_clock, simulator, messages, logins, accounts: builder.build().unwrap() }
    }

    /// Sends a message. While the advice says so, retries it on other accounts. Returns whether the message succeeded.
    async fn send(&mut self, request: Request, model: &str, cost: f64) -> bool {
        for _ in 0..10 {
            let route = match self.accounts.route(request.clone()).await {
                Ok(route) => route,
                Err(error) => {
                    // A session may stay with its exhausted account for two minutes.
                    if !matches!(error, RouteError::SessionAccountUnavailable { .. }) {
                        self.simulator.gave_up(model);
                    }
                    return false;
                }
            };
            let token = route.credential().unwrap().secret.expose();
            let response = self.messages.send(token, model, cost).await;
            let outcome =
                RequestOutcome::from_response(response.status, response.headers).body(&response.body);
            match self.accounts.report(&route, outcome).await.unwrap().next {
                RetryAdvice::Done => return true,
                RetryAdvice::OtherAccount | RetryAdvice::SameAccount => {}
                _ => return false,
            }
        }
        panic!("one message took ten attempts");
    }
}

/// Runs three days in one mode. Returns the number of messages that succeeded for the client, and the provider's ledger.
async fn three_days(manager_kind: ManagerKind, mode: RoutingMode, seed: u64) -> (u64, Ledger) {
    let mut rng = Rng::with_seed(seed);
    let mut env = Env::new(manager_kind, mode, script(&mut rng)).await;
    let mut passed = Duration::ZERO;
    let mut done = 0;
    while passed < DAYS {
        let model = *rng.choice(&MODELS).unwrap();
        let session = rng.u8(0..20).to_string();
        let request = Request::new().with_model(model).with_session(&session);
        done += u64::from(within_deadline("a message", env.send(request, model, 2.5 * rng.f64())).await);
        // Wait for background tasks before the clock advances.
        within_deadline("the background tasks", env.accounts.flush()).await.unwrap();
        let step = Duration::from_secs(rng.u64(20..160));
        if passed < LOGIN_RENEWED_AT && passed + step >= LOGIN_RENEWED_AT {
            env.simulator.set("b", Change::token("sim-token-b-2")).unwrap();
            env.logins.log_in("b", "sim-token-b-2");
        }
        passed += step;
        env.paused_clock.advance(step).await;
    }
    (done, env.simulator.stop().await)
}

/// The highest number of calls within an hour.
fn busiest_hour(arrivals: &[Timestamp]) -> usize {
    let within = |start: &Timestamp| {
        arrivals.iter().filter(|at| *at >= start && at.duration_since(*start).as_hours() < 1).count()
    };
    arrivals.iter().map(within).max().unwrap_or(0)
}

/// Runs three days in every mode, and checks the provider's ledger.
async fn play(manager_kind: ManagerKind, seeds: [u64; 4]) {
    let modes = [
        RoutingMode::MainFirst,
        RoutingMode::FallbackFirst,
        RoutingMode::StickyBalanced,
        RoutingMode::SoonestResetFirst,
    ];
    let mut given_up = 0;
    for (mode, seed) in modes.into_iter().zip(seeds) {
        let (done, ledger) = three_days(manager_kind, mode, seed).await;

        let run = format!("{manager_kind:?}, {mode:?}, seed {seed}");
        let mut counts = HashMap::<u16, u64>::new();
        for (name, account) in &ledger.accounts {
            // No message was sent to an account that was reported as exhausted or throttled.
            assert_eq!((account.futile_messages, account.messages_during_hold), (0, 0), "{run}, {name}");
            // No call was made during a hold, and no more calls than the budget.
            assert_eq!((account.calls_during_hold, account.max_concurrent), (0, 1), "{run}, {name}");
            let arrivals: Vec<_> = account.arrivals.iter().copied().collect();
            assert!(busiest_hour(&arrivals) <= BUDGET as usize, "{run}, {name}");
            account.messages.iter().for_each(|(status, times)| *counts.entry(*status).or_default() += times);
        }
        // No message was given up while an account had capacity.
        assert_eq!(ledger.gave_up_with_capacity, 0, "{run}");
        assert_eq!(counts[&200], done, "{run}");
        assert!(done > 2000, "{run}: {done} messages");
        // Each kind of failure occurred, and a rejected login was not retried repeatedly.
        assert!(counts[&429] >= 10 && counts[&529] >= 1, "{run}: {counts:?}");
        assert!(counts.get(&401).is_none_or(|times| *times <= 2), "{run}: {counts:?}");
        assert!(ledger.account("b").unwrap().messages[&200] > 100, "{run}: b was logged in again");
        given_up += ledger.gave_up;
    }
    assert!(given_up > 0, "sometimes no account had capacity");
}

#[tokio::test(start_paused = true)]
async fn three_days_with_a_manager_waste_no_message_and_no_capacity() {
    play(ManagerKind::Shared, [1, 2, 3, 4]).await;
}

#[tokio::test(start_paused = true)]
async fn three_days_without_a_manager_waste_no_message_and_no_capacity() {
    play(ManagerKind::Private, [5, 6, 7, 8]).await;
}
