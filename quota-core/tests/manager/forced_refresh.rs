//! A forced refresh returns the readings of a new call, even if this process's copy of the record is outdated.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::policy::Budget;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version};
use quota_core::testing::FakeProvider;
use quota_core::{Clock, MemoryStore, QuotaManager, QuotaStore};
use tokio::task::JoinSet;

/// A store whose reads return after `delay`, and which sends no notices.
#[derive(Debug)]
struct SlowStore {
    inner: Arc<dyn QuotaStore>,
    clock: Clock,
    delay: Duration,
}

#[async_trait]
impl QuotaStore for SlowStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let reading = self.inner.read(key).await;
        self.clock.sleep(self.delay).await;
        reading
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.inner.compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, _key: &StoreKey, _version: Option<Version>) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

/// Another process, whose reads of the store return after `delay`.
fn slow_process(env: &Env, provider: &FakeProvider, delay: Duration) -> QuotaManager {
    let (inner, clock) = (Arc::clone(&env.store), env.clock.clone());
    let store: Arc<dyn QuotaStore> = Arc::new(SlowStore { inner, clock, delay });
    another_process(&store, &env.clock, provider, no_rate_limit())
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_with_a_late_clock_sample_makes_a_new_call() {
    let env = env_with(no_rate_limit());
    let slow_process = slow_process(&env, &env.provider, SECOND / 5);
    let (local, remote) = (env.quota.account(&id("main")), slow_process.account(&id("main")));
    // Both processes sample the store's clock. The slow process then underestimates it.
    drop(local.sync().await);
    drop(remote.sync().await);
    drop(local.refresh().await.unwrap());
    env.clock.sleep(SECOND / 10).await;
    env.provider.answer(polled(70.0));

    let refreshed = remote.refresh().await.unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(70.0));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_does_not_join_a_call_that_has_ended() {
    let env = env_with(no_rate_limit());
    let slow = env.provider.clone().with_delay(SECOND);
    let slow_process = slow_process(&env, &slow, Duration::ZERO);
    let (local, remote) = (env.quota.account(&id("main")), slow_process.account(&id("main")));
    let refreshing = tokio::spawn(async move { local.refresh().await.is_ok() });
    run_ready_tasks().await;
    // The other process reads only the lease of the running call.
    drop(remote.sync().await);
    assert!(refreshing.await.unwrap());
    env.provider.answer(polled(70.0));

    let refreshed = remote.refresh().await.unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(70.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_forced_refreshes_in_8_processes_return_new_readings() {
    // Real threads and the real clock, for arbitrary interleavings.
    const ROUNDS: u32 = 300;
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    // A call takes a millisecond, so that two calls of one account never start at the same timestamp.
    let provider = FakeProvider::answering("example", 0.0).with_delay(Duration::from_millis(1));
    let policy = no_rate_limit().budget(Budget::new(u32::MAX, 0));
    let process = || another_process(&store, &Clock::system(), &provider, policy.clone());
    let processes: Vec<_> = (0..8).map(|_| process()).collect();

    for round in 0..ROUNDS {
        // Use a new account every 20 rounds, because the record grows with each call.
        let account = id(&format!("account-{}", round / 20));
        let used = f64::from(round % 100);
        provider.answer(polled(used));
        let mut callers = JoinSet::new();
        for quota in &processes {
            let account = quota.account(&account);
            callers.spawn(async move { last_read(&account.refresh().await.unwrap().usage) });
        }

        let read = Clock::system().bounded(policy.lease_ttl() / 2, callers.join_all()).await;

        assert!(read.as_ref().is_some_and(|read| read.iter().all(|read| *read == Some(used))), "{read:?}");
    }
}
