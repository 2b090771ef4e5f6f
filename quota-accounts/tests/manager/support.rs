//! Accounts of a provider that answers as it is told, a file to keep what is learned, and a clock that stands still.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_accounts::{AccountsConfig, FallbackAccountManager, FallbackAccountManagerBuilder, RoutingPolicy};
use quota_core::model::{LimitStatus, Scope, WindowStatus};
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser};
use quota_core::testing::FakeProvider;
use quota_core::{
    AccountId, Clock, CredentialSource, MemoryStore, Percent, Policy, ProviderId, QuotaManager, QuotaStore,
    UsageReport, WindowId, WindowReading,
};
use tempfile::TempDir;

/// Whether there is a quota manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    With,
    Without,
}

/// What is promised is promised of both.
pub(crate) const BOTH: [Kind; 2] = [Kind::With, Kind::Without];

pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) clock: Clock,
    pub(crate) provider: FakeProvider,
    pub(crate) quota: QuotaManager,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) policy: RoutingPolicy,
    pub(crate) config: AccountsConfig,
    pub(crate) usage_policy: Policy,
}

pub(crate) fn id(name: &str) -> AccountId {
    format!("example/{name}").parse().expect("a valid name")
}

pub(crate) fn percent(value: f64) -> Percent {
    Percent::from_percent(value).expect("it is a number")
}

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("it is a moment")
}

/// Main and two fallbacks, whose five hours are used to 40 %.
pub(crate) fn world(kind: Kind) -> World {
    let clock = Clock::anchored(noon());
    let dir = Arc::new(tempfile::tempdir().expect("there is room for a folder"));
    World::new(kind, &clock, &FakeProvider::answering("example", 40.0), &dir)
}

impl World {
    fn new(kind: Kind, clock: &Clock, provider: &FakeProvider, dir: &Arc<TempDir>) -> Self {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
        let usage_policy = Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(64);
        let quota = QuotaManager::builder(store)
            .provider(provider.clone(), provider.clone())
            .clock(clock.clone())
            .policy(usage_policy.clone())
            .build()
            .expect("the policy is sound");
        Self {
            kind,
            clock: clock.clone(),
            provider: provider.clone(),
            quota,
            dir: Arc::clone(dir),
            policy: RoutingPolicy::default(),
            config: AccountsConfig::new(id("main")).fallback(id("b")).fallback(id("c")),
            usage_policy,
        }
    }

    /// Another process on the same disk: nothing is left of this one but the file.
    pub(crate) fn restarted(&self) -> Self {
        self.restarted_at(&self.clock)
    }

    /// The same, by another clock.
    pub(crate) fn restarted_at(&self, clock: &Clock) -> Self {
        let world = Self::new(self.kind, clock, &self.provider, &self.dir);
        Self { policy: self.policy.clone(), config: self.config.clone(), ..world }
    }

    /// Asks after every so many requests, whatever is known.
    pub(crate) fn counting(&mut self, every: u64) {
        self.usage_policy = self.usage_policy.clone().every_n_requests(every);
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(self.clock.clone()));
        let quota = QuotaManager::builder(store)
            .provider(self.provider.clone(), self.provider.clone())
            .clock(self.clock.clone());
        self.quota = quota.policy(self.usage_policy.clone()).build().expect("the policy is sound");
    }

    pub(crate) fn state_path(&self) -> PathBuf {
        self.dir.path().join("accounts.state.json")
    }

    pub(crate) fn builder(&self) -> FallbackAccountManagerBuilder {
        let builder = FallbackAccountManager::builder(self.config.clone())
            .policy(self.policy.clone())
            .state_file(self.state_path());
        match self.kind {
            Kind::With => builder.quota_manager(self.quota.clone()),
            Kind::Without => builder
                .fetcher(self.provider.clone())
                .credentials(self.provider.clone())
                .usage_policy(self.usage_policy.clone())
                .clock(self.clock.clone()),
        }
    }

    /// The same with another credential source.
    pub(crate) fn builder_with(&self, source: impl CredentialSource) -> FallbackAccountManagerBuilder {
        let builder = self.builder();
        match self.kind {
            Kind::With => {
                let source = Arc::new(source);
                for account in self.config.accounts() {
                    self.quota.account(&account.id).set_credentials(Arc::clone(&source));
                }
                builder
            }
            Kind::Without => builder.credentials(source),
        }
    }

    pub(crate) fn accounts(&self) -> FallbackAccountManager {
        self.builder().build().expect("there are accounts")
    }

    /// What the five hours are used, from now on, and until when.
    pub(crate) fn answers(&self, used: f64) {
        self.provider.answer(UsageReport::polled([self.five_hour(used)]));
    }

    /// A reading of five hours that begin anew in two.
    pub(crate) fn five_hour(&self, used: f64) -> WindowReading {
        let reset = self.clock.now() + SignedDuration::from_hours(2);
        WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(reset)
    }

    /// Locks the file, as another process does that is about to change it.
    pub(crate) fn locked(&self) -> std::fs::File {
        let lock = std::fs::File::create(self.dir.path().join("accounts.state.json.lock"));
        let lock = lock.expect("there is room for a file");
        lock.try_lock().expect("no other lock holder");
        lock
    }

    /// What the file says, as text.
    pub(crate) fn kept(&self) -> String {
        std::fs::read_to_string(self.state_path()).unwrap_or_default()
    }
}

/// Reads headers of its own making: what is used, and what is spent. `x-ratelimit-rejected` is a list of windows that the
/// provider rejects, each with the hours until it begins anew; those with a `/` are of a model that is not named.
#[derive(Debug)]
pub(crate) struct ExampleTraffic;

impl ResponseParser for ExampleTraffic {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        let header = |name: &str| response.header(name);
        let reset = response.now + SignedDuration::from_hours(3);
        let used = header("x-ratelimit-used").and_then(|text| text.parse().ok()).map(percent);
        let windows = used.map(|used| WindowReading::new(WindowId::five_hour(), used).resets_at(reset));
        let failure = header("x-ratelimit-spent").map(|spent| {
            let failure =
                Rejection::new(RejectionKind::QuotaExhausted).window(WindowId::five_hour()).resets_at(reset);
            failure.scope((spent == "model").then(Scope::unknown_model))
        });
        let rejected = header("x-ratelimit-rejected").into_iter().flat_map(|list| list.split(' '));
        let verdicts: Vec<WindowStatus> = rejected
            .filter_map(|told| {
                let (window, hours) = told.split_once('=')?;
                let reset = response.now + SignedDuration::from_hours(hours.parse().ok()?);
                let scope = window.contains('/').then(Scope::unknown_model);
                let verdict = WindowStatus::new(WindowId::new(window).ok()?, LimitStatus::Rejected);
                Some(verdict.scope(scope).resets_at(reset))
            })
            .collect();
        let first = verdicts.first().map(|verdict| {
            let failure = Rejection::new(RejectionKind::QuotaExhausted).window(verdict.window.clone());
            failure.scope(verdict.scope.clone()).resets_at(verdict.resets_at)
        });
        let mut usage = UsageReport::from_headers(windows);
        usage.window_statuses = verdicts;
        ParsedResponse::new(usage, failure.or(first).or_else(|| Rejection::of_status(response.status)))
    }
}

pub(crate) async fn minutes(clock: &Clock, minutes: u64) {
    clock.sleep(Duration::from_secs(60 * minutes)).await;
}

/// What an account's five hours are used, as the manager decides on.
pub(crate) fn used(accounts: &FallbackAccountManager, name: &str) -> Option<f64> {
    let decision = accounts.explain(&quota_accounts::Request::new());
    let evaluated = decision.accounts().iter().find(|evaluated| evaluated.account == id(name))?;
    let reading = evaluated.windows.iter().find(|reading| *reading.window.id() == WindowId::five_hour())?;
    Some(reading.used.lower_bound()?.as_f64())
}
