//! Who insists on a new call gets the numbers of one, whatever this process has heard before and however late.

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

/// A way to a store on which answers take long, and which brings no notices.
#[derive(Debug)]
struct Distant {
    inner: Arc<dyn QuotaStore>,
    clock: Clock,
    way_back: Duration,
}

#[async_trait]
impl QuotaStore for Distant {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let reading = self.inner.read(key).await;
        self.clock.sleep(self.way_back).await;
        reading
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.inner.compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, _key: &StoreKey, _seen: Option<Version>) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

/// Another process, whose answers from the store take so long.
fn distant_process(world: &World, provider: &FakeProvider, way_back: Duration) -> QuotaManager {
    let (inner, clock) = (Arc::clone(&world.store), world.clock.clone());
    let store: Arc<dyn QuotaStore> = Arc::new(Distant { inner, clock, way_back });
    another_process(&store, &world.clock, provider, hurried())
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_is_not_new_to_a_process_that_heard_the_stores_time_late() {
    let world = world_with(hurried());
    let distant = distant_process(&world, &world.provider, SECOND / 5);
    let (here, there) = (world.quota.account(&id("main")), distant.account(&id("main")));
    // Both get the time: for the process that got it late, the store's clock is behind.
    drop(here.sync().await);
    drop(there.sync().await);
    drop(here.refresh().await.unwrap());
    world.clock.sleep(SECOND / 10).await;
    world.provider.answer(polled(70.0));

    let refreshed = there.refresh().await.unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(70.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_over_is_not_joined_by_a_process_that_has_not_heard_so() {
    let world = world_with(hurried());
    let slow = world.provider.clone().taking(SECOND);
    let distant = distant_process(&world, &slow, Duration::ZERO);
    let (here, there) = (world.quota.account(&id("main")), distant.account(&id("main")));
    let asking = tokio::spawn(async move { here.refresh().await.is_ok() });
    settle().await;
    // The other process sees only that a call is running.
    drop(there.sync().await);
    assert!(asking.await.unwrap());
    world.provider.answer(polled(70.0));

    let refreshed = there.refresh().await.unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(70.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_all_insist_in_300_rounds_neither_wait_out_a_lease_nor_get_an_older_answer() {
    // Real threads under the real clock, so that they interleave in unforeseen ways.
    const ROUNDS: u32 = 300;
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    // The calls of one account are at least a stamp apart.
    let provider = FakeProvider::answering("example", 0.0).taking(Duration::from_millis(1));
    let policy = hurried().budget(Budget::new(u32::MAX, 0));
    let process = || another_process(&store, &Clock::system(), &provider, policy.clone());
    let processes: Vec<_> = (0..8).map(|_| process()).collect();

    for round in 0..ROUNDS {
        // A new account now and then: one that was asked about thousands of times has a long record.
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
