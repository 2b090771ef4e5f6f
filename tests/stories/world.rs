//! A simulated provider on loopback, and managers that ask it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quota::anthropic::Anthropic;
use quota::credentials::{ClaudeCode, CredentialMap, StaticCredential};
use quota::{
    AccountId, AccountUsage, Backoff, Budget, Clock, CooldownPolicy, CooldownScope, MemoryStore, Percent,
    Policy, QuotaManager, QuotaStore, WindowId,
};
use quota::{CredentialSource, Secret};
use quota_sim::{Account, Script, Simulator, Window};

/// How many times faster than ours the provider's time runs: its minute of quiet is a tenth of a second.
pub(crate) const SPEED: f64 = 600.0;

pub(crate) fn id(name: &str) -> AccountId {
    format!("anthropic/{name}").parse().unwrap()
}

/// An account that has used some of both windows and does not use more by itself.
pub(crate) fn account(name: &str) -> Account {
    Account::new(name).windows([
        Window::five_hour().used(30.0).resets_in(Duration::from_secs(4 * 3600)),
        Window::seven_day().used(55.0).resets_in(Duration::from_secs(3 * 24 * 3600)),
    ])
}

/// A provider whose time is ours.
pub(crate) async fn provider(accounts: impl IntoIterator<Item = Account>) -> Simulator {
    Simulator::builder(Script::new(accounts)).start().await.unwrap()
}

/// A provider whose minutes pass in tenths of a second.
pub(crate) async fn hasty_provider(accounts: impl IntoIterator<Item = Account>) -> Simulator {
    Simulator::builder(Script::new(accounts).speed(SPEED)).start().await.unwrap()
}

/// The policy for a provider whose time is ours, with accounts that do not wait for each other.
pub(crate) fn policy() -> Policy {
    Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(8)
}

/// The same rules for a hasty provider: all spans as much shorter as its time is faster, and a little longer than that.
pub(crate) fn hasty_policy() -> Policy {
    let backoff = Backoff::doubling(Duration::from_millis(150), Duration::from_millis(1500));
    policy()
        .max_age(Duration::from_millis(500))
        .rate_limit_backoff(backoff)
        .error_backoff(backoff)
        .cooldown(CooldownPolicy::new(Duration::from_millis(150), CooldownScope::Account))
        .budget(Budget::new(10_000, 0))
}

/// A source with the simulated tokens of these accounts.
pub(crate) fn tokens<'a>(names: impl IntoIterator<Item = &'a str>) -> Arc<dyn CredentialSource> {
    let source = |name: &str| Arc::new(StaticCredential::new(Secret::new(format!("sim-token-{name}"))));
    Arc::new(names.into_iter().fold(CredentialMap::new(), |all, name| all.with(id(name), source(name))))
}

/// The login of Claude Code that a folder holds.
pub(crate) fn login_in(folder: &Path) -> Arc<dyn CredentialSource> {
    Arc::new(ClaudeCode::in_dir(folder))
}

/// A process: a manager of its own on a store that others may share.
pub(crate) fn process(
    simulator: &Simulator,
    store: &Arc<dyn QuotaStore>,
    logins: Arc<dyn CredentialSource>,
    policy: Policy,
) -> QuotaManager {
    let fetcher = Anthropic::builder().base_url(simulator.url()).build().unwrap();
    QuotaManager::builder(Arc::clone(store)).provider(fetcher, logins).policy(policy).build().unwrap()
}

/// The only process there is.
pub(crate) fn lone_process(
    simulator: &Simulator,
    logins: Arc<dyn CredentialSource>,
    policy: Policy,
) -> QuotaManager {
    process(simulator, &memory(), logins, policy)
}

pub(crate) fn memory() -> Arc<dyn QuotaStore> {
    Arc::new(MemoryStore::new())
}

/// What was last read of the five hours.
pub(crate) fn five_hours(answer: &AccountUsage) -> Option<f64> {
    answer.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
}

pub(crate) fn percent(value: f64) -> Percent {
    Percent::from_percent(value).unwrap()
}

/// Waits for something that must come; a test that waits in vain fails and says for what.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = Clock::system().bounded(Duration::from_secs(30), work).await;
    done.unwrap_or_else(|| panic!("waited in vain for {what}"))
}
