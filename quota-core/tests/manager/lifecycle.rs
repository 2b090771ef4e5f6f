//! Watching, keeping fresh, flushing, closing, and dropping the last handle.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use quota_core::manager::BuildError;
use quota_core::record::Record;
use quota_core::store::{StoreError, StoreKey};
use quota_core::testing::{FakeProvider, HookedStore, StoreCall, StoreHooks};
use quota_core::{
    Clock, Event, MemoryStore, Percent, Policy, QuotaError, QuotaManager, QuotaStore, UsageReport, WindowId,
    WindowReading,
};

#[tokio::test(start_paused = true)]
async fn a_watch_receives_a_background_refresh() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let mut watch = main.watch();

    main.refresh_in_background();

    let usage = loop {
        let usage = watch.next().await.unwrap();
        if !usage.snapshot().is_empty() {
            break usage;
        }
    };
    assert_eq!(five_hours(&usage), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_receives_a_write_of_another_process() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let main = env.quota.account(&id("main"));
    let mut watch = main.watch();
    run_ready_tasks().await;

    drop(other_process.account(&id("main")).get().await);

    loop {
        let usage = watch.next().await.unwrap();
        if last_read(&usage) == Some(40.0) {
            break;
        }
    }
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_with_a_lost_notice_is_found_by_polling() {
    #[derive(Debug)]
    struct NoNotices;
    #[async_trait]
    impl StoreHooks for NoNotices {
        async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
            if call.is_wait() { std::future::pending().await } else { Ok(()) }
        }
    }
    let clock = Clock::virtual_at(noon());
    let store = Arc::new(HookedStore::new(MemoryStore::with_clock(clock.clone()), NoNotices));
    let env = env_on(store, clock, Policy::default());
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.sync().await);
    drop(other_process.account(&id("main")).get().await);
    run_ready_tasks().await;
    let before = last_read(&main.peek());

    env.clock.sleep(MINUTE * 2).await;

    assert_eq!((before, last_read(&main.peek())), (None, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn observations_are_visible_at_once_and_written_together_later() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let key = StoreKey::account(&id("main"));
    let version = async || env.store.read(&key).await.unwrap().version();
    let before = version().await;
    for step in 1..=20 {
        main.observe(&headers(40.0 + f64::from(step))).unwrap();
        env.clock.sleep(Duration::from_millis(10)).await;
    }
    let unwritten = version().await;

    env.clock.sleep(SECOND * 4).await;
    let written = version().await;
    env.clock.sleep(SECOND * 10).await;

    assert_eq!(last_read(&main.peek()), Some(60.0));
    assert_eq!(before, unwritten);
    assert_ne!(before, written);
    assert_eq!(written, version().await, "one write for all observations");
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_call_in_flight_and_writes_pending_changes() {
    let env = env();
    let provider = env.provider.clone().with_delay(SECOND * 3);
    let main = env.quota.account(&id("main"));
    let other = env.quota.account(&id("other"));
    drop(other.observe(&headers(12.0)));
    let reader = tokio::spawn(async move { last_read(&main.get().await.unwrap()) });
    run_ready_tasks().await;

    let all_ended = env.quota.close().await;

    assert!(all_ended);
    assert_eq!(reader.await.unwrap(), Some(40.0));
    assert_eq!(provider.calls(), 1);
    let other_process = another_process(&env.store, &env.clock, &provider, Policy::default());
    assert_eq!(last_read(&other_process.account(&id("other")).sync().await), Some(12.0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_manager_makes_no_calls() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let _guard = main.keep_fresh();
    run_ready_tasks().await;
    env.quota.close().await;
    let calls = env.provider.calls();

    env.clock.sleep(MINUTE * 30).await;
    let refreshed = main.refresh().await.unwrap();

    assert_eq!(env.provider.calls(), calls);
    assert!(matches!(refreshed.error, Some(QuotaError::Closed)));
    assert_eq!(last_read(&refreshed.usage), Some(40.0), "the cached readings stay available");
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_never_makes_overlapping_calls() {
    let env = env_with(Policy::default().max_age(SECOND * 2));
    let provider = env.provider.clone().with_delay(SECOND * 5);
    let _guard = env.quota.account(&id("main")).keep_fresh();

    env.clock.sleep(MINUTE).await;

    assert_eq!(provider.max_in_flight(), 1);
    assert!((8..=13).contains(&provider.calls()), "{}", provider.calls());
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_ends_when_its_guard_is_dropped() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let guard = main.keep_fresh();
    run_ready_tasks().await;
    drop(guard);

    env.clock.sleep(MINUTE * 30).await;

    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_report_a_refresh_and_a_failure() {
    let env = env();
    let mut events = env.quota.events();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.provider.then_fail(quota_core::FetchError::throttled(None));
    env.clock.sleep(SECOND * 2).await;
    drop(main.refresh().await);

    let (first, second) = (events.next().await.unwrap(), events.next().await.unwrap());

    assert!(matches!(first, Event::Refreshed { .. }), "{first:?}");
    assert!(matches!(second, Event::Failed { hold: Some(_), .. }), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_receives_the_number_of_missed_events() {
    let env = env_with(Policy::default().budget(quota_core::policy::Budget::new(1000, 0)));
    let mut events = env.quota.events();
    let main = env.quota.account(&id("main"));
    for _ in 0..300 {
        drop(main.refresh().await);
        env.clock.sleep(SECOND).await;
    }

    assert!(matches!(events.next().await, Some(Event::Missed(44))));
}

#[tokio::test(start_paused = true)]
async fn the_store_is_dropped_with_the_last_handle() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let _ = main.watch();
    let store = Arc::downgrade(&env.store);

    drop((main, env));
    run_ready_tasks().await;

    assert!(store.upgrade().is_none(), "a task still holds the store");
}

#[tokio::test(start_paused = true)]
async fn an_account_without_handles_is_not_followed() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    drop(env.quota.account(&id("main")).sync().await);
    env.clock.sleep(MINUTE * 2).await;
    drop(other_process.account(&id("main")).get().await);
    env.clock.sleep(MINUTE * 2).await;

    let usage = env.quota.account(&id("main")).peek();

    assert_eq!(last_read(&usage), None);
}

/// A runtime of one thread with paused time.
fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a thread")
}

#[test]
fn a_manager_built_outside_a_runtime_uses_that_of_its_first_caller() {
    let provider = FakeProvider::answering("example", 40.0);
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(provider).build().unwrap();

    let usage = runtime().block_on(async { quota.account(&id("main")).get().await.unwrap() });

    assert_eq!(last_read(&usage), Some(40.0));
}

#[test]
fn a_manager_keeps_working_after_its_runtime_has_shut_down() {
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
fn pending_observations_are_written_after_a_runtime_shutdown() {
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
fn a_lease_of_a_call_lost_with_its_runtime_blocks_no_other_call() {
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
fn a_lease_of_a_call_lost_with_its_runtime_is_released_by_sync() {
    let clock = Clock::virtual_at(noon());
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
fn a_refresh_lost_with_its_runtime_is_repeated() {
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
fn a_watch_continues_after_its_followers_runtime_has_shut_down() {
    let clock = Clock::virtual_at(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let provider = FakeProvider::answering("example", 40.0);
    let reader = QuotaManager::builder(store.clone()).clock(clock.clone()).build().unwrap();
    let writer = another_process(&store, &clock, &provider, Policy::default());
    let main = reader.account(&id("main"));
    let first = runtime();
    first.block_on(async { drop(main.sync().await) });

    let usage = runtime().block_on(async {
        let mut watch = main.watch();
        let mut next = std::pin::pin!(watch.next());
        assert!(tokio::time::timeout(Duration::from_millis(1), next.as_mut()).await.is_err());
        first.shutdown_background();
        drop(writer.account(&id("main")).refresh().await.unwrap());
        next.await.unwrap()
    });

    assert_eq!(last_read(&usage), Some(40.0));
}

#[tokio::test]
async fn a_contradictory_policy_is_a_build_error() {
    let policy = Policy::default().min_call_interval(MINUTE * 5);

    let error = QuotaManager::builder(MemoryStore::new()).policy(policy).build().unwrap_err();

    assert!(matches!(error, BuildError::Policy(_)));
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_fetcher_can_still_be_read() {
    let env = env();
    drop(env.quota.account(&id("main")).get().await);
    let reader = QuotaManager::builder(Arc::clone(&env.store)).clock(env.clock.clone()).build().unwrap();
    let main = reader.account(&id("main"));

    let loaded = last_read(&main.sync().await);
    env.clock.sleep(MINUTE * 6).await;
    let refreshed = main.refresh().await.unwrap();

    assert_eq!(loaded, Some(40.0));
    assert!(matches!(refreshed.error, Some(QuotaError::NoFetcher { .. })));
}

#[tokio::test(start_paused = true)]
async fn close_starts_no_queued_call() {
    let env = env();
    let provider = env.provider.clone().with_delay(SECOND);
    for account in 0..10 {
        env.quota.account(&id(&format!("a{account}"))).refresh_in_background();
    }
    run_ready_tasks().await;

    let all_ended = env.quota.close().await;
    env.clock.sleep(MINUTE).await;

    assert!(all_ended);
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_without_a_login_backs_off() {
    let env = env();
    let main = env.quota.account(&id("main"));
    for _ in 0..1000 {
        env.provider.then_fail(quota_core::FetchError::not_logged_in("not logged in"));
    }
    let _guard = main.keep_fresh();

    env.clock.sleep(MINUTE * 60).await;

    assert!(env.provider.calls() <= 20, "{}", env.provider.calls());
}

#[tokio::test(start_paused = true)]
async fn events_end_with_the_manager() {
    let env = env();
    let mut events = env.quota.events();
    drop(env.quota.account(&id("main")).get().await);

    env.quota.close().await;

    assert!(matches!(events.next().await, Some(Event::Refreshed { .. })));
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_fetcher_has_its_own_policy() {
    let env = env();
    drop(env.quota.account(&id("main")).get().await);
    let policy = Policy::default().max_age(MINUTE * 30);
    let reader = QuotaManager::builder(Arc::clone(&env.store))
        .clock(env.clock.clone())
        .policy_for(env.quota.account(&id("main")).id().provider().clone(), policy)
        .build()
        .unwrap();
    let main = reader.account(&id("main"));
    drop(main.sync().await);

    env.clock.sleep(MINUTE * 20).await;

    assert!(!main.is_stale());
}
