//! Accounts that are removed: no process brings back what was known, and the manager keeps nothing of them.

use crate::store_away::unpluggable;
use crate::support::*;
use quota_core::manager::ObserveError;
use quota_core::record::{Record, Seed};
use quota_core::store::StoreKey;
use quota_core::{FetchError, QuotaError, Snapshot, UsageReport};

/// The account's document in the store.
async fn stored(world: &World) -> Record {
    let read = world.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    Record::decode(&read.document.unwrap().body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_knows_the_readings_does_not_bring_them_back() {
    let world = world_with(hurried());
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, hurried());
    let theirs = elsewhere.account(&id("main"));
    drop(theirs.get().await);
    world.clock.sleep(SECOND).await;
    // On its way to the store.
    theirs.observe(&headers(50.0)).unwrap();
    world.clock.sleep(SECOND).await;

    world.quota.forget(&id("main")).await.unwrap();
    world.clock.sleep(SECOND * 10).await;
    assert!(elsewhere.close().await);

    assert!(stored(&world).await.snapshot().is_empty());
    assert!(theirs.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_in_another_process_does_not_store_its_answer() {
    let world = world_with(hurried());
    let slow = world.provider.clone().taking(SECOND * 5);
    let elsewhere = another_process(&world.store, &world.clock, &slow, hurried());
    let theirs = elsewhere.account(&id("main"));
    let asking = tokio::spawn(async move { theirs.refresh().await });
    world.clock.sleep(SECOND).await;

    world.quota.forget(&id("main")).await.unwrap();
    let refreshed = asking.await.unwrap();

    assert!(matches!(refreshed, Err(QuotaError::Forgotten { .. })), "{refreshed:?}");
    assert!(stored(&world).await.snapshot().is_empty());
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_removed_and_added_is_still_on_hold() {
    let world = world_with(hurried());
    world.provider.then_fail(FetchError::throttled(None));
    drop(world.quota.account(&id("main")).get().await);

    world.quota.forget(&id("main")).await.unwrap();
    world.clock.sleep(SECOND).await;
    let got = world.quota.account(&id("main")).get().await;

    assert!(matches!(got, Err(QuotaError::OnHold { .. })), "{got:?}");
    assert_eq!((world.provider.calls(), stored(&world).await.calls().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_exists_begins_with_nothing_and_keeps_working() {
    let world = world_with(hurried());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(SECOND).await;

    world.quota.forget(&id("main")).await.unwrap();

    assert!(main.peek().snapshot().is_empty());
    world.clock.sleep(SECOND).await;
    assert_eq!(five_hours(&main.get().await.unwrap()), Some(40.0));
    world.clock.sleep(SECOND).await;
    assert!(!main.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_account_is_unknown_to_its_manager() {
    let world = world_with(hurried());
    drop(world.quota.account(&id("main")).get().await);

    world.quota.forget(&id("main")).await.unwrap();

    let observed = world.quota.observe(&id("main"), &headers(10.0));
    assert!(matches!(observed, Err(ObserveError::UnknownAccount { .. })), "{observed:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_forgetting_is_an_error_and_is_done_once_it_is_back() {
    let (world, store) = unpluggable(false, hurried());
    drop(world.quota.account(&id("main")).get().await);
    world.clock.sleep(SECOND).await;
    store.unplug(true);

    let forgotten = world.quota.forget(&id("main")).await;

    assert!(matches!(forgotten, Err(QuotaError::Store { .. })), "{forgotten:?}");
    assert!(world.quota.account(&id("main")).peek().snapshot().is_empty());
    store.unplug(false);
    world.clock.sleep(SECOND * 2).await;
    assert!(world.quota.close().await);
    assert!(stored(&world).await.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_observed_or_seeded_after_close_is_an_error() {
    let world = world();
    let main = world.quota.account(&id("main"));
    world.quota.close().await;

    let seed = Seed::new(Snapshot::of(&UsageReport::polled([]), world.clock.now()));

    assert_eq!(main.observe(&headers(10.0)), Err(ObserveError::Closed));
    assert_eq!(main.seed(&seed), Err(ObserveError::Closed));
    assert_eq!(world.quota.observe(&id("main"), &headers(10.0)), Err(ObserveError::Closed));
    assert!(main.peek().snapshot().is_empty());
}
