//! The calls that a provider receives from a program without a quota manager: their times and results.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use quota_accounts::{
    AccountsConfig, FallbackAccountManager, FallbackAccountManagerBuilder, RefreshReport, Request,
    RequestOutcome, Route, RouteError,
};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, Scope};
use quota_core::policy::{Backoff, Budget};
use quota_core::testing::FakeProvider;
use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialSource, FetchError, Policy, ProviderId,
    UsageFetcher, UsageReport, WindowId, WindowReading,
};

use crate::logins::Logins;
use crate::support::{ExampleParser, id, percent};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Records events with the time since the start.
#[derive(Debug)]
struct Ledger {
    clock: Clock,
    start: Timestamp,
    lines: Mutex<Vec<String>>,
}

impl Ledger {
    fn note(&self, line: impl AsRef<str>) {
        let elapsed = self.clock.now().duration_since(self.start).as_millis();
        let (minutes, rest) = (elapsed / 60_000, elapsed % 60_000);
        let line = format!("{minutes:>3}:{:02}.{:03} {}", rest / 1000, rest % 1000, line.as_ref());
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

/// A provider that records each call.
#[derive(Debug)]
struct Recorded {
    provider: FakeProvider,
    ledger: Arc<Ledger>,
}

/// Records a call that the program cancels.
struct Call<'a> {
    ledger: &'a Ledger,
    account: &'a AccountId,
    is_answered: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.ledger.note(format!("  call {} ended without an answer", self.account));
        }
    }
}

#[async_trait]
impl UsageFetcher for Recorded {
    fn provider(&self) -> ProviderId {
        self.provider.provider()
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        self.ledger.note(format!("  call {account}"));
        let mut call = Call { ledger: &self.ledger, account, is_answered: false };
        let answer = self.provider.fetch(account, credential).await;
        call.is_answered = true;
        match &answer {
            Ok(usage) => {
                let used = usage.windows.first().map_or(-1.0, |window| window.used.as_f64());
                self.ledger.note(format!("  call {account} answered: {used} % used"));
            }
            Err(error) => self.ledger.note(format!("  call {account} failed: {error}")),
        }
        answer
    }
}

#[async_trait]
impl CredentialSource for Recorded {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        self.provider.credential(account).await
    }

    async fn renew(
        &self,
        account: &AccountId,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Credential, CredentialError> {
        let renewed = self.provider.renew(account, rejected).await;
        let is_renewed = renewed.as_ref().is_ok_and(|credential| credential.login.fingerprint != rejected);
        self.ledger.note(format!("  credential of {account} renewed: {is_renewed}"));
        renewed
    }
}

/// A program with a main account and two fallbacks and no quota manager.
struct Program {
    clock: Clock,
    provider: FakeProvider,
    ledger: Arc<Ledger>,
    policy: Policy,
    state_file: Option<PathBuf>,
}

/// The default policy, without the jitter of its backoffs.
fn policy() -> Policy {
    let without_jitter = |backoff: Backoff| backoff.jitter(0.0);
    let policy = Policy::default();
    let (backoff, transient) =
        (without_jitter(policy.rate_limit_backoff), without_jitter(policy.error_backoff));
    policy.rate_limit_backoff(backoff).error_backoff(transient)
}

impl Program {
    /// Each call takes half a second and reports 40 %.
    fn new() -> Self {
        let clock = Clock::virtual_at("2026-06-01T12:00:00Z".parse().expect("a valid time"));
        let ledger = Ledger { clock: clock.clone(), start: clock.now(), lines: Mutex::default() };
        let provider = FakeProvider::answering("example", 40.0).with_delay(SECOND / 2);
        Self { clock, provider, ledger: Arc::new(ledger), policy: policy(), state_file: None }
    }

    fn builder(&self) -> FallbackAccountManagerBuilder {
        let config = AccountsConfig::new(id("main")).fallback(id("b")).fallback(id("c"));
        let provider = || Recorded { provider: self.provider.clone(), ledger: Arc::clone(&self.ledger) };
        let builder = FallbackAccountManager::builder(config)
            .fetcher(provider())
            .credentials(provider())
            .usage_policy(self.policy.clone())
            .response_parser(ExampleParser)
            .clock(self.clock.clone());
        match &self.state_file {
            Some(path) => builder.state_file(path),
            None => builder,
        }
    }

    fn start(&self) -> FallbackAccountManager {
        self.builder().build().expect("a valid configuration")
    }

    async fn wait(&self, span: Duration) {
        self.clock.sleep(span).await;
    }

    fn set_usage(&self, used: f64) {
        self.provider.answer(UsageReport::polled([self.five_hour(used)]));
    }

    fn five_hour(&self, used: f64) -> WindowReading {
        let reset = self.clock.now() + SignedDuration::from_hours(3);
        WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(reset)
    }

    async fn route(&self, accounts: &FallbackAccountManager) -> Option<Route> {
        self.route_for(accounts, Request::new()).await
    }

    async fn route_for(&self, accounts: &FallbackAccountManager, request: Request) -> Option<Route> {
        let route = accounts.route(request).await;
        self.ledger.note(match &route {
            Ok(route) => format!("route: {} ({:?})", route.account(), route.reason()),
            Err(RouteError::NoAccountAvailable { retry_after, skipped, .. }) => {
                let rules: Vec<_> = skipped.iter().map(|skipped| skipped.reason).collect();
                format!("route: no account {rules:?}, retry after {retry_after:?}")
            }
            Err(error) => format!("route: {error}"),
        });
        route.ok()
    }

    async fn report(&self, accounts: &FallbackAccountManager, route: &Route, outcome: RequestOutcome) {
        let report = accounts.report(route, outcome).await.expect("a route of this manager");
        self.ledger.note(format!("report: {:?}", report.next));
    }

    async fn refresh(&self, accounts: &FallbackAccountManager) {
        self.note_reports(&accounts.refresh_quota_for_due_accounts().await);
    }

    fn note_reports(&self, reports: &[RefreshReport]) {
        if reports.is_empty() {
            self.ledger.note("refresh: nothing is due");
        }
        for report in reports {
            let result = report.error.as_ref().map_or_else(|| "ok".to_owned(), described);
            self.ledger.note(format!("refresh: {}: {result}", report.account));
        }
    }

    /// Refreshes due accounts every ten seconds, and records only the calls.
    async fn refresh_for(&self, accounts: &FallbackAccountManager, span: Duration) {
        let end = self.clock.now() + SignedDuration::try_from(span).expect("a short time");
        while self.clock.now() < end {
            drop(accounts.refresh_quota_for_due_accounts().await);
            self.wait(SECOND * 10).await;
        }
    }

    fn fail(&self, error: &FetchError, times: usize) {
        (0..times).for_each(|_| self.provider.then_fail(error.clone()));
    }
}

/// An error with its causes.
fn described(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn headers(used: &str) -> RequestOutcome {
    RequestOutcome::from_response(200, [("x-ratelimit-used", used)])
}

#[tokio::test(start_paused = true)]
async fn first_use_waits_for_a_call_and_later_requests_do_not() {
    let program = Program::new();
    let accounts = program.start();

    program.route(&accounts).await;
    program.route(&accounts).await;
    program.wait(MINUTE * 6).await;
    let route = program.route(&accounts).await.expect("an account is available");
    program.report(&accounts, &route, RequestOutcome::from_response(200, [("a", "b")])).await;
    program.wait(MINUTE).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_of_all_accounts_makes_one_call_after_another() {
    let program = Program::new();
    let accounts = program.start();

    program.refresh(&accounts).await;
    program.refresh(&accounts).await;
    program.wait(MINUTE * 5).await;
    program.refresh(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_of_all_accounts_goes_on_when_one_fails() {
    let program = Program::new();
    let accounts = program.start();
    program.provider.then_fail(FetchError::throttled(None));
    program.provider.then_panic();

    program.refresh(&accounts).await;
    program.refresh(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_request_during_a_refresh_of_all_accounts() {
    let program = Program::new();
    let accounts = program.start();

    let refreshed = async { program.refresh(&accounts).await };
    let routed = async {
        program.wait(SECOND / 4).await;
        program.route(&accounts).await;
    };
    tokio::join!(refreshed, routed);

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_the_first_call() {
    let program = Program::new();
    let accounts = program.start();

    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let accounts = accounts.clone();
        requests.spawn(async move {
            let route = accounts.route(Request::new()).await.expect("an account is available");
            format!("{} ({:?})", route.account(), route.reason())
        });
    }
    let mut routes = requests.join_all().await;
    routes.dedup();
    program.ledger.note(format!("20 routes: {routes:?}"));

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn concurrent_refreshes_of_all_accounts_share_their_calls() {
    let program = Program::new();
    let accounts = program.start();

    let refresh = || program.refresh(&accounts);
    tokio::join!(refresh(), refresh(), refresh());

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_during_a_call() {
    let program = Program::new();
    let accounts = program.start();

    let left = program.clock.bounded(SECOND / 4, accounts.route(Request::new())).await;
    program.ledger.note(format!("the caller left: {}", left.is_none()));
    program.wait(SECOND).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_without_retry_after_backs_off() {
    let program = Program::new();
    let accounts = program.start();
    program.provider.then_fail(FetchError::throttled(None));

    program.route(&accounts).await;
    program.wait(SECOND * 10).await;
    program.route(&accounts).await;
    program.wait(SECOND * 30).await;
    program.refresh(&accounts).await;
    program.wait(SECOND * 20).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_with_retry_after_waits_that_long() {
    let program = Program::new();
    let accounts = program.start();
    program.provider.then_fail(FetchError::throttled(Some(MINUTE * 20)));

    program.refresh_for(&accounts, MINUTE * 22).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_throttled_calls() {
    let program = Program::new();
    let accounts = program.start();
    program.fail(&FetchError::throttled(None), 100);

    program.refresh_for(&accounts, MINUTE * 60).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_a_provider_out_of_service() {
    let program = Program::new();
    let accounts = program.start();
    program.fail(&FetchError::unavailable("status 503"), 200);

    program.refresh_for(&accounts, MINUTE * 60).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_rejected_credentials() {
    let program = Program::new();
    let accounts = program.start();
    program.fail(&FetchError::Unauthorized, 200);

    program.refresh(&accounts).await;
    program.refresh(&accounts).await;
    program.refresh_for(&accounts, MINUTE * 60).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_login() {
    let program = Program::new();
    let accounts = program.start();
    program.provider.set_login(&id("main"), Err(CredentialError::not_logged_in("log in first")));

    program.refresh(&accounts).await;
    program.refresh_for(&accounts, MINUTE * 60).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_and_renewed_credential_is_tried_once_more() {
    let program = Program::new();
    let accounts = program.start();
    program.provider.then_fail(FetchError::Unauthorized);
    program.provider.then_renew();

    program.route(&accounts).await;
    program.provider.then_renew();
    program.fail(&FetchError::Unauthorized, 2);
    program.wait(MINUTE * 6).await;
    program.refresh(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_hanging_provider_times_out() {
    let program = Program::new();
    let accounts = program.start();
    (0..3).for_each(|_| program.provider.then_hang());

    program.refresh(&accounts).await;
    program.route(&accounts).await;
    program.wait(SECOND * 20).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn another_login_is_not_bound_by_the_hold_of_the_first() {
    let program = Program::new();
    let logins = Arc::new(Logins::default());
    let accounts = program.builder().credentials(logins.clone()).build().expect("a valid configuration");
    logins.set("main", Some(1), "first");
    program.provider.then_fail(FetchError::throttled(Some(MINUTE * 20)));
    program.route(&accounts).await;
    program.wait(SECOND).await;
    program.route(&accounts).await;

    logins.set("main", Some(2), "second");
    program.wait(SECOND * 10).await;
    program.route(&accounts).await;
    program.wait(SECOND * 10).await;
    program.refresh(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn the_next_request_refreshes_another_login() {
    let program = Program::new();
    let accounts = program.start();
    let holds = |name: &'static str| {
        program.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new(name))));
    };
    holds("first");
    program.refresh(&accounts).await;

    holds("second");
    program.set_usage(77.0);
    program.refresh(&accounts).await;
    program.route(&accounts).await;
    program.wait(MINUTE * 6).await;
    program.refresh(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn another_credential_without_a_login_is_bound_by_the_hold() {
    let program = Program::new();
    let accounts = program.start();
    let holds = |hash| {
        program.provider.set_login(
            &id("main"),
            Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(hash))),
        );
    };
    holds(1);
    program.provider.then_fail(FetchError::throttled(Some(MINUTE * 20)));
    program.route(&accounts).await;

    holds(2);
    program.refresh_for(&accounts, MINUTE).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn readings_from_headers_reduce_calls() {
    let program = Program::new();
    let accounts = program.start();
    for _ in 0..80 {
        let route = accounts.route(Request::new()).await.expect("an account is available");
        let _ = accounts.report(&route, headers("41")).await.expect("a route of this manager");
        program.wait(MINUTE).await;
    }

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn requests_at_exhausted_accounts() {
    let program = Program::new();
    let accounts = program.start();
    program.set_usage(100.0);

    program.route(&accounts).await;
    program.route(&accounts).await;
    program.wait(MINUTE * 6).await;
    program.set_usage(10.0);
    program.route(&accounts).await;
    let usable = accounts.usable_fallback_accounts().await;
    program.ledger.note(format!("usable fallbacks: {usable:?}"));

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_window_with_an_implausible_reset() {
    let program = Program::new();
    let accounts = program.start();
    let reset = program.clock.now() + SignedDuration::from_hours(24 * 30);
    let window =
        WindowReading::new(WindowId::five_hour(), percent(100.0)).resets_at(reset).length(MINUTE * 300);
    program.provider.answer(UsageReport::polled([window]));

    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn a_stale_window_of_one_model_is_refreshed_for_its_requests() {
    let program = Program::new();
    let accounts = program.start();
    let opus = WindowId::seven_day().for_model("Opus").expect("a valid name");
    let opus = WindowReading::new(opus, percent(50.0)).scope(Some(Scope::model("Opus")));
    program.provider.answer(UsageReport::polled([program.five_hour(40.0), opus]));
    program.refresh(&accounts).await;
    for _ in 0..8 {
        program.wait(MINUTE).await;
        let route = accounts.route(Request::new()).await.expect("an account is available");
        let _ = accounts.report(&route, headers("41")).await.expect("a route of this manager");
    }

    program.route_for(&accounts, Request::new().with_model("claude-sonnet-4-5")).await;
    program.route_for(&accounts, Request::new().with_model("claude-opus-4-5")).await;
    program.wait(SECOND * 5).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn every_fifth_request_refreshes_in_the_background() {
    let mut program = Program::new();
    program.policy = policy().every_n_requests(5);
    let accounts = program.start();
    for _ in 0..12 {
        let route = program.route(&accounts).await.expect("an account is available");
        program.report(&accounts, &route, RequestOutcome::from_response(200, [("a", "b")])).await;
        program.wait(SECOND * 2).await;
    }

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn calls_stay_within_the_budget_of_an_hour() {
    let mut program = Program::new();
    program.policy = policy().budget(Budget::new(6, 2));
    let accounts = program.start();

    program.refresh_for(&accounts, MINUTE * 75).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn stored_fresh_readings_and_holds_prevent_calls_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut program = Program::new();
    program.state_file = Some(folder.path().join("state.json"));
    let accounts = program.start();
    program.provider.then_fail(FetchError::throttled(Some(MINUTE * 20)));
    program.refresh(&accounts).await;
    accounts.flush().await.expect("the file can be written");
    drop(accounts);

    let accounts = program.start();
    program.ledger.note("restarted");
    program.refresh(&accounts).await;
    program.route(&accounts).await;
    program.refresh_for(&accounts, MINUTE * 21).await;

    insta::assert_snapshot!(program.ledger.text());
}

#[tokio::test(start_paused = true)]
async fn accounts_of_a_provider_without_a_fetcher_are_not_refreshed() {
    let program = Program::new();
    let config = AccountsConfig::new("other/main".parse().expect("a valid name")).fallback(id("b"));
    let fetcher = Recorded { provider: program.provider.clone(), ledger: Arc::clone(&program.ledger) };
    let builder = FallbackAccountManager::builder(config).fetcher(Arc::new(fetcher));
    let accounts =
        builder.usage_policy(policy()).clock(program.clock.clone()).build().expect("a valid configuration");

    program.refresh(&accounts).await;
    program.route(&accounts).await;

    insta::assert_snapshot!(program.ledger.text());
}
