//! The number of round trips to the store per refresh.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use crate::support::*;
use async_trait::async_trait;
use quota_core::record::Record;
use quota_core::store::{StoreError, StoreKey};
use quota_core::testing::{HookedStore, StoreCall, StoreHooks};
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaStore};

/// Counts round trips. Without notices, only refreshes and syncs cause round trips.
#[derive(Debug)]
struct RoundTrips {
    trips: AtomicUsize,
    sends_notices: bool,
}

type CountingStore = HookedStore<MemoryStore, RoundTrips>;

impl RoundTrips {
    fn since(&self, before: usize) -> usize {
        self.trips.load(Ordering::SeqCst) - before
    }
}

#[async_trait]
impl StoreHooks for RoundTrips {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        if call.is_wait() && !self.sends_notices {
            return std::future::pending().await;
        }
        self.trips.fetch_add(1, Ordering::SeqCst);
        if matches!(call, StoreCall::Read(_)) && self.sends_notices {
            // A store outside this process lets other tasks run during a read.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn counting(inner: MemoryStore, sends_notices: bool) -> Arc<CountingStore> {
    Arc::new(HookedStore::new(inner, RoundTrips { trips: AtomicUsize::new(0), sends_notices }))
}

fn counted() -> (Env, Arc<CountingStore>) {
    counted_with(no_rate_limit())
}

fn counted_with(policy: Policy) -> (Env, Arc<CountingStore>) {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = counting(inner, false);
    (env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy), store)
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_makes_three_round_trips() {
    let (env, store) = counted();

    let refreshed = env.quota.account(&id("main")).refresh().await.unwrap();

    assert!(refreshed.fetched);
    assert_eq!(store.hooks.since(0), 3, "the cooldown, the lease, the report");
}

#[tokio::test(start_paused = true)]
async fn a_warm_refresh_makes_two_round_trips() {
    let (env, store) = counted();
    let main = env.quota.account(&id("main"));
    drop(main.refresh().await);
    env.clock.sleep(SECOND).await;
    let before = store.hooks.since(0);

    let refreshed = main.refresh().await.unwrap();

    assert!(refreshed.fetched);
    assert_eq!(store.hooks.since(before), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_keeps_the_calls_of_another_process() {
    let (env, _) = counted();
    let other = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    drop(other.account(&id("main")).refresh().await);
    env.clock.sleep(SECOND).await;

    let refreshed = env.quota.account(&id("main")).refresh().await.unwrap();

    assert!(refreshed.fetched);
    let reading = env.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    let record = Record::decode(&reading.document.unwrap().body).unwrap();
    assert_eq!(record.calls().len(), 2, "the calls of both processes count");
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_on_hold_returns_readings_of_another_process() {
    let (env, _) = counted();
    let other = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    drop(other.account(&id("main")).refresh().await);
    env.provider.then_fail(FetchError::throttled(None));
    drop(other.account(&id("throttled")).refresh().await);
    env.clock.sleep(SECOND).await;

    let refreshed = env.quota.account(&id("main")).refresh().await.unwrap();

    assert!(!refreshed.fetched);
    assert_eq!(last_read(&refreshed.usage), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_cold_refresh_on_hold_does_not_queue() {
    let (env, _) = counted_with(Policy::default());
    let other = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    env.provider.then_fail(FetchError::TimedOut);
    drop(other.account(&id("held")).refresh().await);
    env.clock.sleep(SECOND).await;
    env.provider.then_hang();
    let slow = env.quota.account(&id("slow"));
    let slow = tokio::spawn(async move { slow.refresh().await.is_ok() });
    run_ready_tasks().await;
    let before = env.clock.now();

    let error = env.quota.account(&id("held")).refresh().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { .. }), "{error}");
    assert_eq!(env.clock.now(), before);
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sync_reads_once_although_it_starts_a_follower() {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = counting(inner, true);
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, no_rate_limit());
    let other = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    drop(other.account(&id("main")).refresh().await);
    other.close().await;
    let before = store.hooks.since(0);

    let main = env.quota.account(&id("main"));
    let usage = main.sync().await;
    run_ready_tasks().await;

    assert_eq!(last_read(&usage), Some(40.0));
    assert_eq!(store.hooks.since(before), 4, "one read and one wait each, for the record and the cooldown");

    drop(
        another_process(&env.store, &env.clock, &env.provider, no_rate_limit())
            .account(&id("main"))
            .refresh()
            .await,
    );
    run_ready_tasks().await;
    assert!(store.hooks.since(before) > 8, "no follower is running");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_sync_still_starts_the_follower() {
    let env = env();
    let main = env.quota.account(&id("main"));

    let mut load = Box::pin(main.sync());
    let polled = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(load);
    drop(polled);
    run_ready_tasks().await;
    let other = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    drop(other.account(&id("main")).refresh().await);
    run_ready_tasks().await;

    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_reads_the_store_in_a_loop_starves_no_refresh() {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = counting(inner, true);
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, no_rate_limit());
    let main = env.quota.account(&id("main"));
    let looping = tokio::spawn({
        let main = main.clone();
        async move {
            loop {
                drop(main.sync().await);
            }
        }
    });
    run_ready_tasks().await;
    let before = store.hooks.trips.load(Ordering::SeqCst);

    let refreshed = main.refresh();
    tokio::pin!(refreshed);
    while store.hooks.since(before) < 10_000 {
        tokio::select! {
            biased;
            done = &mut refreshed => {
                looping.abort();
                return assert!(done.unwrap().fetched);
            }
            () = tokio::task::yield_now() => {}
        }
    }
    panic!("the refresh does not get the lock");
}
