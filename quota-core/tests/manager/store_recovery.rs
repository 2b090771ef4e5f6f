//! Changes during an outage of the store, and their merge after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store_outage::{env_with_toggle_store, toggle_store};
use crate::support::*;
use async_trait::async_trait;
use quota_core::manager::StaleReason;
use quota_core::model::{LoginId, LoginInfo};
use quota_core::policy::{CooldownPolicy, CooldownScope, StoreOutagePolicy};
use quota_core::record::Record;
use quota_core::store::{StoreError, StoreKey};
use quota_core::testing::{FakeProvider, HookedStore, StoreCall, StoreHooks};
use quota_core::{
    Account, Clock, CredentialError, FetchError, Freshness, MemoryStore, Policy, ProviderId, QuotaError,
    QuotaManager, QuotaStore,
};

#[tokio::test(start_paused = true)]
async fn close_during_an_outage_reports_unwritten_changes() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.sync().await);
    store.hooks.set(true);
    main.observe(&headers(50.0)).unwrap();

    assert!(!env.quota.close().await);
}

#[tokio::test(start_paused = true)]
async fn close_writes_standalone_changes_if_the_store_has_recovered() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    store.hooks.set(true);
    drop(main.get().await.unwrap());
    assert!(main.peek().store_unavailable_since().is_some());

    // No probe has detected the recovery yet.
    store.hooks.set(false);
    assert!(env.quota.close().await);

    let document = env.store.read(&StoreKey::account(&id("main"))).await.unwrap().document;
    let record = Record::decode(&document.expect("a stored document").body).unwrap();
    assert_eq!(record.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_a_call_up_to_its_providers_fetch_timeout() {
    let clock = Clock::virtual_at(noon());
    let slow = Policy::default().fetch_timeout(MINUTE * 2);
    let provider = FakeProvider::answering("example", 40.0).with_delay(MINUTE);
    let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone()))
        .provider(provider.clone(), provider.clone())
        .policy_for(ProviderId::new("example").unwrap(), slow)
        .clock(clock)
        .build()
        .unwrap();
    let main = quota.account(&id("main"));
    main.refresh_in_background();
    run_ready_tasks().await;

    assert!(quota.close().await);
    assert_eq!(five_hours(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_login_changed_during_an_outage_stays_changed_after_it() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("a"))));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("b"))));
    env.provider.then_fail(FetchError::throttled(None));
    drop(main.refresh().await);

    store.hooks.set(false);
    env.clock.sleep(SECOND * 5).await;
    let usage = main.sync().await;

    assert_eq!(usage.login_id(), Some(&LoginId::new("b")));
    assert!(usage.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn standalone_changes_are_written_soon_after_the_outage() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    store.hooks.set(true);
    drop(main.get().await);
    env.clock.sleep(SECOND * 10).await;

    store.hooks.set(false);
    env.clock.sleep(SECOND * 3).await;

    assert_eq!(main.peek().store_unavailable_since(), None);
    assert!(env.store.read(&StoreKey::account(&id("main"))).await.unwrap().document.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_repeated_soon_without_a_notice() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    // The follower waits for a notice, which the store does not send after such a short outage.
    env.clock.sleep(SECOND * 2).await;
    store.hooks.set(true);
    env.provider.answer(polled(71.0));
    drop(main.refresh().await);

    store.hooks.set(false);
    env.clock.sleep(SECOND * 2).await;

    assert_eq!(main.peek().store_unavailable_since(), None);
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    assert_eq!(last_read(&other_process.account(&id("main")).sync().await), Some(71.0));
}

#[tokio::test(start_paused = true)]
async fn a_process_does_not_wait_for_a_holder_during_an_outage() {
    let (env, store) = env_with_toggle_store(false, no_rate_limit());
    let shared: Arc<dyn QuotaStore> = Arc::clone(&store) as Arc<dyn QuotaStore>;
    let slow = FakeProvider::answering("example", 60.0).with_delay(SECOND * 9);
    let other_process = another_process(&shared, &env.clock, &slow, no_rate_limit());
    other_process.account(&id("main")).refresh_in_background();
    run_ready_tasks().await;
    let main = env.quota.account(&id("main"));
    drop(main.sync().await);
    store.hooks.set(true);
    drop(main.sync().await);
    let before = env.clock.now();

    let result = main.get().await;

    assert!(matches!(result, Err(QuotaError::InProgress { .. })), "{result:?}");
    assert_eq!((env.clock.now(), env.provider.calls()), (before, 0));
}

#[tokio::test(start_paused = true)]
async fn a_429_during_an_outage_holds_the_other_accounts() {
    let clock = Clock::virtual_at(noon());
    let store = toggle_store(&clock, false);
    store.hooks.set(true);
    let provider = FakeProvider::answering("example", 1.0);
    provider.then_fail(FetchError::throttled(None));
    let quota = QuotaManager::builder(store)
        .provider(provider.clone(), provider.clone())
        .clock(clock)
        .build()
        .unwrap();
    drop(quota.account(&id("main")).get().await);

    let result = quota.account(&id("other")).get().await;

    assert!(matches!(result, Err(QuotaError::OnHold { .. })), "{result:?}");
    assert_eq!(provider.calls(), 1);
}

/// An account with stale readings of another process, in a process without a fetcher.
async fn stale_reader() -> (Env, Account) {
    let env = env();
    drop(env.quota.account(&id("main")).get().await);
    let reader = QuotaManager::builder(Arc::clone(&env.store)).clock(env.clock.clone()).build().unwrap();
    let main = reader.account(&id("main"));
    drop(main.sync().await);
    env.clock.sleep(MINUTE * 6).await;
    (env, main)
}

#[tokio::test(start_paused = true)]
async fn stale_usage_states_why_it_was_not_refreshed() {
    let (_world, main) = stale_reader().await;

    let usage = main.get().await.unwrap();

    assert!(matches!(usage.error(), Some(QuotaError::NoFetcher { .. })));
    assert!(matches!(usage.freshness(), Freshness::Stale { reason: StaleReason::NotRefreshed, .. }));
}

#[tokio::test(start_paused = true)]
async fn new_readings_clear_the_refresh_error() {
    let (env, main) = stale_reader().await;
    drop(main.get().await);
    drop(env.quota.account(&id("main")).get().await);

    assert!(main.sync().await.error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_finds_fresh_readings_clears_the_error() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.provider.set_login(&id("main"), Err(CredentialError::not_logged_in("no file")));
    drop(main.refresh().await);
    env.provider.set_login(&id("main"), Ok(LoginInfo::unknown()));
    // A failed read is not repeated within a second.
    env.clock.sleep(SECOND).await;

    let usage = main.get().await.unwrap();

    assert!(usage.error().is_none(), "{:?}", usage.error());
}

#[tokio::test(start_paused = true)]
async fn close_writes_standalone_changes_of_accounts_without_readers() {
    let (env, store) = env_with_toggle_store(false, Policy::default());
    let main = env.quota.account(&id("main"));
    store.hooks.set(true);
    drop(main.get().await);
    drop(main);
    env.clock.sleep(MINUTE * 10).await;
    store.hooks.set(false);
    env.clock.sleep(MINUTE).await;

    assert!(env.quota.close().await);

    let shared: Arc<dyn QuotaStore> = store;
    let other_process = another_process(&shared, &env.clock, &env.provider, Policy::default());
    assert_eq!(last_read(&other_process.account(&id("main")).sync().await), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn readings_of_the_old_login_are_hidden_if_clearing_fails() {
    let (env, store) =
        env_with_toggle_store(false, Policy::default().on_store_unavailable(StoreOutagePolicy::FailClosed));
    let main = env.quota.account(&id("main"));
    env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("a"))));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("b"))));

    let result = main.get().await;

    assert!(matches!(result, Err(QuotaError::Store { .. })), "{result:?}");
    assert!(main.peek().snapshot().is_empty());
}

/// Panics in `wait_for_change`.
#[derive(Debug, Default)]
struct Panics {
    waits: AtomicUsize,
}

#[async_trait]
impl StoreHooks for Panics {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        if call.is_wait() {
            self.waits.fetch_add(1, Ordering::SeqCst);
            panic!("a bug in this store");
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_restarts_a_follower_that_panicked() {
    let clock = Clock::virtual_at(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(HookedStore::new(inner, Panics::default()));
    let shared: Arc<dyn QuotaStore> = Arc::clone(&store) as Arc<dyn QuotaStore>;
    let env = env_on(
        shared,
        clock,
        Policy::default().cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account)),
    );
    let main = env.quota.account(&id("main"));
    drop(main.sync().await);
    run_ready_tasks().await;

    drop(main.sync().await);
    run_ready_tasks().await;

    assert_eq!(store.hooks.waits.load(Ordering::SeqCst), 2);
}
