//! A refresh that ends before it sends its request is not a call, and leaves the shared record unchanged.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use quota_core::record::Record;
use quota_core::store::StoreKey;
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaManager, QuotaStore};

/// The record of `main` in the store.
async fn stored(env: &Env) -> Record {
    let reading = env.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    reading.document.map_or_else(Record::default, |document| Record::decode(&document.body).unwrap())
}

async fn refresh_fails(quota: &QuotaManager) -> FetchError {
    match quota.account(&id("main")).get().await.unwrap_err() {
        QuotaError::Fetch { error, .. } => error,
        other => panic!("{other}"),
    }
}

async fn assert_no_trace(env: &Env) {
    let record = stored(env).await;
    assert!(
        record.hold().is_none() && record.last_failure().is_none() && record.lease().is_none(),
        "{record:?}"
    );
    assert!(record.calls().is_empty(), "{:?}", record.calls());
}

#[tokio::test(start_paused = true)]
async fn a_credential_read_that_times_out_is_not_a_call() {
    let env = env();
    env.provider.then_hang_credential();

    let error = refresh_fails(&env.quota).await;

    assert_eq!(error.report(), "the credential source timed out");
    assert_no_trace(&env).await;
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_finds_no_credential_makes_no_call() {
    let env = env();
    env.provider.then_fail(FetchError::credential_unavailable("`pass` timed out"));

    let error = refresh_fails(&env.quota).await;

    assert_eq!(error.report(), "`pass` timed out");
    assert_no_trace(&env).await;
}

#[tokio::test(start_paused = true)]
async fn a_credential_read_ended_by_the_deadline_is_not_a_call() {
    let clock = Clock::virtual_at(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let env = env_on(store, clock, Policy::default());
    env.provider.then_hang_credential();
    let quota = QuotaManager::builder(Arc::clone(&env.store))
        .provider(env.provider.clone(), env.provider.clone())
        .clock(env.clock.clone())
        .deadline(SECOND * 4)
        .build()
        .unwrap();

    let error = refresh_fails(&quota).await;

    assert!(error.is_before_request(), "{error:?}");
    assert_no_trace(&env).await;
}

#[tokio::test(start_paused = true)]
async fn another_process_calls_at_once_after_a_credential_timeout() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    env.provider.then_hang_credential();
    drop(refresh_fails(&env.quota).await);

    let fetched = other_process.account(&id("main")).get().await;

    assert!(fetched.is_ok(), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_credential_read_is_not_a_call() {
    let env = env();
    env.provider.then_hang_credential();
    env.quota.account(&id("main")).refresh_in_background();
    run_ready_tasks().await;

    env.quota.close_within(Duration::ZERO).await;

    assert_no_trace(&env).await;
}
