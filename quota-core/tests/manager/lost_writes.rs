//! A store that lost its last writes, as in a failover, gets them back from a process that has them.
//! What a store lost altogether is in `store_away`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::policy::StoreOutagePolicy;
use quota_core::record::Record;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_core::{
    Account, Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaStore, WindowId, WindowReading,
};

fn key() -> StoreKey {
    StoreKey::account(&id("main"))
}

/// What the store has of the account.
async fn body(world: &World) -> Bytes {
    world.store.read(&key()).await.unwrap().document.unwrap().body
}

/// The store has an older state again, of which it has sent no notice yet.
async fn falls_back_to(world: &World, older: Bytes) {
    let version = world.store.read(&key()).await.unwrap().version();
    let _ = world.store.compare_and_swap(&key(), version, older, MINUTE * 600).await.unwrap();
}

/// The account in a process that has only the store to learn from.
async fn elsewhere(world: &World) -> Account {
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let main = elsewhere.account(&id("main"));
    drop(main.sync().await);
    main
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_the_store_has_lost_is_put_back() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let before = body(&world).await;
    world.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    world.clock.sleep(SECOND * 6).await;
    assert_ne!(body(&world).await, before);

    falls_back_to(&world, before).await;
    world.clock.sleep(SECOND * 5).await;

    assert_eq!(last_read(&main.peek()), Some(80.0));
    assert_eq!(last_read(&elsewhere(&world).await.peek()), Some(80.0));
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_the_store_has_lost_is_put_back() {
    let world = world();
    let provider = world.provider.clone().taking(SECOND);
    provider.then_fail(FetchError::throttled(Some(MINUTE * 60)));
    let main = world.quota.account(&id("main"));
    main.refresh_in_background();
    settle().await;
    let asking = body(&world).await;
    assert!(Record::decode(&asking).unwrap().lease().is_some());
    world.clock.sleep(SECOND * 2).await;

    falls_back_to(&world, asking).await;
    world.clock.sleep(SECOND * 5).await;

    let answer = elsewhere(&world).await.peek();
    assert!(answer.hold().is_some_and(|hold| hold.retry_after == Some(MINUTE * 60)));
    assert_eq!(Record::decode(&body(&world).await).unwrap().lease(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reading_is_restored_despite_a_later_write() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let before = body(&world).await;
    world.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    world.clock.sleep(SECOND * 6).await;

    // What the other one writes stands on what is left, and comes together with the news that something is lost.
    let mut next = Record::decode(&before).unwrap();
    let week = WindowReading::new(WindowId::seven_day(), percent(7.0));
    let seen = quota_core::Snapshot::of(&quota_core::UsageReport::from_headers([week]), world.clock.now());
    let _ = next.observe(world.clock.now(), &seen, None, None);
    next.bump_revision();
    falls_back_to(&world, next.encode()).await;
    world.clock.sleep(SECOND * 5).await;

    let answer = elsewhere(&world).await.peek();
    assert_eq!(last_read(&answer), Some(80.0));
    assert!(answer.snapshot().window(&WindowId::seven_day()).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_the_store_has_lost_is_put_back_once() {
    let world = world();
    let others = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let (main, theirs) = (world.quota.account(&id("main")), others.account(&id("main")));
    drop(main.get().await);
    drop(theirs.sync().await);
    let before = body(&world).await;
    world.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    world.clock.sleep(SECOND * 6).await;
    assert_eq!(last_read(&theirs.peek()), Some(80.0));

    falls_back_to(&world, before).await;
    world.clock.sleep(SECOND * 5).await;
    let put_back = world.store.read(&key()).await.unwrap().version();
    world.clock.sleep(SECOND * 30).await;

    assert_eq!(world.store.read(&key()).await.unwrap().version(), put_back);
}

/// A store that can be full: it finds conflicts, and applies no write. It gives no notices.
#[derive(Debug)]
struct Full {
    inner: MemoryStore,
    is_full: AtomicBool,
}

#[async_trait]
impl QuotaStore for Full {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            let reading = self.inner.read(key).await?;
            if reading.version() == expected {
                return Err(StoreError::unavailable(WriteState::NotApplied, "the disk is full"));
            }
            return Ok(CasOutcome::Conflict(reading));
        }
        self.inner.compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, _: &StoreKey, _: Option<Version>) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_could_not_be_put_back_is_written_later() {
    let clock = Clock::anchored(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(Full { inner, is_full: AtomicBool::new(false) });
    let policy = Policy::default().on_store_unavailable(StoreOutagePolicy::FailClosed);
    let world = world_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy);
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let before = body(&world).await;
    world.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    world.clock.sleep(SECOND * 6).await;
    assert_ne!(body(&world).await, before);

    falls_back_to(&world, before).await;
    store.is_full.store(true, Ordering::SeqCst);
    let refused = main.refresh().await.unwrap().error;
    assert!(matches!(refused, Some(QuotaError::Store { .. })), "{refused:?}");
    store.is_full.store(false, Ordering::SeqCst);

    assert!(world.quota.close().await);
    assert_eq!(last_read(&elsewhere(&world).await.peek()), Some(80.0));
}
