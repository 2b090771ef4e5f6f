//! A process restores the last writes that the store lost, such as in a failover.
//! `store_outage` tests the loss of a whole record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::policy::StoreOutagePolicy;
use quota_core::record::Record;
use quota_core::store::{StoreError, StoreKey, WriteState};
use quota_core::testing::{HookedStore, StoreCall, StoreHooks};
use quota_core::{
    Account, Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaStore, WindowId, WindowReading,
};

fn key() -> StoreKey {
    StoreKey::account(&id("main"))
}

/// The account's document in the store.
async fn body(env: &Env) -> Bytes {
    env.store.read(&key()).await.unwrap().document.unwrap().body
}

/// A notice may be late, so only the next read shows that a write is lost. It follows within this time.
const NEXT_READ: Duration = Duration::from_secs(75);

/// Replaces the document with an `older` one, as a failover does.
async fn revert_to(env: &Env, older: Bytes) {
    let version = env.store.read(&key()).await.unwrap().version();
    let _ = env.store.compare_and_swap(&key(), version, older, MINUTE * 600).await.unwrap();
}

/// The account in a new process, which reads it from the store.
async fn other_process(env: &Env) -> Account {
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let main = other_process.account(&id("main"));
    drop(main.sync().await);
    main
}

#[tokio::test(start_paused = true)]
async fn a_reading_lost_by_the_store_is_restored() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let before = body(&env).await;
    env.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    env.clock.sleep(SECOND * 6).await;
    assert_ne!(body(&env).await, before);

    revert_to(&env, before).await;
    env.clock.sleep(NEXT_READ).await;

    assert_eq!(last_read(&main.peek()), Some(80.0));
    assert_eq!(last_read(&other_process(&env).await.peek()), Some(80.0));
}

#[tokio::test(start_paused = true)]
async fn a_hold_lost_by_the_store_is_restored() {
    let env = env();
    let provider = env.provider.clone().with_delay(SECOND);
    provider.then_fail(FetchError::throttled(Some(MINUTE * 60)));
    let main = env.quota.account(&id("main"));
    main.refresh_in_background();
    run_ready_tasks().await;
    let refreshing = body(&env).await;
    assert!(Record::decode(&refreshing).unwrap().lease().is_some());
    env.clock.sleep(SECOND * 2).await;

    revert_to(&env, refreshing).await;
    env.clock.sleep(NEXT_READ).await;

    let usage = other_process(&env).await.peek();
    assert!(usage.hold().is_some_and(|hold| hold.retry_after == Some(MINUTE * 60)));
    assert_eq!(Record::decode(&body(&env).await).unwrap().lease(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reading_is_restored_despite_a_later_write() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let before = body(&env).await;
    env.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    env.clock.sleep(SECOND * 6).await;

    // Another process writes on top of the older state, so one notice reports both the loss and the new reading.
    let mut next = Record::decode(&before).unwrap();
    let week = WindowReading::new(WindowId::seven_day(), percent(7.0));
    let observed = quota_core::Snapshot::of(&quota_core::UsageReport::from_headers([week]), env.clock.now());
    let _ = next.observe(env.clock.now(), &observed, None, None);
    next.bump_revision();
    revert_to(&env, next.encode()).await;
    env.clock.sleep(NEXT_READ).await;

    let usage = other_process(&env).await.peek();
    assert_eq!(last_read(&usage), Some(80.0));
    assert!(usage.snapshot().window(&WindowId::seven_day()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reading_is_restored_once() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let (main, remote) = (env.quota.account(&id("main")), other_process.account(&id("main")));
    drop(main.get().await);
    drop(remote.sync().await);
    let before = body(&env).await;
    env.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    env.clock.sleep(SECOND * 6).await;
    assert_eq!(last_read(&remote.peek()), Some(80.0));

    revert_to(&env, before).await;
    env.clock.sleep(NEXT_READ).await;
    let restored = env.store.read(&key()).await.unwrap().version();
    env.clock.sleep(NEXT_READ).await;

    assert_eq!(env.store.read(&key()).await.unwrap().version(), restored);
}

/// A disk that can be full. The store then still detects conflicts, but applies no write. It sends no notices.
#[derive(Debug)]
struct FullDisk {
    inner: Arc<MemoryStore>,
    is_full: AtomicBool,
}

#[async_trait]
impl StoreHooks for FullDisk {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        match call {
            StoreCall::Swap(key, expected) if self.is_full.load(Ordering::SeqCst) => {
                match self.inner.read(key).await?.version() == expected {
                    true => Err(StoreError::unavailable(WriteState::NotApplied, "the disk is full")),
                    false => Ok(()),
                }
            }
            call if call.is_wait() => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_whose_restoration_failed_is_written_by_close() {
    let clock = Clock::virtual_at(noon());
    let inner = Arc::new(MemoryStore::with_clock(clock.clone()));
    let disk = FullDisk { inner: Arc::clone(&inner), is_full: AtomicBool::new(false) };
    let store = Arc::new(HookedStore::new(inner, disk));
    let policy = Policy::default().on_store_unavailable(StoreOutagePolicy::FailClosed);
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy);
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let before = body(&env).await;
    env.clock.sleep(SECOND).await;
    main.observe(&headers(80.0)).unwrap();
    env.clock.sleep(SECOND * 6).await;
    assert_ne!(body(&env).await, before);

    revert_to(&env, before).await;
    store.hooks.is_full.store(true, Ordering::SeqCst);
    let result = main.refresh().await.unwrap().error;
    assert!(matches!(result, Some(QuotaError::Store { .. })), "{result:?}");
    store.hooks.is_full.store(false, Ordering::SeqCst);

    assert!(env.quota.close().await);
    assert_eq!(last_read(&other_process(&env).await.peek()), Some(80.0));
}
