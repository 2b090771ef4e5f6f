//! `refresh_unless_called_within`: a recent call with the same credential replaces a new one.

use crate::support::*;
use quota_core::manager::RefreshOutcome;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::{AccountId, FetchError, Policy, QuotaError, QuotaManager};

async fn refresh(quota: &QuotaManager, id: &AccountId) -> RefreshOutcome {
    quota.account(id).refresh_unless_called_within(SECOND * 10).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn repeated_refreshes_make_one_call_and_return_its_start() {
    let env = env_with(no_rate_limit());
    let started = env.clock.now();
    drop(refresh(&env.quota, &id("main")).await);
    env.clock.sleep(SECOND * 4).await;

    let again = refresh(&env.quota, &id("main")).await;

    assert_eq!((again.fetched, again.called_at), (false, Some(started)));
    assert!(again.error.is_none());
    assert_eq!(five_hours(&again.usage), Some(40.0));
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recent_call_of_another_process_is_enough() {
    let env = env_with(no_rate_limit());
    let other_process = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    drop(other_process.account(&id("main")).get().await);

    let refreshed = refresh(&env.quota, &id("main")).await;

    assert!(refreshed.called_at.is_some());
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_after_the_interval_makes_a_new_call() {
    let env = env_with(no_rate_limit());
    drop(refresh(&env.quota, &id("main")).await);
    env.clock.sleep(SECOND * 10).await;
    env.clock.sleep(SECOND / 100).await;

    let again = refresh(&env.quota, &id("main")).await;

    assert_eq!((again.fetched, again.called_at), (true, None));
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_not_repeated_and_its_failure_is_the_result() {
    let env = env_with(no_rate_limit());
    drop(env.quota.account(&id("main")).get().await);
    env.clock.sleep(SECOND * 20).await;
    env.provider.then_fail(FetchError::Unauthorized);
    let failed_at = env.clock.now();
    drop(refresh(&env.quota, &id("main")).await);
    env.clock.sleep(SECOND).await;

    let again = refresh(&env.quota, &id("main")).await;

    assert!(matches!(again.error, Some(QuotaError::CalledRecently { .. })), "{:?}", again.error);
    assert_eq!((again.fetched, again.called_at), (false, Some(failed_at)));
    assert_eq!(five_hours(&again.usage), Some(40.0));
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_recent_call_without_readings_is_an_error() {
    let env = env_with(no_rate_limit());
    env.provider.then_fail(FetchError::Unauthorized);
    drop(env.quota.account(&id("main")).get().await);

    let again = env.quota.account(&id("main")).refresh_unless_called_within(SECOND * 10).await;

    assert!(matches!(again, Err(QuotaError::CalledRecently { .. })), "{again:?}");
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn headers_do_not_count_as_a_call() {
    let env = env_with(no_rate_limit());
    let main = env.quota.account(&id("main"));
    main.observe(&headers(10.0)).unwrap();

    assert!(refresh(&env.quota, &id("main")).await.fetched);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_credential_is_called_at_once() {
    let env = env_with(no_rate_limit());
    let with_fingerprint =
        |fingerprint| Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint)));
    env.provider.set_login(&id("main"), with_fingerprint(1));
    drop(refresh(&env.quota, &id("main")).await);
    env.provider.set_login(&id("main"), with_fingerprint(2));

    assert!(refresh(&env.quota, &id("main")).await.fetched);
}

#[tokio::test(start_paused = true)]
async fn a_plain_refresh_still_calls_after_a_recent_call() {
    let env = env_with(no_rate_limit());
    drop(refresh(&env.quota, &id("main")).await);

    assert!(env.quota.account(&id("main")).refresh().await.unwrap().fetched);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_in_flight_is_joined() {
    let env = env_with(no_rate_limit().fetch_timeout(MINUTE));
    let slow = env.provider.clone().with_delay(SECOND * 30);
    let other_process =
        another_process(&env.store, &env.clock, &slow, Policy::default().fetch_timeout(MINUTE));
    other_process.account(&id("main")).refresh_in_background();
    env.clock.sleep(SECOND * 20).await;

    let refreshed = refresh(&env.quota, &id("main")).await;

    assert!(refreshed.called_at.is_some());
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_that_has_ended_is_not_recent() {
    let policy = || no_rate_limit().fetch_timeout(MINUTE);
    let env = env_with(policy());
    let slow = env.provider.clone().with_delay(SECOND * 30);
    let other_process = another_process(&env.store, &env.clock, &slow, policy());
    drop(other_process.account(&id("main")).refresh().await);
    env.clock.sleep(SECOND).await;

    let refreshed = refresh(&env.quota, &id("main")).await;

    assert!(refreshed.fetched);
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_long_call_in_flight_is_joined() {
    let policy = || no_rate_limit().fetch_timeout(MINUTE);
    let env = env_with(policy());
    env.provider.then_fail(FetchError::Unauthorized);
    let slow = env.provider.clone().with_delay(SECOND * 30);
    let other_process = another_process(&env.store, &env.clock, &slow, policy());
    other_process.account(&id("main")).refresh_in_background();
    env.clock.sleep(SECOND * 20).await;

    let refreshed = env.quota.account(&id("main")).refresh_unless_called_within(SECOND * 10).await;

    assert!(matches!(refreshed, Err(QuotaError::CalledRecently { .. })), "{refreshed:?}");
    assert_eq!(env.provider.calls(), 1);
}
