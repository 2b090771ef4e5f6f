//! Watching, keeping fresh, flushing, closing, and what remains after the last handle.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::manager::BuildError;
use quota_core::record::Record;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version};
use quota_core::testing::FakeProvider;
use quota_core::{
    Clock, Event, MemoryStore, Percent, Policy, QuotaError, QuotaManager, QuotaStore, UsageReport, WindowId,
    WindowReading,
};

#[tokio::test(start_paused = true)]
async fn subscribers_are_told_of_a_background_refresh() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let mut watch = main.watch();

    main.refresh_in_background();

    let answer = loop {
        let answer = watch.next().await.unwrap();
        if !answer.snapshot().is_empty() {
            break answer;
        }
    };
    assert_eq!(five_hours(&answer), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_sees_what_another_process_wrote() {
    let world = world();
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let main = world.quota.account(&id("main"));
    let mut watch = main.watch();
    settle().await;

    drop(elsewhere.account(&id("main")).get().await);

    loop {
        let answer = watch.next().await.unwrap();
        if last_read(&answer) == Some(40.0) {
            break;
        }
    }
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_notice_was_lost_is_found_by_the_slow_look() {
    #[derive(Debug)]
    struct Deaf(MemoryStore);
    #[async_trait]
    impl QuotaStore for Deaf {
        async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
            self.0.read(key).await
        }
        async fn compare_and_swap(
            &self,
            key: &StoreKey,
            expected: Option<Version>,
            body: Bytes,
            keep: Duration,
        ) -> Result<CasOutcome, StoreError> {
            self.0.compare_and_swap(key, expected, body, keep).await
        }
        async fn wait_for_change(&self, _key: &StoreKey, _seen: Option<Version>) -> Result<(), StoreError> {
            std::future::pending().await
        }
    }
    let clock = Clock::anchored(noon());
    let store = Arc::new(Deaf(MemoryStore::with_clock(clock.clone())));
    let world = world_on(store, clock, Policy::default());
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let main = world.quota.account(&id("main"));
    drop(main.sync().await);
    drop(elsewhere.account(&id("main")).get().await);
    settle().await;
    let before = last_read(&main.peek());

    world.clock.sleep(MINUTE * 2).await;

    assert_eq!((before, last_read(&main.peek())), (None, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn observations_are_seen_at_once_and_written_together_a_little_later() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let key = StoreKey::account(&id("main"));
    let version = async || world.store.read(&key).await.unwrap().version();
    let before = version().await;
    for step in 1..=20 {
        main.observe(&headers(40.0 + f64::from(step))).unwrap();
        world.clock.sleep(Duration::from_millis(10)).await;
    }
    let unwritten = version().await;

    world.clock.sleep(SECOND * 4).await;
    let written = version().await;
    world.clock.sleep(SECOND * 10).await;

    assert_eq!(last_read(&main.peek()), Some(60.0));
    assert_eq!(before, unwritten);
    assert_ne!(before, written);
    assert_eq!(written, version().await, "one write for all of them");
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_call_under_way_and_writes_what_is_pending() {
    let world = world();
    let provider = world.provider.clone().taking(SECOND * 3);
    let main = world.quota.account(&id("main"));
    let other = world.quota.account(&id("other"));
    drop(other.observe(&headers(12.0)));
    let reader = tokio::spawn(async move { last_read(&main.get().await.unwrap()) });
    settle().await;

    let all_ended = world.quota.close().await;

    assert!(all_ended);
    assert_eq!(reader.await.unwrap(), Some(40.0));
    assert_eq!(provider.calls(), 1);
    let elsewhere = another_process(&world.store, &world.clock, &provider, Policy::default());
    assert_eq!(last_read(&elsewhere.account(&id("other")).sync().await), Some(12.0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_manager_asks_nothing_any_more() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let _keep = main.keep_fresh();
    settle().await;
    world.quota.close().await;
    let calls = world.provider.calls();

    world.clock.sleep(MINUTE * 30).await;
    let refreshed = main.refresh().await.unwrap();

    assert_eq!(world.provider.calls(), calls);
    assert!(matches!(refreshed.error, Some(QuotaError::Closed)));
    assert_eq!(last_read(&refreshed.usage), Some(40.0), "what was known can still be looked at");
}

#[tokio::test(start_paused = true)]
async fn keeping_fresh_never_overlaps_with_itself() {
    let world = world_with(Policy::default().max_age(SECOND * 2));
    let provider = world.provider.clone().taking(SECOND * 5);
    let _keep = world.quota.account(&id("main")).keep_fresh();

    world.clock.sleep(MINUTE).await;

    assert_eq!(provider.most_at_once(), 1);
    assert!((8..=13).contains(&provider.calls()), "{}", provider.calls());
}

#[tokio::test(start_paused = true)]
async fn keeping_fresh_ends_with_its_guard() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let keep = main.keep_fresh();
    settle().await;
    drop(keep);

    world.clock.sleep(MINUTE * 30).await;

    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_say_what_happened() {
    let world = world();
    let mut events = world.quota.events();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.provider.then_fail(quota_core::FetchError::throttled(None));
    world.clock.sleep(SECOND * 2).await;
    drop(main.refresh().await);

    let (first, second) = (events.next().await.unwrap(), events.next().await.unwrap());

    assert!(matches!(first, Event::Refreshed { .. }), "{first:?}");
    assert!(matches!(second, Event::Failed { hold: Some(_), .. }), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_is_told_how_much_it_missed() {
    let world = world_with(Policy::default().budget(quota_core::policy::Budget::new(1000, 0)));
    let mut events = world.quota.events();
    let main = world.quota.account(&id("main"));
    for _ in 0..300 {
        drop(main.refresh().await);
        world.clock.sleep(SECOND).await;
    }

    assert!(matches!(events.next().await, Some(Event::Missed(44))));
}

#[tokio::test(start_paused = true)]
async fn the_store_is_dropped_with_the_last_handle() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let _ = main.watch();
    let store = Arc::downgrade(&world.store);

    drop((main, world));
    settle().await;

    assert!(store.upgrade().is_none(), "a task still holds it");
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_handles_are_gone_is_followed_no_longer() {
    let world = world();
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    drop(world.quota.account(&id("main")).sync().await);
    world.clock.sleep(MINUTE * 2).await;
    drop(elsewhere.account(&id("main")).get().await);
    world.clock.sleep(MINUTE * 2).await;

    let answer = world.quota.account(&id("main")).peek();

    assert_eq!(last_read(&answer), None);
}

/// A runtime of one thread with paused time.
fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a thread")
}

#[test]
fn a_manager_built_outside_a_runtime_runs_on_that_of_its_first_call() {
    let provider = FakeProvider::answering("example", 40.0);
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(provider).build().unwrap();

    let answer = runtime().block_on(async { quota.account(&id("main")).get().await.unwrap() });

    assert_eq!(last_read(&answer), Some(40.0));
}

#[test]
fn a_manager_goes_on_after_its_runtime_has_shut_down() {
    let provider = FakeProvider::answering("example", 40.0);
    let build = || {
        QuotaManager::builder(MemoryStore::new())
            .provider(provider.clone(), provider.clone())
            .build()
            .unwrap()
    };
    let quota = runtime().block_on(async { build() });

    for calls in 1..=3 {
        let refreshed = runtime().block_on(async { quota.account(&id("main")).refresh().await.unwrap() });

        assert_eq!((refreshed.fetched, provider.calls()), (true, calls));
    }
}

#[test]
fn observations_are_written_although_the_runtime_has_shut_down_before_that() {
    let store = Arc::new(MemoryStore::new());
    let quota = QuotaManager::builder(store.clone()).build().unwrap();
    let main = quota.account(&id("main"));
    let observe = |used| {
        let used = Percent::from_percent(used).unwrap();
        let usage = UsageReport::from_headers([WindowReading::new(WindowId::five_hour(), used)]);
        drop(main.observe(&usage).unwrap());
    };
    runtime().block_on(async { observe(10.0) });

    let document = runtime().block_on(async {
        observe(20.0);
        tokio::time::sleep(MINUTE).await;
        store.read(&StoreKey::account(&id("main"))).await.unwrap().document
    });

    assert!(document.is_some());
}

#[test]
fn a_lease_whose_call_ended_with_its_runtime_binds_no_other_call() {
    let provider = FakeProvider::answering("example", 40.0);
    let quota = QuotaManager::builder(MemoryStore::new())
        .provider(provider.clone(), provider.clone())
        .policy(Policy::default().min_call_interval(Duration::ZERO))
        .build()
        .unwrap();
    let main = quota.account(&id("main"));
    provider.then_hang();
    runtime().block_on(async {
        main.refresh_in_background();
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    assert_eq!(provider.calls(), 1);

    let waited = runtime().block_on(async {
        let began = tokio::time::Instant::now();
        drop(main.get().await.unwrap());
        began.elapsed()
    });

    assert_eq!((provider.calls(), waited), (2, Duration::ZERO));
}

#[test]
fn a_lease_whose_call_ended_with_its_runtime_is_released_by_the_next_load() {
    let clock = Clock::anchored(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let provider = FakeProvider::answering("example", 40.0);
    let quota = another_process(&store, &clock, &provider, Policy::default());
    let main = quota.account(&id("main"));
    provider.then_hang();
    runtime().block_on(async {
        main.refresh_in_background();
        tokio::time::sleep(Duration::from_millis(1)).await;
    });

    let lease = runtime().block_on(async {
        drop(main.sync().await);
        let document = store.read(&StoreKey::account(&id("main"))).await.unwrap().document.unwrap();
        Record::decode(&document.body).unwrap().lease().cloned()
    });

    assert_eq!(lease, None);
}

#[test]
fn a_refresh_that_was_lost_with_its_runtime_is_repeated() {
    let provider = FakeProvider::answering("example", 40.0);
    let quota = QuotaManager::builder(MemoryStore::new())
        .provider(provider.clone(), provider.clone())
        .policy(Policy::default().min_call_interval(Duration::ZERO))
        .build()
        .unwrap();
    let main = quota.account(&id("main"));
    provider.then_hang();
    let first = runtime();
    first.block_on(async {
        main.refresh_in_background();
        tokio::time::sleep(Duration::from_millis(1)).await;
    });

    let refreshed = runtime().block_on(async {
        let mut refresh = std::pin::pin!(main.get());
        assert!(tokio::time::timeout(Duration::from_millis(1), refresh.as_mut()).await.is_err());
        first.shutdown_background();
        refresh.await.unwrap()
    });

    assert_eq!((last_read(&refreshed), provider.calls()), (Some(40.0), 2));
}

#[test]
fn a_watch_goes_on_after_the_runtime_of_its_follower_has_shut_down() {
    let clock = Clock::anchored(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let provider = FakeProvider::answering("example", 40.0);
    let reader = QuotaManager::builder(store.clone()).clock(clock.clone()).build().unwrap();
    let writer = another_process(&store, &clock, &provider, Policy::default());
    let main = reader.account(&id("main"));
    let first = runtime();
    first.block_on(async { drop(main.sync().await) });

    let seen = runtime().block_on(async {
        let mut watch = main.watch();
        let mut next = std::pin::pin!(watch.next());
        assert!(tokio::time::timeout(Duration::from_millis(1), next.as_mut()).await.is_err());
        first.shutdown_background();
        drop(writer.account(&id("main")).refresh().await.unwrap());
        next.await.unwrap()
    });

    assert_eq!(last_read(&seen), Some(40.0));
}

#[tokio::test]
async fn a_policy_that_contradicts_itself_is_refused() {
    let policy = Policy::default().min_call_interval(MINUTE * 5);

    let error = QuotaManager::builder(MemoryStore::new()).policy(policy).build().unwrap_err();

    assert!(matches!(error, BuildError::Policy(_)));
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_fetcher_can_still_be_read() {
    let world = world();
    drop(world.quota.account(&id("main")).get().await);
    let reader = QuotaManager::builder(Arc::clone(&world.store)).clock(world.clock.clone()).build().unwrap();
    let main = reader.account(&id("main"));

    let loaded = last_read(&main.sync().await);
    world.clock.sleep(MINUTE * 6).await;
    let refreshed = main.refresh().await.unwrap();

    assert_eq!(loaded, Some(40.0));
    assert!(matches!(refreshed.error, Some(QuotaError::NoFetcher { .. })));
}

#[tokio::test(start_paused = true)]
async fn closing_begins_no_call_that_is_still_in_line() {
    let world = world();
    let provider = world.provider.clone().taking(SECOND);
    for account in 0..10 {
        world.quota.account(&id(&format!("a{account}"))).refresh_in_background();
    }
    settle().await;

    let all_ended = world.quota.close().await;
    world.clock.sleep(MINUTE).await;

    assert!(all_ended);
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn keeping_fresh_without_a_login_does_not_ask_for_one_all_the_time() {
    let world = world();
    let main = world.quota.account(&id("main"));
    for _ in 0..1000 {
        world.provider.then_fail(quota_core::FetchError::not_logged_in("not logged in"));
    }
    let _keep = main.keep_fresh();

    world.clock.sleep(MINUTE * 60).await;

    assert!(world.provider.calls() <= 20, "{}", world.provider.calls());
}

#[tokio::test(start_paused = true)]
async fn events_end_with_the_manager() {
    let world = world();
    let mut events = world.quota.events();
    drop(world.quota.account(&id("main")).get().await);

    world.quota.close().await;

    assert!(matches!(events.next().await, Some(Event::Refreshed { .. })));
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_fetcher_has_its_own_policy() {
    let world = world();
    drop(world.quota.account(&id("main")).get().await);
    let patient = Policy::default().max_age(MINUTE * 30);
    let reader = QuotaManager::builder(Arc::clone(&world.store))
        .clock(world.clock.clone())
        .policy_for(world.quota.account(&id("main")).id().provider().clone(), patient)
        .build()
        .unwrap();
    let main = reader.account(&id("main"));
    drop(main.sync().await);

    world.clock.sleep(MINUTE * 20).await;

    assert!(!main.is_stale());
}
