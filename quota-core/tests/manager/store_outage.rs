//! What happens when the store is slow, gone, full of holes, or kept by a newer program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::policy::StoreOutagePolicy;
use quota_core::record::Record;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_core::testing::{FakeProvider, FlakyStore};
use quota_core::{Clock, Event, MemoryStore, Policy, QuotaError, QuotaStore};

/// A store that can be unplugged: calls then fail at once, or never end.
#[derive(Debug)]
pub(crate) struct Unpluggable {
    inner: Arc<MemoryStore>,
    gone: AtomicBool,
    silent: bool,
}

impl Unpluggable {
    pub(crate) fn new(clock: &Clock, silent: bool) -> Arc<Self> {
        let inner = Arc::new(MemoryStore::with_clock(clock.clone()));
        Arc::new(Self { inner, gone: AtomicBool::new(false), silent })
    }

    /// The store as another process reaches it, which is not unplugged.
    pub(crate) fn plugged_in(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.inner)
    }

    pub(crate) fn unplug(&self, gone: bool) {
        self.gone.store(gone, Ordering::SeqCst);
    }

    async fn plugged(&self) -> Result<(), StoreError> {
        match (self.gone.load(Ordering::SeqCst), self.silent) {
            (false, _) => Ok(()),
            (true, false) => Err(StoreError::unavailable(WriteState::NotApplied, "connection refused")),
            (true, true) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl QuotaStore for Unpluggable {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.plugged().await?;
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.plugged().await?;
        self.inner.compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.plugged().await?;
        self.inner.wait_for_change(key, seen).await
    }
}

pub(crate) fn unpluggable(silent: bool, policy: Policy) -> (World, Arc<Unpluggable>) {
    let clock = Clock::anchored(noon());
    let store = Unpluggable::new(&clock, silent);
    (world_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy), store)
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_process_goes_on_alone_and_says_so() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = world.quota.events();
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;

    let answer = main.get().await.unwrap();

    assert_eq!((world.provider.calls(), five_hours(&answer)), (2, Some(40.0)));
    assert!(answer.store_unavailable_since().is_some());
    assert!(matches!(events.next().await, Some(Event::StoreLost)));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_process_may_refuse_to_ask() {
    let (world, store) =
        unpluggable(false, Policy::default().on_store_unavailable(StoreOutagePolicy::FailClosed));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;

    let refreshed = main.refresh().await.unwrap();

    assert_eq!((world.provider.calls(), last_read(&refreshed.usage)), (1, Some(40.0)));
    assert!(matches!(refreshed.error, Some(QuotaError::Store { .. })));
    assert!(refreshed.usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn alone_a_process_asks_no_more_often_than_the_rules_allow() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    store.unplug(true);
    let _keep = main.keep_fresh();

    world.clock.sleep(MINUTE * 61).await;

    assert_eq!(world.provider.calls(), 13);
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_costs_a_caller_a_quarter_of_a_second_once() {
    let (world, store) = unpluggable(true, Policy::default());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;
    let started = world.clock.now();

    drop(main.get().await.unwrap());
    let first = world.clock.now().duration_since(started).as_millis();
    drop(world.quota.account(&id("other")).get().await.unwrap());

    assert!(first <= 250, "{first} ms");
    let both = world.clock.now().duration_since(started).as_millis();
    assert!(both <= 1250, "the second waits for the gap and not for the store: {both} ms");
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_alone_is_shared_when_the_store_is_back() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.answer(polled(71.0));
    drop(main.get().await);
    store.unplug(false);

    world.clock.sleep(SECOND * 2).await;

    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    assert_eq!(last_read(&elsewhere.account(&id("main")).sync().await), Some(71.0));
    assert_eq!(main.peek().store_unavailable_since(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_begun_with_the_store_is_kept_if_it_goes_away_meanwhile() {
    let (world, store) = unpluggable(false, Policy::default());
    let provider = world.provider.clone().taking(SECOND * 4);
    let main = world.quota.account(&id("main"));
    let reader = tokio::spawn({
        let main = main.clone();
        async move { last_read(&main.get().await.unwrap()) }
    });
    world.clock.sleep(SECOND).await;
    store.unplug(true);

    let read = reader.await.unwrap();

    assert_eq!((read, provider.calls()), (Some(40.0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_begun_alone_is_shared_if_the_store_comes_back_meanwhile() {
    let (world, store) = unpluggable(false, Policy::default());
    let provider = world.provider.clone().taking(SECOND * 4);
    store.unplug(true);
    let main = world.quota.account(&id("main"));
    let reader = tokio::spawn({
        let main = main.clone();
        async move { last_read(&main.get().await.unwrap()) }
    });
    world.clock.sleep(SECOND).await;
    store.unplug(false);

    let read = reader.await.unwrap();

    let elsewhere = another_process(&world.store, &world.clock, &provider, Policy::default());
    assert_eq!(read, Some(40.0));
    assert_eq!(last_read(&elsewhere.account(&id("main")).sync().await), Some(40.0));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_document_is_left_as_it_is_and_the_process_goes_on_alone() {
    let world = world();
    let key = StoreKey::account(&id("main"));
    let damaged = Bytes::from_static(b"{\"format\":1,\"sna");
    let _ = world.store.compare_and_swap(&key, None, damaged.clone(), MINUTE * 600).await.unwrap();
    let main = world.quota.account(&id("main"));

    let answer = main.get().await.unwrap();

    assert_eq!(five_hours(&answer), Some(40.0));
    assert!(answer.store_unavailable_since().is_some());
    assert_eq!(world.store.read(&key).await.unwrap().document.unwrap().body, damaged);
    assert!(answer.is_record_damaged());
}

#[tokio::test(start_paused = true)]
async fn a_document_of_a_newer_format_is_read_and_neither_changed_nor_refreshed() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let key = StoreKey::account(&id("main"));
    let known = world.store.read(&key).await.unwrap().document.unwrap();
    let text = String::from_utf8(known.body.to_vec()).unwrap();
    let newer = Bytes::from(text.replacen("\"format\":3", "\"format\":4,\"novelty\":[1,2]", 1));
    let _ =
        world.store.compare_and_swap(&key, Some(known.version), newer.clone(), MINUTE * 600).await.unwrap();
    world.clock.sleep(MINUTE * 6).await;

    let refreshed = main.refresh().await.unwrap();

    assert!(matches!(refreshed.error, Some(QuotaError::UnsupportedFormat { .. })), "{:?}", refreshed.error);
    assert_eq!((last_read(&refreshed.usage), world.provider.calls()), (Some(40.0), 1));
    assert_eq!(world.store.read(&key).await.unwrap().document.unwrap().body, newer);
}

#[tokio::test(start_paused = true)]
async fn fields_of_a_newer_program_survive_a_refresh() {
    let world = world();
    let key = StoreKey::account(&id("main"));
    let body = Bytes::from_static(br#"{"format":1,"fence":7,"novelty":{"deep":[1]}}"#);
    let _ = world.store.compare_and_swap(&key, None, body, MINUTE * 600).await.unwrap();

    drop(world.quota.account(&id("main")).get().await.unwrap());

    let document = world.store.read(&key).await.unwrap().document.unwrap();
    assert!(String::from_utf8_lossy(&document.body).contains(r#""novelty":{"deep":[1]}"#));
    assert!(Record::decode(&document.body).unwrap().fence() > 7);
}

#[tokio::test(start_paused = true)]
async fn on_a_store_that_loses_a_third_of_its_calls_processes_agree_in_the_end_seed_0_to_19() {
    for seed in 0..20 {
        let clock = Clock::anchored(noon());
        let store: Arc<dyn QuotaStore> =
            Arc::new(FlakyStore::new(MemoryStore::with_clock(clock.clone()), seed, 0.33));
        let world = world_on(store, clock, Policy::default());
        let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
        let (here, there) = (world.quota.account(&id("main")), elsewhere.account(&id("main")));
        for used in 1..=6 {
            world.provider.answer(polled(f64::from(used)));
            let (one, two) = tokio::join!(here.get(), there.get());
            let fine = [&one, &two].map(|got| match got {
                Ok(_) => true,
                // A process that saw the other's lease and then lost the store does not wait, and has no readings yet.
                Err(QuotaError::InProgress { .. }) => used == 1 && (one.is_ok() || two.is_ok()),
                Err(_) => false,
            });
            assert_eq!(fine, [true, true], "seed {seed}, round {used}");
            world.clock.sleep(MINUTE * 5).await;
        }
        for _ in 0..200 {
            world.clock.sleep(SECOND).await;
            let _ = tokio::join!(here.sync(), there.sync());
        }

        assert_eq!(last_read(&here.peek()), last_read(&there.peek()), "seed {seed}");
        assert!(world.provider.calls() <= 12, "seed {seed}: each process asks at most once per interval");
        assert_eq!(last_read(&here.peek()), Some(6.0), "seed {seed}");
    }
}

/// A store that answers, and refuses every write.
#[derive(Debug)]
struct ReadOnly {
    inner: Arc<MemoryStore>,
    trips: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl QuotaStore for ReadOnly {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        _key: &StoreKey,
        _expected: Option<Version>,
        _body: Bytes,
        _keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::rejected("read-only"))
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.inner.wait_for_change(key, seen).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_to_be_written_is_not_asked_in_a_circle() {
    let clock = Clock::anchored(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let key = StoreKey::account(&id("main"));
    let _ = inner.compare_and_swap(&key, None, Record::default().encode(), MINUTE * 600).await.unwrap();
    let store = Arc::new(ReadOnly { inner: Arc::new(inner), trips: Default::default() });
    let world = world_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, Policy::default());
    let main = world.quota.account(&id("main"));

    let answer = main.get().await.unwrap();
    world.clock.sleep(MINUTE).await;

    assert_eq!(five_hours(&answer), Some(40.0));
    let trips = store.trips.load(Ordering::SeqCst);
    assert!(trips < 300, "{trips} trips in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_writes_are_refused_shows_what_others_write() {
    let clock = Clock::anchored(noon());
    let inner = Arc::new(MemoryStore::with_clock(clock.clone()));
    let store = Arc::new(ReadOnly { inner: Arc::clone(&inner), trips: Default::default() });
    let world = world_on(store, clock, Policy::default());
    let main = world.quota.account(&id("main"));
    assert_eq!(five_hours(&main.get().await.unwrap()), Some(40.0));
    assert!(main.peek().store_unavailable_since().is_some());
    let provider = FakeProvider::answering("example", 55.0);
    let shared: Arc<dyn QuotaStore> = inner;
    let elsewhere = another_process(&shared, &world.clock, &provider, Policy::default());

    world.clock.sleep(SECOND).await;
    drop(elsewhere.account(&id("main")).get().await.unwrap());
    world.clock.sleep(MINUTE).await;

    assert_eq!(last_read(&main.peek()), Some(55.0));
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_restores_what_the_store_lost() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(SECOND * 2).await;
    world.provider.then_fail(quota_core::FetchError::throttled(Some(MINUTE * 60)));
    drop(main.refresh().await);
    let key = StoreKey::account(&id("main"));
    let version = world.store.read(&key).await.unwrap().version();

    let _ =
        world.store.compare_and_swap(&key, version, Record::default().encode(), MINUTE * 600).await.unwrap();
    world.clock.sleep(SECOND * 5).await;

    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let answer = elsewhere.account(&id("main")).sync().await;
    assert_eq!(last_read(&answer), Some(40.0));
    assert!(answer.hold().is_some_and(|hold| hold.retry_after == Some(MINUTE * 60)));
}
