//! A manager on memory and a fake provider, under a clock that stands still until it is moved.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::testing::FakeProvider;
use quota_core::{
    AccountId, AccountUsage, Clock, MemoryStore, Percent, Policy, QuotaManager, QuotaStore, UsageReport,
    Used, WindowId, WindowReading,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// One process: its manager, and the provider it asks.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn QuotaStore>,
    pub(crate) provider: FakeProvider,
    pub(crate) quota: QuotaManager,
}

/// Noon of some day.
pub(crate) fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn world() -> World {
    world_with(Policy::default())
}

/// A policy in which accounts do not wait for each other.
pub(crate) fn hurried() -> Policy {
    Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(64)
}

pub(crate) fn world_with(policy: Policy) -> World {
    let clock = Clock::anchored(noon());
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    world_on(store, clock, policy)
}

pub(crate) fn world_on(store: Arc<dyn QuotaStore>, clock: Clock, policy: Policy) -> World {
    let provider = FakeProvider::answering("example", 40.0);
    let quota = another_process(&store, &clock, &provider, policy);
    World { clock, store, provider, quota }
}

/// A manager of another process that shares the store and asks the same provider.
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

/// A whole answer that says so much of five hours is used.
pub(crate) fn polled(used: f64) -> UsageReport {
    UsageReport::polled([WindowReading::new(WindowId::five_hour(), percent(used))])
}

/// Headers that say so much of five hours is used.
pub(crate) fn headers(used: f64) -> UsageReport {
    UsageReport::from_headers([WindowReading::new(WindowId::five_hour(), percent(used))])
}

/// What the five hours are said to be used, whatever the certainty.
pub(crate) fn five_hours(answer: &AccountUsage) -> Option<f64> {
    answer.used(&WindowId::five_hour()).lower_bound().map(Percent::as_f64)
}

/// What was last read of the five hours, however long ago.
pub(crate) fn last_read(answer: &AccountUsage) -> Option<f64> {
    answer.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
}

pub(crate) fn is_exact(answer: &AccountUsage) -> bool {
    matches!(answer.used(&WindowId::five_hour()), Used::Exact(_))
}

/// Lets every task that is ready run.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
