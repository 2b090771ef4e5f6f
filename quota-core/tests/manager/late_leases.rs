//! A call ends before its lease does. Otherwise another process could call at the same time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use quota_core::record::Record;
use quota_core::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version};
use quota_core::{Clock, MemoryStore, Policy, QuotaError, QuotaStore};

use crate::support::*;

/// A store after whose next swaps the process is suspended for so long.
#[derive(Debug)]
struct Suspending {
    inner: MemoryStore,
    clock: Clock,
    pauses: Mutex<VecDeque<Duration>>,
}

#[async_trait]
impl QuotaStore for Suspending {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let outcome = self.inner.compare_and_swap(key, expected, body, ttl).await;
        let pause = self.pauses.lock().pop_front();
        self.clock.sleep(pause.unwrap_or_default()).await;
        outcome
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.inner.wait_for_change(key, seen).await
    }
}

fn env_with_pauses(pauses: impl IntoIterator<Item = Duration>) -> Env {
    let clock = Clock::virtual_at(noon());
    let pauses = Mutex::new(pauses.into_iter().collect());
    let store = Suspending { inner: MemoryStore::with_clock(clock.clone()), clock: clock.clone(), pauses };
    env_on(Arc::new(store), clock, Policy::default().store_timeout(MINUTE))
}

async fn stored(env: &Env) -> Record {
    let read = env.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    Record::decode(&read.document.unwrap().body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_process_suspended_after_its_grant_calls_under_a_new_lease() {
    let env = env_with_pauses([SECOND * 6]);

    let usage = env.quota.account(&id("main")).get().await.unwrap();

    let record = stored(&env).await;
    assert_eq!((env.provider.calls(), record.calls().len()), (1, 1));
    assert_eq!(usage.snapshot().complete_at(), Some(noon() + SECOND * 6), "the time of the new lease");
}

#[tokio::test(start_paused = true)]
async fn a_process_suspended_after_each_grant_makes_no_call() {
    // The second swap withdraws the first call.
    let env = env_with_pauses([SECOND * 6, Duration::ZERO, SECOND * 6]);

    let error = env.quota.account(&id("main")).get().await.unwrap_err();

    let record = stored(&env).await;
    assert!(matches!(error, QuotaError::InProgress { .. }), "{error}");
    assert_eq!((env.provider.calls(), record.calls().len(), record.lease()), (0, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_slow_grant_that_leaves_enough_of_the_lease_is_used() {
    let env = env_with_pauses([SECOND * 4]);

    let usage = env.quota.account(&id("main")).get().await.unwrap();

    assert_eq!((usage.snapshot().complete_at(), env.provider.calls()), (Some(noon()), 1));
}
