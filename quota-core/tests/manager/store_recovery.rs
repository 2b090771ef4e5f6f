//! What is kept, told and put back around a time without the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::store_away::{Unpluggable, unpluggable};
use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::manager::StaleReason;
use quota_core::model::{LoginId, LoginInfo};
use quota_core::policy::{CooldownPolicy, CooldownScope, StoreOutagePolicy};
use quota_core::record::Record;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version};
use quota_core::testing::FakeProvider;
use quota_core::{
    Account, Clock, CredentialError, FetchError, Freshness, MemoryStore, Policy, ProviderId, QuotaError,
    QuotaManager, QuotaStore,
};

#[tokio::test(start_paused = true)]
async fn closing_without_the_store_says_that_something_is_not_written() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    drop(main.sync().await);
    store.unplug(true);
    main.observe(&headers(50.0)).unwrap();

    assert!(!world.quota.close().await);
}

#[tokio::test(start_paused = true)]
async fn closing_writes_what_was_done_without_the_store_if_it_answers_again() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    store.unplug(true);
    drop(main.get().await.unwrap());
    assert!(main.peek().store_unavailable_since().is_some());

    // Before any probe has found it.
    store.unplug(false);
    assert!(world.quota.close().await);

    let document = world.store.read(&StoreKey::account(&id("main"))).await.unwrap().document;
    let record = Record::decode(&document.expect("it was written").body).unwrap();
    assert_eq!(record.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_call_as_long_as_its_providers_policy_allows() {
    let clock = Clock::anchored(noon());
    let slow = Policy::default().fetch_timeout(MINUTE * 2);
    let provider = FakeProvider::answering("example", 40.0).taking(MINUTE);
    let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone()))
        .provider(provider.clone(), provider.clone())
        .policy_for(ProviderId::new("example").unwrap(), slow)
        .clock(clock)
        .build()
        .unwrap();
    let main = quota.account(&id("main"));
    main.refresh_in_background();
    settle().await;

    assert!(quota.close().await);
    assert_eq!(five_hours(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_changed_without_the_store_stays_changed_when_it_is_back() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    world.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("a"))));
    drop(main.get().await);
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("b"))));
    world.provider.then_fail(FetchError::throttled(None));
    drop(main.refresh().await);

    store.unplug(false);
    world.clock.sleep(SECOND * 5).await;
    let answer = main.sync().await;

    assert_eq!(answer.login_id(), Some(&LoginId::new("b")));
    assert!(answer.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn standalone_changes_are_written_soon_after_the_store_is_back() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    store.unplug(true);
    drop(main.get().await);
    world.clock.sleep(SECOND * 10).await;

    store.unplug(false);
    world.clock.sleep(SECOND * 3).await;

    assert_eq!(main.peek().store_unavailable_since(), None);
    assert!(world.store.read(&StoreKey::account(&id("main"))).await.unwrap().document.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_written_soon_after_though_no_notice_comes() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    // The account is followed: a notice is waited for, which a store that comes back so soon does not send.
    world.clock.sleep(SECOND * 2).await;
    store.unplug(true);
    world.provider.answer(polled(71.0));
    drop(main.refresh().await);

    store.unplug(false);
    world.clock.sleep(SECOND * 2).await;

    assert_eq!(main.peek().store_unavailable_since(), None);
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    assert_eq!(last_read(&elsewhere.account(&id("main")).sync().await), Some(71.0));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_no_call_of_another_process_is_waited_for() {
    let (world, store) = unpluggable(false, hurried());
    let shared: Arc<dyn QuotaStore> = Arc::clone(&store) as Arc<dyn QuotaStore>;
    let slow = FakeProvider::answering("example", 60.0).taking(SECOND * 9);
    let elsewhere = another_process(&shared, &world.clock, &slow, hurried());
    elsewhere.account(&id("main")).refresh_in_background();
    settle().await;
    let main = world.quota.account(&id("main"));
    drop(main.sync().await);
    store.unplug(true);
    drop(main.sync().await);
    let before = world.clock.now();

    let refused = main.get().await;

    assert!(matches!(refused, Err(QuotaError::InProgress { .. })), "{refused:?}");
    assert_eq!((world.clock.now(), world.provider.calls()), (before, 0));
}

#[tokio::test(start_paused = true)]
async fn a_429_keeps_other_accounts_of_the_process_quiet_even_without_the_store() {
    let clock = Clock::anchored(noon());
    let store = Unpluggable::new(&clock, false);
    store.unplug(true);
    let provider = FakeProvider::answering("example", 1.0);
    provider.then_fail(FetchError::throttled(None));
    let quota = QuotaManager::builder(store)
        .provider(provider.clone(), provider.clone())
        .clock(clock)
        .build()
        .unwrap();
    drop(quota.account(&id("main")).get().await);

    let refused = quota.account(&id("other")).get().await;

    assert!(matches!(refused, Err(QuotaError::OnHold { .. })), "{refused:?}");
    assert_eq!(provider.calls(), 1);
}

/// An account that is read by a process which cannot ask, long after another one has.
async fn read_once_and_grown_old() -> (World, Account) {
    let world = world();
    drop(world.quota.account(&id("main")).get().await);
    let reader = QuotaManager::builder(Arc::clone(&world.store)).clock(world.clock.clone()).build().unwrap();
    let main = reader.account(&id("main"));
    drop(main.sync().await);
    world.clock.sleep(MINUTE * 6).await;
    (world, main)
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_says_why_it_was_not_refreshed() {
    let (_world, main) = read_once_and_grown_old().await;

    let answer = main.get().await.unwrap();

    assert!(matches!(answer.error(), Some(QuotaError::NoFetcher { .. })));
    assert!(matches!(answer.freshness(), Freshness::Stale { reason: StaleReason::NotRefreshed, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_forgotten_once_there_are_new_readings() {
    let (world, main) = read_once_and_grown_old().await;
    drop(main.get().await);
    drop(world.quota.account(&id("main")).get().await);

    assert!(main.sync().await.error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_forgotten_once_a_refresh_finds_the_readings_fresh() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.provider.set_login(&id("main"), Err(CredentialError::not_logged_in("no file")));
    drop(main.refresh().await);
    world.provider.set_login(&id("main"), Ok(LoginInfo::unknown()));

    let answer = main.get().await.unwrap();

    assert!(answer.error().is_none(), "{:?}", answer.error());
}

#[tokio::test(start_paused = true)]
async fn closing_writes_standalone_changes_of_accounts_without_readers() {
    let (world, store) = unpluggable(false, Policy::default());
    let main = world.quota.account(&id("main"));
    store.unplug(true);
    drop(main.get().await);
    drop(main);
    world.clock.sleep(MINUTE * 10).await;
    store.unplug(false);
    world.clock.sleep(MINUTE).await;

    assert!(world.quota.close().await);

    let shared: Arc<dyn QuotaStore> = store;
    let elsewhere = another_process(&shared, &world.clock, &world.provider, Policy::default());
    assert_eq!(last_read(&elsewhere.account(&id("main")).sync().await), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn numbers_of_an_old_login_that_cannot_be_cleared_are_not_shown() {
    let (world, store) =
        unpluggable(false, Policy::default().on_store_unavailable(StoreOutagePolicy::FailClosed));
    let main = world.quota.account(&id("main"));
    world.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("a"))));
    drop(main.get().await);
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("b"))));

    let refused = main.get().await;

    assert!(matches!(refused, Err(QuotaError::Store { .. })), "{refused:?}");
    assert!(main.peek().snapshot().is_empty());
}

/// A store that breaks where it should wait for changes.
#[derive(Debug)]
struct Breaking {
    inner: MemoryStore,
    waits: AtomicUsize,
}

#[async_trait]
impl QuotaStore for Breaking {
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
        self.inner.compare_and_swap(key, expected, body, keep).await
    }
    async fn wait_for_change(&self, _: &StoreKey, _: Option<Version>) -> Result<(), StoreError> {
        self.waits.fetch_add(1, Ordering::SeqCst);
        panic!("a store that breaks")
    }
}

#[tokio::test(start_paused = true)]
async fn where_following_breaks_the_next_who_is_interested_begins_it_anew() {
    let clock = Clock::anchored(noon());
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Arc::new(Breaking { inner, waits: AtomicUsize::new(0) });
    let shared: Arc<dyn QuotaStore> = Arc::clone(&store) as Arc<dyn QuotaStore>;
    let world = world_on(
        shared,
        clock,
        Policy::default().cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account)),
    );
    let main = world.quota.account(&id("main"));
    drop(main.sync().await);
    settle().await;

    drop(main.sync().await);
    settle().await;

    assert_eq!(store.waits.load(Ordering::SeqCst), 2);
}
