//! Refreshes that a person may repeat: a call of the same credential that started a short while ago is enough.

use crate::support::*;
use quota_core::manager::RefreshOutcome;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::{AccountId, FetchError, Policy, QuotaError, QuotaManager};

async fn refresh(quota: &QuotaManager, id: &AccountId) -> RefreshOutcome {
    quota.account(id).refresh_unless_called_within(SECOND * 10).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn repeated_refreshes_make_one_call_and_give_its_start() {
    let world = world_with(hurried());
    let started = world.clock.now();
    drop(refresh(&world.quota, &id("main")).await);
    world.clock.sleep(SECOND * 4).await;

    let again = refresh(&world.quota, &id("main")).await;

    assert_eq!((again.fetched, again.called_at), (false, Some(started)));
    assert!(again.error.is_none());
    assert_eq!(five_hours(&again.usage), Some(40.0));
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_another_process_is_enough() {
    let world = world_with(hurried());
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, hurried());
    drop(elsewhere.account(&id("main")).get().await);

    let refreshed = refresh(&world.quota, &id("main")).await;

    assert!(refreshed.called_at.is_some());
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_ten_seconds_another_call_is_made() {
    let world = world_with(hurried());
    drop(refresh(&world.quota, &id("main")).await);
    world.clock.sleep(SECOND * 10).await;
    world.clock.sleep(SECOND / 100).await;

    let again = refresh(&world.quota, &id("main")).await;

    assert_eq!((again.fetched, again.called_at), (true, None));
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_not_repeated_and_its_failure_is_the_result() {
    let world = world_with(hurried());
    drop(world.quota.account(&id("main")).get().await);
    world.clock.sleep(SECOND * 20).await;
    world.provider.then_fail(FetchError::Unauthorized);
    let failed_at = world.clock.now();
    drop(refresh(&world.quota, &id("main")).await);
    world.clock.sleep(SECOND).await;

    let again = refresh(&world.quota, &id("main")).await;

    assert!(matches!(again.error, Some(QuotaError::CalledRecently { .. })), "{:?}", again.error);
    assert_eq!((again.fetched, again.called_at), (false, Some(failed_at)));
    assert_eq!(five_hours(&again.usage), Some(40.0));
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_without_any_reading_is_an_error_again() {
    let world = world_with(hurried());
    world.provider.then_fail(FetchError::Unauthorized);
    drop(world.quota.account(&id("main")).get().await);

    let again = world.quota.account(&id("main")).refresh_unless_called_within(SECOND * 10).await;

    assert!(matches!(again, Err(QuotaError::CalledRecently { .. })), "{again:?}");
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn headers_are_no_call() {
    let world = world_with(hurried());
    let main = world.quota.account(&id("main"));
    main.observe(&headers(10.0)).unwrap();

    assert!(refresh(&world.quota, &id("main")).await.fetched);
}

#[tokio::test(start_paused = true)]
async fn another_credential_is_used_at_once() {
    let world = world_with(hurried());
    let with_mark =
        |fingerprint| Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint)));
    world.provider.set_login(&id("main"), with_mark(1));
    drop(refresh(&world.quota, &id("main")).await);
    world.provider.set_login(&id("main"), with_mark(2));

    assert!(refresh(&world.quota, &id("main")).await.fetched);
}

#[tokio::test(start_paused = true)]
async fn a_plain_refresh_still_calls_after_a_recent_call() {
    let world = world_with(hurried());
    drop(refresh(&world.quota, &id("main")).await);

    assert!(world.quota.account(&id("main")).refresh().await.unwrap().fetched);
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_that_started_long_ago_is_joined() {
    let world = world_with(hurried().fetch_timeout(MINUTE));
    let slow = world.provider.clone().taking(SECOND * 30);
    let elsewhere =
        another_process(&world.store, &world.clock, &slow, Policy::default().fetch_timeout(MINUTE));
    elsewhere.account(&id("main")).refresh_in_background();
    world.clock.sleep(SECOND * 20).await;

    let refreshed = refresh(&world.quota, &id("main")).await;

    assert!(refreshed.called_at.is_some());
    assert_eq!(world.provider.calls(), 1);
}
