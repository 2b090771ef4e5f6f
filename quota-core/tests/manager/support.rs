//! A manager on the memory store, with a fake provider and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::testing::FakeProvider;
use quota_core::{
    Account, AccountId, AccountUsage, Clock, MemoryStore, Percent, Policy, QuotaManager, QuotaStore,
    UsageReport, Used, WindowId, WindowReading,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// One process: its manager, store, clock and provider.
pub(crate) struct Env {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn QuotaStore>,
    pub(crate) provider: FakeProvider,
    pub(crate) quota: QuotaManager,
}

/// The start time of the tests.
pub(crate) fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn env() -> Env {
    env_with(Policy::default())
}

/// A policy without a gap between calls and with many concurrent ones.
pub(crate) fn no_rate_limit() -> Policy {
    Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(64)
}

pub(crate) fn env_with(policy: Policy) -> Env {
    let clock = Clock::virtual_at(noon());
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    env_on(store, clock, policy)
}

pub(crate) fn env_on(store: Arc<dyn QuotaStore>, clock: Clock, policy: Policy) -> Env {
    let provider = FakeProvider::answering("example", 40.0);
    let quota = another_process(&store, &clock, &provider, policy);
    Env { clock, store, provider, quota }
}

/// The manager of another process that shares the store and the provider.
pub(crate) fn another_process(
    store: &Arc<dyn QuotaStore>,
    clock: &Clock,
    provider: &FakeProvider,
    policy: Policy,
) -> QuotaManager {
    QuotaManager::builder(Arc::clone(store))
        .provider(provider.clone(), provider.clone())
        .clock(clock.clone())
        .policy(policy)
        .build()
        .unwrap()
}

pub(crate) fn id(name: &str) -> AccountId {
    format!("example/{name}").parse().unwrap()
}

pub(crate) fn percent(value: f64) -> Percent {
    Percent::from_percent(value).unwrap()
}

/// A complete report in which `used` percent of the 5-hour window is used.
pub(crate) fn polled(used: f64) -> UsageReport {
    UsageReport::polled([WindowReading::new(WindowId::five_hour(), percent(used))])
}

/// Readings from headers in which `used` percent of the 5-hour window is used.
pub(crate) fn headers(used: f64) -> UsageReport {
    UsageReport::from_headers([WindowReading::new(WindowId::five_hour(), percent(used))])
}

/// The lower bound of the use of the 5-hour window, in percent.
pub(crate) fn five_hours(usage: &AccountUsage) -> Option<f64> {
    usage.used(&WindowId::five_hour()).lower_bound().map(Percent::as_f64)
}

/// The last reading of the 5-hour window, in percent, at any age.
pub(crate) fn last_read(usage: &AccountUsage) -> Option<f64> {
    usage.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
}

pub(crate) fn is_exact(usage: &AccountUsage) -> bool {
    matches!(usage.used(&WindowId::five_hour()), Used::Exact(_))
}

/// Runs all tasks that are ready.
pub(crate) async fn run_ready_tasks() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Waits until the last check of the credential is old, and reads the account, which starts the next one.
pub(crate) async fn check_credential(env: &Env, account: &Account) {
    env.clock.sleep(SECOND).await;
    drop(account.get().await);
    run_ready_tasks().await;
}
