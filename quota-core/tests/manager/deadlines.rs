//! A read waits for a refresh only until its timeout, and the refresh outlives it.

use crate::support::*;
use quota_core::manager::StaleReason;
use quota_core::record::Seed;
use quota_core::testing::FakeProvider;
use quota_core::{Account, Freshness, MemoryStore, Policy, QuotaError, QuotaManager, Snapshot};
use std::time::Duration;
use tokio::task::JoinSet;

/// The default timeout of a read.
const TIMEOUT: Duration = Duration::from_secs(15);

fn stale(account: &Account, clock: &quota_core::Clock) {
    let read_at = clock.now() - MINUTE * 10;
    account.seed(&Seed::new(Snapshot::of(&polled(40.0), read_at))).unwrap();
}

/// A provider that takes a minute for each call.
fn slow() -> Env {
    let clock = quota_core::Clock::virtual_at(noon());
    let store: std::sync::Arc<dyn quota_core::QuotaStore> =
        std::sync::Arc::new(MemoryStore::with_clock(clock.clone()));
    let provider = FakeProvider::answering("example", 60.0).with_delay(MINUTE);
    let quota = another_process(&store, &clock, &provider, Policy::default().fetch_timeout(MINUTE * 2));
    Env { clock, store, provider, quota }
}

#[tokio::test(start_paused = true)]
async fn a_read_returns_the_stale_readings_at_its_timeout() {
    let env = slow();
    let main = env.quota.account(&id("main"));
    stale(&main, &env.clock);

    let usage = main.get().await.unwrap();

    assert_eq!((last_read(&usage), env.clock.now()), (Some(40.0), noon() + TIMEOUT));
    assert!(matches!(usage.error(), Some(QuotaError::InProgress { .. })), "{:?}", usage.error());
    assert!(
        matches!(usage.freshness(), Freshness::Stale { reason: StaleReason::NotRefreshed, .. }),
        "{:?}",
        usage.freshness()
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_outlives_the_read_that_started_it() {
    let env = slow();
    let main = env.quota.account(&id("main"));
    stale(&main, &env.clock);
    drop(main.get().await);
    env.clock.sleep(MINUTE).await;

    let usage = main.peek();

    assert_eq!((last_read(&usage), usage.is_stale(), env.provider.calls()), (Some(60.0), false, 1));
    assert!(usage.error().is_none(), "{:?}", usage.error());
}

#[tokio::test(start_paused = true)]
async fn without_readings_a_read_fails_at_its_timeout() {
    let env = slow();
    let main = env.quota.account(&id("main"));

    let error = main.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::InProgress { .. }), "{error}");
    assert_eq!(env.clock.now(), noon() + TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_explicit_refresh_waits_for_its_call() {
    let env = slow();
    let main = env.quota.account(&id("main"));

    let refreshed = main.refresh().await.unwrap();

    assert!(refreshed.fetched);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_zero_never_waits() {
    let clock = quota_core::Clock::virtual_at(noon());
    let store: std::sync::Arc<dyn quota_core::QuotaStore> =
        std::sync::Arc::new(MemoryStore::with_clock(clock.clone()));
    let env = env_on(store, clock, Policy::default().get_timeout(Duration::ZERO));
    let main = env.quota.account(&id("main"));
    stale(&main, &env.clock);

    drop(main.get().await.unwrap());

    assert_eq!((env.clock.now(), env.provider.calls()), (noon(), 0));
    run_ready_tasks().await;
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_stale_accounts_of_one_provider_delay_no_read_beyond_its_timeout() {
    let env = env();
    let accounts: Vec<_> = (0..200).map(|number| env.quota.account(&id(&format!("a{number}")))).collect();
    let mut reads = JoinSet::new();
    for account in &accounts {
        stale(account, &env.clock);
        let account = account.clone();
        reads.spawn(async move { last_read(&account.get().await.unwrap()) });
    }

    let read = reads.join_all().await;

    assert_eq!((read, env.clock.now()), (vec![Some(40.0); 200], noon() + TIMEOUT));
    env.clock.sleep(MINUTE * 4).await;
    assert_eq!(env.provider.calls(), 200);
}

#[test]
fn a_read_that_is_polled_outside_a_runtime_ends_at_its_timeout() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let provider = FakeProvider::answering("example", 60.0);
    provider.then_hang();
    let policy = Policy::default().get_timeout(Duration::from_millis(20));
    let quota = {
        let _entered = runtime.enter();
        QuotaManager::builder(MemoryStore::new()).fetcher(provider).policy(policy).build().unwrap()
    };
    let main = quota.account(&id("main"));

    let error = block_on_this_thread(main.get()).unwrap_err();

    assert!(matches!(error, QuotaError::InProgress { .. }), "{error}");
}

#[test]
fn a_runtime_without_timers_fails_the_read_and_panics_no_caller() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let provider = FakeProvider::answering("example", 60.0);

    let result = runtime.block_on(async {
        let quota = QuotaManager::builder(MemoryStore::new()).fetcher(provider).build().unwrap();
        quota.account(&id("main")).get().await.map(drop)
    });

    assert!(matches!(result, Err(QuotaError::Panicked { .. })), "{result:?}");
}

/// Polls a future on this thread without a runtime.
fn block_on_this_thread<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
