//! A call ends before its lease does. Otherwise another process could call at the same time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use quota_core::record::Record;
use quota_core::store::StoreKey;
use quota_core::testing::{HookedStore, StoreCall, StoreHooks};
use quota_core::{Clock, MemoryStore, Policy, QuotaError, QuotaStore};

use crate::support::*;

/// Suspends the process for these times after its next swaps.
#[derive(Debug)]
struct Suspends {
    clock: Clock,
    pauses: Mutex<VecDeque<Duration>>,
}

#[async_trait]
impl StoreHooks for Suspends {
    async fn after(&self, call: StoreCall<'_>) {
        if call.is_swap() {
            let pause = self.pauses.lock().pop_front();
            self.clock.sleep(pause.unwrap_or_default()).await;
        }
    }
}

fn env_with_pauses(pauses: impl IntoIterator<Item = Duration>) -> Env {
    let clock = Clock::virtual_at(noon());
    let pauses = Mutex::new(pauses.into_iter().collect());
    let hooks = Suspends { clock: clock.clone(), pauses };
    let store = HookedStore::new(MemoryStore::with_clock(clock.clone()), hooks);
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
