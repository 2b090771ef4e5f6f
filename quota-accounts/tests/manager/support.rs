//! The test environment: accounts of a scripted provider, a state file, and a virtual clock.

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

/// Every promise holds with and without a quota manager.
pub(crate) const BOTH: [Kind; 2] = [Kind::With, Kind::Without];

pub(crate) struct Env {
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
    Percent::from_percent(value).expect("a valid percentage")
}

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("a valid timestamp")
}

/// A main account and two fallbacks, each with 40 % of its 5-hour window used.
pub(crate) fn env(kind: Kind) -> Env {
    let clock = Clock::virtual_at(noon());
    let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    Env::new(kind, &clock, &FakeProvider::answering("example", 40.0), &dir)
}

impl Env {
    fn new(kind: Kind, clock: &Clock, provider: &FakeProvider, dir: &Arc<TempDir>) -> Self {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
        let usage_policy = Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(64);
        let quota = QuotaManager::builder(store)
            .provider(provider.clone(), provider.clone())
            .clock(clock.clone())
            .policy(usage_policy.clone())
            .build()
            .expect("a valid policy");
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

    /// Another process on the same disk. Only the state file survives.
    pub(crate) fn restarted(&self) -> Self {
        self.restarted_at(&self.clock)
    }

    /// Another process on the same disk, with another clock.
    pub(crate) fn restarted_at(&self, clock: &Clock) -> Self {
        let env = Self::new(self.kind, clock, &self.provider, &self.dir);
        Self { policy: self.policy.clone(), config: self.config.clone(), ..env }
    }

    /// Refreshes after every `every` requests, even if readings are fresh.
    pub(crate) fn refresh_every(&mut self, every: u64) {
        self.usage_policy = self.usage_policy.clone().every_n_requests(every);
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(self.clock.clone()));
        let quota = QuotaManager::builder(store)
            .provider(self.provider.clone(), self.provider.clone())
            .clock(self.clock.clone());
        self.quota = quota.policy(self.usage_policy.clone()).build().expect("a valid policy");
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

    /// A builder with another credential source.
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
        self.builder().build().expect("a valid configuration")
    }

    /// Sets the use of the 5-hour window that the provider reports from now on.
    pub(crate) fn set_usage(&self, used: f64) {
        self.provider.answer(UsageReport::polled([self.five_hour(used)]));
    }

    /// A reading of the 5-hour window, which resets in two hours.
    pub(crate) fn five_hour(&self, used: f64) -> WindowReading {
        let reset = self.clock.now() + SignedDuration::from_hours(2);
        WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(reset)
    }

    /// Locks the state file, like another process that changes it.
    pub(crate) fn locked(&self) -> std::fs::File {
        let lock = std::fs::File::create(self.dir.path().join("accounts.state.json.lock"));
        let lock = lock.expect("the file can be created");
        lock.try_lock().expect("no other lock holder");
        lock
    }

    /// The text of the state file.
    pub(crate) fn stored(&self) -> String {
        std::fs::read_to_string(self.state_path()).unwrap_or_default()
    }

    /// The files with the stored sessions.
    pub(crate) fn session_files(&self) -> Vec<PathBuf> {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("accounts.state.json.sessions")) else {
            return Vec::new();
        };
        files.map(|entry| entry.expect("the folder can be read").path()).collect()
    }

    /// The text of all files with stored sessions.
    pub(crate) fn stored_sessions(&self) -> String {
        let read = |path| std::fs::read_to_string(path).expect("the file can be read");
        self.session_files().into_iter().map(read).collect()
    }
}

/// Parses the headers of the example provider. `x-ratelimit-used` is the use of the 5-hour window, and `x-ratelimit-exhausted` is
/// `account` or `model`. `x-ratelimit-rejected` is a list of rejected windows with the hours until their reset; a `/` marks the
/// window of an unnamed model.
#[derive(Debug)]
pub(crate) struct ExampleParser;

impl ResponseParser for ExampleParser {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        let header = |name: &str| response.header(name);
        let reset = response.now + SignedDuration::from_hours(3);
        let used = header("x-ratelimit-used").and_then(|text| text.parse().ok()).map(percent);
        let windows = used.map(|used| WindowReading::new(WindowId::five_hour(), used).resets_at(reset));
        let failure = header("x-ratelimit-exhausted").map(|exhausted| {
            let failure =
                Rejection::new(RejectionKind::QuotaExhausted).window(WindowId::five_hour()).resets_at(reset);
            failure.scope((exhausted == "model").then(Scope::unknown_model))
        });
        let rejected = header("x-ratelimit-rejected").into_iter().flat_map(|list| list.split(' '));
        let statuses: Vec<WindowStatus> = rejected
            .filter_map(|entry| {
                let (window, hours) = entry.split_once('=')?;
                let reset = response.now + SignedDuration::from_hours(hours.parse().ok()?);
                let scope = window.contains('/').then(Scope::unknown_model);
                let status = WindowStatus::new(WindowId::new(window).ok()?, LimitStatus::Rejected);
                Some(status.scope(scope).resets_at(reset))
            })
            .collect();
        let first = statuses.first().map(|status| {
            let failure = Rejection::new(RejectionKind::QuotaExhausted).window(status.window.clone());
            failure.scope(status.scope.clone()).resets_at(status.resets_at)
        });
        let mut usage = UsageReport::from_headers(windows);
        usage.window_statuses = statuses;
        ParsedResponse::new(usage, failure.or(first).or_else(|| Rejection::of_status(response.status)))
    }
}

pub(crate) async fn minutes(clock: &Clock, minutes: u64) {
    clock.sleep(Duration::from_secs(60 * minutes)).await;
}

/// The use of an account's 5-hour window by the readings that the router decides on.
pub(crate) fn used(accounts: &FallbackAccountManager, name: &str) -> Option<f64> {
    let decision = accounts.explain(&quota_accounts::Request::new());
    let evaluated = decision.accounts().iter().find(|evaluated| evaluated.account == id(name))?;
    let reading = evaluated.windows.iter().find(|reading| *reading.window.id() == WindowId::five_hour())?;
    Some(reading.used.lower_bound()?.as_f64())
}
