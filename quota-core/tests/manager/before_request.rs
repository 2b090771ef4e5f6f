//! A refresh that ends before its request is sent is no call: the shared record does not change.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use quota_core::record::Record;
use quota_core::store::StoreKey;
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaManager, QuotaStore};

/// The record as the store has it.
async fn stored(world: &World) -> Record {
    let reading = world.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    reading.document.map_or_else(Record::default, |document| Record::decode(&document.body).unwrap())
}

async fn refresh_fails(quota: &QuotaManager) -> FetchError {
    match quota.account(&id("main")).get().await.unwrap_err() {
        QuotaError::Fetch { error, .. } => error,
        other => panic!("{other}"),
    }
}

async fn assert_no_trace(world: &World) {
    let record = stored(world).await;
    assert!(
        record.hold().is_none() && record.last_failure().is_none() && record.lease().is_none(),
        "{record:?}"
    );
    assert!(record.calls().is_empty(), "{:?}", record.calls());
}

#[tokio::test(start_paused = true)]
async fn a_credential_read_that_times_out_is_no_call() {
    let world = world();
    world.provider.then_hang_credential();

    let error = refresh_fails(&world.quota).await;

    assert_eq!(error.report(), "the source of the credential did not answer in time");
    assert_no_trace(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_finds_no_credential_makes_no_call() {
    let world = world();
    world.provider.then_fail(FetchError::credential_unavailable("`pass` timed out"));

    let error = refresh_fails(&world.quota).await;

    assert_eq!(error.report(), "`pass` timed out");
    assert_no_trace(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_credential_read_that_the_deadline_cuts_off_is_no_call() {
    let clock = Clock::anchored(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let world = world_on(store, clock, Policy::default());
    world.provider.then_hang_credential();
    let quota = QuotaManager::builder(Arc::clone(&world.store))
        .provider(world.provider.clone(), world.provider.clone())
        .clock(world.clock.clone())
        .deadline(SECOND * 4)
        .build()
        .unwrap();

    let error = refresh_fails(&quota).await;

    assert!(error.is_before_request(), "{error:?}");
    assert_no_trace(&world).await;
}

#[tokio::test(start_paused = true)]
async fn another_process_calls_at_once_after_a_credential_timeout() {
    let world = world();
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    world.provider.then_hang_credential();
    drop(refresh_fails(&world.quota).await);

    let fetched = elsewhere.account(&id("main")).get().await;

    assert!(fetched.is_ok(), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_credential_read_that_is_cancelled_is_no_call() {
    let world = world();
    world.provider.then_hang_credential();
    world.quota.account(&id("main")).refresh_in_background();
    settle().await;

    world.quota.close_within(Duration::ZERO).await;

    assert_no_trace(&world).await;
}
