//! A simulated provider on loopback, and managers that use it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quota::anthropic;
use quota::credentials::{ClaudeCode, CredentialMap, StaticCredential};
use quota::http::Fetcher;
use quota::policy::{Backoff, Budget, CooldownPolicy, CooldownScope};
use quota::{
    AccountId, AccountUsage, Clock, CredentialSource, MemoryStore, Percent, Policy, QuotaManager, QuotaStore,
    Secret, WindowId,
};
use quota_sim::{Account, Script, Simulator, Window};

/// The speed of the provider's time: its hold of a minute takes a tenth of a second.
pub(crate) const SPEED: f64 = 600.0;

pub(crate) fn id(name: &str) -> AccountId {
    format!("anthropic/{name}").parse().unwrap()
}

/// An account with some use in both windows, and without growth.
pub(crate) fn account(name: &str) -> Account {
    Account::new(name).windows([
        Window::five_hour().used(30.0).resets_in(Duration::from_secs(4 * 3600)),
        Window::seven_day().used(55.0).resets_in(Duration::from_secs(3 * 24 * 3600)),
    ])
}

/// A provider in real time.
pub(crate) async fn provider(accounts: impl IntoIterator<Item = Account>) -> Simulator {
    Simulator::builder(Script::new(accounts)).start().await.unwrap()
}

/// A provider whose minutes are tenths of a second.
pub(crate) async fn fast_provider(accounts: impl IntoIterator<Item = Account>) -> Simulator {
    Simulator::builder(Script::new(accounts).speed(SPEED)).start().await.unwrap()
}

/// The policy for a provider in real time, without a minimum interval between accounts.
pub(crate) fn policy() -> Policy {
    Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(8)
}

/// The same policy for a fast provider. Every duration is divided by its speed, plus a small tolerance.
pub(crate) fn fast_policy() -> Policy {
    let backoff = Backoff::doubling(Duration::from_millis(150), Duration::from_millis(1500));
    policy()
        .max_age(Duration::from_millis(500))
        .rate_limit_backoff(backoff)
        .error_backoff(backoff)
        .cooldown(CooldownPolicy::new(Duration::from_millis(150), CooldownScope::Account))
        .budget(Budget::new(10_000, 0))
}

/// A credential source with the simulated tokens of these accounts.
pub(crate) fn tokens<'a>(names: impl IntoIterator<Item = &'a str>) -> Arc<dyn CredentialSource> {
    let source = |name: &str| Arc::new(StaticCredential::new(Secret::new(format!("sim-token-{name}"))));
    Arc::new(names.into_iter().fold(CredentialMap::new(), |all, name| all.with(id(name), source(name))))
}

/// Claude Code's login in a folder.
pub(crate) fn login_in(folder: &Path) -> Arc<dyn CredentialSource> {
    Arc::new(ClaudeCode::in_dir(folder))
}

/// A manager on a store that other managers may share, like another process.
pub(crate) fn process(
    simulator: &Simulator,
    store: &Arc<dyn QuotaStore>,
    logins: Arc<dyn CredentialSource>,
    policy: Policy,
) -> QuotaManager {
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(simulator.url()).build().unwrap();
    QuotaManager::builder(Arc::clone(store)).provider(fetcher, logins).policy(policy).build().unwrap()
}

/// A manager on a memory store.
pub(crate) fn single_process(
    simulator: &Simulator,
    logins: Arc<dyn CredentialSource>,
    policy: Policy,
) -> QuotaManager {
    process(simulator, &memory(), logins, policy)
}

pub(crate) fn memory() -> Arc<dyn QuotaStore> {
    Arc::new(MemoryStore::new())
}

/// The last reading of the five-hour window.
pub(crate) fn five_hours(answer: &AccountUsage) -> Option<f64> {
    answer.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
}

pub(crate) fn percent(value: f64) -> Percent {
    Percent::from_percent(value).unwrap()
}

/// Awaits `work` with a deadline. At the deadline the test fails, and the message names `what`.
pub(crate) async fn within_deadline<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = Clock::system().bounded(Duration::from_secs(30), work).await;
    done.unwrap_or_else(|| panic!("timed out waiting for {what}"))
}
