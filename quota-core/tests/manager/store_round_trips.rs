//! What a refresh asks of the store: as little as the rules can be kept with.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::record::Record;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version};
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaStore};

/// A store that counts what is asked of it. Mostly it tells of no changes, so that nothing is asked but what a refresh asks.
#[derive(Debug)]
struct Counting {
    inner: MemoryStore,
    trips: AtomicUsize,
    tells: bool,
}

impl Counting {
    fn since(&self, before: usize) -> usize {
        self.trips.load(Ordering::SeqCst) - before
    }
}

#[async_trait]
impl QuotaStore for Counting {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        if self.tells {
            // A store outside this process lets other tasks run during a read.
            tokio::task::yield_now().await;
        }
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        self.inner.compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        if !self.tells {
            return std::future::pending().await;
        }
        self.trips.fetch_add(1, Ordering::SeqCst);
        self.inner.wait_for_change(key, seen).await
    }
}

fn counted() -> (World, Arc<Counting>) {
    counted_with(hurried())
}

fn counted_with(policy: Policy) -> (World, Arc<Counting>) {
    let clock = Clock::anchored(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(Counting { inner, trips: AtomicUsize::new(0), tells: false });
    (world_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy), store)
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_makes_three_trips() {
    let (world, store) = counted();

    let refreshed = world.quota.account(&id("main")).refresh().await.unwrap();

    assert!(refreshed.fetched);
    assert_eq!(store.since(0), 3, "the quiet time, the lease, the answer");
}

#[tokio::test(start_paused = true)]
async fn a_warm_refresh_makes_two_trips() {
    let (world, store) = counted();
    let main = world.quota.account(&id("main"));
    drop(main.refresh().await);
    world.clock.sleep(SECOND).await;
    let before = store.since(0);

    let refreshed = main.refresh().await.unwrap();

    assert!(refreshed.fetched);
    assert_eq!(store.since(before), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_of_an_account_others_know_keeps_what_they_know() {
    let (world, _) = counted();
    let other = another_process(&world.store, &world.clock, &world.provider, hurried());
    drop(other.account(&id("main")).refresh().await);
    world.clock.sleep(SECOND).await;

    let refreshed = world.quota.account(&id("main")).refresh().await.unwrap();

    assert!(refreshed.fetched);
    let reading = world.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    let record = Record::decode(&reading.document.unwrap().body).unwrap();
    assert_eq!(record.calls().len(), 2, "the calls of both count");
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_that_is_held_back_shows_what_others_know() {
    let (world, _) = counted();
    let other = another_process(&world.store, &world.clock, &world.provider, hurried());
    drop(other.account(&id("main")).refresh().await);
    world.provider.then_fail(FetchError::throttled(None));
    drop(other.account(&id("throttled")).refresh().await);
    world.clock.sleep(SECOND).await;

    let refreshed = world.quota.account(&id("main")).refresh().await.unwrap();

    assert!(!refreshed.fetched);
    assert_eq!(last_read(&refreshed.usage), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_does_not_stand_in_line_to_learn_of_a_hold() {
    let (world, _) = counted_with(Policy::default());
    let other = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    world.provider.then_fail(FetchError::TimedOut);
    drop(other.account(&id("held")).refresh().await);
    world.clock.sleep(SECOND).await;
    world.provider.then_hang();
    let slow = world.quota.account(&id("slow"));
    let slow = tokio::spawn(async move { slow.refresh().await.is_ok() });
    settle().await;
    let before = world.clock.now();

    let error = world.quota.account(&id("held")).refresh().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { .. }), "{error}");
    assert_eq!(world.clock.now(), before);
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_is_read_once_though_it_is_followed_from_then_on() {
    let clock = Clock::anchored(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(Counting { inner, trips: AtomicUsize::new(0), tells: true });
    let world = world_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, hurried());
    let other = another_process(&world.store, &world.clock, &world.provider, hurried());
    drop(other.account(&id("main")).refresh().await);
    other.close().await;
    let before = store.since(0);

    let main = world.quota.account(&id("main"));
    let answer = main.sync().await;
    settle().await;

    assert_eq!(last_read(&answer), Some(40.0));
    assert_eq!(store.since(before), 4, "the record and the quiet time, and to be told once of either");

    drop(
        another_process(&world.store, &world.clock, &world.provider, hurried())
            .account(&id("main"))
            .refresh()
            .await,
    );
    settle().await;
    assert!(store.since(before) > 8, "no task follows");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_sync_still_follows_the_account() {
    let world = world();
    let main = world.quota.account(&id("main"));

    let mut load = Box::pin(main.sync());
    let polled = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(load);
    drop(polled);
    settle().await;
    let other = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    drop(other.account(&id("main")).refresh().await);
    settle().await;

    assert_eq!(last_read(&main.peek()), Some(40.0));
}
