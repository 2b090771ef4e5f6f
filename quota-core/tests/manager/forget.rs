//! Forgetting a removed account: no process restores its readings, and the manager drops it.

use crate::store_outage::env_with_toggle_store;
use crate::support::*;
use quota_core::manager::ObserveError;
use quota_core::record::{Record, Seed};
use quota_core::store::StoreKey;
use quota_core::{FetchError, QuotaError, Snapshot, UsageReport};

/// The account's document in the store.
async fn stored(env: &Env) -> Record {
    let read = env.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    Record::decode(&read.document.unwrap().body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_process_with_cached_readings_does_not_restore_them() {
    let env = env_with(no_rate_limit());
    let other_process = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    let remote = other_process.account(&id("main"));
    drop(remote.get().await);
    env.clock.sleep(SECOND).await;
    // This observation is pending when the account is forgotten.
    remote.observe(&headers(50.0)).unwrap();
    env.clock.sleep(SECOND).await;

    env.quota.forget(&id("main")).await.unwrap();
    env.clock.sleep(SECOND * 10).await;
    assert!(other_process.close().await);

    assert!(stored(&env).await.snapshot().is_empty());
    assert!(remote.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_in_another_process_does_not_store_its_report() {
    let env = env_with(no_rate_limit());
    let slow = env.provider.clone().with_delay(SECOND * 5);
    let other_process = another_process(&env.store, &env.clock, &slow, no_rate_limit());
    let remote = other_process.account(&id("main"));
    let refreshing = tokio::spawn(async move { remote.refresh().await });
    env.clock.sleep(SECOND).await;

    env.quota.forget(&id("main")).await.unwrap();
    let refreshed = refreshing.await.unwrap();

    assert!(matches!(refreshed, Err(QuotaError::Forgotten { .. })), "{refreshed:?}");
    assert!(stored(&env).await.snapshot().is_empty());
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_account_removed_and_added_again_is_still_on_hold() {
    let env = env_with(no_rate_limit());
    env.provider.then_fail(FetchError::throttled(None));
    drop(env.quota.account(&id("main")).get().await);

    env.quota.forget(&id("main")).await.unwrap();
    env.clock.sleep(SECOND).await;
    let result = env.quota.account(&id("main")).get().await;

    assert!(matches!(result, Err(QuotaError::OnHold { .. })), "{result:?}");
    assert_eq!((env.provider.calls(), stored(&env).await.calls().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_existing_handle_stays_usable_without_readings() {
    let env = env_with(no_rate_limit());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(SECOND).await;

    env.quota.forget(&id("main")).await.unwrap();

    assert!(main.peek().snapshot().is_empty());
    env.clock.sleep(SECOND).await;
    assert_eq!(five_hours(&main.get().await.unwrap()), Some(40.0));
    env.clock.sleep(SECOND).await;
    assert!(!main.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_account_is_unknown_to_its_manager() {
    let env = env_with(no_rate_limit());
    drop(env.quota.account(&id("main")).get().await);

    env.quota.forget(&id("main")).await.unwrap();

    let observed = env.quota.observe(&id("main"), &headers(10.0));
    assert!(matches!(observed, Err(ObserveError::UnknownAccount { .. })), "{observed:?}");
}

#[tokio::test(start_paused = true)]
async fn forgetting_during_an_outage_fails_and_takes_effect_after_it() {
    let (env, store) = env_with_toggle_store(false, no_rate_limit());
    drop(env.quota.account(&id("main")).get().await);
    env.clock.sleep(SECOND).await;
    store.hooks.set(true);

    let forgotten = env.quota.forget(&id("main")).await;

    assert!(matches!(forgotten, Err(QuotaError::Store { .. })), "{forgotten:?}");
    assert!(env.quota.account(&id("main")).peek().snapshot().is_empty());
    store.hooks.set(false);
    env.clock.sleep(SECOND * 2).await;
    assert!(env.quota.close().await);
    assert!(stored(&env).await.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn observations_and_seeds_after_close_are_errors() {
    let env = env();
    let main = env.quota.account(&id("main"));
    env.quota.close().await;

    let seed = Seed::new(Snapshot::of(&UsageReport::polled([]), env.clock.now()));

    assert_eq!(main.observe(&headers(10.0)), Err(ObserveError::Closed));
    assert_eq!(main.seed(&seed), Err(ObserveError::Closed));
    assert_eq!(env.quota.observe(&id("main"), &headers(10.0)), Err(ObserveError::Closed));
    assert!(main.peek().snapshot().is_empty());
}
