//! Outages of the store, damaged records, rejected writes, and records of newer programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::policy::StoreOutagePolicy;
use quota_core::record::Record;
use quota_core::store::{StoreError, StoreKey, WriteState};
use quota_core::testing::{FakeProvider, FlakyStore, HookedStore, StoreCall, StoreHooks};
use quota_core::{Clock, Event, MemoryStore, Policy, QuotaError, QuotaStore};

/// An outage that begins and ends by the test. Calls then fail at once, or hang.
#[derive(Debug)]
pub(crate) struct Outage {
    is_on: AtomicBool,
    hangs: bool,
}

/// A store that can be down.
pub(crate) type ToggleStore = HookedStore<Arc<MemoryStore>, Outage>;

pub(crate) fn toggle_store(clock: &Clock, hangs: bool) -> Arc<ToggleStore> {
    let inner = Arc::new(MemoryStore::with_clock(clock.clone()));
    Arc::new(HookedStore::new(inner, Outage { is_on: AtomicBool::new(false), hangs }))
}

impl Outage {
    pub(crate) fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::SeqCst);
    }
}

#[async_trait]
impl StoreHooks for Outage {
    async fn before(&self, _: StoreCall<'_>) -> Result<(), StoreError> {
        match (self.is_on.load(Ordering::SeqCst), self.hangs) {
            (false, _) => Ok(()),
            (true, false) => Err(StoreError::unavailable(WriteState::NotApplied, "connection refused")),
            (true, true) => std::future::pending().await,
        }
    }
}

pub(crate) fn env_with_toggle_store(hangs: bool, policy: Policy) -> (Env, Arc<ToggleStore>) {
    let clock = Clock::virtual_at(noon());
    let store = toggle_store(&clock, hangs);
    (env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy), store)
}

#[tokio::test(start_paused = true)]
async fn a_process_runs_standalone_during_an_outage_and_reports_it() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = env.quota.events();
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;

    let usage = main.get().await.unwrap();

    assert_eq!((env.provider.calls(), five_hours(&usage)), (2, Some(40.0)));
    assert!(usage.store_unavailable_since().is_some());
    assert!(matches!(events.next().await, Some(Event::StoreUnavailable)));
}

#[tokio::test(start_paused = true)]
async fn fail_closed_makes_no_call_during_an_outage() {
    let (env, store) =
        env_with_toggle_store(false, Policy::default().on_store_unavailable(StoreOutagePolicy::FailClosed));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;

    let refreshed = main.refresh().await.unwrap();

    assert_eq!((env.provider.calls(), last_read(&refreshed.usage)), (1, Some(40.0)));
    assert!(matches!(refreshed.error, Some(QuotaError::Store { .. })));
    assert!(refreshed.usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_standalone_process_calls_once_per_max_age() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    store.hooks.set(true);
    let _guard = main.keep_fresh();

    env.clock.sleep(MINUTE * 61).await;

    assert_eq!(env.provider.calls(), 13);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_store_delays_only_one_caller_by_its_timeout() {
    let (env, store) = env_with_toggle_store(true, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;
    let started = env.clock.now();

    drop(main.get().await.unwrap());
    let first = env.clock.now().duration_since(started).as_millis();
    drop(env.quota.account(&id("other")).get().await.unwrap());

    assert!(first <= 250, "{first} ms");
    let both = env.clock.now().duration_since(started).as_millis();
    assert!(both <= 1250, "the second caller waits for the gap, not for the store: {both} ms");
}

#[tokio::test(start_paused = true)]
async fn standalone_readings_are_shared_after_the_outage() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.answer(polled(71.0));
    drop(main.get().await);
    store.hooks.set(false);

    env.clock.sleep(SECOND * 2).await;

    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    assert_eq!(last_read(&other_process.account(&id("main")).sync().await), Some(71.0));
    assert_eq!(main.peek().store_unavailable_since(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_keeps_its_readings_if_the_store_fails_during_it() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let provider = env.provider.clone().with_delay(SECOND * 4);
    let main = env.quota.account(&id("main"));
    let reader = tokio::spawn({
        let main = main.clone();
        async move { last_read(&main.get().await.unwrap()) }
    });
    env.clock.sleep(SECOND).await;
    store.hooks.set(true);

    let read = reader.await.unwrap();

    assert_eq!((read, provider.calls()), (Some(40.0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_standalone_call_is_shared_if_the_store_recovers_during_it() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let provider = env.provider.clone().with_delay(SECOND * 4);
    store.hooks.set(true);
    let main = env.quota.account(&id("main"));
    let reader = tokio::spawn({
        let main = main.clone();
        async move { last_read(&main.get().await.unwrap()) }
    });
    env.clock.sleep(SECOND).await;
    store.hooks.set(false);

    let read = reader.await.unwrap();

    let other_process = another_process(&env.store, &env.clock, &provider, Policy::default());
    assert_eq!(read, Some(40.0));
    assert_eq!(last_read(&other_process.account(&id("main")).sync().await), Some(40.0));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_stays_unchanged_and_the_process_runs_standalone() {
    let env = env();
    let key = StoreKey::account(&id("main"));
    let damaged = Bytes::from_static(b"{\"format\":1,\"sna");
    let _ = env.store.compare_and_swap(&key, None, damaged.clone(), MINUTE * 600).await.unwrap();
    let main = env.quota.account(&id("main"));

    let usage = main.get().await.unwrap();

    assert_eq!(five_hours(&usage), Some(40.0));
    assert!(usage.store_unavailable_since().is_some());
    assert_eq!(env.store.read(&key).await.unwrap().document.unwrap().body, damaged);
    assert!(usage.is_record_damaged());
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_format_is_read_but_not_changed_or_refreshed() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let key = StoreKey::account(&id("main"));
    let stored = env.store.read(&key).await.unwrap().document.unwrap();
    let text = String::from_utf8(stored.body.to_vec()).unwrap();
    let newer = Bytes::from(text.replacen("\"format\":3", "\"format\":4,\"novelty\":[1,2]", 1));
    let _ =
        env.store.compare_and_swap(&key, Some(stored.version), newer.clone(), MINUTE * 600).await.unwrap();
    env.clock.sleep(MINUTE * 6).await;

    let refreshed = main.refresh().await.unwrap();

    assert!(matches!(refreshed.error, Some(QuotaError::UnsupportedFormat { .. })), "{:?}", refreshed.error);
    assert_eq!((last_read(&refreshed.usage), env.provider.calls()), (Some(40.0), 1));
    assert_eq!(env.store.read(&key).await.unwrap().document.unwrap().body, newer);
}

#[tokio::test(start_paused = true)]
async fn fields_of_a_newer_program_survive_a_refresh() {
    let env = env();
    let key = StoreKey::account(&id("main"));
    let body = Bytes::from_static(br#"{"format":1,"fence":7,"novelty":{"deep":[1]}}"#);
    let _ = env.store.compare_and_swap(&key, None, body, MINUTE * 600).await.unwrap();

    drop(env.quota.account(&id("main")).get().await.unwrap());

    let document = env.store.read(&key).await.unwrap().document.unwrap();
    assert!(String::from_utf8_lossy(&document.body).contains(r#""novelty":{"deep":[1]}"#));
    assert!(Record::decode(&document.body).unwrap().fence() > 7);
}

#[tokio::test(start_paused = true)]
async fn processes_on_a_flaky_store_converge_seeds_0_to_19() {
    for seed in 0..20 {
        let clock = Clock::virtual_at(noon());
        let store: Arc<dyn QuotaStore> =
            Arc::new(FlakyStore::new(MemoryStore::with_clock(clock.clone()), seed, 0.33));
        let env = env_on(store, clock, Policy::default());
        let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
        let (local, remote) = (env.quota.account(&id("main")), other_process.account(&id("main")));
        for used in 1..=6 {
            env.provider.answer(polled(f64::from(used)));
            let (one, two) = tokio::join!(local.get(), remote.get());
            let is_expected = [&one, &two].map(|result| match result {
                Ok(_) => true,
                // A process that reads the other's lease and then loses the store does not wait, and has no readings yet.
                Err(QuotaError::InProgress { .. }) => used == 1 && (one.is_ok() || two.is_ok()),
                Err(_) => false,
            });
            assert_eq!(is_expected, [true, true], "seed {seed}, round {used}");
            env.clock.sleep(MINUTE * 5).await;
        }
        for _ in 0..200 {
            env.clock.sleep(SECOND).await;
            let _ = tokio::join!(local.sync(), remote.sync());
        }

        assert_eq!(last_read(&local.peek()), last_read(&remote.peek()), "seed {seed}");
        assert!(env.provider.calls() <= 12, "seed {seed}: each process calls at most once per interval");
        assert_eq!(last_read(&local.peek()), Some(6.0), "seed {seed}");
    }
}

/// Rejects every write, and counts reads and swaps.
#[derive(Debug, Default)]
struct ReadOnly {
    trips: AtomicUsize,
}

#[async_trait]
impl StoreHooks for ReadOnly {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        if !call.is_wait() {
            self.trips.fetch_add(1, Ordering::SeqCst);
        }
        if call.is_swap() { Err(StoreError::rejected("read-only")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_only_store_causes_no_busy_loop() {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let key = StoreKey::account(&id("main"));
    let _ = inner.compare_and_swap(&key, None, Record::default().encode(), MINUTE * 600).await.unwrap();
    let store = Arc::new(HookedStore::new(inner, ReadOnly::default()));
    let env = env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, Policy::default());
    let main = env.quota.account(&id("main"));

    let usage = main.get().await.unwrap();
    env.clock.sleep(MINUTE).await;

    assert_eq!(five_hours(&usage), Some(40.0));
    let trips = store.hooks.trips.load(Ordering::SeqCst);
    assert!(trips < 300, "{trips} trips in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_process_with_rejected_writes_shows_other_processes_writes() {
    let clock = Clock::virtual_at(noon());
    let inner = Arc::new(MemoryStore::with_clock(clock.clone()));
    let store = Arc::new(HookedStore::new(Arc::clone(&inner), ReadOnly::default()));
    let env = env_on(store, clock, Policy::default());
    let main = env.quota.account(&id("main"));
    assert_eq!(five_hours(&main.get().await.unwrap()), Some(40.0));
    assert!(main.peek().store_unavailable_since().is_some());
    let provider = FakeProvider::answering("example", 55.0);
    let shared: Arc<dyn QuotaStore> = inner;
    let other_process = another_process(&shared, &env.clock, &provider, Policy::default());

    env.clock.sleep(SECOND).await;
    drop(other_process.account(&id("main")).get().await.unwrap());
    env.clock.sleep(MINUTE).await;

    assert_eq!(last_read(&main.peek()), Some(55.0));
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_restores_a_record_that_the_store_lost() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(SECOND * 2).await;
    env.provider.then_fail(quota_core::FetchError::throttled(Some(MINUTE * 60)));
    drop(main.refresh().await);
    let key = StoreKey::account(&id("main"));
    let version = env.store.read(&key).await.unwrap().version();

    let _ =
        env.store.compare_and_swap(&key, version, Record::default().encode(), MINUTE * 600).await.unwrap();
    env.clock.sleep(SECOND * 5).await;

    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let usage = other_process.account(&id("main")).sync().await;
    assert_eq!(last_read(&usage), Some(40.0));
    assert!(usage.hold().is_some_and(|hold| hold.retry_after == Some(MINUTE * 60)));
}
